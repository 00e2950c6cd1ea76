"""Commands that a log lost before they were answered: kept in Postgres until an operator acknowledges them (DESIGN 2).

Retention removes old records, read or not. No one can bring them back, but an operator must not learn of it from a
customer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.postgres.pool import Connection, Row
from worker.postgres.sql import statement


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets from ``begin`` up to, and without, ``end``. Those below ``decided`` were decided, but not answered.

    ``settled``: the events of their transitions, if there are any, are published.
    """

    begin: int
    end: int
    decided: int
    noticed_at: datetime
    settled: bool = False
    acknowledged_at: datetime | None = None

    def __str__(self) -> str:
        return range_lost(self.begin, self.end, self.decided)


def unacknowledged(found: Iterable[Loss]) -> tuple[Loss, ...]:
    """Return the losses that no operator has acknowledged yet, in the same order."""
    return tuple(loss for loss in found if loss.acknowledged_at is None)


def removed(committed: int | None, first: int, log_start: int) -> range:
    """Return the offsets that were removed from the log before they were answered; empty if there are none.

    ``committed`` is the group's offset, ``first`` the lane's ``first_offset``: all below either was answered.
    """
    answered = first if committed is None else max(committed, first)
    return range(answered, max(answered, log_start))


def range_lost(begin: int, end: int, decided: int) -> str:
    """Describe a loss in words; the arguments are as in :class:`Loss`."""
    which = f"offset {begin}" if end - begin == 1 else f"offsets {begin} to {end - 1}"
    if decided <= begin:
        return which
    told = "all of them" if decided >= end else f"those below {decided}"
    return f"{which} ({told} decided, and not told)"


async def losses(connection: Connection, lanes: Sequence[int]) -> dict[int, tuple[Loss, ...]]:
    """Return the losses of each of these lanes, oldest first, acknowledged or not. ``lanes`` are ids of rows."""
    found: dict[int, list[Loss]] = {}
    for row in await connection.fetch(statement("lanes/losses"), list(lanes)):
        found.setdefault(row["lane"], []).append(_loss(row))
    return {lane: tuple(each) for lane, each in found.items()}


def _loss(row: Row) -> Loss:
    where = row["begin_offset"], row["end_offset"], row["decided_end"]
    return Loss(*where, row["noticed_at"], row["settled"], row["acknowledged_at"])
