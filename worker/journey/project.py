"""Project the requested members of access tokens, as they are now, into JSON (CONTRACT, Result and Access token).

Only members that the ``fields_set`` of some command in the batch requests are read. Contacts pass through unparsed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from effective_contract.access_token import field_names
from worker.journey.json import encode
from worker.journey.model import TokenKey
from worker.postgres.pool import Connection, Row
from worker.postgres.sql import statement

_MARK = " -- fields: "


@lru_cache(maxsize=256)
def projection(fields: int, *, reveal_verification_code: bool) -> str:
    """Return the statement that reads these members and no others; the verification code only if it is revealed."""
    names = set(field_names(fields)) - (set() if reveal_verification_code else {"verification_code"})
    kept = []
    for line in statement("journey/project").splitlines():
        text, mark, wanted = line.partition(_MARK)
        if not mark or wanted.strip() in names:
            kept.append(text)
    return "\n".join(kept)


async def project(
    connection: Connection, shown: Iterable[tuple[TokenKey, int]], *, reveal_verification_code: bool
) -> dict[tuple[TokenKey, int], bytes]:
    """Return the JSON of each access token with exactly the requested members. A token that is gone is left out."""
    pairs = dict.fromkeys(shown)
    keys = list(dict.fromkeys(key for key, _ in pairs))
    if not keys:
        return {}
    union = 0
    for _, fields in pairs:
        union |= fields
    text = projection(union, reveal_verification_code=reveal_verification_code)
    rows = await connection.fetch(text, [key.organisation for key in keys], [key.token for key in keys])
    accounts = await _accounts(connection, rows)
    by_key = {TokenKey(row["organisation"], row["id"]): row for row in rows}
    return {
        (key, fields): encode(_members(by_key[key], fields, accounts, reveal_verification_code))
        for key, fields in pairs
        if key in by_key
    }


Accounts = Mapping[tuple[str, str], orjson.Fragment]
"""The JSON of accounts, by organisation and id."""


async def _accounts(connection: Connection, rows: Sequence[Row]) -> Accounts:
    """Read every account that the rows name, and encode it once."""
    columns = [column for column in _ACCOUNT_COLUMNS if rows and column in rows[0]]
    named = {(row["organisation"], row[column]) for column in columns for row in rows if row[column] is not None}
    if not named:
        return {}
    found = await connection.fetch(
        statement("journey/project_accounts"),
        [organisation for organisation, _ in named],
        [account for _, account in named],
    )
    return {(row["organisation"], row["id"]): orjson.Fragment(encode(_account(row))) for row in found}


_ACCOUNT_COLUMNS: Final = ("account_id", "rewards_account_id")


def _account(row: Row) -> dict[str, Any]:
    owner = row["account_owner"]
    return {
        "number": row["number"],
        "name": row["name"],
        "id": row["id"],
        "life_cycle_state": row["life_cycle_state"],
        "account_owner": None if owner is None else orjson.Fragment(owner),
    }


def _members(row: Row, fields: int, accounts: Accounts, reveal_verification_code: bool) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name in field_names(fields):
        build = _NESTED.get(name)
        if name == "verification_code" and not reveal_verification_code:
            members[name] = None
        else:
            members[name] = row[name] if build is None else build(row, accounts)
    return members


Columns = tuple[tuple[str, str], ...]
"""The members of an object that an access token names, each with its column."""


def _columns(role: str, names: tuple[str, ...]) -> Columns:
    return tuple((name, f"{role}_{name}") for name in names)


_USER: Final = ("id", "username", "person_name", "email")
_UNIT: Final = ("id", "name", "group_name", "community_name", "alternative_code", "description")
_VERIFIER: Final = _columns("verifier", _USER)
_CLASSIFICATION: Final = _columns("classification", ("id", "name", "alternative_code"))
_LOG: Final = {
    **{f"{done}_by_user": _columns(f"{done}_user", _USER) for done in ("created", "updated")},
    **{f"{done}_by_unit": _columns(f"{done}_unit", _UNIT) for done in ("created", "updated")},
}


def _part(row: Row, columns: Columns) -> dict[str, Any] | None:
    """Return the members of an object; ``None`` if the access token names none."""
    part = {name: row[column] for name, column in columns}
    return None if part["id"] is None else part


def _rewards(row: Row, accounts: Accounts) -> dict[str, Any] | None:
    if row["rewards_id"] is None:
        return None
    return {
        "number": row["rewards_number"],
        "accounts_receivable": accounts.get((row["organisation"], row["rewards_account_id"])),
        "id": row["rewards_id"],
        "life_cycle_state": row["rewards_life_cycle_state"],
    }


def _log(row: Row) -> dict[str, Any]:
    dates = {name: row[name] for name in ("created_date", "updated_date")}
    return dates | {name: _part(row, columns) for name, columns in _LOG.items()}


_NESTED: Final[Mapping[str, Callable[[Row, Accounts], Any]]] = {
    "verified_by_user": lambda row, _: _part(row, _VERIFIER),
    "classification": lambda row, _: _part(row, _CLASSIFICATION),
    "accounts_receivable": lambda row, accounts: accounts.get((row["organisation"], row["account_id"])),
    "rewards_participant": _rewards,
    "log_information": lambda row, _: _log(row),
}
