"""Killed at the worst moments again and again, the worker still answers every command exactly once (DESIGN 2)."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, cycle
from typing import Final

import pytest

from tests.acceptance.clients import read_committed
from tests.acceptance.scene import Load, Scene
from tests.faults.worker import faulty
from tests.support.pace import in_milliseconds

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 4000
BATCH: Final = 20


def lives(rounds: int) -> Iterator[tuple[str, int]]:
    """Yield the point at which each life of the worker ends, and at which visit: five a round between the commits."""
    others = ("before_the_end", "with_the_end_under_way", "after_the_end")
    points = chain.from_iterable((*["between_the_commits"] * 5, *others) for _ in range(rounds))
    # At the first visit the batch of the life before, decided and not published, is killed once more.
    return zip(points, cycle((3, 1, 5, 2, 7)), strict=False)


@pytest.mark.parametrize(
    "rounds",
    [
        1,
        pytest.param(
            4,
            marks=pytest.mark.slow(
                why="32 lives of a worker: 82 s",
                instead="tests/acceptance/test_crash.py::test_a_worker_killed_over_and_over_answers_every_command_once",
            ),
        ),
    ],
)
def test_a_worker_killed_over_and_over_answers_every_command_once(scene: Scene, rounds: int) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    witness = ThreadPoolExecutor(1).submit(
        read_committed, scene.kafka.bootstrap, scene.topics.results, until=COMMANDS, seconds=1200, settle=1
    )
    # A member of that name takes its own place again, where any other would wait for the dead one's session to end.
    settings = {
        "KAFKA__GROUP_INSTANCE_ID": "the only one",
        "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(8),
        "MAX_BATCH": str(BATCH),
    }
    ends = []
    for point, number in lives(rounds):
        worker = scene.worker(command=faulty(f"{point}:{number}:SIGKILL"), **settings)
        with ExitStack() as alive:
            alive.callback(worker.kill)
            ends.append(worker.start().wait_end())
    assert ends == [-signal.SIGKILL] * len(ends)
    assert scene.count_consumed() < COMMANDS
    with scene.worker(**settings) as last:
        scene.wait_consumed()
        assert last.terminate() == 0

    load.check_exactly_once()
    # The reader during the test saw the same as a reader now.
    assert witness.result() == scene.seen(scene.topics.results)
