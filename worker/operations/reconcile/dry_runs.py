"""Which dry runs have their results. No record of commands knows, so both are held against each other directly."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from worker.values import Value


class Rehearsal(Value, frozen=True):
    """A dry run in its partition. ``timestamp`` is in milliseconds; ``elsewhere``: its sender named a topic for it."""

    offset: int
    timestamp: int
    elsewhere: bool


def _numbers() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Rehearsals:
    """The dry runs of a partition, and how many results each has. Holds 18 bytes of each."""

    _offsets: "array[int]" = field(default_factory=_numbers)
    _timestamps: "array[int]" = field(default_factory=_numbers)
    _elsewhere: bytearray = field(default_factory=bytearray)
    _answered: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, rehearsal: Rehearsal) -> None:
        """To be called in the order of the log."""
        self._offsets.append(rehearsal.offset)
        self._timestamps.append(rehearsal.timestamp)
        self._elsewhere.append(rehearsal.elsewhere)
        self._answered.append(False)

    def answer(self, offset: int, timestamp: int) -> bool | None:
        """Note a result. Whether it is the first one of that dry run; ``None`` if there is no such dry run."""
        place = bisect_left(self._offsets, offset)
        if place == len(self) or (self._offsets[place], self._timestamps[place]) != (offset, timestamp):
            return None
        was_answered, self._answered[place] = self._answered[place], True
        return not was_answered

    def unanswered(self) -> Iterator[Rehearsal]:
        """Those without a result, in the order of the log."""
        for place, answered in enumerate(self._answered):
            if not answered:
                yield Rehearsal(self._offsets[place], self._timestamps[place], bool(self._elsewhere[place]))
