"""Delivery ``at_least_once``: nothing is lost, and repetitions can be told by their ``ce_id`` (DESIGN 2)."""

import signal
from contextlib import ExitStack
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from tests.faults.worker import faulty
from tests.support.pace import in_milliseconds

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 1000
POINTS: Final = ("before_the_offset", "between_the_commits", "before_the_offset", "before_the_offset")


def test_killed_between_results_and_offset_it_loses_nothing(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    settings = {
        "DELIVERY": "at_least_once",
        "KAFKA__GROUP_INSTANCE_ID": "the only one",
        "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(8),
        "MAX_BATCH": "20",
    }
    for point in POINTS:
        worker = scene.worker(command=faulty(f"{point}:3:SIGKILL"), **settings)
        with ExitStack() as alive:
            alive.callback(worker.kill)
            assert worker.start().wait_end() == -signal.SIGKILL
    with scene.worker(**settings) as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_at_least_once()
    assert len(scene.seen(scene.topics.results)) > COMMANDS


def test_changing_over_from_exactly_once_hides_no_result(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(400))
    load.send(1, 400)
    settings = {
        "KAFKA__GROUP_INSTANCE_ID": "the only one",
        "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(8),
        "MAX_BATCH": "20",
    }
    worker = scene.worker(command=faulty("before_the_end:2:SIGKILL"), **settings)
    with ExitStack() as alive:
        alive.callback(worker.kill)
        assert worker.start().wait_end() == -signal.SIGKILL
    with scene.worker(DELIVERY="at_least_once", **settings) as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()
