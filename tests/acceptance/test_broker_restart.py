"""The broker goes away and comes back under load: the worker waits, reports it, and goes on (DESIGN 3)."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from tests.acceptance.worker_process import WorkerProcess
from tests.support.pace import patience
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.real_kafka, pytest.mark.own_servers]

COMMANDS: Final = 3000


def wait_until_kafka_is_missed(worker: WorkerProcess) -> None:
    """Wait for the reason: a lane that starts again may also be unready for a moment."""
    worker.wait_unready("kafka is away")


def wait_written(worker: WorkerProcess, scene: Scene, before: int) -> None:
    """Wait until the results topic has grown."""
    worker.wait(scene.count_written, f"has written more than {before}", wanted=lambda written: written > before)


def test_the_broker_stopped_and_killed_under_load(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    with scene.worker(MAX_BATCH="10") as worker:
        for place, away in enumerate((scene.kafka.stop, scene.kafka.kill)):
            # Counted before they are sent: a quick worker is through with them before the test can look.
            before = scene.count_written()
            load.send(place * 1000 + 1, place * 1000 + 1000)
            wait_written(worker, scene, before)
            asyncio.run(away())
            wait_until_kafka_is_missed(worker)
            assert worker.probe("/livez")[0] == 200
            asyncio.run(scene.kafka.start())
            worker.wait_ready()
        load.send(2001, COMMANDS)
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()


@pytest.mark.slow(
    why="the drain of a worker that nobody answers, and another start of the broker: 26 s",
    instead="tests/unit/test_lane.py::test_a_lane_told_to_drain_while_nothing_is_published_lets_go_and_does_not_spin",
)
def test_a_worker_may_be_stopped_while_the_broker_is_away(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(1000))
    load.send(1, 1000)
    with scene.worker(MAX_BATCH="10", DRAIN_SECONDS="5") as worker:
        wait_written(worker, scene, 0)
        asyncio.run(scene.kafka.kill())
        # The lanes get their drain time and the client some seconds to leave.
        assert worker.terminate() == 0
    asyncio.run(scene.kafka.start())
    with scene.worker() as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()


def test_a_worker_with_nothing_to_do_says_that_the_broker_is_away(scene: Scene) -> None:
    with scene.worker() as worker:
        asyncio.run(scene.kafka.stop())
        wait_until_kafka_is_missed(worker)
        asyncio.run(scene.kafka.start())
        worker.wait_ready()
        assert worker.terminate() == 0


def test_a_worker_may_be_stopped_while_a_broker_that_says_nothing_is_waited_for(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as alive:
        silent.settimeout(patience(SECONDS))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        worker = scene.worker(
            KAFKA__BOOTSTRAP_SERVERS=address,
            KAFKA__SESSION_TIMEOUT_MS="30000",
            KAFKA__REQUEST_TIMEOUT_MS="40000",
            KAFKA__TRANSACTION_TIMEOUT_MS="60000",
        )
        alive.callback(worker.kill)
        worker.start()
        alive.enter_context(silent.accept()[0])
        assert worker.probe("/livez")[0] == 200
        assert worker.probe("/readyz")[0] == 503
        assert worker.terminate() == 0
        # It was not ended by a timeout of the wait: then the broker would have been reported away.
        assert worker.events("dependency_away") == []
