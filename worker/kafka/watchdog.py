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
from worker.resilience.backoff import run_unless
from worker.resilience.periodic import every

LOOK_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 15.0
PATIENCE_SECONDS: Final = 60.0
"""Seconds that a lane may wait for records that the log has and that do not come: longer than any client's back-off."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a log as it was told, and the moment of that (the clock's seconds)."""

    source: TopicPartition
    offset: int
    told: float


class Watchdog:
    """The watchdog of one consumer. ``reads`` are the lanes' reads under way (``LaneContext.reads``)."""

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
        await every(LOOK_SECONDS, lambda: run_unless(self.look(), stop), stop)

    def check(self) -> None:
        """Raise ``ClientStuck`` if a task of the client is dead, or a lane starves: only a new process helps then."""
        reason = self._dead_task() or self._starved
        if reason:
            self._health.stuck(reason)
            raise ClientStuck(reason)

    async def look(self) -> None:
        """Ask for the ends of the logs, and find a lane that has waited too long for records that are there.

        A lane's position does not tell: it stays before the marker of a transaction until the client reads past it. The
        client's own high watermark does, because every answer to a fetch brings it along. A broker that does not answer
        starves no lane.
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
        """Ask for the ends of the logs; ``None`` if the broker does not tell."""
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
        """True if the lane is reading now: then it takes every record that comes."""
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
    """Return the name of the error that a task died of; empty if it only ended."""
    error = task.exception() if task.done() and not task.cancelled() else None
    return "" if error is None else f" ({type(error).__name__})"
