"""Told to stop in the middle of a backlog, the worker finishes the work in hand, and another one does the rest."""

import signal
from contextlib import ExitStack
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from tests.faults.worker import faulty
from tests.support.pace import stretched

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 6000


@pytest.mark.parametrize(
    "which",
    [
        signal.SIGTERM,
        pytest.param(
            signal.SIGINT,
            marks=pytest.mark.slow(
                why="the same backlog with the other signal: 10 s",
                instead="tests/acceptance/test_worker_process.py::test_an_idle_worker_ends_clean_when_it_is_told_to",
            ),
        ),
    ],
)
def test_a_worker_stops_in_the_middle_of_a_backlog_and_another_finishes(scene: Scene, which: signal.Signals) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    # It signals itself in the middle of a batch: a quick worker is through with them all before the test can look.
    stopped_at_work = faulty(f"before_the_end:4:{which.name}")
    first = scene.worker(command=stopped_at_work, MAX_BATCH="100", DRAIN_SECONDS=f"{stretched(60):.0f}")
    with ExitStack() as alive:
        # The test does not wait for it to be ready: it may finish everything before that is seen.
        alive.callback(first.kill)
        assert first.start().wait_end() == 0
        assert first.events("lanes_cancelled") == []
        assert [event for event in first.events() if event["level"] in {"error", "critical"}] == []
    done = scene.count_consumed()
    assert 0 < done < COMMANDS
    # Not one command was decided that was not answered.
    assert len(scene.seen(scene.topics.results)) == done
    assert scene.rows("SELECT count(*) FROM command_record") == [{"count": done}]
    with scene.worker() as second:
        scene.wait_consumed()
        assert second.terminate() == 0

    load.check_exactly_once()
