"""Several workers share the partitions of one group: each command is answered once and in order by any of them."""

from itertools import chain
from typing import Final

import psutil
import pytest

from tests.acceptance.scene import PARTITIONS, Load, Scene
from tests.acceptance.worker_process import WorkerProcess
from tests.faults.worker import faulty

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 2000


def partitions_of(worker: WorkerProcess) -> list[int]:
    """Return the partitions that the group assigned last."""
    told = worker.events("partitions_assigned")
    partitions: list[int] = told[-1]["partitions"] if told else []
    return partitions


def wait_for_split(one: WorkerProcess, other: WorkerProcess) -> None:
    def is_split(shares: list[list[int]]) -> bool:
        return sorted(map(len, shares)) == [2, 2] and sorted(chain(*shares)) == list(range(PARTITIONS))

    other.wait(lambda: [partitions_of(one), partitions_of(other)], "has half of the partitions", wanted=is_split)
    one.wait_ready()
    other.wait_ready()


def wait_for_all(worker: WorkerProcess) -> None:
    worker.wait(
        lambda: partitions_of(worker), "has all partitions", wanted=lambda told: told == list(range(PARTITIONS))
    )


def wait_still(worker: WorkerProcess) -> None:
    """Wait until a signal of its own has stopped it."""
    worker.wait(psutil.Process(worker.pid).status, "stands still", wanted=lambda told: told == psutil.STATUS_STOPPED)


@pytest.mark.slow(
    why="two rebalances under load: 10 s",
    instead="tests/acceptance/test_two_workers.py::test_one_is_killed_and_the_other_takes_over",
)
def test_one_joins_and_leaves_in_the_middle(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    staying, coming = scene.worker(MAX_BATCH="20"), scene.worker(MAX_BATCH="20")
    with staying:
        load.send(1, 600)
        staying.wait(scene.count_consumed, "has begun")
        with coming:
            load.send(601, 1200)
            wait_for_split(staying, coming)
            load.send(1201, COMMANDS)
            coming.wait(lambda: "answers_total{" in coming.metrics(), "has helped")
            assert coming.terminate() == 0
        wait_for_all(staying)
        scene.wait_consumed()
        assert staying.terminate() == 0

    load.check_exactly_once()


def test_one_is_killed_and_the_other_takes_over(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    with scene.worker(MAX_BATCH="20") as staying, scene.worker(MAX_BATCH="20") as falling:
        wait_for_split(staying, falling)
        load.send(1, COMMANDS)
        falling.wait(scene.count_consumed, "is at work", wanted=lambda consumed: consumed > 100)
        falling.kill()
        # The group waits for the dead one's session to end.
        wait_for_all(staying)
        scene.wait_consumed()
        assert staying.terminate() == 0

    load.check_exactly_once()


def is_open_statement(scene: Scene) -> bool:
    """True if Postgres waits for the rest of a statement: to it, such a session is not idle."""
    return bool(
        scene.rows(
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND wait_event = 'ClientRead'"
        )
    )


SLEEPS: Final = pytest.mark.slow(
    why="each waits for a session and a transaction to time out: 15 to 32 s",
    instead="tests/acceptance/test_two_workers.py::test_one_that_stood_still_and_comes_back_changes_nothing",
)


@pytest.mark.parametrize(
    ("point", "number"),
    [
        pytest.param("in_the_middle_of_a_statement", "1", marks=SLEEPS),
        ("between_the_commits", "4"),
        pytest.param("before_the_end", "4", marks=SLEEPS),
    ],
)
def test_one_that_stood_still_and_comes_back_changes_nothing(scene: Scene, point: str, number: str) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    sleeping = scene.worker(command=faulty(f"{point}:{number}:SIGSTOP"), MAX_BATCH="20")
    with scene.worker(MAX_BATCH="20") as staying, sleeping:
        wait_for_split(staying, sleeping)
        load.send(1, 1000)
        wait_still(sleeping)
        if point == "in_the_middle_of_a_statement":
            sleeping.wait(lambda: is_open_statement(scene), "leaves a statement open")
        wait_for_all(staying)
        # Postgres ends the transaction that a sleeper has left open, in its time.
        staying.wait(scene.count_consumed, "has done the other's work", 240, wanted=lambda consumed: consumed == 1000)
        sleeping.resume()
        load.send(1001, COMMANDS)
        wait_for_split(staying, sleeping)
        scene.wait_consumed()
        assert [worker.terminate() for worker in (sleeping, staying)] == [0, 0]

    load.check_exactly_once()
