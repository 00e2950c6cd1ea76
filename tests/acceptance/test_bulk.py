"""A second topic for bulk commands: its lanes give way, and otherwise are lanes like any other."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest
from confluent_kafka import TopicPartition

from tests.acceptance.clients import Outgoing, Record, log_ends
from tests.acceptance.scene import NUMBER, PARTITIONS, Load, Scene, answer, body, numbers_by_partition, status
from tests.acceptance.test_erasure import erase
from tests.acceptance.test_history_and_explain import run
from tests.acceptance.test_reconcile import cut_off
from tests.acceptance.worker_process import WorkerProcess
from tests.providers.kafka import create_topics
from tests.support.logins import login_token
from tests.support.seeded import CODE
from worker.lanes.priority import FEW
from worker.operations.reconcile.reconcile import reconcile
from worker.settings import read_settings

pytestmark = pytest.mark.real_kafka

MANY: Final = 12_000
ASKED: Final = 20


@pytest.fixture
def both(scene: Scene) -> Scene:
    """Return a scene whose workers read from a bulk topic as well."""
    name = f"bulk-{scene.topics.commands}"
    create_topics(scene.kafka.bootstrap, name)
    return replace(scene, settings=scene.settings | {"WORKER_TOPICS__BULK_COMMANDS": name})


def in_bulk(scene: Scene) -> Scene:
    """Return the same scene, for a sender of commands to the bulk topic."""
    return replace(scene, topics=replace(scene.topics, commands=scene.settings["WORKER_TOPICS__BULK_COMMANDS"]))


def consumed(scene: Scene) -> None:
    scene.wait_consumed()
    in_bulk(scene).wait_consumed()


def assigned(worker: WorkerProcess, topic: str) -> list[int]:
    """Return the partitions of the topic that the group assigned last, if any."""
    told = [event["partitions"] for event in worker.events("partitions_assigned") if event["topic"] == topic]
    return list(told[-1]) if told else []


def numbered(scene: Scene, codes: list[str], *, after: int = 0) -> None:
    """Send a command for each code, numbered from ``after`` on and dealt over the partitions in turn."""
    token = login_token()
    scene.send(
        *(
            Outgoing(body(code, token=token), code.encode(), [(NUMBER, str(number).encode())], number % PARTITIONS)
            for number, code in enumerate(codes, start=after + 1)
        )
    )


def check_all_once(scene: Scene, bulk: int, codes: list[str]) -> list[Record]:
    """Check for one answer per command in the order of its topic, one transition per token, whole chains, no lag.

    The first so many of the ``codes`` were sent to the bulk topic, the others to the first one.
    """
    results = scene.seen(scene.topics.results)
    assert Counter(map(status, results)) == {("OK", "false"): len(codes)}
    for place, numbers in numbers_by_partition(results).items():
        for sent in (range(1, bulk + 1), range(bulk + 1, len(codes) + 1)):
            assert [n for n in numbers if n in sent] == [n for n in sent if n % PARTITIONS == place]
    assert scene.dead_letters() == []
    Load(scene, codes).check_transitions(scene.transitions())
    return results


def test_interactive_commands_go_first_and_all_is_accounted_for(both: Scene) -> None:
    migrated, asked = both.new_tokens(MANY, prefix="migrated"), both.new_tokens(ASKED, prefix="asked")
    numbered(in_bulk(both), migrated)
    numbered(both, asked, after=MANY)
    with both.worker() as worker:
        # Looked at while it works: a moment after the last interactive command it gives way no longer.
        worker.wait(
            lambda: worker.probe("/readyz")[1], "gives way", wanted=lambda said: said and said["bulk_gives_way"]
        )
        both.wait_consumed()
        in_bulk(both).wait_consumed()
        assert worker.terminate() == 0

    results = check_all_once(both, MANY, migrated + asked)
    for numbers in numbers_by_partition(results).values():
        last = max(place for place, number in enumerate(numbers) if number > MANY)
        assert last < len(numbers) / 4
    batches = both.rows(
        "SELECT count(*) AS commands FROM command_record AS r JOIN lane AS l ON l.id = r.lane,"
        " (SELECT max(decided_at) AS moment FROM command_record WHERE access_token_id LIKE 'asked-%') AS last"
        " WHERE l.topic = $1 AND decided_at - moment BETWEEN '500 ms' AND '2 s' GROUP BY r.lane, decided_at",
        in_bulk(both).topics.commands,
    )
    assert 0 < max(batch["commands"] for batch in batches) <= FEW
    check_books(both, results[-1])


def check_books(scene: Scene, answered: Record) -> None:
    """Check that audits and reconciliation find everything in order, in both topics."""
    report = asyncio.run(reconcile(read_settings(scene.settings), clock=lambda: datetime.now(UTC)))
    assert (report.findings, report.commands, report.transitions) == ([], MANY + ASKED, MANY + ASKED)
    assert report.compared.keys() == {
        (topic, place) for topic in read_settings(scene.settings).topics.read for place in range(PARTITIONS)
    }
    told = run(scene, "explain", (answered.header("command_id") or b"").decode())
    assert told.returncode == 0
    assert f"read from {in_bulk(scene).topics.commands}/{answered.partition}" in told.stdout
    assert f"answered in {scene.topics.results}/{answered.partition} offset {answered.offset}" in told.stdout
    verified = json.loads(run(scene, "audit", "verify", "--json").stdout)
    assert (verified["holds"], verified["lanes"]) == (True, 2 * PARTITIONS)


def test_at_least_once_bulk_commands_are_answered_and_never_in_the_bulk_topic(both: Scene) -> None:
    bulk = in_bulk(both).topics.commands
    [other] = both.new_tokens(1)
    in_bulk(both).send(
        Outgoing(body(CODE), b"a customer's", (), 0), Outgoing(body(other), b"key", [("reply_to", bulk.encode())], 0)
    )
    with both.worker(DELIVERY="at_least_once", TOPICS__REPLY_TO_ALLOWED="*") as worker:
        in_bulk(both).wait_consumed()
        assert worker.terminate() == 0

    applied, refused = both.results(2)
    assert (status(applied), status(refused)) == (("OK", "false"), ("INVALID_PARAMETER", "false"))
    assert "the worker's own topics" in answer(refused)["status"]["message"]
    assert f"{bulk}/0: 1 record below offset 1" in erase(both)[1]  # erasure looks for a customer's data there, too


@pytest.mark.slow(
    why="four workers start one after the other: 12 s",
    instead="tests/acceptance/test_bulk.py::test_interactive_commands_go_first_and_all_is_accounted_for",
)
def test_a_rolling_restart_adds_the_bulk_topic(both: Scene) -> None:
    bulk, codes = 400, both.new_tokens(800)
    every = list(range(PARTITIONS))
    read = read_settings(both.settings).topics.read
    first = replace(both, settings={k: v for k, v in both.settings.items() if k != "WORKER_TOPICS__BULK_COMMANDS"})
    old, new, third = first.worker(MAX_BATCH="20"), both.worker(MAX_BATCH="20"), both.worker(MAX_BATCH="20")

    def shared(one: WorkerProcess, other: WorkerProcess, *topics: str) -> bool:
        return all(sorted(assigned(one, topic) + assigned(other, topic)) == every for topic in topics)

    with new:
        with old:
            new.wait(lambda: shared(old, new, *read), "shares the partitions with who knows one topic only")
            assert assigned(new, in_bulk(both).topics.commands) == every
            old.wait_ready()
            new.wait_ready()
            numbered(in_bulk(both), codes[:bulk])
            numbered(both, codes[bulk:600], after=bulk)
            new.wait(in_bulk(both).count_consumed, "works on the bulk topic")
            assert old.terminate() == 0
        with third:
            third.wait(lambda: shared(new, third, *read) and bool(assigned(third, read[0])), "has joined")
            numbered(both, codes[600:], after=600)
            consumed(both)
            assert (third.terminate(), new.terminate()) == (0, 0)

    check_all_once(both, bulk, codes)
    # Retention of a partition that two lanes have written to makes no difference.
    ends = log_ends(both.kafka.bootstrap, both.topics.transitions)
    cut_off(both, TopicPartition(both.topics.results, 0, 100), TopicPartition(both.topics.transitions, 1, ends[1]))
    report = asyncio.run(reconcile(read_settings(both.settings), clock=lambda: datetime.now(UTC)))
    assert report.findings == []
    assert report.not_comparable > 0
