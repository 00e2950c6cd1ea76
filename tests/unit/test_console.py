"""The console page: its document, its samples, its events, and how the admin port serves them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from tests.support.clocks import Clock
from tests.support.logins import SECRET
from tests.support.waiting import in_time, turns, until, until_answered
from worker.errors import DependencyUnavailable
from worker.kafka.backlog import Behind
from worker.observability import http
from worker.observability import vocabulary as v
from worker.observability.health import Health
from worker.observability.http import TooManyViewers, serve_admin
from worker.observability.metrics import Durations, Metrics
from worker.observability.recent import MOST_RECENT, Recent, Refusal
from worker.operations.config import changed
from worker.operations.console import feed
from worker.operations.console.feed import MOST_VIEWERS, Feed
from worker.operations.console.group import Group, Known
from worker.operations.console.history import SAMPLES, History, quantile
from worker.operations.console.served import Console
from worker.operations.console.state import About, Sources, document
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.served import Contract
from worker.operations.lanes import Member
from worker.settings import Settings, read_settings

NOW: Final = 1_796_136_966.0


class KnownGroup(Group):
    """A group of which something is known without Kafka."""

    def __init__(self, known: Known) -> None:
        super().__init__(Settings(), lambda: 0.0)
        self._answer = known

    async def known(self) -> Known:
        return self._answer


class World:
    """A worker that the page can show."""

    def __init__(self) -> None:
        self.health = Health(lambda: 100.0, wall=lambda: NOW, bulk_topic="bulk")
        self.health.assigned(True)
        self.metrics, self.recent = Metrics(self.health), Recent()
        self.behind: Mapping[TopicPartition, Behind] = {}
        self.known = Known({})
        self.about = About("host:7", "1.2.3", "group", NOW - 60)

    @property
    def sources(self) -> Sources:
        history = History(self.metrics.answer_seconds, lambda: 0, wall=lambda: NOW, clock=lambda: 0.0)
        return Sources(
            self.about,
            self.health,
            self.metrics,
            self.recent,
            history,
            KnownGroup(self.known),
            behind=lambda: self.behind,
            member=lambda: "me",
            wall=lambda: NOW,
        )

    async def shown(self) -> dict[str, Any]:
        state: dict[str, Any] = orjson.loads(orjson.dumps(await document(self.sources)))
        return state


@pytest.fixture
def world() -> World:
    return World()


def at(partition: int, topic: str = "commands") -> TopicPartition:
    return TopicPartition(topic, partition)


# --- the document -----------------------------------------------------------------------------------------------------


async def test_a_worker_that_is_well_says_so(world: World) -> None:
    world.health.lane(at(0), "working")
    state = await world.shown()
    assert (state["ready"], state["reasons"]) == (True, [])
    assert state["now"] == "2026-12-01T14:56:06Z"
    assert state["worker"] == {
        "name": "host:7",
        "version": "1.2.3",
        "group": "group",
        "member": "me",
        "started": "2026-12-01T14:55:06Z",
    }
    assert {each["name"]: each["state"] for each in state["dependencies"]} == {"kafka": "here", "postgres": "here"}
    assert state["answers"] == [{"code": "OK", "count": 0}]


@pytest.mark.parametrize(
    ("lane", "way_out"),
    [
        ("blocked", "effective-worker lanes show bulk/3"),
        ("paused", "effective-worker dead-letters list"),
        ("waiting", "effective-worker check"),
        ("working", ""),
        ("starting", ""),
        ("draining", ""),
    ],
)
async def test_a_lane_has_its_state_its_reason_and_the_command_to_paste(world: World, lane: Any, way_out: str) -> None:
    world.health.lane(at(3, "bulk"), lane, "why")
    world.behind = {at(3, "bulk"): Behind(7, 1.5, 2, in_hand=4)}
    [shown] = (await world.shown())["lanes"]
    assert (shown["name"], shown["state"], shown["reason"], shown["way_out"]) == ("bulk/3", lane, "why", way_out)
    assert (shown["lag"], shown["oldest_seconds"], shown["hidden"], shown["in_hand"]) == (7, 1.5, 2, 4)
    assert shown["since"] == "2026-12-01T14:56:06Z"


async def test_lost_commands_are_to_be_acknowledged(world: World) -> None:
    world.health.lane(at(0), "working")
    world.health.lost(at(0), ["5 to 8"])
    state = await world.shown()
    assert state["ready"]
    assert "partition 0 has lost commands" in state["reasons"][0]
    assert state["lanes"][0]["losses"] == ["5 to 8"]
    assert state["lanes"][0]["way_out"] == "effective-worker lanes acknowledge 0 --yes"


async def test_a_dependency_that_is_away_has_its_reason_and_since_when(world: World) -> None:
    world.health.away(DependencyUnavailable("clock", "what it stamps is refused"))
    world.health.away(DependencyUnavailable("postgres", "connection refused"))
    state = await world.shown()
    assert not state["ready"]
    assert [(each["name"], each["state"], each["reason"]) for each in state["dependencies"]] == [
        ("clock", "away", "what it stamps is refused"),
        ("kafka", "here", ""),
        ("postgres", "away", "connection refused"),
    ]
    assert state["dependencies"][2]["since"] == "2026-12-01T14:56:06Z"


async def test_answers_are_counted_by_status_and_dry_runs_are_not_among_them(world: World) -> None:
    world.metrics.answered("OK", replayed=False, count=3)
    world.metrics.answered("OK", replayed=True)
    world.metrics.answered("ACCESS_DENIED", replayed=False)
    world.metrics.rehearsed("OK", 9)
    assert (await world.shown())["answers"] == [{"code": "ACCESS_DENIED", "count": 1}, {"code": "OK", "count": 4}]


async def test_the_last_refusals_come_first_with_ids_and_codes(world: World) -> None:
    world.recent.note(Refusal(NOW, "commands", 2, n, f"ce:{n}", "INTERNAL_ERROR", n == 24) for n in range(25))
    shown = (await world.shown())["recent"]
    assert len(shown) == MOST_RECENT
    assert shown[0] == {
        "at": "2026-12-01T14:56:06Z",
        "place": "commands/2/24",
        "command_id": "ce:24",
        "code": "INTERNAL_ERROR",
        "dead_letter": True,
        "way_out": "effective-worker explain commands/2/24",
    }


async def test_the_workers_of_the_group_are_told_with_their_shares(world: World) -> None:
    me, other = Member("me", "10.0.0.1"), Member("other", "10.0.0.2")
    world.known = Known({at(0): me, at(1): other, at(2): other})
    assert (await world.shown())["workers"] == {
        "fault": "",
        "members": [
            {"member": "me", "host": "10.0.0.1", "partitions": 1, "this": True},
            {"member": "other", "host": "10.0.0.2", "partitions": 2, "this": False},
        ],
    }


async def test_settings_that_differ_are_told_and_secrets_are_not(world: World) -> None:
    settings = read_settings(
        {
            "WORKER_LOGIN__SECRETS": SECRET,
            "WORKER_POSTGRES__DSN": "postgresql://worker:hunter2@db/e",
            "WORKER_MAX_BATCH": "7",
            "WORKER_DELIVERY": "exactly_once",
        }
    )
    world.about = About("host:7", "1.2.3", "group", NOW, tuple(changed(settings)))
    shown = (await world.shown())["settings"]
    assert {each["variable"]: each["value"] for each in shown} == {
        "WORKER_LOGIN__SECRETS": ["***"],
        "WORKER_POSTGRES__DSN": "postgresql://worker:***@db/e",
        "WORKER_MAX_BATCH": 7,
    }
    assert SECRET not in json.dumps(shown)


async def test_a_group_that_cannot_be_asked_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def away(_: AIOKafkaAdminClient) -> None:
        nonlocal asked
        asked += 1
        raise KafkaConnectionError("connection refused")

    monkeypatch.setattr(AIOKafkaAdminClient, "start", away)
    clock = Clock()
    group = Group(Settings(), lambda: clock.now)
    assert (await group.known()).fault == "kafka does not answer"
    await group.known()
    assert asked == 1
    clock.now += 60
    await group.known()
    assert asked == 2


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.5, 2.0),
        ([5, 5, 0], 0.5, 1.0),
        ([0, 0, 4], 0.5, 3.0),
        ([99, 1, 0], 0.99, 1.0),
    ],
)
def test_a_quantile_is_taken_from_buckets(counts: list[int], share: float, value: float | None) -> None:
    assert quantile([1.0, 3.0], counts, share) == value


def test_a_sample_is_of_the_time_since_the_last_one() -> None:
    clock, durations, lag = Clock(), Durations(v.ANSWER_SECONDS, lambda: NOW), [3]
    durations.observe([(100.0, None)] * 50)
    history = History(durations, lambda: lag[0], wall=lambda: NOW, clock=lambda: clock.now)
    clock.now += 4
    durations.observe([(0.015, None)] * 8)
    history.take()
    clock.now += 5
    history.take()
    first, second = history.samples()
    assert (first.rate, first.lag, second.rate, second.middle) == (2.0, 3, 0.0, None)
    assert first.middle == pytest.approx(0.0125)
    for _ in range(2 * SAMPLES):
        clock.now += 5
        history.take()
    assert len(history.samples()) == SAMPLES


# --- events -----------------------------------------------------------------------------------------------------------


class Counting:
    """Events that are numbers."""

    def __init__(self) -> None:
        self.made = 0
        self.fault: Exception | None = None

    async def __call__(self) -> bytes:
        self.made += 1
        if self.fault is not None:
            raise self.fault
        return b"%d" % self.made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
async def test_nothing_is_made_without_a_viewer_and_one_event_for_all() -> None:
    counting = Counting()
    events = Feed(counting)
    await turns()
    assert counting.made == 0
    async with aclosing(events.follow()) as one, aclosing(events.follow()) as other:
        assert await anext(one) == await anext(other) == b"1"
        last = 0
        for viewer in (one, other, one, other):
            last = int(await anext(viewer))
        assert events.viewers == 2
        assert counting.made - last <= 1  # the one that is due next may be under way
    made = counting.made
    await asyncio.sleep(0.05)
    assert (events.viewers, counting.made) == (0, made)
    async with aclosing(events.follow()) as later:
        assert await anext(later) == b"%d" % (made + 1)


async def test_too_many_viewers_are_refused() -> None:
    events = Feed(Counting())
    viewers = [events.follow() for _ in range(MOST_VIEWERS)]
    for viewer in viewers:
        await anext(viewer)
    with pytest.raises(TooManyViewers):
        await anext(events.follow())
    for viewer in viewers:
        await viewer.aclose()
    async with aclosing(events.follow()) as again:
        await anext(again)


@pytest.mark.usefixtures("quick")
async def test_a_fault_in_making_ends_the_viewers_and_the_next_may_try_again() -> None:
    counting = Counting()
    events = Feed(counting)
    async with aclosing(events.follow()) as viewer:
        counting.fault = ValueError("broken")
        with pytest.raises(ValueError, match="broken"):
            [_ async for _ in viewer]
    counting.fault = None
    async with aclosing(events.follow()) as again:
        await anext(again)


# --- over HTTP --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    console, contract = Console(world.sources), Contract(Deployment())
    async with serve_admin("127.0.0.1", 0, world.metrics, world.health, contract, console=console) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/console.css", "text/css"), ("/console.js", "text/javascript")]
)
async def test_the_page_loads_nothing_but_its_own(world: World, path: str, kind: str) -> None:
    async with served(world) as base, aiohttp.ClientSession() as session, session.get(base + path) as response:
        policy, text = response.headers["Content-Security-Policy"], await response.text()
    assert response.content_type == kind
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert not [each for each in ("//cdn", "https:", "@import", "innerHTML", "eval(", "style=") if each in text]


async def test_the_page_links_to_the_others(world: World) -> None:
    async with served(world) as base, aiohttp.ClientSession() as session, session.get(base) as response:
        text = await response.text()
    assert all(f'href="{page}"' in text for page in ("livez", "readyz", "metrics", "contract", "asyncapi.json"))


@pytest.mark.usefixtures("quick")
async def test_a_viewer_follows_for_longer_than_other_connections_live(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECTION_SECONDS", 0.1)
    async with served(world) as base, aiohttp.ClientSession() as session, session.get(f"{base}/events") as response:
        assert response.content_type == "text/event-stream"
        began = asyncio.get_running_loop().time()
        seen = 0
        while asyncio.get_running_loop().time() - began < 0.5:
            line = await in_time(response.content.readline(), "an event came")
            seen += line.startswith(b"data: {")
        assert seen > 1


async def test_the_end_of_a_worker_does_not_wait_for_its_viewers(world: World) -> None:
    async with aiohttp.ClientSession() as session:
        async with served(world) as base:
            response = await session.get(f"{base}/events")
            await in_time(response.content.readline(), "an event came")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1.0
        response.close()


async def test_one_viewer_too_many_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_VIEWERS", 1)
    async with served(world) as base, aiohttp.ClientSession() as session:
        first = await session.get(f"{base}/events")
        await in_time(first.content.readline(), "an event came")
        async with session.get(f"{base}/events") as second:
            assert second.status == 503
        first.close()

        async def taken() -> int:
            async with session.get(f"{base}/events") as again:
                return again.status

        await until_answered(taken, lambda status: status == 200, what="there was room again")


@pytest.mark.usefixtures("quick")
async def test_a_viewer_that_takes_nothing_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WRITE_SECONDS", 0.2)

    async def large() -> bytes:
        return b"data: " + b"x" * 1_000_000 + b"\n\n"

    console = Console(world.sources)
    console._feed = Feed(large)
    contract = Contract(Deployment())
    async with serve_admin("127.0.0.1", 0, world.metrics, world.health, contract, console=console) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await in_time(reader.readline(), "it was answered")
        await until(lambda: console._feed.viewers, lambda viewers: viewers == 1, what="it was a viewer")
        await until(lambda: console._feed.viewers, lambda viewers: viewers == 0, what="the viewer was let go")
        writer.close()


@pytest.mark.usefixtures("quick")
async def test_nobody_looks_any_more_once_the_viewer_has_gone(world: World) -> None:
    made = Counting()
    console = Console(world.sources)
    console._feed = Feed(made)
    contract = Contract(Deployment())
    async with serve_admin("127.0.0.1", 0, world.metrics, world.health, contract, console=console) as port:
        async with aiohttp.ClientSession() as session:
            response = await session.get(f"http://127.0.0.1:{port}/events")
            await in_time(response.content.read(1), "an event came")
            response.close()
        await until(lambda: console._feed.viewers, lambda viewers: viewers == 0, what="the viewer was let go")
