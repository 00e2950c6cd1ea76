"""Delivery ``at_least_once``: nothing is lost, and what comes twice can be told by its ``ce_id`` (DESIGN 2)."""

import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.scene import NUMBER, Load, Scene, answer, check_chains, history, numbers_by_partition, status

pytestmark = pytest.mark.real_kafka

FAULTY: Final = str(Path(__file__).with_name("faulty_worker.py"))
COMMANDS: Final = 1000
POINTS: Final = ("before_the_offset", "between_the_commits", "before_the_offset", "before_the_offset")


def test_killed_between_results_and_offset_it_loses_nothing(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    settings = {
        "DELIVERY": "at_least_once",
        "KAFKA__GROUP_INSTANCE_ID": "the only one",
        "KAFKA__REQUEST_TIMEOUT_MS": "8000",
        "MAX_BATCH": "20",
    }
    for point in POINTS:
        worker = scene.worker(command=(FAULTY, point, "3", "SIGKILL"), **settings)
        with ExitStack() as alive:
            alive.callback(worker.kill)
            assert worker.start().wait_end() == -signal.SIGKILL
    with scene.worker(**settings) as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    results = scene.seen(scene.topics.results)
    assert set(map(status, results)) == {("OK", "false")}
    given = Counter((record.header(NUMBER), record.header("ce_id"), record.value) for record in results)
    # As many different answers as commands: what came twice is the same, by its id and in every byte.
    assert len(given) == len({number for number, _, _ in given}) == len({event for _, event, _ in given}) == COMMANDS
    assert len(results) > COMMANDS
    first_answers = {place: list(dict.fromkeys(numbers)) for place, numbers in numbers_by_partition(results).items()}
    assert all(numbers == sorted(numbers) for numbers in first_answers.values())
    events = {record.value: answer(record) for record in scene.transitions()}
    load_order = sorted(events.values(), key=lambda event: (event["lane"], event["sequence"]))
    assert load_order == history(scene)
    check_chains(load_order)
    assert Counter(event["access_token_id"] for event in load_order) == Counter(load.codes)
    load.check_consumed()


def test_changing_over_from_exactly_once_hides_no_result(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(400))
    load.send(1, 400)
    settings = {"KAFKA__GROUP_INSTANCE_ID": "the only one", "KAFKA__REQUEST_TIMEOUT_MS": "8000", "MAX_BATCH": "20"}
    worker = scene.worker(command=(FAULTY, "before_the_end", "2", "SIGKILL"), **settings)
    with ExitStack() as alive:
        alive.callback(worker.kill)
        assert worker.start().wait_end() == -signal.SIGKILL
    with scene.worker(DELIVERY="at_least_once", **settings) as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()
