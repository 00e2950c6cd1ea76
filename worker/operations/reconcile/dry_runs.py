"""The dry runs of a partition, and the results that answer them.

Dry runs are not in the record of commands, so they are compared with their results directly.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from worker.kafka.delivery import Coordinates
from worker.values import Value


class DryRun(Value, frozen=True):
    """A dry run in its partition. ``timestamp`` is in milliseconds; ``elsewhere``: its sender named a reply topic."""

    offset: int
    timestamp: int
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """A result that is marked as the answer to a dry run."""

    answers: Coordinates | None
    """``None`` if the result names no coordinates."""
    command_id: str
    moment: datetime
    where: str


def _numbers() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class DryRuns:
    """The dry runs of a partition, with a mark on those answered. Takes 18 bytes for each."""

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
        """Note a result. True if it is the first for that dry run; ``None`` if there is no such dry run."""
        place = bisect_left(self._offsets, offset)
        if place == len(self) or (self._offsets[place], self._timestamps[place]) != (offset, timestamp):
            return None
        was_answered, self._answered[place] = self._answered[place], True
        return not was_answered

    def unanswered(self) -> Iterator[DryRun]:
        """Yield the dry runs without a result, in the order of the log."""
        for place, answered in enumerate(self._answered):
            if not answered:
                yield DryRun(self._offsets[place], self._timestamps[place], bool(self._elsewhere[place]))
