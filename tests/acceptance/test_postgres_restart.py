"""Postgres goes away and comes back under load: the worker waits, says so, goes on, blames no command (DESIGN 3)."""

import asyncio
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from tests.acceptance.worker_process import WorkerProcess
from tests.providers.postgres import Mode

pytestmark = [pytest.mark.real_kafka, pytest.mark.own_servers]

COMMANDS: Final = 4000


def send_and_wait_for_work(load: Load, worker: WorkerProcess, first: int, last: int) -> None:
    """Send these commands, and wait until the worker is at work on them: it consumes."""
    # Counted before they are sent: a quick worker is through with them before the test can look.
    before = load.scene.count_consumed()
    load.send(first, last)
    worker.wait(load.scene.count_consumed, f"consumes more than {before}", wanted=lambda consumed: consumed > before)


def test_postgres_restarted_under_load(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    modes: tuple[Mode, ...] = ("fast", "immediate", "immediate", "fast")
    with scene.worker(MAX_BATCH="10") as worker:
        for place, mode in enumerate(modes):
            send_and_wait_for_work(load, worker, place * 1000 + 1, place * 1000 + 1000)
            asyncio.run(scene.postgres.restart(mode))
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.events("dependency_away")
        assert 'effective_worker_waits_total{dependency="postgres"}' in worker.metrics()
        assert worker.terminate() == 0

    load.check_exactly_once()


def test_the_worker_waits_for_a_postgres_that_is_away_and_says_so(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(1000))
    with scene.worker(MAX_BATCH="10") as worker:
        send_and_wait_for_work(load, worker, 1, 500)
        asyncio.run(scene.postgres.stop("immediate"))
        load.send(501, 1000)
        document = worker.wait_unready("postgres is away")
        assert list(document["dependencies_away"]) == ["postgres"]
        assert document["dependencies_away"]["postgres"]["since"]
        # It has made no progress, although it has tried more than once.
        worker.wait(lambda: worker.events("dependency_away"), "has tried again", wanted=lambda tried: len(tried) > 8)
        assert worker.probe("/livez")[0] == 200
        assert scene.count_consumed() < 1000
        asyncio.run(scene.postgres.start())
        worker.wait_ready()
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()


def test_a_worker_may_be_stopped_while_postgres_is_away(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    with scene.worker(MAX_BATCH="10") as worker:
        send_and_wait_for_work(load, worker, 1, COMMANDS)
        asyncio.run(scene.postgres.stop("immediate"))
        worker.wait_event("dependency_away")
        assert worker.terminate() == 0
        # The wait was cut short: none had to be ended by force when the time of the drain was over.
        assert worker.events("lanes_cancelled") == []
    asyncio.run(scene.postgres.start())
    with scene.worker() as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()


def test_a_worker_that_starts_before_postgres_waits_for_it(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(8))
    load.send(1, 8)
    asyncio.run(scene.postgres.stop())
    worker = scene.worker()
    try:
        worker.start().wait_event("dependency_away")
        assert worker.probe("/livez")[0] == 200
        assert worker.probe("/readyz")[0] == 503
        asyncio.run(scene.postgres.start())
        worker.wait_ready()
        scene.wait_consumed()
        assert worker.terminate() == 0
    finally:
        worker.kill()

    load.check_exactly_once()


def test_a_worker_with_nothing_to_do_says_that_postgres_is_away(scene: Scene) -> None:
    with scene.worker() as worker:
        asyncio.run(scene.postgres.stop())
        document = worker.wait_unready("postgres is away")
        assert list(document["dependencies_away"]) == ["postgres"]
        asyncio.run(scene.postgres.start())
        worker.wait_ready()
        assert worker.terminate() == 0
