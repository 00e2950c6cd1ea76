"""``audit`` beside a real broker: the published events equal the stored ones, also while workers run."""

import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from confluent_kafka import TopicPartition

from effective_contract.transition import event_hash
from tests.acceptance.clients import Outgoing, send
from tests.acceptance.scene import Load, Scene, history
from tests.acceptance.test_history_and_explain import run
from tests.faults.worker import faulty
from tests.providers import Unavailable
from tests.providers.kafka import broker_program, create_topics, delete_topics
from tests.support.pace import patience
from tests.support.waiting import run_to_end
from worker.operations.audit.report import Kind

pytestmark = pytest.mark.real_kafka

TOKENS: Final = 200


@pytest.fixture(scope="module")
def honest(shared_scene: Scene) -> Scene:
    """Return a world in which a worker has worked off a load."""
    Load(shared_scene, shared_scene.new_tokens(TOKENS)).send(1, TOKENS)
    with shared_scene.worker(MAX_BATCH="20"):
        shared_scene.wait_consumed()
    return shared_scene


def verified(scene: Scene, *options: str) -> dict[str, Any]:
    done = run(scene, "audit", "verify", "--json", *options)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["holds"] else 1), done.stderr
    return report


def published(scene: Scene, *events: dict[str, Any]) -> None:
    """Publish events as an intruder who may write to the topic."""
    records = [Outgoing(json.dumps(event).encode(), b"key", (), 0) for event in events]
    send(scene.kafka.bootstrap, scene.topics.transitions, records)


def found(report: dict[str, Any], kind: Kind) -> list[str]:
    return [finding["what"] for finding in report["findings"] if finding["kind"] == kind]


def test_what_was_published_is_what_is_stored(honest: Scene, tmp_path: Path) -> None:
    printed = run(honest, "audit", "anchor")
    assert printed.returncode == 0
    anchor = tmp_path / "anchor.json"
    anchor.write_text(printed.stdout)

    report = verified(honest, "--anchor", str(anchor))

    counted = {name: report[name] for name in ("holds", "transitions", "events", "anchored", "unpublished")}
    assert counted == {"holds": True, "transitions": TOKENS, "events": TOKENS, "anchored": 4, "unpublished": 0}
    told = run(honest, "audit", "verify", "--anchor", str(anchor))
    line, sentence = told.stdout.splitlines()
    assert line == f"{TOKENS} transitions in 4 lanes, {TOKENS} events, 4 anchored heads: everything holds"
    assert f"UTC: 4 lanes with {TOKENS} transitions from " in sentence
    assert f" states and with {TOKENS} events of the transitions topic up to " in sentence
    assert sentence.endswith(" (not signed) holds; no finding.")


def test_lines_of_json_have_every_finding_and_the_summary_last(scene: Scene) -> None:
    Load(scene, scene.new_tokens(8)).send(1, 8)
    with scene.worker():
        scene.wait_consumed()
    [first, second, *_] = [event for event in history(scene) if event["lane"].endswith("/0")]
    forged = first | {"user_id": "somebody else"}
    published(scene, forged | {"hash": event_hash(forged)}, {"no": "event"}, second | {"organisation": "ORG2"})

    done = run(scene, "audit", "verify", "--json-lines")
    *lines, last = map(json.loads, done.stdout.splitlines())
    summary = last["summary"]
    assert done.returncode == 1, done.stderr
    assert Counter(line["code"] for line in lines) == summary["counts"] == {"OTHER_EVENT": 5}
    assert all(line.keys() == {"code", "where", "what"} for line in lines)
    assert (summary["holds"], summary["read"]["transitions"], summary["read"]["events"]) == (False, 8, 11)
    assert summary["earliest"] <= first["occurred_at"] <= summary["latest"]
    assert summary["sentence"].endswith("5 findings (OTHER_EVENT 5).")

    restricted = run(scene, "audit", "verify", "--json-lines", "--organisation", "ORG2", "--since", "1h")
    *lines, last = map(json.loads, restricted.stdout.splitlines())
    assert restricted.returncode == 1, restricted.stderr
    # Of ORG2 by its own word, twice; no event; one whose transition may be anybody's.
    assert [line["code"] for line in lines] == ["OTHER_EVENT"] * 4
    assert last["summary"]["outside"] == {"OTHER_EVENT": 1}
    assert last["summary"]["holds"] is False


def test_a_restricted_run_that_finds_nothing_says_no_more_than_that(honest: Scene) -> None:
    done = run(honest, "audit", "verify", "--organisation", "ORG1", "--until", "1h")
    line, restricted, _, sentence = done.stdout.splitlines()
    assert (done.returncode, "holds" in line) == (0, False), done.stderr
    assert restricted.startswith("  restricted to the organisation ORG1, what happened before ")
    assert sentence.endswith("no finding within the restriction; this does not say that everything holds.")
    assert verified_as_null(honest) == {"holds": None, "outside": {}}


def verified_as_null(scene: Scene) -> dict[str, Any]:
    report = json.loads(run(scene, "audit", "verify", "--json", "--no-topic", "--organisation", "ORG1").stdout)
    return {name: report[name] for name in ("holds", "outside")}


# --- an auditor's own program -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """Return the command of the program that the page on audits shows, without its arguments."""
    try:
        java = broker_program()
    except Unavailable as reason:
        pytest.skip(f"Kafka's client in Java: {reason}")
    page = (Path(__file__).parents[2] / "docs" / "audit-and-privacy.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```java\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    source = tmp_path_factory.mktemp("program") / "Audit.java"
    source.write_text(text, encoding="utf-8")
    return [java.java, "-XX:TieredStopAtLevel=1", "-cp", f"{java.jars}/*", source]


def test_the_auditors_program_rebuilds_all_states_and_ends_at_the_anchored_heads(
    honest: Scene, program: list[str | Path]
) -> None:
    done = run_to_end([*program, honest.kafka.bootstrap, honest.topics.transitions])

    *lines, verdict = done.stdout.splitlines()
    assert (done.returncode, verdict) == (0, f"{TOKENS} events in 4 lanes: whole"), done.stdout + done.stderr
    printed = [json.loads(line) for line in lines]
    heads = json.loads(run(honest, "audit", "anchor").stdout)["heads"]
    assert [each for each in printed if isinstance(each, dict)] == sorted(heads, key=lambda head: head["lane"])
    states = honest.rows(
        "SELECT organisation, id, life_cycle_state, version FROM access_token WHERE version > 0 ORDER BY id"
    )
    rebuilt = sorted(each for each in printed if isinstance(each, list))
    assert rebuilt == sorted(list(row.values()) for row in states)


def _changed(value: bytes) -> bytes:
    return value.replace(b'"to_state":"EFFECTIVE"', b'"to_state":"NOT_EFFECTIVE"')


def _forged_whole(value: bytes) -> bytes:
    event = json.loads(_changed(value))
    return orjson.dumps({**dict(sorted(event.items())), "hash": event_hash(event)})


FORGED: Final[dict[str, tuple[Callable[[bytes], list[bytes]], list[str]]]] = {
    "an event that came twice": (lambda value: [value, value], ["whole"]),
    "an event that was changed": (
        lambda value: [_changed(value)],
        ["0/3: does not hash to its hash", "LANE: 4 to 4 are missing", "2 faults"],
    ),
    "an event that was forged whole": (
        lambda value: [_forged_whole(value)],
        ["LANE: 5 is not linked to the one before", "1 faults"],
    ),
    "an event that came in two versions": (
        lambda value: [value, _forged_whole(value)],
        ["0/4: another event has its place", "LANE: 5 is not linked to the one before", "2 faults"],
    ),
    "an event that is missing": (lambda _: [], ["LANE: 4 to 4 are missing", "1 faults"]),
    "no event": (lambda value: [value, b'{"no": "event"}'], ["0/4: does not hash to its hash", "1 faults"]),
}


@pytest.mark.parametrize("what", FORGED)
def test_the_auditors_program_names_what_was_forged(honest: Scene, program: list[str | Path], what: str) -> None:
    forge, told = FORGED[what]
    true = [record for record in honest.transitions() if record.partition == 0]
    lane = json.dumps(json.loads(true[0].value or b"")["lane"])
    values = [record.value or b"" for record in true]
    values[3:4] = forge(values[3])
    copy = f"{honest.topics.transitions}-{what.replace(' ', '-')}"
    create_topics(honest.kafka.bootstrap, copy, partitions=1)
    try:
        send(honest.kafka.bootstrap, copy, [Outgoing(value, b"key", (), 0) for value in values])
        done = run_to_end([*program, honest.kafka.bootstrap, copy])
    finally:
        delete_topics(honest.kafka.bootstrap, copy)

    *said, last = [line for line in done.stdout.splitlines() if not line.startswith(("{", "["))]
    verdict = re.fullmatch(rf"{len(values)} events in 1 lanes: (.+)", last)
    assert verdict is not None, done.stdout + done.stderr
    assert [*said, verdict[1]] == [line.replace("LANE", lane) for line in told], done.stderr
    assert done.returncode == (0 if told == ["whole"] else 1)


def test_the_auditors_program_takes_no_topic_without_events_for_whole(honest: Scene, program: list[str | Path]) -> None:
    empty, nowhere = f"{honest.topics.transitions}-empty", f"{honest.topics.transitions}-nowhere"
    create_topics(honest.kafka.bootstrap, empty, partitions=1)
    try:
        for topic in (empty, nowhere):
            done = run_to_end([*program, honest.kafka.bootstrap, topic])
            assert (done.returncode, done.stdout) == (1, f"no events in {topic}: is it called so?\n"), done.stderr
    finally:
        delete_topics(honest.kafka.bootstrap, empty)
    assert nowhere not in honest.admin().list_topics(timeout=patience(60)).topics


def test_an_anchor_that_is_none_is_a_wrong_usage(honest: Scene, tmp_path: Path) -> None:
    (tmp_path / "anchor.json").write_text("{}")

    for name in ("anchor.json", "nowhere.json"):
        done = run(honest, "audit", "verify", "--no-topic", "--anchor", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (2, "")
        assert name in done.stderr


def test_events_that_nobody_decided_are_named(scene: Scene) -> None:
    Load(scene, scene.new_tokens(8)).send(1, 8)
    with scene.worker():
        scene.wait_consumed()
    event = history(scene)[0]
    beyond = event | {"sequence": 2**63}
    published(
        scene,
        event | {"user_id": "somebody else"},
        event | {"sequence": 99},
        {"no": "event"},
        event,
        beyond | {"hash": event_hash(beyond)},
    )

    report = verified(scene)

    # The whole events bear another's key.
    assert report["events"] == 13
    assert report["counts"] == {Kind.OTHER_EVENT: 3 + 4, Kind.UNKNOWN_EVENT: 1}


def test_a_history_that_was_made_anew_differs_from_what_was_published(scene: Scene) -> None:
    """Chains, heads and states all fit: only an earlier reader of the events can tell, and the topic."""
    Load(scene, scene.new_tokens(8)).send(1, 8)
    with scene.worker():
        scene.wait_consumed()
    for table in ("transition", "access_token"):
        scene.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    scene.execute("UPDATE lane SET chain_sequence = 0, chain_hash = $1 WHERE partition = 0", bytes(32))
    gone = scene.rows(
        "DELETE FROM transition USING lane WHERE lane.id = transition.lane AND lane.partition = 0"
        " RETURNING access_token_id"
    )
    scene.execute(
        "UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE', version = 0 WHERE id = ANY ($1)",
        [row["access_token_id"] for row in gone],
    )

    assert verified(scene, "--no-topic")["holds"]
    assert "no finding in what was read" in run(scene, "audit", "verify", "--no-topic").stdout
    assert verified(scene)["counts"] == {Kind.UNKNOWN_EVENT: len(gone)}


def test_the_topic_tells_what_was_changed_and_that_a_removed_transition_had_an_event(scene: Scene) -> None:
    Load(scene, scene.new_tokens(12)).send(1, 12)
    with scene.worker():
        scene.wait_consumed()
    [first, second, *_] = [event for event in history(scene) if event["lane"].endswith("/0")]
    scene.execute("ALTER TABLE transition DISABLE TRIGGER ALL")
    for event, change in (
        (first, "UPDATE transition SET user_id = 'somebody else'"),
        (second, "DELETE FROM transition"),
    ):
        scene.execute(f"{change} WHERE access_token_id = $1", event["access_token_id"])

    report = verified(scene)

    [differs] = found(report, Kind.OTHER_EVENT)
    assert differs == f"user_id is {first['user_id']}, the transition's somebody else"
    assert len(found(report, Kind.UNKNOWN_EVENT)) == 1
    assert found(report, Kind.NO_EVENT) == []


def test_transitions_whose_events_are_gone_are_named(scene: Scene) -> None:
    Load(scene, scene.new_tokens(8)).send(1, 8)
    with scene.worker(MAX_BATCH="1"):
        scene.wait_consumed()
    admin = scene.admin()
    for deleted in admin.delete_records([TopicPartition(scene.topics.transitions, 0, 1)]).values():
        deleted.result(timeout=patience(60))

    what = found(verified(scene), Kind.NO_EVENT)

    assert what == ["sequence 1 has no event, or was removed with the beginning of the topic"]


def test_it_holds_while_workers_are_at_work(scene: Scene) -> None:
    count = 3000
    load = Load(scene, scene.new_tokens(count))
    looks: list[dict[str, Any]] = []
    with scene.worker(MAX_BATCH="10"), working_off(load, count):
        while not looks or looks[-1]["transitions"] < count:
            looks.append(verified(scene))

    assert all(report["holds"] for report in looks), looks


@contextmanager
def working_off(load: Load, count: int) -> Iterator[None]:
    load.send(1, count)
    yield
    load.scene.wait_consumed()


def test_what_was_decided_and_not_yet_published_is_no_fault(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(80))
    load.send(1, 80)
    dying = scene.worker(command=faulty("between_the_commits:3:SIGKILL"), MAX_BATCH="5")
    try:
        assert dying.start().wait_end() == -signal.SIGKILL
    finally:
        dying.kill()

    report = verified(scene)

    assert report["holds"], report["findings"]
    assert report["unpublished"] > 0
    assert report["transitions"] == report["events"] + report["unpublished"]
