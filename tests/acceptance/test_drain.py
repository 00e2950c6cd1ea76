"""Told to stop in the middle of a backlog, the worker finishes what it has in hand, and another one the rest."""

import signal
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 6000
DRAIN_SECONDS: Final = 10


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_in_the_middle_of_a_backlog_and_another_finishes(scene: Scene, which: signal.Signals) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    with scene.worker(MAX_BATCH="100", DRAIN_SECONDS=str(DRAIN_SECONDS)) as first:
        first.wait(lambda: scene.count_consumed() > 0, "has begun")
        assert first.signal_and_wait(which, seconds=DRAIN_SECONDS) == 0
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
