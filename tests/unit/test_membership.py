"""What the group's silence, its refusals and a dead task of the client's mean to a worker."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka

from worker.errors import ClientStuck, DependencyAway
from worker.observe import Health, Metrics
from worker.supervisor import Membership, Supervisor


class Coordinator:
    """The client's side of the group. ``answers`` are what its heartbeats meet, one after the other."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers = list(answers)
        self._coordination_task: Any = None
        self._heartbeat_task: Any = None
        self._commit_refresh_task: Any = None

    async def _do_heartbeat(self) -> bool:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def consumer_of(coordinator: Coordinator) -> AIOKafkaConsumer:
    fetcher = SimpleNamespace(_fetch_task=None)
    return cast(AIOKafkaConsumer, SimpleNamespace(_coordinator=coordinator, _fetcher=fetcher))


async def test_a_heartbeat_that_is_refused_is_tried_again() -> None:
    coordinator = Coordinator(kafka.KafkaError("loading"), True)
    membership = Membership(consumer_of(coordinator), session_seconds=60)
    # The client ends its heartbeats for good where one raises.
    assert await coordinator._do_heartbeat() is False
    assert await coordinator._do_heartbeat() is True
    await membership.look()


async def test_a_group_that_refuses_for_a_session_is_away_and_says_why() -> None:
    coordinator = Coordinator(kafka.GroupAuthorizationFailedError("the group"))
    membership = Membership(consumer_of(coordinator), session_seconds=-1)
    await coordinator._do_heartbeat()
    with pytest.raises(DependencyAway, match="the group"):
        await membership.look()


@pytest.mark.parametrize("task", ["_coordination_task", "_heartbeat_task", "_commit_refresh_task"])
async def test_a_dead_task_of_the_client_ends_the_worker(task: str) -> None:
    coordinator = Coordinator()
    setattr(coordinator, task, await _ended(_dies()))
    with pytest.raises(ClientStuck):
        await _supervisor(coordinator).run(asyncio.Event())


@pytest.mark.parametrize("task", ["_heartbeat_task", "_commit_refresh_task"])
async def test_a_task_that_ends_with_its_generation_is_no_fault(task: str) -> None:
    coordinator = Coordinator()
    setattr(coordinator, task, await _ended(asyncio.sleep(0)))
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    await _supervisor(coordinator).run(stop)


def _supervisor(coordinator: Coordinator) -> Supervisor:
    consumer, health = consumer_of(coordinator), Health()
    consumer.assignment = frozenset
    membership = Membership(consumer, session_seconds=60)

    def no_lane(_: Any) -> Any:
        raise AssertionError("nothing is assigned")

    return Supervisor(consumer, no_lane, membership, health=health, metrics=Metrics(health), revoke_seconds=1)


async def _dies() -> None:
    raise kafka.KafkaError("died")


async def _ended(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    await asyncio.wait([task])
    task.exception()  # or it is reported as overlooked
    return task
