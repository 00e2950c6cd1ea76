"""What is under way, and which answers were lost on it (DESIGN 7).

The commands of a partition are answered in the order in which they were sent to it. So an answer to one sending says of
every earlier sending to that partition that its answer has come, or will not come where we read.
"""

from collections import deque
from collections.abc import Iterator


class Waiting:
    """A command without an outcome: where it stands in the file, and how it was last sent."""

    __slots__ = ("length", "line", "partition", "renewed", "serial", "since", "start")

    def __init__(self, line: int, start: int, length: int, partition: int) -> None:
        self.line = line
        self.start = start
        self.length = length
        self.partition = partition
        self.serial = 0
        """Of its last sending in this session; 0 if only an earlier session may have sent it."""
        self.since: float | None = None
        """When this session first sent it."""
        self.renewed = 0
        """How often it was sent again with a fresh login."""


class Flight:
    """The commands that wait, and the order of their sendings in each partition. Serials count from 1."""

    def __init__(self, partitions: int) -> None:
        self._order: list[deque[tuple[int, int]]] = [deque() for _ in range(partitions)]
        self._waiting: dict[int, Waiting] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, waiting: Waiting) -> None:
        """A command of which an earlier session may have sent: it comes before all that this session sends."""
        self._waiting[waiting.line] = waiting
        self._order[waiting.partition].append((0, waiting.line))

    def sending(self, waiting: Waiting, now: float) -> int:
        """Note one more sending, the first or another. Returns its serial."""
        self._last += 1
        waiting.serial = self._last
        if waiting.since is None:
            waiting.since = now
        self._waiting[waiting.line] = waiting
        self._order[waiting.partition].append((self._last, waiting.line))
        return self._last

    def settle(self, line: int) -> Waiting | None:
        """The command has an outcome. ``None`` if it had one before."""
        return self._waiting.pop(line, None)

    @property
    def last_serial(self) -> int:
        return self._last

    def get(self, line: int) -> Waiting | None:
        return self._waiting.get(line)

    def lost(self, partition: int, serial: int) -> list[Waiting]:
        """Those that must be sent again, now that this sending of the partition was answered.

        The answered command is among them if it was not settled.
        """
        order, found = self._order[partition], []
        while order and order[0][0] <= serial:
            each, line = order.popleft()
            waiting = self._waiting.get(line)
            # One that was sent again since has its turn then.
            if waiting is not None and waiting.serial == each:
                found.append(waiting)
        return found

    def oldest(self) -> Iterator[Waiting]:
        """Of each partition, the command that has waited longest since it was last sent there."""
        for order in self._order:
            while order:
                each, line = order[0]
                waiting = self._waiting.get(line)
                if waiting is not None and waiting.serial == each:
                    yield waiting
                    break
                order.popleft()
