"""The watchdog: finds a Kafka client that looks idle and is dead, which no error ever tells (DESIGN 3 and 6)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from worker.errors import KAFKA_ERRORS, ClientStuck
from worker.kafka.backlog import Backlog
from worker.kafka.internals import tasks_of
from worker.observability.health import Health
from worker.resilience.backoff import carried_out
from worker.resilience.periodic import every

LOOK_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 15.0
PATIENCE_SECONDS: Final = 60.0
"""How long a lane may wait for records that are in the log and do not come: longer than any back-off of the client."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """Where a log was told to end, and when (the clock's seconds)."""

    source: TopicPartition
    offset: int
    told: float


class Watchdog:
    """Watches one consumer. ``reads`` are the lanes' reads under way (``LaneContext.reads``)."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        reads: Mapping[TopicPartition, "asyncio.Future[Any]"],
        health: Health,
        backlog: Backlog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._reads = reads
        self._health = health
        self._backlog = backlog
        self._clock = clock
        self._unseen: dict[TopicPartition, _End] = {}
        self._starved: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look for starving lanes until ``stop``."""
        await every(LOOK_SECONDS, lambda: carried_out(self.look(), stop), stop)

    def check(self) -> None:
        """Raises ``ClientStuck`` if a task of the client is dead, or a lane starves: only a new process helps then."""
        reason = self._dead_task() or self._starved
        if reason:
            self._health.stuck(reason)
            raise ClientStuck(reason)

    async def look(self) -> None:
        """Ask where the logs end, and find a lane that has waited too long for records that are there.

        A lane's position does not tell: it stays before the marker of a transaction until the client looks behind that.
        The client's own high watermark does, because every answer to a fetch brings it along; and a broker that does
        not answer starves no lane.
        """
        waiting = {source for source in self._reads if self._waits(source)}
        told = await self._ends(sorted(self._consumer.assignment()))
        if told is not None:
            self._backlog.told(told)
        ends = {source: end for source, end in (told or {}).items() if source in waiting}
        unseen = {}
        for source, end in ends.items():
            if self._waits(source):
                former = self._unseen.get(source)
                still = former is not None and self._misses(former)
                unseen[source] = former if former is not None and still else _End(source, end, self._clock())
        self._unseen = unseen
        for each in unseen.values():
            waited = self._clock() - each.told
            if waited > PATIENCE_SECONDS and self._misses(each):
                where = f"partition {each.source.partition} of {each.source.topic}"
                self._starved = f"{where} has had records for {waited:.0f} s that do not come"

    async def _ends(self, sources: list[TopicPartition]) -> dict[TopicPartition, int] | None:
        """``None`` if the broker does not say."""
        if not sources:
            return {}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(sources)
        except KAFKA_ERRORS as error:
            log.debug("ends_not_told", reason=type(error).__name__)
            return None
        return ends

    def _waits(self, source: TopicPartition) -> bool:
        """True if the lane reads right now: then no record that has come is left lying."""
        reading = self._reads.get(source)
        return reading is not None and not reading.done() and source in self._consumer.assignment()

    def _misses(self, end: "_End") -> bool:
        return end.offset > (self._consumer.highwater(end.source) or 0)

    def _dead_task(self) -> str | None:
        tasks = tasks_of(self._consumer)
        dead = [(name, task) for name, task in tasks.lasting.items() if task.done()]
        dead += [(name, task) for name, task in tasks.passing.items() if _failure(task)]
        for name, task in dead:
            return f"the consumer's {name} task has died{_failure(task)}"
        return None


def _failure(task: "asyncio.Task[Any]") -> str:
    """What a task died of; nothing if it only ended."""
    error = task.exception() if task.done() and not task.cancelled() else None
    return "" if error is None else f" ({type(error).__name__})"
