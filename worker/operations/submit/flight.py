"""The commands under way, and those whose answers were lost (DESIGN 7).

The commands of a partition are answered in the order in which they were sent to it. An answer to one sending therefore
tells that the answer to every earlier sending to that partition has come, or will not come to our topic.
"""

from collections import deque
from collections.abc import Iterator


class Waiting:
    """A command without an outcome: its position in the file, and its last sending."""

    __slots__ = ("length", "line", "partition", "renewed", "serial", "since", "start")

    def __init__(self, line: int, start: int, length: int, partition: int) -> None:
        self.line = line
        self.start = start
        self.length = length
        self.partition = partition
        self.serial = 0
        """The serial of its last sending in this session; 0 if only an earlier session may have sent it."""
        self.since: float | None = None
        """The time at which this session first sent it."""
        self.renewed = 0
        """The number of times it was sent again with a fresh login."""


class Flight:
    """The waiting commands, and the order of their sendings in each partition. Serials count from 1."""

    def __init__(self, partitions: int) -> None:
        self._order: list[deque[tuple[int, int]]] = [deque() for _ in range(partitions)]
        self._waiting: dict[int, Waiting] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, waiting: Waiting) -> None:
        """Add a command that an earlier session may have sent: it comes before everything that this session sends."""
        self._waiting[waiting.line] = waiting
        self._order[waiting.partition].append((0, waiting.line))

    def sending(self, waiting: Waiting, now: float) -> int:
        """Note a sending, the first or a further one. Returns its serial."""
        self._last += 1
        waiting.serial = self._last
        if waiting.since is None:
            waiting.since = now
        self._waiting[waiting.line] = waiting
        self._order[waiting.partition].append((self._last, waiting.line))
        return self._last

    def settle(self, line: int) -> Waiting | None:
        """Remove a command that has an outcome. ``None`` if it had one before."""
        return self._waiting.pop(line, None)

    @property
    def last_serial(self) -> int:
        return self._last

    def get(self, line: int) -> Waiting | None:
        return self._waiting.get(line)

    def lost(self, partition: int, serial: int) -> list[Waiting]:
        """Return the commands to send again, now that this sending of the partition was answered.

        The answered command is among them if it was not settled.
        """
        order, found = self._order[partition], []
        while order and order[0][0] <= serial:
            each, line = order.popleft()
            waiting = self._waiting.get(line)
            # A command sent again since then is judged by its later sending.
            if waiting is not None and waiting.serial == each:
                found.append(waiting)
        return found

    def oldest(self) -> Iterator[Waiting]:
        """Yield, for each partition, the command that has waited longest since its last sending there."""
        for order in self._order:
            while order:
                each, line = order[0]
                waiting = self._waiting.get(line)
                if waiting is not None and waiting.serial == each:
                    yield waiting
                    break
                order.popleft()
