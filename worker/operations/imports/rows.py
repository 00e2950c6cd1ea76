"""The rows of fixture lines by table, as they are copied into the staging tables (``imports/stage.sql``)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec

from worker.operations.imports.lines import (
    AccessTokenRead,
    Line,
    OrganisationLine,
    RevokedLoginLine,
    UnitLine,
    UserLine,
)

Row = tuple[Any, ...] | list[Any]
Key = tuple[str, ...]

_UNIT: Final = ("id", "name", "group_name", "community_name", "alternative_code", "description")
_USER: Final = ("id", "username", "person_name", "email")
_AS_GIVEN: Final = (
    "id",
    "number",
    "life_cycle_state",
    "authentication_code",
    "identifier",
    "card_masked_number",
    "card_last_4_digits",
    "verification_code",
    "verified_date",
    *(f"udf_string_{number}" for number in range(1, 9)),
    *(f"udf_float_{number}" for number in range(1, 5)),
    *(f"udf_date_{number}" for number in range(1, 5)),
)
_REFERRED: Final = ("verified_by_user", "classification", "accounts_receivable", "rewards_participant")
_KEPT: Final = (
    "pass_code_hash",
    "created_date",
    "created_by_user",
    "created_by_unit",
    "updated_date",
    "updated_by_user",
    "updated_by_unit",
)
"""Columns that keep an earlier line's value if a later line gives none: the pass code and the log."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "organisation": ("id", "name", "active"),
    "mentioned_unit": ("organisation", *_UNIT),
    "unit": ("organisation", *_UNIT, "active"),
    "mentioned_user": ("organisation", *_USER),
    "app_user": ("organisation", *_USER, "unit", "active", "rights"),
    "revoked_login": ("organisation", "jti"),
    "contact": ("organisation", "id", "body"),
    "accounts_receivable": ("organisation", "id", "number", "name", "life_cycle_state", "account_owner"),
    "rewards_participant": ("organisation", "id", "number", "life_cycle_state", "accounts_receivable"),
    "classification": ("organisation", "id", "name", "alternative_code"),
    "access_token": ("organisation", *_AS_GIVEN, *_REFERRED, *_KEPT),
}
"""In the order of their foreign keys; a unit or user line comes after a mention of it."""


def tables_of(lines: Iterable[tuple[Line, str | None]]) -> dict[str, list[Row]]:
    """Return the rows of each table that has any, for lines with their pass codes' hashes. The last for an id wins.

    Sorted, so that two imports, or an import and a lane, take their locks in one order.
    """
    found: dict[str, dict[Key, Any]] = {table: {} for table in COLUMNS}
    for line, pass_code_hash in lines:
        if isinstance(line, OrganisationLine):
            found["organisation"][line.id,] = line
        elif isinstance(line, RevokedLoginLine):
            found["revoked_login"][line.organisation, line.jti] = line
        elif isinstance(line, UnitLine):
            found["unit"][line.organisation, line.id] = line
        elif isinstance(line, UserLine):
            found["app_user"][line.organisation, line.id] = line
        else:
            _add_token(found, line, pass_code_hash)
    return {table: list(_rows(table, named)) for table, named in found.items() if named}


def _rows(table: str, named: Mapping[Key, Any]) -> Iterator[Row]:
    if table == "access_token":
        return (named[key] for key in sorted(named))
    row = _ROWS[table]
    return (row(key[0], named[key]) for key in sorted(named))


_unit = attrgetter(*_UNIT)
_user = attrgetter(*_USER)
_ROWS: Final[Mapping[str, Callable[[str, Any], Row]]] = {
    "organisation": lambda _, line: (line.id, line.name, line.active),
    "mentioned_unit": lambda organisation, unit: (organisation, *_unit(unit)),
    "unit": lambda organisation, line: (organisation, *_unit(line), line.active),
    "mentioned_user": lambda organisation, user: (organisation, *_user(user)),
    "app_user": lambda organisation, line: (organisation, *_user(line), line.unit, line.active, line.rights),
    "revoked_login": lambda organisation, line: (organisation, line.jti),
    "contact": lambda organisation, owner: (organisation, owner.id, msgspec.json.encode(owner).decode()),
    "accounts_receivable": lambda organisation, account: (
        organisation,
        account.id,
        account.number,
        account.name,
        account.life_cycle_state,
        _id(account.account_owner),
    ),
    "rewards_participant": lambda organisation, rewards: (
        organisation,
        rewards.id,
        rewards.number,
        rewards.life_cycle_state,
        _id(rewards.accounts_receivable),
    ),
    "classification": lambda organisation, each: (organisation, each.id, each.name, each.alternative_code),
}


# --- access tokens ----------------------------------------------------------------------------------------------------

_as_given = attrgetter(*_AS_GIVEN)
_FIRST_KEPT: Final = COLUMNS["access_token"].index(_KEPT[0])


def _add_token(found: Mapping[str, dict[Key, Any]], line: AccessTokenRead, pass_code_hash: str | None) -> None:
    organisation, rewards, log = line.organisation, line.rewards_participant, line.log_information
    if line.classification is not None:
        found["classification"][organisation, line.classification.id] = line.classification
    if rewards is not None:
        _add_account(found, organisation, rewards.accounts_receivable)
        found["rewards_participant"][organisation, rewards.id] = rewards
    _add_account(found, organisation, line.accounts_receivable)
    for user in (line.verified_by_user, log.created_by_user, log.updated_by_user):
        if user is not None and not isinstance(user, str) and user.username is not None:
            found["mentioned_user"][organisation, user.id] = user
    for unit in (log.created_by_unit, log.updated_by_unit):
        if unit is not None and not isinstance(unit, str) and unit.name is not None:
            found["mentioned_unit"][organisation, unit.id] = unit
    row = [
        organisation,
        *_as_given(line),
        _id(line.verified_by_user),
        _id(line.classification),
        _id(line.accounts_receivable),
        _id(rewards),
        pass_code_hash,
        log.created_date,
        _id(log.created_by_user),
        _id(log.created_by_unit),
        log.updated_date,
        _id(log.updated_by_user),
        _id(log.updated_by_unit),
    ]
    tokens, key = found["access_token"], (organisation, line.id)
    if key in tokens:
        former = tokens[key]
        for place in range(_FIRST_KEPT, len(row)):
            row[place] = former[place] if row[place] is None else row[place]
    tokens[key] = row


def _add_account(found: Mapping[str, dict[Key, Any]], organisation: str, account: Any) -> None:
    if account is None:
        return
    if account.account_owner is not None:
        found["contact"][organisation, account.account_owner.id] = account.account_owner
    found["accounts_receivable"][organisation, account.id] = account


def _id(referred: Any) -> str | None:
    """Return the id of an object, which a line may also give by its id alone."""
    return referred if referred is None or isinstance(referred, str) else referred.id
