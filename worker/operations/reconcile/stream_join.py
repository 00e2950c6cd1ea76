"""Compare what is due with what is seen while both stream by, in memory that does not grow with them.

Both sides come in the order of the moments that they carry. What belongs together then comes close together: a lane
has one batch in hand at most, so one side is ahead of the other by a batch per lane. What has not found its counterpart
when so many others have gone by never will.
"""

from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import heapify, heappop, heapreplace
from typing import Any, TypeVar

WINDOW = 100_000
"""More than the batches of all lanes that a worker may have in hand."""


@dataclass(frozen=True, slots=True)
class Due:
    """What should be seen. ``says`` is compared; ``where`` names it.

    What is not ``certain`` may be missing; what is said ``elsewhere`` is not looked for there.
    """

    book: str
    key: Hashable
    moment: datetime
    says: tuple[Any, ...]
    where: str
    source: tuple[str, int]
    """The topic and partition of the command."""
    certain: bool
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen, and ``where``."""

    book: str
    key: Hashable
    moment: datetime
    says: tuple[Any, ...]
    where: str
    called: str = ""
    """The command id that it names, where the key has another name for it."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A counterpart is missing, or, where both are given, says something else."""

    due: Due | None
    seen: Seen | None


class Matching:
    """Pairs what is due with what is seen by their keys; several may share one, and are paired by what they say."""

    def __init__(self, window: int = WINDOW) -> None:
        """``window`` is the most keys of each side that wait for a counterpart."""
        self._window = window
        self._due: dict[Hashable, list[Due]] = {}
        self._seen: dict[Hashable, list[Seen]] = {}
        self.matched = 0

    def take(self, item: Due | Seen) -> Iterator[Unmatched]:
        """Take the next item of either side, and tell of those that have waited too long."""
        mine: dict[Hashable, Any] = self._due if isinstance(item, Due) else self._seen
        others: dict[Hashable, Any] = self._seen if isinstance(item, Due) else self._due
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
        """What is left when both sides have ended."""
        for key in (*self._due, *(key for key in self._seen if key not in self._due)):
            yield from self._settled(key)

    def _settled(self, key: Hashable) -> Iterator[Unmatched]:
        due, seen = self._due.pop(key, []), self._seen.pop(key, [])
        for number in range(max(len(due), len(seen))):
            yield Unmatched(due[number] if number < len(due) else None, seen[number] if number < len(seen) else None)


T = TypeVar("T", Due, Seen, Due | Seen)


async def in_order(streams: Iterable[AsyncIterator[T]]) -> AsyncIterator[T]:
    """All items of all streams by their moments, as far as each stream itself is in that order. Holds one of each."""
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
