"""Lanes from outside: the position of each, and the repair of a blocked one while workers run.

See CONTRACT, Command line.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import asyncpg
import pytest

from tests.acceptance.clients import Outgoing
from tests.acceptance.deliveries import in_both_deliveries
from tests.acceptance.scene import PARTITIONS, Load, Scene, answer, body, history, status
from tests.acceptance.test_history_and_explain import run
from tests.acceptance.worker_process import WorkerProcess
from tests.providers.kafka import create_topics, delete_topics
from tests.support.pace import patience
from tests.support.waiting import wait_until

pytestmark = pytest.mark.real_kafka

COMMANDS = 40


def listed(scene: Scene, *, code: int = 0) -> list[dict[str, Any]]:
    done = run(scene, "lanes", "list", "--json")
    assert done.returncode == code, done.stderr
    lanes: list[dict[str, Any]] = json.loads(done.stdout)["lanes"]
    assert [lane["partition"] for lane in lanes] == list(range(len(lanes)))
    return lanes


def states(scene: Scene, *, code: int = 0) -> list[str]:
    return [lane["state"] for lane in listed(scene, code=code)]


@contextmanager
def blocked_worker(scene: Scene, *partitions: int, **settings: str) -> Iterator[WorkerProcess]:
    """Yield a worker that has tried the lanes of these partitions, and reports that they do not start."""
    with ExitStack() as alive:
        worker = scene.worker(**settings)
        alive.callback(worker.kill)
        worker.start()
        for partition in partitions:
            worker.wait_unready(f"partition {partition} is blocked")
        yield worker


def work_off(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0


def test_every_lane_is_listed_with_who_works_on_it_and_where_it_stands(scene: Scene) -> None:
    assert states(scene) == ["new"] * PARTITIONS
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    assert [lane["behind"] for lane in listed(scene)] == [COMMANDS // PARTITIONS] * PARTITIONS
    with scene.worker() as worker:
        scene.wait_consumed()
        lanes = listed(scene)
        shown = run(scene, "lanes", "list")
        assert worker.terminate() == 0

    owners = {str(row["partition"]): str(row["owner"]) for row in scene.rows("SELECT partition, owner FROM lane")}
    for lane in lanes:
        assert (lane["state"], lane["behind"], lane["reason"]) == ("done", 0, "")
        assert lane["committed_offset"] == lane["next_offset"] == lane["log_end"] == COMMANDS // PARTITIONS
        assert lane["owner"] == owners[str(lane["partition"])]
        assert (lane["worker"]["host"], lane["transitions"]) == ("127.0.0.1", COMMANDS // PARTITIONS)
    assert {lane["worker"]["member"] for lane in lanes} == {worker.events("partitions_assigned")[-1]["member"]}
    assert shown.returncode == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["lane", "state", "log", "committed", "decided", "behind", "transitions", "worker"]
    end, who = str(COMMANDS // PARTITIONS), lanes[0]["worker"]
    assert rows[1] == ["0", "done", "0", "to", end, end, end, "0", end, f"{who['host']},", who["member"]]
    assert all(lane["worker"] is None for lane in listed(scene))
    nothing = run(scene, "lanes", "mend")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing keeps any lane from starting\n")
    refused = run(scene, "lanes", "mend", "1", "--by", "redo", "--yes")
    assert (refused.returncode, "nothing keeps it from starting" in refused.stderr) == (1, True)
    unknown = run(scene, "lanes", "mend", str(PARTITIONS))
    assert (unknown.returncode, "there is no partition" in unknown.stderr) == (1, True)


@in_both_deliveries(
    pytest.mark.slow(
        why="the same story in the other delivery: 20 s",
        instead="tests/acceptance/test_lanes.py"
        "::test_an_offset_set_forward_by_hand_is_taken_back_while_the_worker_runs",
    )
)
def test_an_offset_set_forward_by_hand_is_taken_back_while_the_worker_runs(scene: Scene, delivery: str) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS // 2)
    work_off(scene)
    load.send(COMMANDS // 2 + 1, COMMANDS)
    scene.set_offset(2, COMMANDS // PARTITIONS)  # the rest of them must not be read
    with blocked_worker(scene, 2, DELIVERY=delivery) as worker:
        blocked = ["done", "done", "blocked", "done"]
        worker.wait(lambda: states(scene, code=1), "is through with the others", wanted=lambda each: each == blocked)
        plan = run(scene, "lanes", "mend")
        assert (plan.returncode, "--by redo" in plan.stdout, "--by skip" in plan.stdout) == (0, True, True)
        wrong = run(scene, "lanes", "mend", "2", "--by", "from-end", "--yes")
        assert (wrong.returncode, "is no way out for" in wrong.stderr) == (1, True)
        assert "redo or skip" in wrong.stderr
        look = run(scene, "lanes", "mend", "--by", "redo")
        assert "nothing was changed" in look.stdout
        assert states(scene, code=1) == blocked
        assert run(scene, "lanes", "mend", f"{scene.topics.commands}/2", "--by", "redo", "--yes").returncode == 0
        worker.wait_ready()
        assert worker.events("offset_ordered")
        scene.wait_consumed()
        assert worker.terminate() == 0

    load.check_exactly_once()
    assert states(scene) == ["done"] * PARTITIONS
    assert run(scene, "reconcile").returncode == 0
    assert run(scene, "audit", "verify").returncode == 0


@pytest.mark.slow(
    why="the other way out of the same contradiction: 7 s",
    instead="tests/acceptance/test_lanes.py::test_an_offset_set_forward_by_hand_is_taken_back_while_the_worker_runs",
)
def test_an_offset_set_forward_by_hand_may_be_left_where_it_is(scene: Scene) -> None:
    codes = scene.new_tokens(6)
    scene.send(Outgoing(body(codes[0]), b"a", (), 1))
    work_off(scene)
    scene.send(*(Outgoing(body(code), b"a", (), 1) for code in codes[1:4]))
    scene.set_offset(1, 3)
    with blocked_worker(scene, 1) as worker:
        done = run(scene, "lanes", "mend", "1", "--by", "skip", "--yes", "--json")
        assert json.loads(done.stdout)["done"] is True
        worker.wait_ready()
        scene.send(Outgoing(body(codes[4]), b"a", (), 1))
        scene.wait_consumed()
        assert worker.terminate() == 0

    changed = [event["access_token_id"] for event in history(scene)]
    assert sorted(changed) == [codes[0], codes[3], codes[4]]
    assert [status(record) for record in scene.results(3)] == [("OK", "false")] * 3


@pytest.mark.slow(
    why="three workers and a database put back, for the way out redo again: 8 s",
    instead="tests/acceptance/test_lanes.py::test_an_offset_set_forward_by_hand_is_taken_back_while_the_worker_runs",
)
def test_commits_that_postgres_has_lost_are_made_good(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS // 2)
    work_off(scene)
    restore = back_up(scene)
    load.send(COMMANDS // 2 + 1, COMMANDS)
    work_off(scene)
    restore()
    assert len(history(scene)) == COMMANDS // 2
    with blocked_worker(scene, *range(PARTITIONS)) as worker:
        assert run(scene, "lanes", "mend", "--by", "redo", "--yes").returncode == 0
        assert set(states(scene)) <= {"ordered", "behind", "done"}
        worker.wait_ready()
        scene.wait_consumed()
        assert worker.terminate() == 0

    assert Counter(event["access_token_id"] for event in history(scene)) == Counter(load.codes)
    results = scene.seen(scene.topics.results)
    numbers = Counter(int(record.header("correlation_id") or 0) for record in results)
    again = range(COMMANDS // 2 + 1, COMMANDS + 1)
    assert numbers == Counter([*range(1, COMMANDS + 1), *again])
    assert Counter(map(status, results)) == {("OK", "false"): len(results)}
    state = scene.rows("SELECT DISTINCT life_cycle_state, version FROM access_token WHERE id = ANY ($1)", load.codes)
    assert state == [{"life_cycle_state": "EFFECTIVE", "version": 1}]


@pytest.mark.parametrize(
    ("way", "answered"),
    [
        ("from-start", 2),
        pytest.param(
            "from-end",
            0,
            marks=pytest.mark.slow(
                why="the same story with the other way out: 10 s",
                instead="tests/acceptance/test_lanes.py::test_a_topic_made_anew_is_read_from_its_start_or_its_end",
            ),
        ),
    ],
)
def test_a_topic_made_anew_is_read_from_its_start_or_its_end(scene: Scene, way: str, answered: int) -> None:
    codes = scene.new_tokens(8)
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[:5]))
    work_off(scene)
    delete_topics(scene.kafka.bootstrap, scene.topics.commands)
    wait_gone(scene)
    assert [lane["state"] for lane in listed(scene)] == ["gone"] * PARTITIONS
    create_topics(scene.kafka.bootstrap, scene.topics.commands, partitions=PARTITIONS)
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[5:7]))
    with blocked_worker(scene, 0) as worker:
        assert run(scene, "lanes", "mend", "0", "--by", way, "--yes").returncode == 0
        worker.wait_ready()
        scene.send(Outgoing(body(codes[7]), b"a", (), 0))
        scene.wait_consumed()
        assert worker.terminate() == 0

    records = scene.results(5 + answered + 1)
    assert [status(record) for record in records] == [("OK", "false")] * len(records)
    shown = [answer(record)["data"]["authentication_code"] for record in records]
    assert shown == [*codes[:5], *codes[5 : 5 + answered], codes[7]]


def test_a_group_that_has_forgotten_its_offsets_answers_nothing_again(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    load.send(1, COMMANDS)
    work_off(scene)
    admin = scene.admin()  # kept until it has answered
    wait_until(
        lambda: admin.list_consumer_groups().result().valid,
        lambda groups: any(each.group_id == scene.group and each.state.name == "EMPTY" for each in groups),
        what="nobody was left in the group",
    )
    admin.delete_consumer_groups([scene.group])[scene.group].result(timeout=patience(60))
    assert [lane["committed_offset"] for lane in listed(scene)] == [None] * PARTITIONS
    code = scene.new_tokens(1, prefix="later")[0]
    with scene.worker() as worker:
        scene.send(Outgoing(body(code), partition=0))
        scene.results(COMMANDS + 1)
        assert worker.terminate() == 0

    assert len(scene.transitions()) == COMMANDS + 1


@pytest.mark.parametrize(
    ("way", "again"),
    [
        ("skip", 0),
        pytest.param(
            "from-start",
            COMMANDS,
            marks=pytest.mark.slow(
                why="the same story with the other way out: 8 s",
                instead="tests/acceptance/test_lanes.py"
                "::test_a_database_from_before_the_first_start_is_not_taken_for_a_first_start",
            ),
        ),
    ],
)
def test_a_database_from_before_the_first_start_is_not_taken_for_a_first_start(
    scene: Scene, way: str, again: int
) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    restore = back_up(scene)
    load.send(1, COMMANDS)
    work_off(scene)
    restore()
    with blocked_worker(scene, *range(PARTITIONS)) as worker:
        assert "nothing is known of what was decided" in listed(scene, code=1)[0]["reason"]
        assert run(scene, "lanes", "mend", "--by", way, "--yes").returncode == 0
        worker.wait_ready()
        scene.wait_consumed()
        assert len(scene.seen(scene.topics.results)) == COMMANDS + again
        assert worker.terminate() == 0

    assert len(history(scene)) == again


def make_anew(scene: Scene) -> None:
    delete_topics(scene.kafka.bootstrap, scene.topics.commands)
    wait_gone(scene)
    create_topics(scene.kafka.bootstrap, scene.topics.commands, partitions=PARTITIONS)


@pytest.mark.slow(
    why="two topics, one after the other, and three workers: 10 s",
    instead="tests/acceptance/test_lanes.py::test_a_topic_made_anew_under_a_worker_is_noticed",
)
def test_a_topic_made_anew_stays_blocked_though_its_log_has_grown_past_what_was_decided(scene: Scene) -> None:
    codes = scene.new_tokens(12)
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[:4]))
    work_off(scene)
    make_anew(scene)
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[4:]))
    with blocked_worker(scene, 0) as worker:
        assert len(worker.events("lane_blocked")) == 1
        assert states(scene, code=1) == ["blocked", "done", "done", "done"]
        assert "its id was" in listed(scene, code=1)[0]["reason"]
        assert run(scene, "lanes", "mend", "0", "--by", "from-start", "--yes").returncode == 0
        worker.wait_ready()
        scene.wait_consumed()
        assert worker.terminate() == 0

    assert Counter(map(status, scene.results(12))) == {("OK", "false"): 12}
    assert len(history(scene)) == 12


def test_a_topic_made_anew_under_a_worker_is_noticed(scene: Scene) -> None:
    codes = scene.new_tokens(12)
    with scene.worker() as worker:
        scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[:4]))
        scene.wait_consumed()
        make_anew(scene)
        scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[4:]))
        worker.wait_unready("partition 0 is blocked")
        assert run(scene, "lanes", "mend", "0", "--by", "from-start", "--yes").returncode == 0
        worker.wait_ready()
        scene.wait_consumed()
        assert worker.terminate() == 0

    assert len(history(scene)) == 12


def test_a_log_that_was_cut_and_has_grown_again_is_another(scene: Scene) -> None:
    codes = scene.new_tokens(6)
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[:4]))
    work_off(scene)
    # An unclean election leaves the same topic, and another record in the last one's place.
    scene.execute("UPDATE lane SET last_timestamp = last_timestamp - 1 WHERE partition = 0")
    scene.send(*(Outgoing(body(code), b"a", (), 0) for code in codes[4:]))
    with blocked_worker(scene, 0) as worker:
        assert run(scene, "lanes", "mend", "0", "--by", "from-end", "--yes").returncode == 0
        worker.wait_ready()
        assert worker.terminate() == 0

    assert len(history(scene)) == 4


def wait_gone(scene: Scene) -> None:
    """Wait until a deleted topic is gone: the broker still lists it for a moment."""
    admin = scene.admin()
    wait_until(
        lambda: list(admin.list_topics(timeout=patience(60)).topics),
        lambda names: scene.topics.commands not in names,
        what=f"{scene.topics.commands} was gone",
    )


def back_up(scene: Scene) -> Any:
    """Copy the database as it is now, and return the way to restore the copy."""
    name = scene.database.name

    async def execute(*statements: str) -> None:
        connection = await asyncpg.connect(scene.postgres.owner_dsn)
        try:
            for each in statements:
                await connection.execute(each)
        finally:
            await connection.close()

    asyncio.run(execute(f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"'))
    return lambda: asyncio.run(
        execute(f'DROP DATABASE "{name}" WITH (FORCE)', f'ALTER DATABASE "{name}_backup" RENAME TO "{name}"')
    )
