"""A partition assigned to this process has exactly one lane, and a lane ends only with its assignment (DESIGN 2)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from tests.support.clocks import Clock
from tests.support.waiting import SECONDS, turns, until, until_answered
from worker.errors import ClientStuck, DependencyUnavailable, LaneBlocked, LaneLost
from worker.lanes.lane import Lane
from worker.lanes.membership import Membership
from worker.lanes.supervisor import Supervisor
from worker.observability.health import Health
from worker.observability.metrics import Metrics

ONE = TopicPartition("commands", 1)
TWO = TopicPartition("commands", 2)


class Group:
    """The members of a consumer that the supervisor uses, and the group behind it."""

    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()
        self.answers = True
        self.subscribed: Sequence[str] = ()
        self.told: list[str] = []
        self._coordinator = SimpleNamespace(
            _do_heartbeat=self._answer,
            _send_req=self._hear,
            group_id="group",
            member_id="member",
            reset_generation=lambda: self.told.append("reset"),
        )

    async def _answer(self) -> bool:
        return self.answers

    async def _hear(self, request: Any) -> None:
        self.told.append(f"{request._member_id} leaves {request._group}")
        if not self.answers:
            raise kafka.GroupCoordinatorNotAvailableError

    def subscribe(self, topics: Sequence[str], *, listener: Any) -> None:
        self.subscribed = topics
        self.listener = listener

    def unsubscribe(self) -> None:
        self.subscribed, self.assigned = (), set()
        self.told.append("unsubscribe")

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def heartbeat(self) -> bool:
        """Send one heartbeat, as the client's own task does."""
        return bool(await self._coordinator._do_heartbeat())


class MadeLane:
    """A lane that does what the test says."""

    def __init__(self, house: "House", source: TopicPartition, drain: asyncio.Event) -> None:
        self._house = house
        self._drain = drain
        self.source = source
        self.ended = False

    async def run(self) -> None:
        self._house.running.append(self)
        try:
            if self._house.trouble:
                raise self._house.trouble.pop(0)
            await self._house.work(self._drain)
        finally:
            self.ended = True
            self._house.running.remove(self)


class House:
    def __init__(self, *, revoke_seconds: float = SECONDS) -> None:
        self.group = Group()
        self.health = Health()
        self.made: list[MadeLane] = []
        self.running: list[MadeLane] = []
        self.trouble: list[Exception] = []
        self.work: Callable[[asyncio.Event], Awaitable[Any]] = asyncio.Event.wait
        consumer = cast(AIOKafkaConsumer, self.group)
        self.membership = Membership(consumer, session_seconds=10.0)
        self.supervisor = Supervisor(
            consumer,
            self._make,
            self.membership,
            ["commands"],
            health=self.health,
            metrics=Metrics(self.health),
            revoke_seconds=revoke_seconds,
            checks=[self._check_client],
            unfit=lambda: self.unfit,
        )
        self.unfit = ""
        self.stuck = ""
        self.stop = asyncio.Event()

    def _check_client(self) -> None:
        if self.stuck:
            raise ClientStuck(self.stuck)

    def _make(self, source: TopicPartition, drain: asyncio.Event) -> Lane:
        self.made.append(MadeLane(self, source, drain))
        return cast(Lane, self.made[-1])

    async def assign(self, *sources: TopicPartition) -> None:
        await self.supervisor.on_partitions_revoked(self.group.assigned)
        self.group.assigned = set(sources)
        await self.supervisor.on_partitions_assigned(sources)

    @property
    def at_work(self) -> list[int]:
        return sorted(lane.source.partition for lane in self.running)

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds, what="what the test waits for held", pause=0.005, tell=self.state)

    def state(self) -> str:
        """Describe the state, for a wait that timed out."""
        return f"at work {self.at_work}, made {len(self.made)}, lanes {self.health.lanes()}, to come {self.trouble}"


@asynccontextmanager
async def supervised(*, revoke_seconds: float = SECONDS) -> AsyncIterator[House]:
    house = House(revoke_seconds=revoke_seconds)
    running = asyncio.ensure_future(house.supervisor.run(house.stop))
    try:
        yield house
    finally:
        house.stop.set()
        await asyncio.wait({running})
        await house.supervisor.drain(SECONDS)


async def test_every_assigned_partition_gets_one_lane() -> None:
    async with supervised() as house:
        await house.assign(ONE, TWO)
        await house.until(lambda: house.at_work == [1, 2])
        assert len(house.made) == 2


async def test_a_partition_is_not_ready_before_its_lane_has_started() -> None:
    async with supervised() as house:
        await house.supervisor.on_partitions_assigned([ONE])  # the consumer does not show it yet
        ready, document = house.health.ready()
        assert not ready
        assert document["reason"] == "partition 1 is starting"
        await house.assign()
        assert house.health.ready()[0]
        assert house.made == []


async def test_a_lane_ends_with_its_assignment_and_comes_back_with_it() -> None:
    async with supervised() as house:
        await house.assign(ONE, TWO)
        await house.until(lambda: house.at_work == [1, 2])
        await house.assign(TWO)
        await house.until(lambda: house.at_work == [2])
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])


async def test_a_lost_lane_waits_for_a_heartbeat_sent_after_the_loss() -> None:
    async with supervised() as house:
        await house.group.heartbeat()
        house.trouble = [LaneLost("fenced")]
        await house.assign(ONE)
        await house.until(lambda: house.health.lanes()[ONE].reason == "fenced" if house.health.lanes() else False)

        house.group.answers = False
        assert not await house.group.heartbeat()
        # Longer than the first wait between two lanes: the test waits for the heartbeat.
        await asyncio.sleep(0.3)
        assert len(house.made) == 1

        house.group.answers = True
        assert await house.group.heartbeat()
        await house.until(lambda: house.at_work == [1])


async def test_a_lane_that_could_not_start_for_want_of_postgres_needs_no_heartbeat() -> None:
    async with supervised() as house:
        house.trouble = [DependencyUnavailable("postgres", "refused"), DependencyUnavailable("postgres", "refused")]
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])
        assert len(house.made) == 3


async def test_no_error_ends_a_partition_for_good() -> None:
    async with supervised() as house:
        house.trouble = [ZeroDivisionError(), LaneLost("a"), LaneBlocked("b")]

        def is_over() -> bool:
            return not house.trouble and house.at_work == [1]

        await house.assign(ONE)
        await until_answered(house.group.heartbeat, lambda _: is_over(), what="a lane worked again", tell=house.state)


async def test_a_lane_that_is_blocked_is_not_ready_and_says_why() -> None:
    async with supervised() as house:
        house.trouble = [LaneBlocked("the committed offset is 7, but commands were decided up to 5 only")]
        await house.assign(ONE)
        await house.until(lambda: bool(house.health.lanes()) and house.health.lanes()[ONE].state == "blocked")
        ready, document = house.health.ready()
        assert not ready
        assert "committed offset is 7" in document["reason"]


async def test_a_lane_that_was_lost_is_not_ready_before_it_has_started_again() -> None:
    async with supervised() as house:
        house.trouble = [LaneLost("another worker has taken the lane")]
        await house.assign(ONE)
        await house.until(lambda: house.health.lanes()[ONE].state == "waiting")
        ready, document = house.health.ready()
        assert not ready
        assert document["reason"] == "partition 1 is waiting: another worker has taken the lane"


async def test_a_revoked_lane_may_finish_what_it_has_in_hand() -> None:
    finished = asyncio.Event()

    async def finish_in_time(drain: asyncio.Event) -> None:
        await drain.wait()
        await turns()
        finished.set()

    async with supervised() as house:
        house.work = finish_in_time
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])
        await house.supervisor.on_partitions_revoked([ONE])
        assert finished.is_set()


async def test_a_revoked_lane_that_does_not_finish_is_cancelled_wherever_it_is() -> None:
    async def never(_: asyncio.Event) -> None:
        await asyncio.Event().wait()

    async with supervised(revoke_seconds=0.05) as house:
        house.work = never
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])
        await house.supervisor.on_partitions_revoked([ONE])
        assert house.made[0].ended


async def test_after_a_drain_no_lane_starts() -> None:
    async with supervised() as house:
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])
        await house.supervisor.drain(SECONDS)
        await house.supervisor.on_partitions_assigned([ONE])
        await turns()
        assert house.at_work == []
        assert len(house.made) == 1


async def test_a_lane_that_ended_for_a_dependency_starts_again_as_soon_as_that_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.resilience.backoff.SHORTEST", 60.0)
    async with supervised() as house:
        house.trouble = [DependencyUnavailable("postgres", "away")]
        await house.assign(ONE)
        await house.until(lambda: "postgres" in house.health.dependencies_away())
        await turns()
        assert house.at_work == []
        house.health.back("postgres")
        await house.until(lambda: house.at_work == [1])


async def test_what_a_revoked_lane_has_missed_is_not_missed_for_ever() -> None:
    async with supervised() as house:
        house.trouble = [DependencyUnavailable("kafka", "away")] * 1000
        await house.assign(ONE)
        await house.until(lambda: "kafka" in house.health.dependencies_away())
        await house.supervisor.on_partitions_revoked([ONE])
        assert not house.health.dependencies_away()


@pytest.mark.parametrize(
    ("trouble", "missed"),
    [(LaneBlocked("the log was cut"), []), (DependencyUnavailable("postgres", "away"), ["postgres"])],
)
async def test_a_lane_that_ends_misses_only_what_it_ended_for(trouble: Exception, missed: list[str]) -> None:
    async with supervised() as house:
        house.health.away(DependencyUnavailable("kafka", "away"), ONE)
        house.trouble = [trouble] * 1000
        await house.assign(ONE)
        await house.until(lambda: list(house.health.dependencies_away()) == missed)


async def test_a_client_that_only_a_new_process_helps_ends_the_supervision() -> None:
    house = House()
    house.stuck = "the fetcher is dead"
    with pytest.raises(ClientStuck, match="the fetcher is dead"):
        await house.supervisor.run(house.stop)


async def test_a_silent_group_is_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("worker.lanes.membership.time", SimpleNamespace(monotonic=clock))
    group = Group()
    membership = Membership(cast(AIOKafkaConsumer, group), session_seconds=10.0)
    membership.join(["commands"], cast(ConsumerRebalanceListener, None))
    await group.heartbeat()
    clock.now += 10.0
    await membership.look()
    clock.now += 0.1
    with pytest.raises(DependencyUnavailable, match="no heartbeat has been answered"):
        await membership.look()


# --- out of the group -------------------------------------------------------------------------------------------------


async def left(house: House) -> None:
    """Make the house unfit, and wait until it has left its group."""
    await house.until(lambda: house.membership.takes_part)
    house.unfit = "postgres has not answered for 61 s"
    await house.until(lambda: not house.membership.takes_part and bool(house.group.told))


async def test_a_worker_that_can_do_nothing_gives_its_partitions_back_and_says_so() -> None:
    async with supervised() as house:
        await house.assign(ONE, TWO)
        await house.until(lambda: house.at_work == [1, 2])
        await left(house)
        # In this order: the client would not report it for a member with a name, and would report it twice for one
        # without.
        assert house.group.told == ["reset", "unsubscribe", "member leaves group"]
        assert house.at_work == []
        assert house.health.lanes() == {}
        ready, document = house.health.ready()
        assert not ready
        assert "out of the consumer group: postgres has not answered for 61 s" in document["reason"]
        assert document["out_of_group"]["since"]
        assert house.health.live()[0]


async def test_one_that_could_do_nothing_from_the_start_does_not_join() -> None:
    async with supervised() as house:
        house.unfit = "postgres has not answered for 61 s"
        await turns()
        assert not house.group.subscribed
        house.unfit = ""
        await house.until(lambda: bool(house.group.subscribed))
        assert house.group.told == []


async def test_it_takes_part_again_as_soon_as_it_can() -> None:
    async with supervised() as house:
        await house.assign(ONE)
        await left(house)
        house.unfit = ""
        await house.until(lambda: list(house.group.subscribed) == ["commands"])
        assert house.group.listener is house.supervisor
        await house.assign(TWO)
        await house.until(lambda: house.at_work == [2])
        assert "out_of_group" not in house.health.ready()[1]


async def test_what_a_rebalance_assigns_while_the_lanes_drain_is_given_back_as_well() -> None:
    async def slow(drain: asyncio.Event) -> None:
        await drain.wait()
        await house.supervisor.on_partitions_assigned([TWO])

    async with supervised() as house:
        house.work = slow
        await house.assign(ONE)
        await house.until(lambda: house.at_work == [1])
        await left(house)
        house.group.assigned = {ONE, TWO}
        house.supervisor._changed.set()
        await turns()
        assert house.at_work == []
        assert house.health.lanes() == {}


async def test_a_group_that_does_not_hear_of_it_lets_the_session_run_out() -> None:
    async with supervised() as house:
        await house.assign(ONE)
        house.group.answers = False
        await left(house)
        assert house.at_work == []
        house.unfit = ""
        await house.until(lambda: house.membership.takes_part)


async def test_a_group_that_one_has_left_is_not_away(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("worker.lanes.membership.time", SimpleNamespace(monotonic=clock))
    group = Group()
    membership = Membership(cast(AIOKafkaConsumer, group), session_seconds=10.0)
    membership.join(["commands"], cast(ConsumerRebalanceListener, None))
    await membership.leave()
    clock.now += 1000.0
    await membership.look()
    membership.join(["commands"], cast(ConsumerRebalanceListener, None))
    await membership.look()
    clock.now += 10.1
    with pytest.raises(DependencyUnavailable):
        await membership.look()
