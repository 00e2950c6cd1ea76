"""A worker that has nothing to do is ready."""

import asyncio

import pytest
from aiokafka import TopicPartition

from tests.support.waiting import in_time
from worker.errors import DependencyUnavailable
from worker.observability.health import Health
from worker.observability.probe import Probe


class Dependency:
    """A dependency that answers or does not, as it is told."""

    def __init__(self) -> None:
        self.answers = True
        self.asked = asyncio.Event()

    async def look(self) -> None:
        self.asked.set()
        if not self.answers:
            raise DependencyUnavailable("postgres", "connection refused")


@pytest.fixture
def postgres() -> Dependency:
    return Dependency()


@pytest.fixture
def health() -> Health:
    return Health()


async def test_a_dependency_that_does_not_answer_is_away_until_it_does(postgres: Dependency, health: Health) -> None:
    probe = Probe({"postgres": postgres.look}, health)

    postgres.answers = False
    await probe.look()
    assert health.dependencies_away()["postgres"].reason == "connection refused"

    postgres.answers = True
    await probe.look()
    assert not health.dependencies_away()


async def test_what_a_lane_has_noted_is_the_lanes_to_take_back(postgres: Dependency, health: Health) -> None:
    health.away(DependencyUnavailable("postgres", "lock timeout"))
    await Probe({"postgres": postgres.look}, health).look()
    assert "postgres" in health.dependencies_away()


async def test_a_decisive_look_takes_back_what_a_lane_has_noted(postgres: Dependency, health: Health) -> None:
    health.away(DependencyUnavailable("postgres", "lock timeout"), TopicPartition("commands", 0))
    health.away(DependencyUnavailable("kafka", "refused"))
    await Probe({"postgres": postgres.look}, health, decisive={"postgres"}).look()
    assert list(health.dependencies_away()) == ["kafka"]


async def test_it_looks_until_it_is_told_to_stop(postgres: Dependency, health: Health) -> None:
    stop = asyncio.Event()
    running = asyncio.ensure_future(Probe({"postgres": postgres.look}, health).run(stop))
    await in_time(postgres.asked.wait(), "the dependency was asked")
    stop.set()
    await in_time(running, "the probe ended")


async def test_it_knows_how_long_nobody_has_answered(postgres: Dependency, health: Health) -> None:
    now = 100.0
    probe = Probe({"postgres": postgres.look}, health, lambda: now)
    await probe.look()
    assert probe.silent("postgres") == 0

    postgres.answers = False
    await probe.look()
    now += 30
    await probe.look()
    now += 30
    assert probe.silent("postgres") == 60

    postgres.answers = True
    await probe.look()
    assert probe.silent("postgres") == 0


async def test_what_lanes_say_of_a_dependency_is_no_silence(postgres: Dependency, health: Health) -> None:
    now = 100.0
    probe = Probe({"postgres": postgres.look}, health, lambda: now)
    health.away(DependencyUnavailable("postgres", "lock timeout"))
    await probe.look()
    now += 1000
    assert probe.silent("postgres") == 0
