"""The backlog of a worker: the records of its partitions that are not answered yet (CONTRACT, Admin port)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.kafka.delivery import Coordinates
from worker.kafka.internals import position_of
from worker.observability import vocabulary as v
from worker.observability.metrics import gauge_family


@dataclass(frozen=True, slots=True)
class Behind:
    """The backlog of a partition: ``lag`` and ``hidden`` in offsets, ``age`` in seconds, ``in_hand`` in commands."""

    lag: int
    age: float
    hidden: int
    in_hand: int = 0


@dataclass(frozen=True, slots=True)
class _InHand:
    """The commands that a lane has taken and not answered, and the first of them."""

    oldest: Coordinates
    count: int


@dataclass(frozen=True, slots=True)
class _Noticed:
    """A position with records beyond it, and the moment since when that is known (the clock's seconds)."""

    position: int
    since: float


class Backlog(Collector):
    """The backlog of each assigned partition, computed on request without a request to the broker.

    Every fetch brings the end of the log along, a few times a second even where nothing is sent. A lane that takes
    nothing fetches nothing, hence ``told``. A partition whose position is not known yet is left out.
    """

    def __init__(self, consumer: AIOKafkaConsumer, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds since the epoch, as the timestamps of records do."""
        self._consumer = consumer
        self._clock = clock
        self._in_hand: dict[TopicPartition, _InHand] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._noticed: dict[TopicPartition, _Noticed] = {}

    def in_hand(self, source: TopicPartition, oldest: Coordinates | None, count: int = 1) -> None:
        """Note the oldest of ``count`` commands that a lane has taken and not answered; ``None`` if there is none."""
        if oldest is None:
            self._in_hand.pop(source, None)
        else:
            self._in_hand[source] = _InHand(oldest, count)

    def told(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note the ends of the logs for a reader of committed records, as the broker has just told them."""
        self._ends = dict(ends)
        for source in self._consumer.assignment():
            position = self._position(source)
            former = self._noticed.get(source)
            if position is None or position >= self._stable(source):
                self._noticed.pop(source, None)
            elif former is None or former.position != position:
                self._noticed[source] = _Noticed(position, self._clock())

    def behind(self) -> dict[TopicPartition, Behind]:
        """Return the backlog by partition, as of now."""
        return {
            source: self._behind(source, position)
            for source in sorted(self._consumer.assignment())
            if (position := self._position(source)) is not None
        }

    def collect(self) -> Iterable[GaugeMetricFamily]:
        lanes = {(source.topic, str(source.partition)): behind for source, behind in self.behind().items()}
        yield gauge_family(v.LAG, {lane: behind.lag for lane, behind in lanes.items()})
        yield gauge_family(v.OLDEST_UNANSWERED, {lane: behind.age for lane, behind in lanes.items()})
        yield gauge_family(v.HIDDEN, {lane: behind.hidden for lane, behind in lanes.items()})
        yield gauge_family(v.IN_HAND, {lane: behind.in_hand for lane, behind in lanes.items()})

    def _behind(self, source: TopicPartition, position: int) -> Behind:
        stable = self._stable(source)
        end = max(stable, self._consumer.highwater(source) or 0)
        taken = self._in_hand.get(source)
        count = 0 if taken is None else taken.count
        return Behind(max(0, end - position), self._age(source, position, stable), end - stable, count)

    def _age(self, source: TopicPartition, position: int, stable: int) -> float:
        """Return the age of the oldest command in hand, by its timestamp; else the time since a record was noticed."""
        now, noticed = self._clock(), self._noticed.get(source)
        if (taken := self._in_hand.get(source)) is not None:
            return max(0.0, now - taken.oldest.timestamp / 1000)
        if noticed is None or noticed.position != position or position >= stable:
            return 0.0
        return max(0.0, now - noticed.since)

    def _position(self, source: TopicPartition) -> int | None:
        """Return the offset at which answering goes on: of the oldest in hand, or the client's, behind markers."""
        taken = self._in_hand.get(source)
        return position_of(self._consumer, source) if taken is None else taken.oldest.offset

    def _stable(self, source: TopicPartition) -> int:
        return max(self._ends.get(source, 0), self._consumer.last_stable_offset(source) or 0)
