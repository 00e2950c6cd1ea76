"""Numbers from 1 on, added nearly in order and held as runs: ten million of them take no more memory than ten."""

from bisect import bisect_right
from collections.abc import Iterator


class Numbers:
    """The set of numbers that were added."""

    def __init__(self) -> None:
        self._runs: list[list[int]] = []

    def add(self, number: int) -> None:
        place = bisect_right(self._runs, number, key=lambda run: run[0])
        before = self._runs[place - 1] if place else None
        after = self._runs[place] if place < len(self._runs) else None
        if before is not None and number <= before[1]:
            return
        joins_before = before is not None and before[1] + 1 == number
        if after is not None and number + 1 == after[0]:
            after[0] = number
            if before is not None and joins_before:
                after[0] = before[0]
                del self._runs[place - 1]
        elif before is not None and joins_before:
            before[1] = number
        else:
            self._runs.insert(place, [number, number])

    def missing(self, last: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of numbers up to ``last`` that were not added, as the first and last of each."""
        due = 1
        for first, end in self._runs:
            if first > last:
                break
            if due < first:
                yield due, first - 1
            due = end + 1
        if due <= last:
            yield due, last
