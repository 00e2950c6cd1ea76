"""The backlog of a worker: what its partitions hold that nobody has been answered yet (CONTRACT 10)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.kafka.delivery import Coordinates
from worker.kafka.internals import position_of

_PREFIX: Final = "effective_worker_"
_LABELS: Final = ("topic", "partition")


@dataclass(frozen=True, slots=True)
class Behind:
    """The backlog of a partition: ``lag`` and ``hidden`` in offsets, ``age`` in seconds."""

    lag: int
    age: float
    hidden: int


@dataclass(frozen=True, slots=True)
class _Noticed:
    """That something lies beyond a position, and since when (the clock's seconds)."""

    position: int
    since: float


class Backlog(Collector):
    """Reckons the backlog of each assigned partition when somebody asks. Asks nobody itself.

    What a log holds comes with every fetch, a few times a second even where nothing is sent. Where a lane takes
    nothing, nothing is fetched, hence ``told``. A partition whose position is not known yet is left out.
    """

    def __init__(self, consumer: AIOKafkaConsumer, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds since the epoch, as the timestamps of records do."""
        self._consumer = consumer
        self._clock = clock
        self._in_hand: dict[TopicPartition, Coordinates] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._noticed: dict[TopicPartition, _Noticed] = {}

    def in_hand(self, source: TopicPartition, oldest: Coordinates | None) -> None:
        """Note the oldest command that a lane has taken and not answered; ``None`` if it has none."""
        if oldest is None:
            self._in_hand.pop(source, None)
        else:
            self._in_hand[source] = oldest

    def told(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note where logs end for who reads committed records only, as the broker has just said."""
        self._ends = dict(ends)
        for source in self._consumer.assignment():
            position = self._position(source)
            former = self._noticed.get(source)
            if position is None or position >= self._stable(source):
                self._noticed.pop(source, None)
            elif former is None or former.position != position:
                self._noticed[source] = _Noticed(position, self._clock())

    def behind(self) -> dict[TopicPartition, Behind]:
        """By partition, as of now."""
        return {
            source: self._behind(source, position)
            for source in sorted(self._consumer.assignment())
            if (position := self._position(source)) is not None
        }

    def collect(self) -> Iterable[GaugeMetricFamily]:
        lag = self._gauge("lag", "Offsets between the last answer and the end of the log")
        age = self._gauge("oldest_unanswered_seconds", "Age of the oldest command that is not answered yet")
        hidden = self._gauge("hidden", "Offsets behind an open transaction of a sender's, which nobody can read yet")
        for source, behind in self.behind().items():
            labels = (source.topic, str(source.partition))
            lag.add_metric(labels, behind.lag)
            age.add_metric(labels, behind.age)
            hidden.add_metric(labels, behind.hidden)
        return lag, age, hidden

    def _behind(self, source: TopicPartition, position: int) -> Behind:
        stable = self._stable(source)
        end = max(stable, self._consumer.highwater(source) or 0)
        return Behind(max(0, end - position), self._age(source, position, stable), end - stable)

    def _age(self, source: TopicPartition, position: int, stable: int) -> float:
        """By the command's own timestamp where a lane has it in hand, else since it is known to be there."""
        now, noticed = self._clock(), self._noticed.get(source)
        if (oldest := self._in_hand.get(source)) is not None:
            return max(0.0, now - oldest.timestamp / 1000)
        if noticed is None or noticed.position != position or position >= stable:
            return 0.0
        return max(0.0, now - noticed.since)

    def _position(self, source: TopicPartition) -> int | None:
        """The offset at which answering goes on. With nothing in hand it is the client's position, behind markers."""
        oldest = self._in_hand.get(source)
        return position_of(self._consumer, source) if oldest is None else oldest.offset

    def _stable(self, source: TopicPartition) -> int:
        return max(self._ends.get(source, 0), self._consumer.last_stable_offset(source) or 0)

    def _gauge(self, name: str, help_: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(_PREFIX + name, help_, labels=_LABELS)
