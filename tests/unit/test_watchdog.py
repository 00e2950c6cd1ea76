"""A dead client that looks idle is found; one that is only idle, busy or cut off is left alone."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from tests.support.doubles import subscription
from tests.support.waiting import in_time
from worker.errors import ClientStuck
from worker.kafka.backlog import Backlog
from worker.kafka.watchdog import LOOK_SECONDS, PATIENCE_SECONDS, Watchdog
from worker.observability.health import Health

ONE = TopicPartition("commands", 1)


class Client:
    """A consumer, its tasks, the log behind it and the lanes' polls for records."""

    def __init__(self) -> None:
        self.assigned = {ONE}
        self.end: int | Exception = 10
        self.seen: int | None = 10
        self.looks = {ONE: asyncio.get_running_loop().create_future()}
        self.now = 100.0
        self.health = Health()
        self._fetcher = SimpleNamespace(_fetch_task=asyncio.ensure_future(asyncio.Event().wait()))
        self._coordinator = SimpleNamespace(
            _coordination_task=asyncio.ensure_future(asyncio.Event().wait()),
            _heartbeat_task=None,
            _commit_refresh_task=None,
        )
        consumer = cast(AIOKafkaConsumer, self)
        self.backlog = Backlog(consumer, lambda: self.now)
        self.watchdog = Watchdog(consumer, self.looks, self.health, self.backlog, lambda: self.now)

    @property
    def _subscription(self) -> SimpleNamespace:
        return subscription(self.assigned, 7)

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def highwater(self, _: TopicPartition) -> int | None:
        return self.seen

    def last_stable_offset(self, _: TopicPartition) -> int | None:
        return self.seen

    async def end_offsets(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        if isinstance(self.end, Exception):
            raise self.end
        return dict.fromkeys(sources, self.end)

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, with the watchdog looking as often as it does."""
        for _ in range(int(seconds // LOOK_SECONDS)):
            await self.watchdog.look()
            self.now += LOOK_SECONDS
        await self.watchdog.look()


async def test_a_look_that_ends_while_the_broker_is_asked_starves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.seen = 7

    async def ends_meanwhile(sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        client.looks.clear()
        return dict.fromkeys(sources, 10)

    monkeypatch.setattr(client, "end_offsets", ends_meanwhile)
    await client.watchdog.look()
    assert client.looks == {}
    client.watchdog.check()


@pytest.mark.parametrize("seen", [None, 7])
async def test_records_that_are_in_the_log_and_do_not_come_are_a_stuck_client(seen: int | None) -> None:
    client = Client()
    client.seen = seen
    await client.pass_time(PATIENCE_SECONDS)
    client.watchdog.check()
    await client.pass_time(LOOK_SECONDS)
    with pytest.raises(ClientStuck, match="partition 1 of commands has had records for 70 s"):
        client.watchdog.check()
    assert not client.health.live()[0]


async def test_a_lane_without_records_is_idle() -> None:
    client = Client()
    await client.pass_time(3 * PATIENCE_SECONDS)
    client.watchdog.check()


async def test_a_client_that_is_always_a_little_behind_is_not_stuck() -> None:
    client = Client()
    for end in range(10, 300, 10):
        client.end, client.seen = end, end - 5
        await client.pass_time(LOOK_SECONDS)
    client.watchdog.check()


async def test_a_lane_at_work_leaves_records_where_they_are() -> None:
    client = Client()
    client.seen = 7
    client.looks[ONE].set_result({})
    await client.pass_time(3 * PATIENCE_SECONDS)
    client.watchdog.check()


async def test_time_at_work_does_not_count() -> None:
    client = Client()
    client.seen = 7
    await client.pass_time(PATIENCE_SECONDS - LOOK_SECONDS)
    client.looks[ONE].set_result({})
    await client.watchdog.look()
    client.looks[ONE] = asyncio.get_running_loop().create_future()
    await client.pass_time(PATIENCE_SECONDS - LOOK_SECONDS)
    client.watchdog.check()


async def test_a_partition_that_is_somebody_elses_is_not_asked_about() -> None:
    client = Client()
    client.seen = 7
    client.assigned = set()
    await client.pass_time(3 * PATIENCE_SECONDS)
    client.watchdog.check()


async def test_a_broker_that_does_not_answer_is_no_stuck_client() -> None:
    client = Client()
    client.seen = 7
    client.end = kafka.KafkaConnectionError("away")
    await client.pass_time(3 * PATIENCE_SECONDS)
    client.watchdog.check()


async def test_a_watchdog_that_is_told_to_stop_does_not_wait_for_the_broker() -> None:
    client, asked, stop = Client(), asyncio.Event(), asyncio.Event()

    async def silence(_: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    client.end_offsets = silence  # type: ignore[assignment, method-assign] # a broker that does not answer
    running = asyncio.create_task(client.watchdog.run(stop))
    await in_time(asked.wait(), "the watchdog asked the broker")
    stop.set()
    await in_time(running, "the watchdog ended")


@pytest.mark.parametrize("task", ["_fetcher._fetch_task", "_coordinator._coordination_task"])
async def test_a_lasting_task_that_has_ended_is_a_stuck_client(task: str) -> None:
    client = Client()
    owner, name = task.split(".")
    dead = getattr(getattr(client, owner), name)
    dead.cancel()
    await asyncio.wait({dead})
    with pytest.raises(ClientStuck, match=r"task has died"):
        client.watchdog.check()
    assert not client.health.live()[0]


@pytest.mark.parametrize("task", ["_heartbeat_task", "_commit_refresh_task"])
async def test_a_passing_task_may_end_but_not_fail(task: str) -> None:
    client = Client()
    setattr(client._coordinator, task, await _ended(asyncio.sleep(0)))
    client.watchdog.check()
    setattr(client._coordinator, task, await _ended(_dies()))
    with pytest.raises(ClientStuck, match=r"task has died \(KafkaError\)"):
        client.watchdog.check()


async def _dies() -> None:
    raise kafka.KafkaError("died")


async def _ended(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    await asyncio.wait([task])
    task.exception()  # otherwise asyncio reports the exception as never retrieved
    return task


async def test_a_lane_at_work_or_blocked_is_told_how_far_its_log_goes() -> None:
    client = Client()
    client.looks.clear()
    client.seen, client.end = None, 30

    await client.watchdog.look()

    assert client.backlog.behind()[ONE].lag == 23


async def test_a_broker_that_does_not_answer_leaves_the_backlog_as_it_was() -> None:
    client = Client()
    client.seen, client.end = None, 30
    await client.watchdog.look()

    client.end = kafka.KafkaConnectionError("away")
    await client.watchdog.look()

    assert client.backlog.behind()[ONE].lag == 23
