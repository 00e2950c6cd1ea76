"""Join expected and observed messages while both stream by, in memory that does not grow with them.

Both sides come in the order of their times, so the two sides of a message come close together: a lane has one batch in
hand at most, and one side is ahead of the other by a batch per lane. A message that has not found its counterpart after
a window of others never will.
"""

from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import heapify, heappop, heapreplace
from typing import Any, Final, Protocol, TypeVar

from worker.operations.reconcile.messages import Expected, Observed

WINDOW: Final = 100_000
"""Keys that wait on each side: more than the batches of all lanes that a worker may have in hand."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A message without its counterpart or, if both are given, with one that differs."""

    expected: Expected | None
    observed: Observed | None


class StreamJoin:
    """A join of expected and observed messages by their keys. Several may share a key; equal ones are paired."""

    def __init__(self, window: int = WINDOW) -> None:
        """``window`` is the most keys of each side that wait for a counterpart."""
        self._window = window
        self._expected: dict[Hashable, list[Expected]] = {}
        self._observed: dict[Hashable, list[Observed]] = {}
        self.matched = 0

    def take(self, item: Expected | Observed) -> Iterator[Unmatched]:
        """Take the next item of either side, and yield those that have waited too long."""
        mine: dict[Hashable, Any] = self._expected if isinstance(item, Expected) else self._observed
        others: dict[Hashable, Any] = self._observed if isinstance(item, Expected) else self._expected
        waiting = others.get(item.key, [])
        for place, other in enumerate(waiting):
            if other.says == item.says:
                del waiting[place]
                if not waiting:
                    del others[item.key]
                self.matched += 1
                return
        mine.setdefault(item.key, []).append(item)
        if len(mine) > self._window:
            yield from self._settled(next(iter(mine)))

    def rest(self) -> Iterator[Unmatched]:
        """Yield the remaining items after both sides have ended."""
        for key in (*self._expected, *(key for key in self._observed if key not in self._expected)):
            yield from self._settled(key)

    def _settled(self, key: Hashable) -> Iterator[Unmatched]:
        expected, observed = self._expected.pop(key, []), self._observed.pop(key, [])
        for number in range(max(len(expected), len(observed))):
            yield Unmatched(
                expected[number] if number < len(expected) else None,
                observed[number] if number < len(observed) else None,
            )


class Timed(Protocol):
    """An item with a time."""

    @property
    def moment(self) -> datetime: ...


T = TypeVar("T", bound=Timed)


async def in_order(streams: Iterable[AsyncIterator[T]]) -> AsyncIterator[T]:
    """Merge streams by time, as far as each stream itself is in that order. Holds one item of each."""
    heads = []
    for number, stream in enumerate(streams):
        async for first in stream:
            heads.append((first.moment, number, first, stream))
            break
    heapify(heads)
    while heads:
        _, number, item, stream = heads[0]
        yield item
        async for following in stream:
            heapreplace(heads, (following.moment, number, following, stream))
            break
        else:
            heappop(heads)
