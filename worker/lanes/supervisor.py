"""The supervisor: a partition assigned to this process has exactly one lane, which ends only with its assignment.

The group's callbacks only write down the assignment; everything else restarts the lane at its first step (DESIGN 2).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from worker.errors import (
    KAFKA_ERRORS,
    BatchConflict,
    BreakerOpen,
    DependencyUnavailable,
    LaneBlocked,
    MessageTooLarge,
    OutcomeUnknown,
    WorkerError,
)
from worker.lanes.lane import Lane
from worker.lanes.membership import Membership
from worker.observability.descriptors import really
from worker.observability.health import Health, LaneState
from worker.observability.metrics import Metrics
from worker.resilience.backoff import Backoff, run_unless

WATCH_SECONDS: Final = 0.5
SETTLED_SECONDS: Final = 30.0
"""Seconds that a lane must have run to start over with short waits when it is lost."""

_FORESEEN: Final = (WorkerError, *KAFKA_ERRORS)

_KINDS: Final[Mapping[type[Exception], str]] = {
    DependencyUnavailable: "DependencyAway",
    OutcomeUnknown: "Unpublished",
    MessageTooLarge: "AnswerRefused",
    BatchConflict: "BatchOvertaken",
    BreakerOpen: "FuseBlown",
}
"""The label of an error whose class had another name when dashboards were written."""

log = structlog.get_logger(__name__)


class Supervisor(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka carries no types
    """The keeper of one lane per assigned partition. Made for one consumer, and for one life."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        make_lane: Callable[[TopicPartition, asyncio.Event], Lane],
        membership: Membership,
        topics: Sequence[str],
        *,
        health: Health,
        metrics: Metrics,
        revoke_seconds: float,
        checks: Sequence[Callable[[], None]],
        unfit: Callable[[], str],
    ) -> None:
        """``revoke_seconds`` is the time that a rebalance grants the lanes to finish the batch in hand.

        Each of ``checks`` raises when only a new process helps; see ``Watchdog`` and ``StaticMembership``. ``unfit``
        returns the reason why the worker could do nothing with partitions of ``topics``, or an empty text.
        """
        self._consumer = consumer
        self._membership = membership
        self._make_lane = make_lane
        self._health = health
        self._metrics = metrics
        self._revoke_seconds = revoke_seconds
        self._checks = checks
        self._topics = topics
        self._unfit = unfit
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._changed = asyncio.Event()
        self._drain = asyncio.Event()
        self._lanes: dict[TopicPartition, asyncio.Task[None]] = {}
        self._stopping = False

    # --- the group's callbacks ----------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - always all
        """Finish the batches in hand, then let go. Heartbeats go on meanwhile (DESIGN 6)."""
        given_up, self._assigned = self._assigned, frozenset()
        self._health.assigned(False)
        await self._let_go(self._revoke_seconds)
        for source in given_up:
            self._health.lane_gone(source)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Write the assignment down and return at once: no heartbeat is sent while this runs."""
        self._assigned = frozenset(assigned)
        self._health.assigned(True)
        for source in self._assigned:
            self._health.lane(source, "starting")  # from now on: its lane may come some moments later
        for topic in sorted({source.topic for source in self._assigned}) or [None]:
            numbers = sorted(source.partition for source in self._assigned if source.topic == topic)
            log.info("partitions_assigned", topic=topic, partitions=numbers, member=self._membership.member_id)
        self._changed.set()

    # --- the invariant ------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the invariant until ``stop`` is set. Raises what one of ``checks`` raises."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                for check in self._checks:
                    check()
                await self._attend()
                if not self._lanes:
                    self._health.progress()  # a worker with nothing to do does not stand still
                self._start_missing()
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({stopped, changed}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            stopped.cancel()

    async def _attend(self) -> None:
        """Take part in the group while that is of use: an unfit worker would keep its partitions from others."""
        why = self._unfit()
        if why and self._membership.takes_part:
            log.warning("leaving_group", reason=why)
            self._health.out_of_group(f"{why}, and other workers may have more luck")
            await self._let_go(self._revoke_seconds)
            await self._membership.leave()
            await self.on_partitions_revoked(())  # a rebalance may have ended meanwhile
        elif not why and not self._membership.takes_part:
            log.info("joining_group")
            self._health.out_of_group(None)
            self._membership.join(self._topics, self)

    async def drain(self, seconds: float) -> None:
        """Start no more lanes, finish the batches in hand, and cancel lanes left after ``seconds``. Safe twice."""
        self._stopping = True
        await self._let_go(seconds)

    def _start_missing(self) -> None:
        if self._stopping:
            return
        # The consumer shows the old assignment until the new one is there, so both must agree.
        for source in self._assigned & self._consumer.assignment():
            lane = self._lanes.get(source)
            if lane is None or lane.done():
                name = f"lane {source.topic}/{source.partition}"
                self._lanes[source] = asyncio.create_task(self._keep(source, self._drain), name=name)

    async def _let_go(self, seconds: float) -> None:
        lanes, self._lanes = self._lanes, {}
        drain, self._drain = self._drain, asyncio.Event()
        drain.set()
        if not lanes:
            return
        for source in lanes:
            self._health.lane(source, "draining")
        _, unfinished = await asyncio.wait(lanes.values(), timeout=seconds)
        for lane in unfinished:
            lane.cancel()
        if unfinished:
            log.warning("lanes_cancelled", count=len(unfinished), after_seconds=seconds)
            await asyncio.wait(unfinished)
        for source in lanes:
            self._health.lane_gone(source)

    async def _keep(self, source: TopicPartition, drain: asyncio.Event) -> None:
        """Run lane after lane on one partition until it is drained or cancelled. No error ends it."""
        backoff = Backoff()
        while not drain.is_set():
            began = time.monotonic()
            try:
                await self._make_lane(source, drain).run()
                return
            except Exception as fault:  # noqa: BLE001 - whatever a lane dies of, its partition must not be left alone
                error = really(fault) if isinstance(fault, DependencyUnavailable) else fault
                self._report(source, error)
                away = error.dependency if isinstance(error, DependencyUnavailable) else None
            lost = time.monotonic()
            if lost - began > SETTLED_SECONDS:
                backoff.reset()
            if away is not None:
                await backoff.wait(drain, self._health.returned(away))
                continue
            await backoff.wait(drain)
            await run_unless(self._membership.confirmed_after(lost), drain)  # ownership is in doubt

    def _report(self, source: TopicPartition, error: Exception) -> None:
        state: LaneState = "waiting"
        reason = str(error)
        self._health.progress()
        self._health.misses_only(source, error.dependency if isinstance(error, DependencyUnavailable) else None)
        if isinstance(error, LaneBlocked):
            state = "blocked"
        elif isinstance(error, DependencyUnavailable):
            self._health.away(error, source)
        elif not isinstance(error, _FORESEEN):
            reason = type(error).__name__
        self._health.lane(source, state, reason)
        kind = _KINDS.get(type(error), type(error).__name__)
        self._metrics.lane_restarted(kind)
        where = {"topic": source.topic, "partition": source.partition}
        if isinstance(error, _FORESEEN):
            log.warning("lane_lost", **where, state=state, reason=reason, kind=kind)
        else:
            log.error("lane_failed", **where, exc_info=error)
