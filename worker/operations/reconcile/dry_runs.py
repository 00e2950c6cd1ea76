"""The dry runs of a partition, and the results that answer them.

No record of commands knows a dry run, so both are held against each other directly.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from worker.kafka.delivery import Coordinates
from worker.values import Value


class DryRun(Value, frozen=True):
    """A dry run in its partition. ``timestamp`` is in milliseconds; ``elsewhere``: its sender named a topic for it."""

    offset: int
    timestamp: int
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """A result that says of itself that it answers a dry run."""

    answers: Coordinates | None
    """``None`` if the id that it names is not made of coordinates."""
    command_id: str
    moment: datetime
    where: str


def _numbers() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class DryRuns:
    """The dry runs of a partition, and how many results each has. Holds 18 bytes of each."""

    _offsets: "array[int]" = field(default_factory=_numbers)
    _timestamps: "array[int]" = field(default_factory=_numbers)
    _elsewhere: bytearray = field(default_factory=bytearray)
    _answered: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, dry_run: DryRun) -> None:
        """Add the next dry run, in the order of the log."""
        self._offsets.append(dry_run.offset)
        self._timestamps.append(dry_run.timestamp)
        self._elsewhere.append(dry_run.elsewhere)
        self._answered.append(False)

    def answer(self, offset: int, timestamp: int) -> bool | None:
        """Note a result. True if it is the first one of that dry run; ``None`` if there is no such dry run."""
        place = bisect_left(self._offsets, offset)
        if place == len(self) or (self._offsets[place], self._timestamps[place]) != (offset, timestamp):
            return None
        was_answered, self._answered[place] = self._answered[place], True
        return not was_answered

    def unanswered(self) -> Iterator[DryRun]:
        """The dry runs without a result, in the order of the log."""
        for place, answered in enumerate(self._answered):
            if not answered:
                yield DryRun(self._offsets[place], self._timestamps[place], bool(self._elsewhere[place]))
