"""The supervisor: a partition assigned to this process has exactly one lane, and a lane ends only with its assignment.

The group's callbacks only write down what was assigned; everything else restarts the lane at its first step (DESIGN 2).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.protocol.group import LeaveGroupRequest

from worker.errors import KAFKA_ERRORS, DependencyAway, LaneBlocked, WorkerError
from worker.lanes.lane import Lane
from worker.observability.descriptors import really
from worker.observability.health import Health, LaneState
from worker.observability.metrics import Metrics
from worker.resilience.backoff import Patience, carried_out

WATCH_SECONDS: Final = 0.5
SETTLED_SECONDS: Final = 30.0
"""A lane that has run for this long starts over with short waits when it is lost."""

LEAVE_SECONDS: Final = 5.0

_FORESEEN: Final = (WorkerError, *KAFKA_ERRORS)

log = structlog.get_logger(__name__)


class Membership:
    """Takes part in the group, or not, and knows when the group last answered well to a heartbeat, by the moment at
    which that heartbeat was sent."""

    def __init__(self, consumer: AIOKafkaConsumer, session_seconds: float) -> None:
        self._sent = time.monotonic()
        self._heard = time.monotonic()
        self._session_seconds = session_seconds
        self._refusal = ""
        self._answered = asyncio.Event()
        self._consumer = consumer
        self.takes_part = False
        coordinator = consumer._coordinator
        self._heartbeat: Callable[[], Awaitable[bool]] = coordinator._do_heartbeat
        coordinator._do_heartbeat = self._watched

    def join(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        """Take part in the group, which tells ``listener`` the partitions in its time."""
        self._heard = time.monotonic()
        self._consumer.subscribe(topics, listener=listener)
        self.takes_part = True

    async def leave(self) -> None:
        """Give all partitions back at once, also those of a member with a ``group_instance_id``.

        Such a one aiokafka does not let go before its session is over; but the broker takes the word of any member, by
        the id that it knows it by (DESIGN 6). Where the broker does not hear it, the session runs out.
        """
        self.takes_part = False
        coordinator = self._consumer._coordinator
        request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
        coordinator.reset_generation()  # or the client would say it as well, of members without such an id
        self._consumer.unsubscribe()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await coordinator._send_req(request)
        except KAFKA_ERRORS as error:
            log.warning("leave_unheard", reason=f"{type(error).__name__}: {error}")

    async def _watched(self) -> bool:
        sent = time.monotonic()
        try:
            good = await self._heartbeat()
        except KAFKA_ERRORS as error:
            # Let through, it would end the client's heartbeats for good, and nothing would start them again (DESIGN 6).
            self._refusal = f" ({error})"
            return False
        if good:
            self._sent, self._heard, self._refusal = sent, time.monotonic(), ""
            self._answered.set()
        return good

    async def look(self) -> None:
        """Raises ``DependencyAway`` if the group has been silent for longer than a session, to one who takes part."""
        if not self.takes_part:
            return
        silent = time.monotonic() - self._heard
        if silent > self._session_seconds:
            raise DependencyAway("kafka", f"no heartbeat has been answered well for {silent:.0f} s{self._refusal}")

    async def confirmed(self) -> None:
        """Return at once if a heartbeat of this session was answered well, otherwise as soon as another one is.

        Who has slept for longer than a session may have a successor, whom a new producer would fence (DESIGN 2).
        Raises ``DependencyAway`` if the group says nothing for a session's time.
        """
        now = time.monotonic()
        if now - self._sent <= self._session_seconds:
            return
        try:
            async with asyncio.timeout(self._session_seconds):
                await self.confirmed_after(now)
        except TimeoutError:
            raise DependencyAway("kafka", f"no heartbeat was answered for {now - self._sent:.0f} s") from None

    async def confirmed_after(self, moment: float) -> None:
        """Wait until a heartbeat sent after ``moment`` was answered well: only then may a lost lane still be ours."""
        while self._sent <= moment:
            self._answered.clear()
            await self._answered.wait()


class Supervisor(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka carries no types
    """Keeps one lane per assigned partition. Made for one consumer, and for one life."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        make_lane: Callable[[TopicPartition], Lane],
        membership: Membership,
        topics: Sequence[str],
        *,
        health: Health,
        metrics: Metrics,
        revoke_seconds: float,
        checks: Sequence[Callable[[], None]],
        unfit: Callable[[], str],
    ) -> None:
        """``revoke_seconds`` is what a rebalance grants the lanes to finish the batch in hand.

        Each of ``checks`` raises when only a new process helps; see ``Watchdog`` and ``Seat``.
        ``unfit`` says why the worker could do nothing with partitions of ``topics``, if so, and nothing otherwise.
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
        """Write it down and return at once: no heartbeat is sent while this runs."""
        self._assigned = frozenset(assigned)
        self._health.assigned(True)
        for source in self._assigned:
            self._health.lane(source, "starting")  # from now on: its lane may come some moments later
        for topic in sorted({source.topic for source in self._assigned}) or [None]:
            numbers = sorted(source.partition for source in self._assigned if source.topic == topic)
            log.info("partitions_assigned", topic=topic, partitions=numbers)
        self._changed.set()

    # --- the invariant ------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Hold the invariant until ``stop`` is set. Raises what one of ``checks`` raises."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                for check in self._checks:
                    check()
                await self._attend()
                if not self._lanes:
                    self._health.progress()  # nothing to do is no standstill
                self._start_missing()
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({stopped, changed}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            stopped.cancel()

    async def _attend(self) -> None:
        """Take part in the group while there is any use in it: who is unfit would keep its partitions from others."""
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
        """Start no more, finish what is in hand, and cancel what has not ended after ``seconds``. Safe twice."""
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
        patience = Patience()
        while not drain.is_set():
            began = time.monotonic()
            try:
                await self._make_lane(source).run(drain)
                return
            except Exception as fault:  # noqa: BLE001 - whatever a lane dies of, its partition must not be left alone
                error = really(fault) if isinstance(fault, DependencyAway) else fault
                self._report(source, error)
                away = error.dependency if isinstance(error, DependencyAway) else None
            lost = time.monotonic()
            if lost - began > SETTLED_SECONDS:
                patience.reset()
            if away is not None:
                await patience.wait(drain, self._health.returned(away))
                continue
            await patience.wait(drain)
            await carried_out(self._membership.confirmed_after(lost), drain)  # ownership is in doubt

    def _report(self, source: TopicPartition, error: Exception) -> None:
        state: LaneState = "waiting"
        reason = str(error)
        self._health.progress()
        self._health.misses_only(source, error.dependency if isinstance(error, DependencyAway) else None)
        if isinstance(error, LaneBlocked):
            state = "blocked"
        elif isinstance(error, DependencyAway):
            self._health.away(error, source)
        elif not isinstance(error, _FORESEEN):
            reason = type(error).__name__
        self._health.lane(source, state, reason)
        self._metrics.lane_restarted(type(error).__name__)
        where = {"topic": source.topic, "partition": source.partition}
        if isinstance(error, _FORESEEN):
            log.warning("lane_lost", **where, state=state, reason=reason, kind=type(error).__name__)
        else:
            log.error("lane_failed", **where, exc_info=error)
