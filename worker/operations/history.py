"""Every transition of an access token (CONTRACT, Transition event), from the table of transitions."""

from dataclasses import dataclass
from datetime import datetime

from worker.errors import OperatorError
from worker.journey.model import lane_name
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement


class UnknownToken(OperatorError):
    """No access token has that id or number, or several organisations have one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transition. ``user`` and ``unit`` are ids; the names beside them are today's."""

    version: int
    from_state: str | None
    to_state: str
    occurred_at: datetime
    cause: str
    user: str | None
    username: str | None
    unit: str | None
    unit_name: str | None
    command_id: str | None
    """The name of the command in the transition (CONTRACT, Transition event)."""
    called: str | None
    """The command's own id, as long as its record is kept."""
    lane: str | None
    sequence: int
    hash: str


@dataclass(frozen=True, slots=True)
class History:
    """``number``, ``state`` and ``version`` are those of the access token now; ``None`` if it is gone."""

    organisation: str
    access_token: str
    number: str | None
    state: str | None
    version: int | None
    changes: tuple[Change, ...]


async def history(dsn: str, token: str, organisation: str | None = None) -> History:
    """Return the transitions of the access token with this id, or else this number, oldest first.

    Raises ``UnknownToken``, also if several organisations have one and none is named; ``DependencyUnavailable``.
    """
    async with owner_connection(dsn) as connection:
        found = await connection.fetch(statement("history/tokens"), token, organisation)
        if not found:
            where = "any organisation" if organisation is None else f"the organisation {organisation}"
            raise UnknownToken(f"no access token with the id or number {token} in {where}")
        if len(found) > 1:
            named = ", ".join(dict.fromkeys(row["organisation"] for row in found))
            raise UnknownToken(f"{token} is an access token in several organisations; give --organisation: {named}")
        [row] = found
        changes = await connection.fetch(statement("history/transitions"), row["organisation"], row["id"])
    return History(
        row["organisation"],
        row["id"],
        row["number"],
        row["life_cycle_state"],
        row["version"],
        tuple(map(_change, changes)),
    )


def _change(row: Row) -> Change:
    place = (row["cluster"], row["consumer_group"], row["topic"], row["partition"])
    return Change(
        version=row["version"],
        from_state=row["from_state"],
        to_state=row["to_state"],
        occurred_at=row["occurred_at"],
        cause=row["cause"],
        user=row["user_id"],
        username=row["username"],
        unit=row["unit_id"],
        unit_name=row["unit_name"],
        command_id=row["command_id"],
        called=row["called"],
        lane=None if row["partition"] is None else lane_name(*place),
        sequence=row["sequence"],
        hash=row["hash"].hex(),
    )
