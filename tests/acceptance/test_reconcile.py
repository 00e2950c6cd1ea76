"""``reconcile``: an honest run is clean, also while it is under way, and every difference is named."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from confluent_kafka import OFFSET_END, ConsumerGroupTopicPartitions, TopicPartition

from tests.acceptance.clients import Outgoing, Record, send
from tests.acceptance.scene import Scene, answer, body, event_id
from tests.acceptance.test_history_and_explain import run
from tests.providers.kafka import TopicNames, create_topics
from tests.support.logins import login_token
from tests.support.pace import patience
from worker.kafka.delivery import Coordinates, coordinates_of
from worker.operations.findings import Restriction
from worker.operations.reconcile.reconcile import reconcile
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.settings import read_settings

pytestmark = pytest.mark.real_kafka

TOKENS: Final = 200
DRY_RUN: Final = ("dry_run", b"true")


def compared(scene: Scene, **settings: str) -> Reconciliation:
    changed = {f"WORKER_{name}": value for name, value in settings.items()}
    return asyncio.run(reconcile(read_settings(scene.settings | changed), clock=lambda: datetime.now(UTC)))


def a_load(scene: Scene, prefix: str, count: int) -> int:
    """Send commands of all kinds: applied, replayed, refused, unreadable, without id, dry runs. Return their number."""
    codes, token = scene.new_tokens(count, prefix=prefix), login_token()
    records = []
    for number, code in enumerate(codes):
        place = number % 4
        applied = Outgoing(body(code, token=token, fields_set="id"), code.encode(), event_id(code), place)
        records += [applied, Outgoing(applied.value, code.encode(), event_id(code), (place + number % 3) % 4)]
        records.append(Outgoing(body(code, token=token), code.encode(), (), place))
        if number % 10 == 0:
            records.append(Outgoing(b"not JSON", None, (), place))
            records.append(Outgoing(body(code, colour="red"), b"key", event_id(code), place))
        if number % 10 == 4:
            records.append(Outgoing(applied.value, code.encode(), [*event_id(code), DRY_RUN], place))
            records.append(Outgoing(b"not JSON", None, [DRY_RUN], place))
            records.append(Outgoing(applied.value, code.encode(), [DRY_RUN, DRY_RUN], place))
    scene.send(*records)
    return len(records)


def cut_off(scene: Scene, *before: TopicPartition) -> None:
    """Remove the beginning of partitions, as retention does."""
    admin = scene.admin()
    for deleted in admin.delete_records(list(before)).values():
        deleted.result(timeout=patience(60))


@pytest.fixture(scope="module")
def honest(shared_scene: Scene) -> Scene:
    """Return a world in which a worker has worked off a load."""
    a_load(shared_scene, "honest", TOKENS)
    with shared_scene.worker(MAX_BATCH="20"):
        shared_scene.wait_consumed()
    return shared_scene


def test_an_honest_run_is_clean(honest: Scene) -> None:
    report = compared(honest)

    assert report.findings == []
    assert report.commands == report.results == TOKENS * 3 + TOKENS // 10 * 5
    assert report.dry_runs == TOKENS // 10 * 2
    assert (report.transitions, report.dead_letters) == (TOKENS, TOKENS // 10)
    assert sum(end - begin for begin, end in report.compared.values()) == report.commands


def test_the_command_shows_it_and_exits_0(honest: Scene) -> None:
    told, machine = run(honest, "reconcile"), run(honest, "reconcile", "--json")

    assert (told.returncode, "no differences" in told.stdout) == (0, True)
    document = json.loads(machine.stdout)
    assert (document["clean"], document["transitions"], document["differences"]) == (True, TOKENS, [])
    assert f"{document['dry_runs']} dry runs among them" in told.stdout
    sentence = told.stdout.splitlines()[-1]
    assert f"agree with their records, {document['results']} results, {document['dead_letters']} dead" in sentence
    assert sentence.endswith(" states; no difference.")


def test_lines_of_json_end_with_the_summary(honest: Scene) -> None:
    [line] = run(honest, "reconcile", "--json-lines").stdout.splitlines()
    summary = json.loads(line)["summary"]
    assert (summary["holds"], summary["counts"], summary["read"]["transitions"]) == (True, {}, TOKENS)
    assert summary["earliest"] < summary["latest"]
    assert sum(each["below"] - each["from"] for each in summary["read"]["compared"]) == summary["read"]["commands"]


RESTRICTED: Final = {
    Restriction("ORG1"): True,
    Restriction("ORG2"): False,
    Restriction(since=datetime(2000, 1, 1, tzinfo=UTC)): True,
    Restriction(until=datetime(2000, 1, 1, tzinfo=UTC)): False,
}


@pytest.mark.parametrize("what", ["a status that was changed", "a record that was removed", "a state that was changed"])
@pytest.mark.parametrize("restriction", RESTRICTED, ids=str)
def test_a_restricted_run_names_what_may_be_within(honest: Scene, what: str, restriction: Restriction) -> None:
    statement, kinds = PLANTED_ROWS[what]
    with without_triggers(honest, statement):
        report = asyncio.run(
            reconcile(read_settings(honest.settings), clock=lambda: datetime.now(UTC), restriction=restriction)
        )

    # Nothing says whose a command without a record is, and a state of another organisation is not looked at.
    unsaid = {Kind.NO_RECORD} if restriction.organisation else set()
    untimed = set() if restriction.organisation else {Kind.OTHER_STATE}
    named = set(kinds or ()) if RESTRICTED[restriction] else (unsaid | untimed) & set(kinds or ())
    looked_at = set(kinds or ()) - ({Kind.OTHER_STATE} if restriction.organisation == "ORG2" else set())
    assert set(report.counts) == named
    assert set(report.outside) == looked_at - named
    assert report.verdict is (False if looked_at else None)


def test_what_a_worker_is_about_makes_no_difference(scene: Scene) -> None:
    total = a_load(scene, "busy", 400)
    looks: list[Reconciliation] = []
    with scene.worker(MAX_BATCH="10"):
        while not looks or looks[-1].commands < total:
            looks.append(compared(scene))

    assert [look.findings for look in looks] == [[]] * len(looks)
    assert looks[0].commands < total


def test_topics_of_other_sizes_are_compared_as_well(scene: Scene) -> None:
    results, transitions = f"{scene.topics.results}-2", f"{scene.topics.transitions}-3"
    create_topics(scene.kafka.bootstrap, results, partitions=2)
    create_topics(scene.kafka.bootstrap, transitions, partitions=3)
    settings = {"TOPICS__RESULTS": results, "TOPICS__TRANSITIONS": transitions}
    total = a_load(scene, "sizes", 100)
    with scene.worker(MAX_BATCH="20", **settings):
        scene.wait_consumed()

    report = compared(scene, **settings)
    assert (report.findings, report.results, report.transitions) == ([], total, 100)


def test_what_retention_has_taken_is_no_difference(scene: Scene) -> None:
    a_load(scene, "old", 40)
    with scene.worker(MAX_BATCH="5"):
        scene.wait_consumed()
    cut = {scene.topics.commands: 10, scene.topics.results: 30, scene.topics.dead_letters: 1}
    cut_off(scene, *(TopicPartition(topic, 0, offset) for topic, offset in cut.items()))

    report = compared(scene)
    assert report.findings == []
    assert report.not_comparable > 0
    assert report.compared[scene.topics.commands, 0][0] == 10

    scene.execute("DELETE FROM command_record WHERE record_offset < 20 AND lane IN (SELECT id FROM lane)")
    month = datetime.now(UTC) + timedelta(days=30)
    later = asyncio.run(reconcile(read_settings(scene.settings), clock=lambda: month))
    assert later.findings == []
    assert later.retired > 0
    assert {begin for begin, end in later.compared.values()} == {20}


def test_redirected_answers_are_counted_as_given_elsewhere(scene: Scene) -> None:
    code = scene.new_tokens(1)[0]
    scene.send(*(Outgoing(body(code), b"k", [("reply_to", b"elsewhere"), *dry], 0) for dry in ([], [DRY_RUN])))
    with scene.worker():
        scene.wait_consumed()
    # As if the answer had gone there: it is not in the topic of results.
    cut_off(scene, TopicPartition(scene.topics.results, 0, OFFSET_END))

    report = compared(scene)
    assert report.findings == []
    assert report.redirected == 2


# --- planted differences ----------------------------------------------------------------------------------------------


@contextmanager
def without_triggers(scene: Scene, *statements: str) -> Iterator[None]:
    """Change the database as a deceitful owner could, and put everything back."""
    tables = ("command_record", "transition", "access_token", "lane")
    for table in tables:
        scene.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
    try:
        for statement in statements:
            scene.execute(f"SET session_replication_role = replica; {statement}")
        yield
    finally:
        for table in tables:
            override = "OVERRIDING SYSTEM VALUE" if table == "lane" else ""
            scene.execute(
                f"SET session_replication_role = replica; DELETE FROM {table};"
                f"INSERT INTO {table} {override} SELECT * FROM kept_{table}; DROP TABLE kept_{table}"
            )


AT: Final = "lane = (SELECT id FROM lane WHERE partition = 2) AND record_offset = 3"
APPLIED: Final = "(SELECT access_token_id FROM transition ORDER BY lane, sequence LIMIT 1)"

PLANTED_ROWS: Final = {
    # Its answer is then one more than there are deliveries of that id on record.
    "a record that was removed": (
        f"DELETE FROM command_record WHERE {AT}",
        {Kind.NO_RECORD, Kind.TWO_RESULTS, Kind.NO_APPLIED},
    ),
    "a record that was made up": (
        "INSERT INTO command_record SELECT lane, record_offset, record_timestamp + 1, organisation, gen_random_uuid(),"
        f" 'req:ORG1:made-up', digest, status, message, replayed, access_token_id, NULL, fields, decided_at"
        f" FROM command_record WHERE {AT}",
        {Kind.NO_COMMAND},
    ),
    "a status that was changed": (
        "UPDATE command_record SET status = 'ACCESS_DENIED' WHERE status = 'INVALID_LIFE_CYCLE_STATE'"
        " AND record_offset = (SELECT min(record_offset) FROM command_record"
        " WHERE status = 'INVALID_LIFE_CYCLE_STATE' AND lane = (SELECT min(id) FROM lane))"
        " AND lane = (SELECT min(id) FROM lane)",
        {Kind.OTHER_RESULT},
    ),
    "a transition that was removed": (
        f"DELETE FROM transition WHERE access_token_id = {APPLIED}",
        {Kind.NO_TRANSITION, Kind.UNKNOWN_EVENT, Kind.OTHER_STATE},
    ),
    "a transition that was changed": (
        f"UPDATE transition SET user_id = 'somebody else' WHERE access_token_id = {APPLIED}",
        {Kind.OTHER_EVENT},
    ),
    "a state that was changed": (
        f"UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE' WHERE id = {APPLIED}",
        {Kind.OTHER_STATE},
    ),
    "a lane that was set back": ("UPDATE lane SET first_offset = 1, next_offset = 2 WHERE partition = 1", {Kind.LANE}),
    "a lane that was removed": ("DELETE FROM lane WHERE partition = 3", None),
}


@pytest.mark.parametrize("what", PLANTED_ROWS)
def test_a_planted_row_is_named(honest: Scene, what: str) -> None:
    statement, kinds = PLANTED_ROWS[what]
    with without_triggers(honest, statement):
        report = compared(honest)

    assert not report.clean
    if kinds is None:
        assert {Kind.LANE, Kind.NO_RECORD} <= set(report.counts)
    else:
        assert dict(report.counts) == dict.fromkeys(kinds, 1)
        assert all(finding.where and finding.what for finding in report.findings)
    assert compared(honest).clean


def as_sent(record: Record, partition: int | None = None, **changed: bytes) -> Outgoing:
    headers = [(name, changed.pop(name, value or b"")) for name, value in record.headers]
    place = record.partition if partition is None else partition
    return Outgoing(changed.get("value", record.value), record.key, headers, place)


Forger = Callable[[Scene], tuple[str, Outgoing]]


def _copied_result(scene: Scene) -> tuple[str, Outgoing]:
    return scene.topics.results, as_sent(scene.seen(scene.topics.results)[0])


def _made_up_result(scene: Scene) -> tuple[str, Outgoing]:
    record = scene.seen(scene.topics.results)[0]
    return scene.topics.results, as_sent(record, command_id=b"req:ORG1:never-sent")


def _copied_dry_result(scene: Scene) -> tuple[str, Outgoing]:
    return scene.topics.results, as_sent(a_dry_result(scene))


def _made_up_dry_result(scene: Scene) -> tuple[str, Outgoing]:
    """Return a made-up dry result of a command that was no dry run."""
    real = scene.rows("SELECT * FROM command_record JOIN lane ON lane.id = lane AND partition = 0 LIMIT 1")[0]
    where = Coordinates(real["cluster"], real["topic"], 0, real["record_offset"], real["record_timestamp"])
    return scene.topics.results, as_sent(a_dry_result(scene), ce_subject=where.command_id.encode())


def a_dry_result(scene: Scene) -> Record:
    return next(record for record in scene.seen(scene.topics.results) if record.header("dry_run"))


def _copied_event(scene: Scene) -> tuple[str, Outgoing]:
    return scene.topics.transitions, as_sent(scene.transitions()[0])


def _made_up_event(scene: Scene) -> tuple[str, Outgoing]:
    record = scene.transitions()[0]
    event = answer(record) | {"access_token_id": "nobody"}
    return scene.topics.transitions, as_sent(record, value=json.dumps(event).encode())


def _copied_letter(scene: Scene) -> tuple[str, Outgoing]:
    return scene.topics.dead_letters, as_sent(scene.dead_letters()[0])


PLANTED_MESSAGES: Final[dict[str, tuple[Forger, set[Kind]]]] = {
    "a result sent twice": (_copied_result, {Kind.TWO_RESULTS}),
    "a result that nobody asked for": (_made_up_result, {Kind.UNASKED_RESULT}),
    "a result of a dry run sent twice": (_copied_dry_result, {Kind.TWO_RESULTS}),
    "a result of a dry run that was none": (_made_up_dry_result, {Kind.NO_DRY_RUN}),
    "an event sent twice": (_copied_event, {Kind.TWO_EVENTS}),
    "an event that was made up": (_made_up_event, {Kind.OTHER_EVENT, Kind.UNKNOWN_EVENT}),
    "a dead letter sent twice": (_copied_letter, {Kind.SPARE_DEAD_LETTER}),
}


@pytest.mark.parametrize("what", PLANTED_MESSAGES)
def test_a_planted_message_is_named(scene: Scene, what: str) -> None:
    forger, kinds = PLANTED_MESSAGES[what]
    a_load(scene, "forged", 12)
    with scene.worker(MAX_BATCH="5"):
        scene.wait_consumed()
    assert compared(scene).clean
    topic, forged = forger(scene)
    send(scene.kafka.bootstrap, topic, [forged])

    assert dict(compared(scene).counts) == dict.fromkeys(kinds, 1)


def test_a_dry_run_that_was_recorded_and_one_answered_as_a_real_command_are_named(scene: Scene) -> None:
    code = scene.new_tokens(1)[0]
    scene.send(*[Outgoing(body(code), b"k", [DRY_RUN], 0)] * 2)
    with scene.worker():
        scene.wait_consumed()
    first, _ = scene.seen(scene.topics.results)
    at = coordinates_of((first.header("ce_subject") or b"").decode())
    assert at is not None
    scene.execute(
        "INSERT INTO command_record (lane, record_offset, record_timestamp, command_key, command_id, status, message,"
        " replayed, fields, decided_at) SELECT id, $1, $2, gen_random_uuid(), 'x', 'ACCESS_DENIED', '', false, 0, now()"
        " FROM lane WHERE partition = 0",
        at.offset,
        at.timestamp,
    )
    # As if the second answer had gone out unmarked.
    results = f"{scene.topics.results}-unmarked"
    create_topics(scene.kafka.bootstrap, results)
    unmarked = [(name, value or b"") for name, value in first.headers if name != "dry_run"]
    send(scene.kafka.bootstrap, results, [as_sent(first), Outgoing(first.value, b"k", unmarked, 0)])

    assert dict(compared(scene, TOPICS__RESULTS=results).counts) == {
        Kind.RECORDED: 1,
        Kind.NO_RESULT: 1,
        Kind.UNASKED_RESULT: 1,
    }


def test_messages_that_are_missing_and_offsets_that_were_moved_are_named(scene: Scene) -> None:
    a_load(scene, "moved", 12)
    with scene.worker(MAX_BATCH="5") as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0
    # Empty topics; then a command that was skipped by hand.
    empty = TopicNames(scene.topics.commands, *(f"{topic}-{scene.topics.commands}" for topic in ("r", "t", "d")))
    create_topics(scene.kafka.bootstrap, empty.results, empty.transitions, empty.dead_letters)
    elsewhere = {
        "TOPICS__RESULTS": empty.results,
        "TOPICS__TRANSITIONS": empty.transitions,
        "TOPICS__DEAD_LETTERS": empty.dead_letters,
    }
    report = compared(scene, **elsewhere)
    assert dict(report.counts) == {
        Kind.NO_RESULT: report.commands,
        Kind.NO_EVENT: 12,
        Kind.NO_DEAD_LETTER: 2,
    }

    [(partition, offset)] = scene.send(Outgoing(b"{}", b"k", (), 0))
    admin = scene.admin()
    place = TopicPartition(scene.topics.commands, partition, offset + 1)
    for altered in admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(scene.group, [place])]).values():
        altered.result(timeout=patience(60))
    report = compared(scene)
    assert dict(report.counts) == {Kind.NO_RECORD: 1, Kind.LANE: 1}
    assert f"{scene.topics.commands}/{partition}" in {each.where for each in report.findings}
