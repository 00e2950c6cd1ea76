"""Project the requested members of access tokens, as they are now, into JSON (CONTRACT 3 and 5).

Only what the ``fields_set`` of some command in the batch asks for is read; contacts pass through unparsed.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from schemas.access_token import field_names
from worker.database import Connection, Row
from worker.encode import encode
from worker.model import TokenKey
from worker.sql import statement

_MARK = " -- fields: "


@lru_cache(maxsize=256)
def projection(fields: int) -> str:
    """The statement that reads these members and no others."""
    names = set(field_names(fields))
    kept = []
    for line in statement("project").splitlines():
        text, mark, wanted = line.partition(_MARK)
        if not mark or wanted.strip() in names:
            kept.append(text)
    return "\n".join(kept)


async def project(
    connection: Connection, shown: Iterable[tuple[TokenKey, int]], *, reveal_verification_code: bool
) -> dict[tuple[TokenKey, int], bytes]:
    """The JSON of each access token with exactly the asked-for members. A token that is gone is left out."""
    pairs = dict.fromkeys(shown)
    keys = list(dict.fromkeys(key for key, _ in pairs))
    if not keys:
        return {}
    union = 0
    for _, fields in pairs:
        union |= fields
    rows = await connection.fetch(projection(union), [key.organisation for key in keys], [key.token for key in keys])
    by_key = {TokenKey(row["organisation"], row["id"]): row for row in rows}
    return {
        (key, fields): encode(_members(by_key[key], fields, reveal_verification_code))
        for key, fields in pairs
        if key in by_key
    }


def _members(row: Row, fields: int, reveal_verification_code: bool) -> dict[str, Any]:
    members = {}
    for name in field_names(fields):
        build = _NESTED.get(name)
        members[name] = row[name] if build is None else build(row)
    if "verification_code" in members and not reveal_verification_code:
        members["verification_code"] = None
    return members


def _user(row: Row, role: str) -> dict[str, Any] | None:
    if row[f"{role}_id"] is None:
        return None
    return {name: row[f"{role}_{name}"] for name in ("id", "username", "person_name", "email")}


def _unit(row: Row, role: str) -> dict[str, Any] | None:
    if row[f"{role}_id"] is None:
        return None
    names = ("id", "name", "group_name", "community_name", "alternative_code", "description")
    return {name: row[f"{role}_{name}"] for name in names}


def _classification(row: Row) -> dict[str, Any] | None:
    if row["classification_id"] is None:
        return None
    return {
        "id": row["classification_id"],
        "name": row["classification_name"],
        "alternative_code": row["classification_code"],
    }


def _account(row: Row, role: str) -> dict[str, Any] | None:
    if row[f"{role}_id"] is None:
        return None
    owner = row[f"{role}_owner"]
    return {
        "number": row[f"{role}_number"],
        "name": row[f"{role}_name"],
        "id": row[f"{role}_id"],
        "life_cycle_state": row[f"{role}_state"],
        "account_owner": None if owner is None else orjson.Fragment(owner),
    }


def _rewards(row: Row) -> dict[str, Any] | None:
    if row["rewards_id"] is None:
        return None
    return {
        "number": row["rewards_number"],
        "accounts_receivable": _account(row, "rewards_account"),
        "id": row["rewards_id"],
        "life_cycle_state": row["rewards_state"],
    }


def _log(row: Row) -> dict[str, Any]:
    return {
        "created_date": row["created_date"],
        "updated_date": row["updated_date"],
        "created_by_user": _user(row, "created_user"),
        "updated_by_user": _user(row, "updated_user"),
        "created_by_unit": _unit(row, "created_unit"),
        "updated_by_unit": _unit(row, "updated_unit"),
    }


_NESTED: Mapping[str, Callable[[Row], Any]] = {
    "verified_by_user": lambda row: _user(row, "verifier"),
    "classification": _classification,
    "accounts_receivable": lambda row: _account(row, "account"),
    "rewards_participant": _rewards,
    "log_information": _log,
}
