"""``contact erase``: neither the database nor any topic holds the erased data, and the chains still verify."""

import asyncio
import json
from base64 import b64encode
from collections import Counter
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import asyncpg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from tests.acceptance.clients import Outgoing, log_ends, read_to_end
from tests.acceptance.scene import Scene, answer, body, check_chains, event_id, history, status
from tests.acceptance.test_history_and_explain import run
from tests.support.pace import patience
from tests.support.seeded import CARD_CODE, CODE, CODE_OF_IDENTIFIER, CONTACT, IDENTIFIER, OTHER_TOKEN_ID, PASS_CODE
from worker.operations.reconcile.reconcile import reconcile
from worker.settings import read_settings

pytestmark = pytest.mark.real_kafka

ERASED: Final = (
    "Polina",
    "Kestora",
    "112233",
    "IRAN",
    IDENTIFIER,
    CODE,
    CODE_OF_IDENTIFIER,
    "ACR0000000069",
    "RP0000000010",
)


def erase(scene: Scene, *more: str) -> tuple[int, str, str]:
    owner = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn}
    done = run(scene, "contact", "erase", "--organisation", "ORG1", CONTACT, *more, **owner)
    return done.returncode, done.stdout, done.stderr


def everything_stored(scene: Scene) -> str:
    """Return every column of every table as text, and the planner's statistics of them."""

    async def read(connection: asyncpg.Connection) -> str:
        names = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        rows = [await connection.fetch(f"SELECT t::text FROM {row['name']} AS t") for row in names]
        rows.append(await connection.fetch("SELECT s::text FROM pg_stats AS s WHERE schemaname = 'public'"))
        return "\n".join(row[0] for found in rows for row in found)

    return scene.ask(read)


def everything_said(scene: Scene) -> str:
    """Return key, value and headers of every record of every topic."""
    topics = (scene.topics.commands, scene.topics.results, scene.topics.transitions, scene.topics.dead_letters)
    return "\n".join(
        repr((record.key, record.value, record.headers))
        for topic in topics
        for record in read_to_end(scene.kafka.bootstrap, topic)
    )


def held(text: str) -> set[str]:
    return {value for value in ERASED if value in text}


def a_customers_traces(scene: Scene) -> None:
    # The fixture has the same code in another organisation, where it belongs to another person.
    scene.execute("UPDATE access_token SET authentication_code = 'another' WHERE organisation = 'ORG2'")
    by_identifier = {"identifier": IDENTIFIER, "pass_code": PASS_CODE}
    wrong = {"identifier": IDENTIFIER, "pass_code": "wrong"}
    scene.send(
        Outgoing(body(CODE), b"a", event_id("golden"), 0),
        Outgoing(body("", access_token_identifier=wrong), b"a", (), 1),
        Outgoing(body("", access_token_identifier=by_identifier), b"a", event_id("by identifier"), 2),
        Outgoing(f'{{"identifier": "{IDENTIFIER}", '.encode(), b"a", (), 3),
        Outgoing(body(CARD_CODE), b"b", event_id("somebody else"), 3),
    )
    with scene.worker():
        scene.wait_consumed()


def read_by_everybody(scene: Scene) -> None:
    """Let a group have read results and dead letters to their ends."""
    admin = scene.admin()
    places = [
        TopicPartition(topic, partition, end)
        for topic in (scene.topics.results, scene.topics.dead_letters)
        for partition, end in log_ends(scene.kafka.bootstrap, topic).items()
    ]
    group = ConsumerGroupTopicPartitions(f"readers-{scene.group}", places)
    for altered in admin.alter_consumer_group_offsets([group]).values():
        altered.result(timeout=patience(60))


def test_nothing_is_left_of_an_erased_customer(scene: Scene) -> None:
    scene.execute(
        "UPDATE access_token SET verification_code = '731999' WHERE authentication_code = $1 AND organisation = 'ORG1'",
        CODE,
    )
    scene.execute("ANALYZE")
    a_customers_traces(scene)
    before = history(scene)
    assert held(everything_stored(scene)) == set(ERASED)
    assert {IDENTIFIER, "Polina", CODE} <= held(everything_said(scene))

    read_by_everybody(scene)
    code, out, _ = erase(scene, "--yes", "--delete-records", "--json")
    document = json.loads(out)

    assert (code, document["done"], document["rows"]["access_token"]) == (0, True, 2)
    assert held(everything_stored(scene)) == set()
    assert held(everything_said(scene)) == set()
    assert "731999" not in everything_stored(scene)
    assert all(each["deleted"] for each in document["mentions"])
    digests = scene.rows("SELECT DISTINCT digest FROM command_record WHERE access_token_id <> $1", OTHER_TOKEN_ID)
    assert digests == [{"digest": bytes(32)}]
    told = run(scene, "explain", "ce:ORG1:%2Fshop:golden")
    assert "its answers can no longer be told from others" in told.stdout, told.stderr
    # The events are still told, and still whole.
    assert history(scene) == before
    check_chains(before)
    report = asyncio.run(reconcile(read_settings(scene.settings), clock=lambda: datetime.now(UTC)))
    assert report.findings == []


PERSON: Final = "Melusine-Quaranta"
"""A name that is in no field of the customer's: only its command tells whose it is."""


def placed_anywhere() -> list[Outgoing]:
    """Return commands about the customer, with the person's name in every place that a sender fills."""
    by_identifier = {"identifier": IDENTIFIER, "pass_code": "wrong"}
    name = PERSON.encode()
    event = {
        "specversion": "1.0",
        "id": PERSON,
        "source": f"/{PERSON}",
        "type": "access_token.set_effective.v1",
        "data_base64": b64encode(body(CODE)).decode(),
    }
    structured = [("content-type", b"application/cloudevents+json")]
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in CODE)
    return [
        Outgoing(body(CODE), name, event_id(PERSON, f"/{PERSON}"), 0),  # applied
        Outgoing(body(CODE), b"a", event_id(f"{PERSON}-2"), 0),  # refused: it is effective
        Outgoing(body(CODE, request_unique_identifier=PERSON), b"a", (), 1),
        Outgoing(body(CODE), b"a", [*event_id("3"), ("ce_subject", name)], 1),
        Outgoing(body(CODE), b"a", [("correlation_id", name), ("kafka_correlationId", name)], 1),
        Outgoing(body(CODE), b"a", [(PERSON, b"x"), ("note", name)], 1),
        Outgoing(body(CODE, fields_set=PERSON), b"a", event_id(f"{PERSON}-4"), 2),
        Outgoing(body(CODE, **{PERSON: PERSON}), b"a", event_id(f"{PERSON}-5"), 2),
        Outgoing(body(CODE), b"a", [*event_id(f"{PERSON}-6"), ("dry_run", b"true")], 2),
        Outgoing(body(CODE), b"a", [("dry_run", name)], 2),
        Outgoing(body("", access_token_identifier=by_identifier), name, event_id(f"{PERSON}-7"), 3),
        Outgoing(json.dumps(event).encode(), b"a", structured, 3),
        Outgoing(f'{{"{PERSON}": "{CODE}", '.encode(), b"a", event_id(f"{PERSON}-8"), 3),
        Outgoing(f'{{"{PERSON}": "{escaped}"}}'.encode(), b"a", (), 3),
        Outgoing(body("none", **{quote(IDENTIFIER, safe=""): PERSON}), b"a", event_id(f"{PERSON}-9"), 3),
    ]


def test_no_letter_of_a_person_is_left_wherever_a_sender_has_put_it(scene: Scene) -> None:
    scene.execute("UPDATE access_token SET authentication_code = 'another' WHERE organisation = 'ORG2'")
    sent = placed_anywhere()
    scene.send(*sent, *(Outgoing(body(CARD_CODE, fields_set="number"), b"b", (), each) for each in range(4)))
    with scene.worker():
        scene.wait_consumed()
    everywhere = everything_stored(scene) + everything_said(scene)
    assert PERSON in everything_stored(scene)

    read_by_everybody(scene)
    planned = json.loads(erase(scene, "--json")[1])
    code, out, err = erase(scene, "--yes", "--delete-records", "--json")

    assert code == 0, err
    found = Counter(dict.fromkeys((scene.topics.commands, scene.topics.results, scene.topics.dead_letters), 0))
    for each in planned["mentions"]:
        found[each["topic"]] += each["records"]
    letters = everywhere.count("'dl_code'")
    assert found == {
        scene.topics.commands: len(sent),
        scene.topics.results: len(sent),
        scene.topics.dead_letters: letters,
    }
    assert all(each["deleted"] for each in json.loads(out)["mentions"])
    left = everything_stored(scene) + everything_said(scene)
    assert [value for value in (PERSON, *ERASED) if value in left] == []
    # Data that others have sent is still told.
    assert len(scene.seen(scene.topics.commands)) == 4


@pytest.mark.slow(
    why="a world of its own, in which nothing happens: 7 s",
    instead="tests/integration/test_erasing.py::test_a_dry_run_waits_for_no_lane_and_locks_nothing",
)
def test_without_yes_it_only_shows_what_would_go(scene: Scene) -> None:
    a_customers_traces(scene)
    before = scene.every_table()
    code, out, _ = erase(scene)

    assert (code, scene.every_table()) == (0, before)
    assert f"contact {CONTACT} of ORG1: would be erased, with --yes" in out
    assert "access_token: 2" in out
    assert f"{scene.topics.results}/0: 1 record below offset 1: retention removes it by" in out
    assert "no group's position is known there" in out
    # The worker's group has read all commands, and no other group does.
    assert f"{scene.topics.commands}/0: 1 record below offset 1" in out
    assert "--delete-records deletes it" in out
    assert held(out) == set()


def test_what_somebody_has_not_read_is_not_deleted(scene: Scene) -> None:
    a_customers_traces(scene)
    code, out, _ = erase(scene, "--yes", "--delete-records", "--json")
    deleted = {each["topic"]: each["deleted"] for each in json.loads(out)["mentions"]}

    assert code == 0
    assert deleted == {scene.topics.commands: True, scene.topics.results: False, scene.topics.dead_letters: False}
    assert held(everything_stored(scene)) == set()
    assert len(scene.seen(scene.topics.results)) == 5


def test_an_erased_customer_can_no_longer_log_in_and_is_shown_as_nobody(scene: Scene) -> None:
    a_customers_traces(scene)
    erase(scene, "--yes")
    scene.send(
        Outgoing(body(CODE), b"a", event_id("golden"), 0),
        Outgoing(body("", access_token_identifier={"identifier": IDENTIFIER, "pass_code": PASS_CODE}), b"a", (), 1),
        Outgoing(body(CARD_CODE), b"b", event_id("somebody else"), 3),
    )
    with scene.worker():
        new = [record for record in scene.results(8) if record.offset and record.partition in {0, 1, 3}]

    assert {status(record)[0] for record in new if record.partition != 3} == {
        "ACCESS_TOKEN_NOT_FOUND",
        "INVALID_CREDENTIALS",
    }
    assert ("OK", "true") in map(status, new)
    assert all("Polina" not in json.dumps(answer(record)) for record in new)


@pytest.mark.slow(
    why="a world of its own: 7 s",
    instead="tests/acceptance/test_erasure.py::test_nothing_is_left_of_an_erased_customer",
)
def test_it_may_be_run_again_and_an_unknown_contact_is_told(scene: Scene) -> None:
    assert erase(scene, "--yes")[0] == 0
    tables = scene.every_table()
    code, out, _ = erase(scene, "--yes")
    assert (code, "already erased, at 20" in out) == (0, True)
    assert scene.every_table() == tables

    done = run(scene, "contact", "erase", "--organisation", "ORG2", CONTACT, "--yes")
    assert (done.returncode, "has no contact" in done.stderr) == (1, True)


def test_what_topics_hold_of_an_erased_customer_is_told_and_deleted_later(scene: Scene) -> None:
    a_customers_traces(scene)
    assert erase(scene, "--yes")[0] == 0

    read_by_everybody(scene)
    code, out, _ = erase(scene, "--yes", "--delete-records", "--json")
    document = json.loads(out)

    assert (code, any(document["rows"].values())) == (0, False)
    assert document["erased_before"]
    assert all(each["deleted"] for each in document["mentions"])
    assert held(everything_said(scene)) == set()
    # The answers that are left are those to others; the erased data makes no difference.
    assert json.loads(erase(scene, "--json")[1])["mentions"] == []
    report = asyncio.run(reconcile(read_settings(scene.settings), clock=lambda: datetime.now(UTC)))
    assert report.findings == []


def test_reconcile_knows_the_answers_of_an_erased_customer(scene: Scene) -> None:
    a_customers_traces(scene)
    assert erase(scene, "--yes")[0] == 0

    report = asyncio.run(reconcile(read_settings(scene.settings), clock=lambda: datetime.now(UTC)))

    assert report.findings == []
    assert report.results == 5


def test_nothing_is_erased_while_kafka_is_away(scene: Scene) -> None:
    before = scene.every_table()
    away = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn, "KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    done = run(scene, "contact", "erase", "--organisation", "ORG1", CONTACT, "--yes", **away)

    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was erased, since topics must be searched first: kafka" in done.stderr
    assert scene.every_table() == before


def test_the_workers_own_role_may_not_erase(scene: Scene) -> None:
    done = run(scene, "contact", "erase", "--organisation", "ORG1", CONTACT, "--yes")

    assert done.returncode == 1
    assert "permission denied" in done.stderr
    assert "Polina" in everything_stored(scene)


def test_nothing_is_erased_where_a_topic_is_not_there(scene: Scene) -> None:
    before = scene.every_table()
    settings = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn, "TOPICS__BULK_COMMANDS": "never-made"}
    done = run(scene, "contact", "erase", "--organisation", "ORG1", CONTACT, "--yes", **settings)

    assert done.returncode == 1
    assert "nothing was erased, since topics must be searched first: kafka: there is no topic never-made" in done.stderr
    assert scene.every_table() == before


def test_a_topic_that_lanes_have_read_is_looked_at_though_no_setting_names_it(scene: Scene) -> None:
    a_customers_traces(scene)
    settings = {"POSTGRES__OWNER_DSN": scene.database.owner_dsn, "TOPICS__COMMANDS": scene.topics.transitions}
    settings["TOPICS__TRANSITIONS"] = scene.topics.commands
    done = run(scene, "contact", "erase", "--organisation", "ORG1", CONTACT, "--json", **settings)

    assert done.returncode == 0, done.stderr
    assert scene.topics.commands in {each["topic"] for each in json.loads(done.stdout)["mentions"]}
