"""A lane over fakes of a log, a publisher and the Postgres half: the records it reads, commits and lets go of."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from effective_contract.codes import StatusCode
from tests.support.builders import OUTGOING, record, refused
from tests.support.doubles import subscription
from tests.support.pace import stretched
from tests.support.waiting import in_time, turns, until
from worker.errors import (
    BreakerOpen,
    ClockRefused,
    DependencyUnavailable,
    Fenced,
    LaneBlocked,
    LaneLost,
    MessageTooLarge,
    OutcomeUnknown,
    StampsRefused,
)
from worker.journey.messages import Message
from worker.journey.model import Answered, Envelope, Refused, ReplyTo
from worker.journey.reply_topics import Replies
from worker.kafka.backlog import Backlog, Behind
from worker.kafka.clock import ClockRefusal
from worker.kafka.delivery import Delivery
from worker.kafka.topic_watch import TopicWatch
from worker.lanes.context import LaneContext, LaneId, LaneRun
from worker.lanes.lane import Lane
from worker.lanes.priority import Priority, Turn
from worker.lanes.start import Starter
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.observability.recent import Recent
from worker.observability.tracing import id_generator
from worker.pipeline import Lease, Pipeline
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.resilience.circuit_breaker import FAILURES, CircuitBreaker

SOURCE: Final = TopicPartition("commands", 0)
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """One partition, read the way aiokafka reads it: the first read after records arrive takes them all.

    ``None`` is the marker of a transaction, which no reader is given.
    """

    def __init__(self, *values: bytes | None) -> None:
        self.values = list(values)
        self.position = 0
        self.committed_offset: int | None = None
        self.start = 0
        self.looking = 0
        self.looks = 0
        self._arrived: list[asyncio.Future[None]] = []

    def append(self, value: bytes | None) -> None:
        self.values.append(value)
        for waiting in self._arrived:
            if not waiting.done():
                waiting.set_result(None)
        self._arrived.clear()

    async def getmany(self, source: TopicPartition, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        until = time.monotonic() + timeout_ms / 1000
        if self.position < self.start:
            raise OffsetOutOfRangeError({source: self.position})
        self.looking += 1
        self.looks += 1
        try:
            while not any(value is not None for value in self.values[self.position :]):
                self.position = len(self.values)
                arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._arrived.append(arrived)
                done, _ = await asyncio.wait({arrived}, timeout=max(0.0, until - time.monotonic()))
                if not done:
                    return {}
        finally:
            self.looking -= 1
        taken = range(self.position, min(self.position + max_records, len(self.values)))
        self.position = taken.stop
        return {source: [self._record(offset) for offset in taken if self.values[offset] is not None]}

    def _record(self, offset: int) -> ConsumerRecord:
        return record(self.values[offset], topic=SOURCE.topic, partition=SOURCE.partition, offset=offset, timestamp=1)

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.position = offset

    async def committed(self, _: TopicPartition) -> int | None:
        return self.committed_offset

    async def beginning_offsets(self, _: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {SOURCE: self.start}

    async def end_offsets(self, _: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {SOURCE: len(self.values)}

    def assignment(self) -> set[TopicPartition]:
        return {SOURCE}

    def highwater(self, _: TopicPartition) -> int:
        return len(self.values)

    last_stable_offset = highwater

    @property
    def _subscription(self) -> SimpleNamespace:
        return subscription({SOURCE}, self.position)


@dataclass
class Row:
    """The lane's row in Postgres."""

    first_offset: int | None = None
    next_offset: int | None = None
    owner: UUID | None = None
    ordered_offset: int | None = None
    """The offset that an operator has ordered."""
    topic_id: UUID | None = None
    last: tuple[int, int] | None = None
    """Offset and timestamp of the last record decided."""
    blocked: str | None = None
    settled: int = 0
    """The number of requests to note that all is published."""
    away_times: int = 0
    """The number of times for which the database is away when asked for the owner."""
    lost: list[tuple[int, int, int]] = field(default_factory=list)
    """The recorded losses: begin, end, and the end of what was decided."""
    acknowledged: bool = False
    losses_untold: int = 0
    """The number of times for which the database is away when asked for the losses."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Row"]:
        yield self

    async def fetchrow(self, _: str, *arguments: Any) -> dict[str, Any]:
        self.owner = arguments[4]
        return {
            "id": 1,
            "first_offset": self.first_offset,
            "next_offset": self.next_offset,
            "ordered_offset": self.ordered_offset,
            "topic_id": self.topic_id,
            "last_offset": None if self.last is None else self.last[0],
            "last_timestamp": None if self.last is None else self.last[1],
            "blocked": self.blocked,
        }

    async def fetch(self, asked: str, *of: Any) -> list[dict[str, Any]]:
        if asked == statement("journey/recall_by_coordinates"):
            return []
        if self.losses_untold:
            self.losses_untold -= 1
            raise DependencyUnavailable("postgres", "away")
        seen = NOW if self.acknowledged else None
        names = ("lane", "begin_offset", "end_offset", "decided_end", "noticed_at", "settled", "acknowledged_at")
        settled = self.ordered_offset is None
        return [dict(zip(names, (of[0][0], *each, NOW, settled, seen), strict=True)) for each in self.lost]

    async def fetchval(self, asked: str, lane: int, owner: UUID, *what: Any) -> int | None:
        if asked == statement("lanes/owned") and self.away_times:
            self.away_times -= 1
            raise DependencyUnavailable("postgres", "away")
        if owner != self.owner:
            return None
        if asked == statement("lanes/order_done"):
            self.ordered_offset = None
        if asked == statement("lanes/open"):
            self.first_offset = self.next_offset = what[0]
        if asked == statement("lanes/know_topic"):
            self.topic_id = what[0]
        if asked == statement("lanes/block"):
            self.blocked = what[0]
        if asked == statement("lanes/lose_commands"):
            begin, end, decided, _now = what
            self.lost.append((begin, end, decided))
            self.first_offset, self.next_offset = end, max(end, self.next_offset or 0)
            self.ordered_offset = end
        if asked == statement("lanes/settle"):
            self.settled += 1
            if self.away_times:
                self.away_times -= 1
                raise DependencyUnavailable("postgres", "away")
            if what[0] != self.next_offset:
                return None
            self.first_offset = self.next_offset
        return lane


@dataclass
class Decides:
    """A Postgres half that refuses every command, and keeps the row as the real one does."""

    row: Row
    trouble: list[Exception] = field(default_factory=list)
    tried: int = 0
    reply: ReplyTo | None = None
    """The reply topic that every sender asks for."""
    traceparent: str | None = None
    """The trace that every sender sends."""
    code: StatusCode = StatusCode.ACCESS_DENIED
    dry_runs: frozenset[bytes | None] = frozenset()
    """The values of those commands that are dry runs."""

    async def run(self, lease: Lease, batch: Sequence[Delivery], first: int) -> tuple[list[Answered], Lease]:
        self.tried += 1
        if self.trouble:
            raise self.trouble.pop(0)
        following = batch[-1].coordinates.offset + 1
        self.row.first_offset, self.row.next_offset = first, max(following, self.row.next_offset or 0)
        refusal = Refused(self.code, "no")
        answered = [refused(each, refusal, envelope=self._envelope(each)) for each in batch]
        return answered, replace(lease, next_offset=self.row.next_offset)

    async def pass_by(self, lease: Lease, first: int, following: int) -> Lease:
        if self.trouble:
            raise self.trouble.pop(0)
        self.row.first_offset, self.row.next_offset = first, max(following, self.row.next_offset or 0)
        return replace(lease, next_offset=self.row.next_offset)

    def _envelope(self, delivery: Delivery) -> Envelope:
        return Envelope(reply=self.reply, traceparent=self.traceparent, dry_run=delivery.value in self.dry_runs)


class Publishes:
    """A publisher that keeps the published messages and the offsets, unless a fault is planned for a call."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.published: list[tuple[int, list[Message]]] = []
        self.faults: list[Callable[[Sequence[Message], int], Exception | None]] = []
        self.opened = 0
        self.closed = 0
        self.away = False
        self.lost_after_commit = False

    async def open(self) -> None:
        await asyncio.sleep(0)
        self.opened += 1
        if self.away:
            raise DependencyUnavailable("kafka", "away")

    async def publish(self, messages: Sequence[Message], offset: int) -> None:
        fault = self.faults.pop(0)(messages, offset) if self.faults else None
        if fault is not None and not self.lost_after_commit:
            raise fault
        self.published.append((offset, list(messages)))
        self._log.committed_offset = offset
        if fault is not None:
            raise fault

    async def close(self) -> None:
        self.closed += 1

    @property
    def commands(self) -> list[str]:
        """Return the offsets of the answered commands, as their answers name them."""
        ids = [dict(message.headers)["causation_id"] for _, written in self.published for message in written]
        return [each.decode().split("/")[-1].split("@")[0] for each in ids]


class Group:
    """The group's information about this worker."""

    def __init__(self) -> None:
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def confirmed(self) -> None:
        await self.speaks.wait()


class World:
    def __init__(self, *values: bytes | None, max_batch: int = 100) -> None:
        self.log = Log(*values)
        self.row = Row()
        self.decides = Decides(self.row)
        self.publishes = Publishes(self.log)
        self.health = Health()
        self.group = Group()
        self.topic_ids: dict[str, UUID | None] = {SOURCE.topic: None}
        self.watch = TopicWatch(self.identify, [SOURCE.topic], self.health)
        self.backlog = Backlog(cast(AIOKafkaConsumer, self.log), time.time)
        self.context = LaneContext(
            database=cast(Database, self.row),
            consumer=cast(AIOKafkaConsumer, self.log),
            pipeline=cast(Pipeline, self.decides),
            breaker=CircuitBreaker(time.monotonic),
            outgoing=OUTGOING,
            metrics=Metrics(self.health),
            recent=Recent(),
            health=self.health,
            clock=time.time,
            max_batch=max_batch,
            priority=Priority(max_batch),
            topics=self.watch,
            backlog=self.backlog,
            clock_refusal=ClockRefusal(time.time, time.monotonic),
            confirmed=self.group.confirmed,
            replies=Replies(["*"], look=self.look),
        )
        self.turn: Turn = self.context.priority.first
        self.drains: list[asyncio.Event] = []
        self.others: dict[str, int] = {}

    async def identify(self, _: Sequence[str]) -> Mapping[str, UUID | None]:
        """Return the id of the topic that commands are read from."""
        return self.topic_ids

    async def look(self, _: Sequence[str]) -> Mapping[str, int]:
        """Return the partitions of other owners' topics."""
        return self.others

    def start(self) -> "tuple[asyncio.Task[None], asyncio.Event]":
        drain = asyncio.Event()
        lane = Lane(
            LaneRun(LaneId("cluster", "group", SOURCE), self.context, drain), self.publishes, uuid4(), self.turn
        )
        self.drains.append(drain)
        return asyncio.create_task(lane.run()), drain

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds, what="what the test waits for held", pause=0.005, tell=self.state)

    def state(self) -> str:
        """Describe the state, for a wait that timed out."""
        return (
            f"committed {self.log.committed_offset}, position {self.log.position}, looking {self.log.looking},"
            f" published {self.publishes.commands}, opened {self.publishes.opened}, decided {self.decides.tried} times,"
            f" lanes {self.health.lanes()}, away {self.health.dependencies_away()}"
        )

    async def run_until(self, holds: Callable[[], bool]) -> None:
        """Run a lane until the condition holds, and drain it."""
        running, drain = self.start()
        waiting = asyncio.create_task(self.until(holds))
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        drain.set()
        await in_time(running, "the lane ended after a drain", seen=self.state)
        await waiting


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.resilience.backoff.SHORTEST", 0.001)
    monkeypatch.setattr("worker.lanes.start.BEHIND_SECONDS", 0.01)


async def test_every_command_is_answered_once_and_the_offset_follows() -> None:
    world = World(b"a", b"b", b"c", max_batch=2)

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.publishes.commands == ["0", "1", "2"]
    assert [offset for offset, _ in world.publishes.published] == [2, 3]
    assert world.publishes.closed == 1
    counted = world.context.metrics.text()
    assert b"effective_worker_commands_read_total 3.0" in counted
    assert b"effective_worker_answer_seconds_count 3.0" in counted


async def test_a_look_for_records_is_let_go_when_it_has_ended_also_without_its_lane() -> None:
    world = World()
    await world.run_until(lambda: bool(world.log.looking))
    [look] = world.context.reads.values()
    await in_time(look, "the last look ended")
    await asyncio.sleep(0)
    assert world.context.reads == {}


async def test_a_lane_works_off_what_it_took_in_as_many_batches_as_its_turns_make_of_it() -> None:
    world = World(b"a", b"b", b"c", b"d", b"e")
    turns = iter([2, 1, 5])

    @asynccontextmanager
    async def turn(_: asyncio.Event) -> AsyncIterator[int]:
        yield next(turns)

    world.turn = turn
    await world.run_until(lambda: world.log.committed_offset == 5)

    assert [offset for offset, _ in world.publishes.published] == [2, 3, 5]
    assert world.publishes.commands == ["0", "1", "2", "3", "4"]


async def test_a_lane_that_is_drained_while_it_waits_for_its_turn_leaves_the_rest_to_the_next_one() -> None:
    world = World(b"a", b"b", b"c")
    allowed = [2]

    @asynccontextmanager
    async def turn(drain: asyncio.Event) -> AsyncIterator[int]:
        if allowed:
            yield allowed.pop()
        else:
            await drain.wait()
            yield 0

    world.turn = turn
    await world.run_until(lambda: world.log.committed_offset == 2)
    assert world.publishes.commands == ["0", "1"]

    world.turn = world.context.priority.first
    await world.run_until(lambda: world.log.committed_offset == 3)
    assert world.publishes.commands == ["0", "1", "2"]


async def test_a_drained_lane_ends_at_once_and_a_command_that_comes_later_is_the_next_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", stretched(1))
    world = World()
    running, drain = world.start()
    await world.until(lambda: world.log.looking == 1)
    drain.set()
    await in_time(running, "the lane ended after a drain", seen=world.state)
    assert world.log.looking == 1, "it did not end before its look for records ran out"

    second, drain = world.start()
    await world.until(lambda: world.publishes.opened == 2)
    await turns()
    world.log.append(b"late")
    await world.until(lambda: world.log.committed_offset == 1)

    drain.set()
    await in_time(second, "the second lane ended", seen=world.state)
    assert world.publishes.commands == ["0"]


async def test_a_command_that_arrives_while_a_lane_starts_is_not_lost_to_the_look_of_the_last_one() -> None:
    world = World()
    running, drain = world.start()
    await world.until(lambda: world.log.looking == 1)
    drain.set()
    await in_time(running, "the lane ended", seen=world.state)
    world.log.append(b"late")

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.publishes.commands == ["0"]


async def test_a_cancelled_lane_leaves_no_look_that_takes_commands_away() -> None:
    world = World()
    running, _ = world.start()
    await world.until(lambda: world.log.looking == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    second, drain = world.start()
    await world.until(lambda: world.publishes.opened == 2)
    await turns()
    world.log.append(b"late")
    await world.until(lambda: world.log.committed_offset == 1)
    drain.set()
    await in_time(second, "the second lane ended", seen=world.state)


def kafka_goes_away(world: World) -> None:
    def goes_away(_: Sequence[Message], __: int) -> Exception:
        world.publishes.away = True
        return OutcomeUnknown("lost")

    world.publishes.faults = [goes_away]


def the_clock_is_refused(world: World) -> None:
    world.publishes.faults = [lambda *_: StampsRefused("InvalidTimestampError")] * 1000


@pytest.mark.parametrize(
    ("hurt", "error"), [(kafka_goes_away, DependencyUnavailable), (the_clock_is_refused, ClockRefused)]
)
async def test_a_lane_told_to_drain_while_nothing_is_published_lets_go_and_does_not_spin(
    hurt: Callable[[World], None], error: type[Exception]
) -> None:
    world = World(b"a")
    hurt(world)
    running, drain = world.start()
    await world.until(lambda: world.publishes.opened > 2)
    drain.set()
    opened = world.publishes.opened

    with pytest.raises(error):
        await in_time(running, "the lane ended", seen=world.state)

    assert world.publishes.opened <= opened + 2
    assert world.log.committed_offset is None


async def test_an_unknown_outcome_that_was_a_commit_is_not_published_again() -> None:
    world = World(b"a", b"b")
    world.publishes.lost_after_commit = True
    world.publishes.faults = [lambda *_: OutcomeUnknown("the answer was lost")]

    await world.run_until(lambda: world.publishes.opened == 2)

    assert world.publishes.commands == ["0", "1"]


async def test_an_unknown_outcome_that_was_none_is_published_by_a_new_producer() -> None:
    world = World(b"a", b"b")
    world.publishes.faults = [lambda *_: OutcomeUnknown("lost")] * 3

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert world.publishes.commands == ["0", "1"]
    assert world.publishes.opened == 4
    assert world.decides.tried == 1


async def test_no_new_producer_starts_before_the_group_has_confirmed_the_worker() -> None:
    world = World(b"1", b"2")

    def sleeps(_: Sequence[Message], __: int) -> Exception:
        world.group.speaks.clear()
        return OutcomeUnknown("slept too long")

    world.publishes.faults = [sleeps]
    lane, drain = world.start()
    await world.until(lambda: not world.publishes.faults)
    await turns()
    assert world.publishes.opened == 1
    drain.set()
    with pytest.raises(LaneLost, match="without this worker"):
        await lane
    assert world.publishes.opened == 1


async def test_a_lane_with_a_newer_owner_publishes_nothing_again_and_fences_nobody() -> None:
    world = World(b"1", b"2")

    def is_taken(_: Sequence[Message], __: int) -> Exception:
        world.row.owner = uuid4()
        return OutcomeUnknown("it looked like a broken connection")

    world.publishes.faults = [is_taken]
    running, _ = world.start()

    with pytest.raises(LaneLost, match="another worker"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.publishes.opened == 1
    assert world.publishes.commands == []


async def test_who_sleeps_between_the_question_and_its_producer_publishes_nothing_again() -> None:
    world = World(b"a", b"b")
    world.publishes.faults = [lambda *_: OutcomeUnknown("it looked like a broken connection")]
    opened = world.publishes.open

    async def open_late() -> None:
        if world.publishes.opened:
            world.row.owner = uuid4()  # meanwhile a successor took the row
        await opened()

    world.publishes.open = open_late  # type: ignore[method-assign]
    running, _ = world.start()
    with pytest.raises(LaneLost, match="another worker has taken the lane"):
        await in_time(running, "the lane ended", seen=world.state)

    assert (world.publishes.opened, world.publishes.published) == (2, [])


async def test_a_database_that_cannot_name_the_owner_is_waited_for_before_a_batch_is_published_again() -> None:
    world = World(b"1", b"2")
    world.publishes.faults = [lambda *_: OutcomeUnknown("lost")]
    world.row.away_times = 2

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert world.publishes.opened == 2
    assert world.row.away_times == 0
    assert not world.health.dependencies_away()


async def test_a_lane_that_waits_goes_on_as_soon_as_anybody_finds_the_dependency_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.resilience.backoff.SHORTEST", 60.0)
    world = World(b"1")
    world.decides.trouble = [DependencyUnavailable("postgres", "away")]
    lane, drain = world.start()
    await world.until(lambda: "postgres" in world.health.dependencies_away())
    assert world.decides.tried == 1

    world.health.back("kafka")
    world.health.back("postgres")
    await world.until(lambda: world.log.committed_offset == 1)

    drain.set()
    await in_time(lane, "the lane ended", seen=world.state)


async def test_no_lane_takes_its_row_before_the_group_has_confirmed_the_worker() -> None:
    world = World(b"1")
    world.group.speaks.clear()
    lane, drain = world.start()
    await turns()
    assert world.row.owner is None
    drain.set()
    with pytest.raises(LaneLost, match="without this worker"):
        await lane
    assert world.row.owner is None


async def test_a_lane_that_cannot_publish_again_and_again_says_why() -> None:
    world = World(b"1")
    reasons: list[str] = []

    def told(_: Sequence[Message], __: int) -> Exception:
        reasons.append(world.health.lanes()[SOURCE].reason)
        return OutcomeUnknown("TopicAuthorizationFailedError: results")

    world.publishes.faults = [told] * 4

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert reasons == ["", "", *["kafka: TopicAuthorizationFailedError: results"] * 2]
    assert world.health.lanes()[SOURCE].state == "working"
    assert not world.health.dependencies_away()


async def test_a_clock_that_is_refused_is_to_blame_from_the_first_time_on_and_not_kafka() -> None:
    world = World(b"1")
    away: list[list[str]] = []

    def told(_: Sequence[Message], __: int) -> Exception:
        away.append(list(world.health.dependencies_away()))
        return StampsRefused("InvalidTimestampError")

    world.publishes.faults = [told] * 3

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert away == [[], ["clock"], ["clock"]]
    assert not world.health.dependencies_away()
    await world.context.clock_refusal.look()  # the records taken in the end prove the clock good


async def test_what_a_lane_waits_for_is_not_missed_any_more_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.resilience.backoff.SHORTEST", 60.0)
    world = World(b"a")
    world.publishes.faults = [lambda *_: StampsRefused("InvalidTimestampError")] * 2
    running, drain = world.start()
    await world.until(lambda: "clock" in world.health.dependencies_away())
    drain.set()
    with suppress(ClockRefused):
        await in_time(running, "the lane ended", seen=world.state)
    world.health.lane_gone(SOURCE)
    assert not world.health.dependencies_away()


async def test_a_lane_that_starts_has_proved_nothing_of_the_clock() -> None:
    world = World()
    for missing in (ClockRefused(), DependencyUnavailable("kafka", "away")):
        world.health.away(missing)
    await world.run_until(lambda: world.health.lanes()[SOURCE].state == "working")
    assert list(world.health.dependencies_away()) == ["clock"]


async def test_an_order_that_the_clock_is_in_the_way_of_blames_the_clock() -> None:
    world = World(b"0", b"1")
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 1, 1
    world.row.ordered_offset = 0
    world.publishes.faults = [lambda *_: StampsRefused("InvalidTimestampError")]
    running, _ = world.start()

    with pytest.raises(ClockRefused):
        await in_time(running, "the lane ended", seen=world.state)
    with pytest.raises(ClockRefused):
        await world.context.clock_refusal.look()


@pytest.mark.parametrize("topics", [[], [OUTGOING.transitions]])
async def test_an_order_whose_events_are_taken_speaks_for_the_clock_and_one_without_says_nothing(
    topics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def events(*_: object) -> list[Message]:
        return [Message(topic, None, b"event", ()) for topic in topics]

    monkeypatch.setattr(Starter, "_events_of_the_lost", events)
    world = World(b"0")
    world.log.committed_offset = world.row.first_offset = world.row.next_offset = world.row.ordered_offset = 1
    world.context.clock_refusal.refused()

    await world.run_until(lambda: world.row.ordered_offset is None)

    assert await is_believed(world) == bool(topics)


async def test_what_only_a_reply_topic_has_taken_says_nothing_of_the_clock() -> None:
    world = World(b"a")
    world.others = {"replies": 4}
    world.decides.reply = ReplyTo("reply_to", "replies", 3)
    world.context.clock_refusal.refused()

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert [message.topic for _, written in world.publishes.published for message in written] == ["replies"]
    assert not await is_believed(world)


async def is_believed(world: World) -> bool:
    """True if there is no evidence against the clock."""
    try:
        await world.context.clock_refusal.look()
    except ClockRefused:
        return False
    return True


async def test_an_offset_that_is_neither_old_nor_new_loses_the_lane_and_publishes_nothing() -> None:
    world = World(b"a", b"b")

    def moved(_: Sequence[Message], __: int) -> Exception:
        world.log.committed_offset = 1
        return OutcomeUnknown("lost")

    world.publishes.faults = [moved]
    running, _ = world.start()

    with pytest.raises(LaneLost, match="1, neither None nor 2"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.publishes.commands == []
    assert world.publishes.closed == 1


async def test_a_fenced_producer_loses_the_lane_without_a_new_one() -> None:
    world = World(b"a")
    world.publishes.faults = [lambda *_: Fenced("ProducerFenced")]
    running, _ = world.start()

    with pytest.raises(LaneLost):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.publishes.opened == 1


def refuses_more_than(count: int) -> Callable[[Sequence[Message], int], Exception | None]:
    return lambda messages, _: MessageTooLarge("too large") if len(messages) > count else None


async def test_answers_refused_together_are_published_in_halves_and_in_order() -> None:
    world = World(*[b"x"] * 5)
    world.publishes.faults = [refuses_more_than(1)] * 20

    await world.run_until(lambda: world.log.committed_offset == 5)

    assert world.publishes.commands == ["0", "1", "2", "3", "4"]
    assert [offset for offset, _ in world.publishes.published] == [1, 2, 3, 4, 5]


async def test_the_one_answer_that_is_refused_is_shortened_and_keeps_its_status() -> None:
    world = World(b"a", b"b", b"c")

    def refuses(messages: Sequence[Message], _: int) -> Exception | None:
        whole = sum(len(dict(each.headers).get("causation_id", b"")) for each in messages)
        return MessageTooLarge("too large") if len(messages) > 1 and whole else None

    world.publishes.faults = [refuses, lambda *_: MessageTooLarge("too large")]

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.publishes.commands == ["0", "1", "2"]
    assert {dict(each.headers)["status_code"] for _, written in world.publishes.published for each in written} == {
        b"ACCESS_DENIED"
    }


def letters_in(written: Sequence[Message]) -> list[Message]:
    return [message for message in written if message.topic == OUTGOING.dead_letters]


@pytest.mark.parametrize("size", [10, 50_000])
async def test_a_dead_letter_that_cannot_be_written_is_cut_and_then_left_out_with_a_word(size: int) -> None:
    world = World(b"x" * size, b"y")
    world.decides.code = StatusCode.MALFORMED_REQUEST
    tried: list[list[Message]] = []

    def silent(messages: Sequence[Message], _: int) -> Exception | None:
        tried.append(letters_in(messages))
        return OutcomeUnknown("TimeoutError") if tried[-1] else None

    world.publishes.faults = [silent] * 20

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert [len(letters) for letters in tried] == [2] * 6 + [0]
    assert ["dl_truncated" in dict(letters[0].headers) for letters in tried[:6]] == [False] * 3 + [size > 10_000] * 3
    [(_, answers)] = world.publishes.published
    assert [b"its dead letter could not be written" in (answer.value or b"") for answer in answers] == [True, True]
    assert b"dead_letters_left_out_total 2.0" in world.context.metrics.text()
    assert b'effective_worker_dead_letters_total{code="MALFORMED_REQUEST"} 0.0' in world.context.metrics.text()


async def test_a_broker_that_takes_nothing_without_the_dead_letter_either_is_away_and_gets_it_in_the_end() -> None:
    world = World(b"x" * 50_000)
    world.decides.code = StatusCode.MALFORMED_REQUEST
    world.publishes.faults = [lambda *_: OutcomeUnknown("TimeoutError")] * 7

    await world.run_until(lambda: world.log.committed_offset == 1)

    [(_, written)] = world.publishes.published
    [letter] = letters_in(written)
    assert letter.value == b"x" * 50_000
    assert b"dead_letters_left_out_total 0.0" in world.context.metrics.text()


@pytest.mark.parametrize("refusals", [6, 13])
async def test_no_dead_letter_is_left_out_for_a_clock_that_is_refused(
    refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.resilience.backoff.LONGEST", 0.01)
    world = World(b"x" * 50_000)
    world.decides.code = StatusCode.MALFORMED_REQUEST
    world.publishes.faults = [lambda *_: StampsRefused("InvalidTimestampError")] * refusals

    await world.run_until(lambda: world.log.committed_offset == 1)

    [(_, written)] = world.publishes.published
    [letter] = letters_in(written)
    assert letter.value == b"x" * 50_000
    assert b"dead_letters_left_out_total 0.0" in world.context.metrics.text()


async def test_a_lane_is_not_ready_before_it_has_worked_off_what_it_read_first() -> None:
    world = World(b"a")
    states: list[str] = []

    def seen(_: Sequence[Message], __: int) -> None:
        states.append(world.health.lanes()[SOURCE].state)

    world.publishes.faults = [seen, seen]
    running, drain = world.start()
    await world.until(lambda: SOURCE in (lanes := world.health.lanes()) and lanes[SOURCE].state == "working")
    world.log.append(b"b")
    await world.until(lambda: world.log.committed_offset == 2)
    drain.set()
    await in_time(running, "the lane ended after a drain", seen=world.state)

    assert states == ["starting", "working"]


async def test_a_database_that_is_away_is_waited_out_and_the_batch_kept() -> None:
    world = World(b"a")
    world.decides.trouble = [DependencyUnavailable("postgres", "away")] * 3

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.decides.tried == 4
    assert world.publishes.commands == ["0"]
    assert not world.health.dependencies_away()


async def test_a_blown_fuse_pauses_the_lane_which_then_takes_one_command_at_a_time() -> None:
    world = World(b"0", b"1", b"2")
    world.decides.trouble = [BreakerOpen()] * 100_000
    for _ in range(FAILURES):
        world.context.breaker.failed()
    running, drain = world.start()
    await world.until(lambda: "paused" in [lane.state for lane in world.health.lanes().values()])
    ready, document = world.health.ready()
    assert not ready
    assert "is paused" in document["reason"]
    assert world.health.live()[0]

    world.decides.trouble.clear()
    await world.until(lambda: world.log.committed_offset == 3)
    drain.set()
    await running

    assert [offset for offset, _ in world.publishes.published] == [1, 2, 3]


async def test_a_lane_told_to_drain_while_postgres_is_away_drops_its_batch() -> None:
    world = World(b"a")
    world.decides.trouble = [DependencyUnavailable("postgres", "away")] * 100_000

    await world.run_until(lambda: world.decides.tried > 2)

    assert world.publishes.commands == []
    assert world.log.committed_offset is None


async def test_a_decided_and_unpublished_batch_is_taken_again_from_the_committed_offset() -> None:
    world = World(b"a", b"b", b"c")
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 1, 3

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.publishes.commands == ["1", "2"]


async def test_offsets_set_back_are_counted() -> None:
    world = World(b"a", b"b", b"c")
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 0, 2, 3

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.publishes.commands == ["0", "1", "2"]
    assert b"effective_worker_offsets_set_back_total 1.0" in world.context.metrics.text()


async def test_a_lane_that_may_not_start_reads_nothing() -> None:
    world = World(b"a", b"b", b"c")
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 3, 0, 1
    running, _ = world.start()

    with pytest.raises(LaneBlocked):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.log.position == 0
    assert world.publishes.closed == 1


def mended() -> World:
    """Return three commands, one of them decided, an offset of three, and the order to go back to the second."""
    world = World(b"a", b"b", b"c")
    world.log.committed_offset = 3
    world.row.first_offset = world.row.next_offset = world.row.ordered_offset = 1
    return world


async def test_a_quiet_lane_notes_once_that_all_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 0.001)
    world = World(b"a")
    running, drain = world.start()
    await world.until(lambda: world.row.first_offset == 1)
    looked = world.log.looks
    await world.until(lambda: world.log.looks > looked + 5)
    assert world.row.settled == 1
    world.log.append(b"b")
    await world.until(lambda: world.row.first_offset == 2)
    drain.set()
    await in_time(running, "the lane ended after a drain", seen=world.state)

    assert world.row.settled == 2


async def test_a_drained_lane_notes_that_all_is_published() -> None:
    world = World(b"a")

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert (world.row.first_offset, world.row.next_offset) == (1, 1)


async def test_an_idle_lane_notices_that_somebody_has_taken_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 0.01)
    monkeypatch.setattr("worker.lanes.lane.QUIET_READS", 1)
    monkeypatch.setattr("worker.lanes.lane.ROW_SECONDS", 0)
    world = World(b"a")
    running, _ = world.start()
    await world.until(lambda: world.row.settled == 1)
    world.row.away_times = 2  # no reason to let go
    await world.until(lambda: not world.row.away_times)
    world.row.owner = uuid4()  # a person has chosen a way out, or another worker owns it

    with pytest.raises(LaneLost, match="another worker has taken the lane"):
        await in_time(running, "the lane ended", seen=world.state)


async def test_a_database_that_is_away_at_a_drain_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 60)
    world = World(b"a")
    running, drain = world.start()
    await world.until(lambda: world.log.looking == 1 and world.log.committed_offset == 1)
    world.row.away_times = 1
    drain.set()

    await in_time(running, "the lane ended after a drain", seen=world.state)

    assert (world.row.settled, world.row.first_offset) == (1, 0)


async def test_offsets_that_the_group_has_forgotten_are_counted_where_something_may_be_published_again() -> None:
    forgotten, settled = World(b"a", b"b"), World(b"a", b"b")
    set_row(forgotten, Row(1, 2))
    set_row(settled, Row(2, 2))

    await forgotten.run_until(lambda: forgotten.log.committed_offset == 2)
    settled.log.append(b"c")
    await settled.run_until(lambda: settled.log.committed_offset == 3)

    assert (forgotten.publishes.commands, settled.publishes.commands) == (["1"], ["2"])
    assert b"offsets_missing_total 1.0" in forgotten.context.metrics.text()
    assert b"offsets_missing_total 0.0" in settled.context.metrics.text()


async def test_commands_that_were_removed_unread_are_written_down_counted_and_passed() -> None:
    world = World(b"a", b"b", b"c", b"d")
    set_row(world, Row(1, 2))
    world.log.committed_offset, world.log.start = 1, 3

    await world.run_until(lambda: world.log.committed_offset == 4)

    assert world.row.lost == [(1, 3, 2)]
    assert world.row.ordered_offset is None
    assert [offset for offset, _ in world.publishes.published] == [3, 4]
    assert world.publishes.commands == ["3"]
    assert b"effective_worker_commands_lost_total 2.0" in world.context.metrics.text()
    assert "lost commands before they were answered, at offsets 1 to 2 (those below 2 decided, and not told)" in reason(
        world
    )


async def test_what_is_lost_is_written_down_once_wherever_the_lane_is_stopped() -> None:
    world = World(b"a", b"b", b"c")
    set_row(world, Row(1, 1))
    world.log.committed_offset, world.log.start = 1, 2
    world.publishes.faults = [lambda *_: Fenced("a newer one")]
    with pytest.raises(LaneLost):
        await in_time(world.start()[0], "the lane ended", seen=world.state)
    assert (world.row.lost, world.row.ordered_offset, world.log.committed_offset) == ([(1, 2, 1)], 2, 1)

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.row.lost == [(1, 2, 1)]
    assert world.publishes.commands == ["2"]


async def test_a_lane_under_which_the_log_is_cut_at_its_beginning_starts_again() -> None:
    world = World(b"a", b"b")
    running, _ = world.start()
    await world.until(lambda: world.log.committed_offset == 2 and world.log.looking == 1)
    world.log.values += [b"c", b"d"]
    world.log.start = 3
    with pytest.raises(LaneLost, match="no longer in the log"):
        await in_time(running, "the lane ended", seen=world.state)


async def test_health_is_silent_about_a_loss_once_a_person_has_acknowledged_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.lanes.lane.LOSSES_SECONDS", 0)
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 0.01)
    world = World(b"a")
    set_row(world, Row(1, 1, lost=[(0, 1, 0)], losses_untold=2))
    world.log.committed_offset, world.log.start = 1, 1
    running, drain = world.start()
    await world.until(lambda: "partition 0 has lost" in reason(world))
    assert b"effective_worker_unacknowledged_losses 1.0" in world.context.metrics.text()
    world.row.acknowledged = True
    await world.until(lambda: "has lost" not in reason(world))
    assert b"effective_worker_unacknowledged_losses 0.0" in world.context.metrics.text()
    drain.set()
    await in_time(running, "the lane ended after a drain", seen=world.state)


def reason(world: World) -> str:
    return str(world.health.ready()[1]["reason"])


A_TOPIC, ANOTHER = UUID(int=1), UUID(int=2)


def set_row(world: World, row: Row) -> None:
    """Set the lane's row as it is before the first start."""
    vars(world.row).update(vars(row))


async def blocked_for(world: World) -> str:
    running, _ = world.start()
    with pytest.raises(LaneBlocked) as blocked:
        await in_time(running, "the lane ended", seen=world.state)
    return blocked.value.reason


async def test_a_lane_learns_the_topic_that_it_decides_on() -> None:
    world = World(b"a")
    world.topic_ids[SOURCE.topic] = A_TOPIC

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.row.topic_id == A_TOPIC


async def test_a_topic_made_anew_blocks_the_lane_in_its_row_however_long_its_log_is() -> None:
    world = World(b"a", b"b", b"c")
    set_row(world, Row(1, 2, topic_id=A_TOPIC, last=(1, 1)))
    world.log.committed_offset = 2
    world.topic_ids[SOURCE.topic] = ANOTHER

    reason = await blocked_for(world)

    assert str(A_TOPIC) in reason
    assert str(ANOTHER) in reason
    assert world.row.blocked == reason
    assert world.publishes.published == []
    # It does not dissolve, and sends no more requests.
    world.topic_ids[SOURCE.topic] = A_TOPIC
    opened = world.publishes.opened
    assert await blocked_for(world) == reason
    assert world.publishes.opened == opened


async def test_another_record_in_the_place_of_the_last_one_blocks_the_lane_in_its_row() -> None:
    world = World(b"a", b"b", b"c")
    set_row(world, Row(1, 2, last=(1, 99)))
    world.log.committed_offset = 2

    reason = await blocked_for(world)

    assert "at offset 1 and was of 99" in reason
    assert "one of 1" in reason
    assert world.row.blocked == reason
    assert world.publishes.published == []


async def test_the_same_record_is_compared_and_not_decided_again() -> None:
    world = World(b"a", b"b", b"c")
    set_row(world, Row(1, 2, last=(1, 1)))
    world.log.committed_offset = 2

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.publishes.commands == ["2"]


async def test_a_record_that_retention_has_removed_is_not_missed() -> None:
    world = World(b"a", b"b", b"c")
    set_row(world, Row(1, 2, last=(1, 99)))
    world.log.committed_offset = world.log.start = 2

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert world.row.blocked is None


async def test_a_log_whose_end_is_told_late_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.start.BEHIND_SECONDS", stretched(60))
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 0.001)
    world = World(b"a")
    set_row(world, Row(1, 2))
    world.log.committed_offset = 2
    running, drain = world.start()
    await world.until(lambda: world.health.lanes()[SOURCE].state == "waiting" if world.health.lanes() else False)

    world.log.append(b"b")
    world.log.append(b"c")
    await world.until(lambda: world.log.committed_offset == 3)
    drain.set()
    await in_time(running, "the lane ended after a drain", seen=world.state)

    assert world.publishes.commands == ["2"]
    assert world.row.blocked is None


async def test_a_drain_while_the_end_of_the_log_is_looked_at_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.start.BEHIND_SECONDS", stretched(60))
    world = World(b"a")
    set_row(world, Row(1, 2))
    world.log.committed_offset = 2
    running, drain = world.start()
    await world.until(lambda: SOURCE in (lanes := world.health.lanes()) and lanes[SOURCE].state == "waiting")
    drain.set()

    with pytest.raises(LaneLost, match="told to drain"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.row.blocked is None


async def test_a_log_that_stays_too_short_blocks_the_lane_and_growing_does_not_help_it() -> None:
    world = World(b"a")
    set_row(world, Row(1, 2))
    world.log.committed_offset = 2

    reason = await blocked_for(world)
    world.log.append(b"b")
    world.log.append(b"c")

    assert await blocked_for(world) == reason == world.row.blocked


async def test_who_was_overtaken_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(b"a")
    set_row(world, Row(1, 2, topic_id=A_TOPIC))
    world.topic_ids[SOURCE.topic] = ANOTHER

    async def overtaken(_: TopicPartition) -> int | None:
        world.row.owner = uuid4()
        return 2

    monkeypatch.setattr(world.log, "committed", overtaken)
    running, _ = world.start()

    with pytest.raises(LaneLost):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.row.blocked is None


async def test_a_lane_at_work_is_lost_as_soon_as_its_topic_is_another() -> None:
    world = World(b"a")
    world.topic_ids[SOURCE.topic] = A_TOPIC
    running, _ = world.start()
    await world.until(lambda: world.log.committed_offset == 1)

    world.topic_ids[SOURCE.topic] = ANOTHER
    await world.watch.look()

    with pytest.raises(LaneLost, match="created again"):
        await in_time(running, "the lane ended", seen=world.state)


async def test_a_topic_that_is_not_there_makes_kafka_away_until_it_is_back() -> None:
    world = World(b"a")
    found = world.topic_ids.pop(SOURCE.topic)

    await world.watch.look()
    away = world.health.dependencies_away()["kafka"].reason
    with pytest.raises(DependencyUnavailable):
        await world.watch.id_of(SOURCE.topic)
    world.topic_ids[SOURCE.topic] = found
    await world.watch.look()

    assert SOURCE.topic in away
    assert not world.health.dependencies_away()


async def test_an_ordered_offset_is_committed_before_the_lane_goes_on_from_it() -> None:
    world = mended()

    await world.run_until(lambda: world.log.committed_offset == 3 and world.row.next_offset == 3)

    assert [offset for offset, _ in world.publishes.published] == [1, 3]
    assert world.publishes.commands == ["1", "2"]
    assert world.row.ordered_offset is None
    assert world.publishes.opened == 2  # a new producer settles the commit before the offset is read


@pytest.mark.parametrize("committed", [False, True])
async def test_an_order_that_was_perhaps_not_carried_out_stands_for_the_next_start(*, committed: bool) -> None:
    world = mended()
    world.publishes.faults = [lambda _messages, _offset: OutcomeUnknown("RequestTimedOutError")]
    world.publishes.lost_after_commit = committed
    running, _ = world.start()

    with pytest.raises(DependencyUnavailable, match="RequestTimedOutError"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.row.ordered_offset == 1
    assert world.decides.tried == 0
    await world.run_until(lambda: world.row.next_offset == 3 and world.log.committed_offset == 3)

    assert world.publishes.commands == ["1", "2"]


async def test_who_was_fenced_while_it_obeyed_has_lost_the_lane() -> None:
    world = mended()
    world.publishes.faults = [lambda _messages, _offset: Fenced("ProducerFenced")]
    running, _ = world.start()

    with pytest.raises(LaneLost, match="ProducerFenced"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.row.ordered_offset == 1


@pytest.mark.parametrize("moment", ["open", "publish"])
async def test_who_was_overtaken_while_it_obeyed_sets_no_offset_back(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    world = mended()
    carried_out = getattr(world.publishes, moment)

    async def stood_still(*arguments: Any) -> None:
        await carried_out(*arguments)
        # Meanwhile a successor took the row, found the order there, obeyed it and went on.
        world.row.owner, world.row.ordered_offset = uuid4(), None if moment == "open" else 1

    monkeypatch.setattr(world.publishes, moment, stood_still)
    running, _ = world.start()

    with pytest.raises(LaneLost, match="another worker has taken the lane"):
        await in_time(running, "the lane ended", seen=world.state)
    assert [offset for offset, _ in world.publishes.published] == ([] if moment == "open" else [1])
    assert world.decides.tried == 0
    assert world.row.ordered_offset == (None if moment == "open" else 1)


async def test_a_lane_that_was_taken_over_while_it_started_is_lost_and_blames_no_offset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(b"a", b"b", b"c")
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 0, 1
    opened = world.publishes.open

    async def stood_still() -> None:
        await opened()
        # Meanwhile a successor took the row, decided, and published.
        world.row.owner, world.row.first_offset, world.row.next_offset = uuid4(), 2, 3
        world.log.committed_offset = 3

    monkeypatch.setattr(world.publishes, "open", stood_still)
    running, _ = world.start()

    with pytest.raises(LaneLost, match="another worker has taken the lane"):
        await in_time(running, "the lane ended", seen=world.state)
    assert world.log.position == 0
    assert world.publishes.closed == 1


async def test_a_lane_owns_its_row_and_fences_before_it_reads_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = World(b"a"), []
    for target, name in ((world.row, "fetchrow"), (world.publishes, "open"), (world.log, "committed")):
        inner = getattr(target, name)

        async def noted(*arguments: Any, inner: Any = inner, name: str = name, **options: Any) -> Any:
            steps.append(name)
            return await inner(*arguments, **options)

        monkeypatch.setattr(target, name, noted)

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert steps[:3] == ["fetchrow", "open", "committed"]


# --- answers that go elsewhere ----------------------------------------------------------------------------------------

ELSEWHERE: Final = ReplyTo("reply_to", "replies", 3)


def redirected(*values: bytes) -> World:
    world = World(*values)
    world.decides.reply = ELSEWHERE
    world.others = {"replies": 4}
    return world


def places(world: World) -> list[tuple[str, int | None]]:
    return [(message.topic, message.partition) for _, written in world.publishes.published for message in written]


async def test_an_answer_goes_where_its_sender_wants_it_and_nowhere_else() -> None:
    world = redirected(b"a", b"b")

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert places(world) == [("replies", 3)] * 2


async def test_a_reply_topic_to_blame_loses_its_answers_to_the_results_topic() -> None:
    world = redirected(b"a", b"b")
    world.publishes.faults = [lambda *_: OutcomeUnknown("forbidden", frozenset({"replies"}))]

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert places(world) == [("results", None)] * 2


async def test_a_reply_topic_that_is_gone_loses_its_answers_to_the_results_topic() -> None:
    world = redirected(b"a")
    world.others = {}
    world.publishes.faults = [lambda *_: OutcomeUnknown("no answer")]

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert places(world) == [("results", None)]


async def test_a_failure_that_is_not_the_reply_topics_leaves_the_answers_to_it() -> None:
    world = redirected(b"a")
    world.publishes.faults = [lambda *_: OutcomeUnknown("lost"), lambda *_: OutcomeUnknown("lost")]

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert places(world) == [("replies", 3)]


async def test_an_answer_too_large_is_shortened_where_its_sender_waits() -> None:
    world = redirected(b"a")
    world.publishes.faults = [lambda *_: MessageTooLarge("too large")]

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert places(world) == [("replies", 3)]


async def test_a_reply_topic_that_takes_not_even_a_short_answer_does_not_stop_the_lane() -> None:
    world = redirected(b"a", b"b")
    small = [lambda *_: MessageTooLarge("too large")] * 3
    world.publishes.faults = [*small]

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert places(world) == [("results", None), ("replies", 3)]
    assert world.publishes.commands == ["0", "1"]


async def test_a_broker_that_does_not_tell_of_a_topic_is_waited_for_and_is_back_when_it_does() -> None:
    world = World(b"a")
    world.decides.trouble = [DependencyUnavailable("kafka", "no answer while topics were looked up")]

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.health.dependencies_away() == {}


# --- traces -----------------------------------------------------------------------------------------------------------


async def test_each_command_is_a_span_in_its_senders_trace_that_its_answer_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(id_generator=id_generator())
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("worker.observability.tracing._TRACER", provider.get_tracer("test"))
    world = World(b"a", b"b")
    world.decides.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    world.decides.dry_runs = frozenset({b"b"})

    await world.run_until(lambda: len(spans.get_finished_spans()) >= 5)

    commands = [span for span in spans.get_finished_spans() if span.name == "set effective"]
    assert [f"{span.context.trace_id:x}" for span in commands] == ["a" * 32] * 2
    named = [dict(message.headers)["traceparent"] for _, written in world.publishes.published for message in written]
    assert [f"00-{'a' * 32}-{span.context.span_id:016x}-01".encode() for span in commands] == named
    assert [dict(span.attributes or {})["status_code"] for span in commands] == ["ACCESS_DENIED"] * 2
    assert [dict(span.attributes or {}).get("dry_run") for span in commands] == [None, "true"]


# --- dry runs ---------------------------------------------------------------------------------------------------------


async def test_dry_runs_are_counted_apart() -> None:
    world = World(b"a", b"b", b"c")
    world.decides.dry_runs = frozenset({b"b", b"c"})

    await world.run_until(lambda: world.log.committed_offset == 3)

    counted = world.context.metrics.text().decode()
    assert 'effective_worker_answers_total{code="ACCESS_DENIED",replayed="false"} 1.0' in counted
    assert 'effective_worker_dry_runs_total{code="ACCESS_DENIED"} 2.0' in counted


# --- records without a command ----------------------------------------------------------------------------------------


@pytest.fixture
def quiet_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lanes.partition.IDLE_SECONDS", 0.01)


@pytest.mark.usefixtures("quiet_soon")
async def test_a_quiet_lane_commits_past_markers_in_postgres_first() -> None:
    world = World(b"a", None, None)

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert [offset for offset, _ in world.publishes.published] == [1, 3]
    assert world.publishes.published[-1][1] == []
    assert (world.row.first_offset, world.row.next_offset) == (3, 3)
    assert world.publishes.commands == ["0"]


@pytest.mark.usefixtures("quiet_soon")
async def test_a_lane_with_nothing_but_markers_has_an_offset_and_commits_it_once() -> None:
    world = World(None, None)
    running, drain = world.start()
    await world.until(lambda: world.log.committed_offset == 2)
    world.log.append(None)
    await world.until(lambda: world.log.committed_offset == 3)
    world.log.append(b"a")
    await world.until(lambda: world.log.committed_offset == 4)
    drain.set()
    await in_time(running, "the lane ended after a drain")

    assert [offset for offset, _ in world.publishes.published] == [2, 3, 4]


@pytest.mark.usefixtures("quiet_soon")
async def test_a_lane_that_died_between_passing_by_and_committing_goes_on_and_does_it_again() -> None:
    world = World(b"a", None)
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 1, 2

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert world.publishes.commands == []
    assert (world.row.first_offset, world.row.next_offset) == (2, 2)


@pytest.mark.usefixtures("quiet_soon")
async def test_a_lane_that_may_not_pass_by_commits_nothing() -> None:
    world = World(b"a", None)
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 0, 1
    world.decides.trouble = [LaneLost("postgres: another worker has taken the lane")]
    running, _ = world.start()

    with pytest.raises(LaneLost):
        await in_time(running, "the lane was lost")

    assert (world.log.committed_offset, world.publishes.published) == (1, [])


@pytest.mark.usefixtures("quiet_soon")
async def test_a_database_that_is_away_is_waited_for_before_markers_are_passed() -> None:
    world = World(b"a", None)
    world.log.committed_offset, world.row.first_offset, world.row.next_offset = 1, 0, 1
    world.decides.trouble = [DependencyUnavailable("postgres", "away")]

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert world.health.dependencies_away() == {}


@pytest.mark.usefixtures("quiet_soon")
async def test_an_unknown_outcome_of_passing_by_is_settled_as_that_of_a_batch() -> None:
    world = World(None)
    world.publishes.faults = [lambda *_: OutcomeUnknown("no answer"), lambda *_: None]

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.publishes.opened == 2


async def test_a_busy_lane_passes_no_marker_by() -> None:
    world = World(b"a", None, b"b", None)

    await world.run_until(lambda: world.log.committed_offset == 3)

    assert [offset for offset, _ in world.publishes.published] == [3]


async def test_what_a_lane_has_in_hand_is_its_backlog_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(b"a", b"b")
    world.decides.trouble = [DependencyUnavailable("postgres", "away")]
    seen = []
    inner = world.decides.run

    async def looked(*arguments: Any) -> Any:
        seen.append(world.backlog.behind()[SOURCE])
        return await inner(*arguments)

    monkeypatch.setattr(world.decides, "run", looked)

    await world.run_until(lambda: world.log.committed_offset == 2)

    assert [each.lag for each in seen] == [2, 2]
    assert [each.in_hand for each in seen] == [2, 2]
    assert all(each.age > 1_000_000 for each in seen)  # its timestamp is of 1970
    assert world.backlog.behind()[SOURCE] == Behind(0, 0.0, 0)


async def test_what_a_lost_lane_has_left_is_backlog_still() -> None:
    world = World(b"a")
    world.decides.trouble = [LaneLost("another")]
    running, _ = world.start()
    with pytest.raises(LaneLost):
        await in_time(running, "the lane was lost")
    assert world.backlog.behind()[SOURCE].lag == 1

    await world.run_until(lambda: world.log.committed_offset == 1)

    assert world.backlog.behind()[SOURCE].lag == 0
