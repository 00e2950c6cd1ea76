"""Two workers with one ``WORKER_KAFKA__GROUP_INSTANCE_ID``: the later one works, the earlier one ends and says why."""

import pytest

from tests.acceptance.deliveries import in_both_deliveries
from tests.acceptance.scene import Load, Scene
from tests.acceptance.test_two_workers import wait_for_all

pytestmark = pytest.mark.real_kafka


@in_both_deliveries(
    pytest.mark.slow(
        why="the same story in the other delivery: 8 s",
        instead="tests/acceptance/test_instance_id.py::test_the_fenced_one_ends_and_names_the_variable",
    )
)
def test_the_fenced_one_ends_and_names_the_variable(scene: Scene, delivery: str) -> None:
    load = Load(scene, scene.new_tokens(200))
    named = {"KAFKA__GROUP_INSTANCE_ID": "pod-0", "DELIVERY": delivery}
    with scene.worker(**named) as earlier:
        load.send(1, 100)
        scene.wait_consumed()
        with scene.worker(**named) as later:
            assert earlier.wait_end() == 1
            last = earlier.logs().splitlines()[-1]
            assert last == (
                "error: another worker has joined the group with WORKER_KAFKA__GROUP_INSTANCE_ID=pod-0:"
                " give every worker one of its own"
            )
            assert earlier.events("stuck") == []
            load.send(101, 200)
            scene.wait_consumed()
            wait_for_all(later)
            assert later.events("partitions_assigned")[1:] == [], "the later one has lost its place in between"
            assert later.terminate() == 0

    load.check_exactly_once()


def test_one_that_is_replaced_after_its_end_takes_its_place_again(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(100))
    for first in (1, 51):
        with scene.worker(KAFKA__GROUP_INSTANCE_ID="pod-0") as worker:
            load.send(first, first + 49)
            scene.wait_consumed()
            assert worker.terminate() == 0

    load.check_exactly_once()
