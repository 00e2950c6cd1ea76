"""The lane's row in Postgres: its owner takes it, and only its owner writes there."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from worker.errors import LaneLost
from worker.journey.model import Outcome
from worker.journey.recall import recall_by_coordinates
from worker.lanes.context import LaneRun
from worker.lanes.losses import Loss, losses
from worker.postgres.sql import statement

_TAKEN: Final = "postgres: another worker has taken the lane"


class LaneRow:
    """One lane's row. Every method raises ``DependencyUnavailable`` if Postgres cannot be asked."""

    def __init__(self, run: LaneRun, owner: UUID) -> None:
        """``owner`` is a fresh random id: once it is in the row, older owners' transactions fail."""
        self._context = run.context
        self._lane = run.lane
        self.owner = owner
        self.id = 0
        """The row's id, once the lane is taken."""

    async def take(self) -> Any:
        """Make this owner the lane's, and return the row as it is then."""
        async with self._context.database.connection() as connection:
            row: Any = await connection.fetchrow(
                statement("lanes/take"),
                self._lane.cluster,
                self._lane.group,
                *self._lane.source,
                self.owner,
                self.now(),
            )
        self.id = row["id"]
        return row

    async def write(self, change: str, *arguments: Any) -> None:
        """Execute a statement that only the owner may. Raises ``LaneLost`` if the lane has a newer owner."""
        async with self._context.database.connection() as connection:
            if await connection.fetchval(change, self.id, self.owner, *arguments) is None:
                raise LaneLost(_TAKEN)

    async def require_owned(self) -> None:
        """Raise ``LaneLost`` if the lane has a newer owner: what is known of its offsets is outdated."""
        async with self._context.database.connection() as connection:
            owned = await connection.fetchval(statement("lanes/owned"), self.id, self.owner)
        self._context.health.back("postgres")
        if owned is None:
            raise LaneLost(_TAKEN)

    async def block(self, reason: str) -> None:
        """Write down the reason why the lane must wait for an operator. Raises ``LaneLost``, as ``write`` does."""
        await self.write(statement("lanes/block"), reason, self.now())

    async def losses(self) -> Sequence[Loss]:
        """Read the losses of the lane's log, oldest first."""
        async with self._context.database.connection() as connection:
            return (await losses(connection, [self.id])).get(self.id, ())

    async def outcomes_of(self, lost: Sequence[Loss]) -> list[Outcome]:
        """Read the outcomes of commands that are lost."""
        found: list[Outcome] = []
        async with self._context.database.connection() as connection:
            for loss in lost:
                if loss.begin < loss.decided:
                    recalled: Mapping[Any, Outcome] = await recall_by_coordinates(
                        connection, self.id, self._lane.name, loss.begin, loss.decided - 1
                    )
                    found += recalled.values()
        return found

    def now(self) -> datetime:
        """Return the moment by this machine's clock."""
        return datetime.fromtimestamp(self._context.clock(), UTC)
