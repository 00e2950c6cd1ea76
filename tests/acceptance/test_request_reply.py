"""Request and reply with third-party clients, and nothing of ours installed in them (CONTRACT, Command)."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.acceptance.clients import Outgoing, Record, read_committed
from tests.acceptance.scene import PARTITIONS, Scene, answer, body, event_id, history, status
from tests.providers import Unavailable
from tests.providers.kafka import create_topics, delete_topics, spring_program
from tests.support.pace import patience
from tests.support.seeded import CODE
from tests.support.waiting import run_to_end

pytestmark = pytest.mark.real_kafka

CLIENTS: Final = Path(__file__).parents[1] / "clients"
STRUCTURED: Final = ("content-type", b"application/cloudevents+json; charset=UTF-8")
JAVA_MURMUR2_OF_ABC: Final = 479470107
"""The value in the Java client's own tests."""
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def replies(scene: Scene) -> Iterator[str]:
    """Yield a topic of the sender's, with another number of partitions than the worker's own."""
    name = f"replies-{uuid4().hex[:12]}"
    create_topics(scene.kafka.bootstrap, name, partitions=PARTITIONS - 1)
    yield name
    if name in scene.admin().list_topics(timeout=patience(60)).topics:
        delete_topics(scene.kafka.bootstrap, name)


def allowing(scene: Scene, *patterns: str, **settings: str) -> Any:
    return scene.worker(TOPICS__REPLY_TO_ALLOWED=",".join(patterns), **settings)


def number(partition: int) -> tuple[str, bytes]:
    return "kafka_replyPartition", partition.to_bytes(4, "big")


def answers(records: Sequence[Record]) -> dict[bytes | None, tuple[str, int]]:
    """Return the status of each correlated answer, and the partition that it came in."""
    return {record.header("correlation_id"): (status(record)[0], record.partition) for record in records}


# --- confluent-kafka --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_topic_for_replies_may_be_newer_than_the_worker(scene: Scene, delivery: str) -> None:
    """A producer must not forget the topics that it has known from its start when it asks for a new one."""
    codes = scene.new_tokens(PARTITIONS)
    name = f"replies-{uuid4().hex[:12]}"
    with allowing(scene, "replies-*", DELIVERY=delivery) as worker:
        create_topics(scene.kafka.bootstrap, name)
        try:
            here = ("reply_to", name.encode())
            # Each is the first of its lane, and has a transition as well.
            scene.send(*(Outgoing(body(code), b"a", [here], place) for place, code in enumerate(codes)))
            records = read_committed(scene.kafka.bootstrap, name, until=PARTITIONS)
            assert {status(record)[0] for record in records} == {"OK"}
            assert worker.events("producer_replaced") == []
            assert worker.terminate() == 0
        finally:
            delete_topics(scene.kafka.bootstrap, name)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_every_answer_is_where_its_sender_waits_and_nowhere_else(scene: Scene, replies: str, delivery: str) -> None:
    code, other, third = scene.new_tokens(3)
    here = ("reply_to", replies.encode())
    scene.send(
        Outgoing(body(code), b"a", [here, number(2), ("correlation_id", b"there")], 0),
        Outgoing(body(other), b"abc", [("kafka_replyTopic", replies.encode()), ("correlation_id", b"by key")], 1),
        Outgoing(b"not JSON", b"c", [here, number(0), ("correlation_id", b"malformed")], 0),
        Outgoing(body("unknown"), b"d", [here, number(1), ("correlation_id", b"refused")], 0),
        Outgoing(body(third), b"e", [("correlation_id", b"ours")], 0),
    )
    with allowing(scene, "replies-*", DELIVERY=delivery):
        read_committed(scene.kafka.bootstrap, replies, until=4)
        ours = scene.results(1)
        redirected = scene.seen(replies)

    given = answers(redirected)
    _, keyed = given.pop(b"by key")
    assert given == {
        b"there": ("OK", 2),
        b"malformed": ("MALFORMED_REQUEST", 0),
        b"refused": ("ACCESS_TOKEN_NOT_FOUND", 1),
    }
    assert keyed == JAVA_MURMUR2_OF_ABC % (PARTITIONS - 1)
    assert answers(ours) == {b"ours": ("OK", 0)}
    assert [letter.header("correlation_id") for letter in scene.dead_letters()] == [b"malformed"]


def test_what_may_not_be_redirected_is_refused_in_the_results_topic_and_changes_nothing(
    scene: Scene, replies: str
) -> None:
    codes = scene.new_tokens(5)
    places = [
        [("reply_to", b"elsewhere")],
        [("reply_to", b"replies-nowhere")],
        [("reply_to", replies.encode()), number(PARTITIONS - 1)],
        [("reply_to", scene.topics.transitions.encode())],
        [("reply_to", replies.encode()), ("kafka_replyTopic", b"replies-other")],
    ]
    scene.send(*(Outgoing(body(code), None, place, 0) for code, place in zip(codes, places, strict=True)))
    with allowing(scene, "replies-*", "transitions-*"):
        records = scene.results(len(codes))
        scene.wait_consumed()

    assert [status(record)[0] for record in records] == ["INVALID_PARAMETER"] * len(codes)
    said = [answer(record)["status"]["message"] for record in records]
    wanted = ["no answers may be sent", "does not exist", "none with the number", "own topics", "another topic"]
    assert [part for part, message in zip(wanted, said, strict=True) if part not in message] == []
    assert history(scene) == []
    assert scene.seen(replies) == []
    # Asking for a topic has not made it.
    assert "replies-nowhere" not in scene.admin().list_topics(timeout=patience(60)).topics


@pytest.mark.parametrize("encoded", [False, True])
def test_a_whole_cloud_event_is_answered_as_its_headers_would_be(scene: Scene, replies: str, encoded: bool) -> None:
    [code] = scene.new_tokens(1)
    command = body(code, fields_set="number")
    data = {"data_base64": base64.b64encode(command).decode()} if encoded else {"data": json.loads(command)}
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "access_token.set_effective.v1",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        **data,
    }
    structured = Outgoing(json.dumps(event).encode(), b"", [STRUCTURED, ("reply_to", replies.encode())], 0)
    binary = Outgoing(command, b"", [*event_id("e-1"), ("reply_to", replies.encode())], 0)
    with allowing(scene, "replies-*"):
        scene.send(structured, binary)
        first, again = read_committed(scene.kafka.bootstrap, replies, until=2)

    assert (status(first), status(again)) == (("OK", "false"), ("OK", "true"))
    assert answer(first)["data"] == {"number": code}
    assert first.header("command_id") == b"ce:ORG1:%2Fshop:e-1" == again.header("command_id")
    assert (first.header("traceparent") or b"").decode().startswith(f"00-{TRACE}-")


def test_a_reply_topic_that_takes_nothing_that_large_gets_the_status_all_the_same(scene: Scene, replies: str) -> None:
    scene.set_up(replies, "max.message.bytes", "2000")
    small, code = scene.new_tokens(1)[0], CODE
    here = ("reply_to", replies.encode())
    scene.send(
        *(Outgoing(body(each, fields_set=fields), b"", [here], 0) for each, fields in ((small, "number"), (code, "")))
    )
    with allowing(scene, "replies-*"):
        first, second = read_committed(scene.kafka.bootstrap, replies, until=2)
        scene.wait_consumed()

    assert [status(record) for record in (first, second)] == [("OK", "false")] * 2
    assert [answer(record)["data"] for record in (first, second)] == [{"number": small}, {}]
    assert "too large" in answer(second)["status"]["message"]
    assert scene.seen(scene.topics.results) == []


def test_a_reply_topic_that_vanishes_loses_its_answers_to_the_results_topic_and_stops_nobody(
    scene: Scene, replies: str
) -> None:
    known, lost, last = scene.new_tokens(3)
    here = ("reply_to", replies.encode())
    with allowing(scene, "replies-*") as worker:
        scene.send(Outgoing(body(known), b"", [here], 0))
        read_committed(scene.kafka.bootstrap, replies, until=1)
        delete_topics(scene.kafka.bootstrap, replies)
        scene.send(Outgoing(body(lost), b"", [here], 0), Outgoing(body(last), b"", (), 0))
        records = scene.results(2)
        assert worker.events("reply_topic_avoided")
        assert worker.terminate() == 0

    assert [status(record) for record in records] == [("OK", "false")] * 2
    assert len(history(scene)) == 3


# --- a broker that guards its topics, and makes those that are asked for ----------------------------------------------


def test_a_forbidden_topic_stops_nobody_and_a_missing_one_is_not_made_by_asking_for_it(guarded: Scene) -> None:
    forbidden, missing = "replies-forbidden", "replies-missing"
    create_topics(guarded.kafka.bootstrap, forbidden, partitions=1)
    admin = guarded.admin()
    denied = AclBinding(
        ResourceType.TOPIC,
        forbidden,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    allowed = AclBinding(
        ResourceType.TOPIC,
        forbidden,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.DESCRIBE,
        AclPermissionType.ALLOW,
    )
    for made in admin.create_acls([denied, allowed]).values():
        made.result(timeout=patience(60))
    codes = guarded.new_tokens(3)
    places = [[("reply_to", forbidden.encode())], [], [("reply_to", missing.encode())]]
    guarded.send(*(Outgoing(body(code), b"", place, 0) for code, place in zip(codes, places, strict=True)))

    with allowing(guarded, "replies-*") as worker:
        records = guarded.results(3)
        assert worker.events("reply_topic_avoided")

    assert [status(record)[0] for record in records] == ["OK", "OK", "INVALID_PARAMETER"]
    assert len(history(guarded)) == len(guarded.transitions()) == 2
    assert missing not in admin.list_topics(timeout=patience(60)).topics


# --- Spring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            "1",
            marks=pytest.mark.slow(
                why="a virtual machine, and the compilation of the program: 10 s",
                instead="tests/acceptance/test_request_reply.py::test_springs_replying_template_gets_every_reply",
            ),
        ),
        "group",
    ],
)
def test_springs_replying_template_gets_every_reply(scene: Scene, replies: str, place: str) -> None:
    try:
        program = spring_program()
    except Unavailable as reason:
        pytest.skip(f"Spring's client: {reason}")
    codes = scene.new_tokens(20)
    commands = [*(body(code, fields_set="number") for code in codes), b"not JSON", body("unknown")]
    with allowing(scene, "replies-*"):
        done = run_to_end(
            [
                program.java,
                "-XX:TieredStopAtLevel=1",
                "-cp",
                f"{program.jars}/*",
                str(CLIENTS / "Replying.java"),
                scene.kafka.bootstrap,
                scene.topics.commands,
                replies,
                place,
            ],
            given=b"\n".join(commands).decode(),
            seconds=300,
        )
    assert done.returncode == 0, done.stderr[-2000:]

    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [int(number) for number, *_ in lines] == list(range(len(commands)))
    assert [code for _, _, code, _ in lines] == ["OK"] * 20 + ["MALFORMED_REQUEST", "ACCESS_TOKEN_NOT_FOUND"]
    assert [json.loads(value)["data"] for *_, value in lines[:20]] == [{"number": code} for code in codes]
    partitions = {int(partition) for _, partition, *_ in lines}
    assert partitions == ({1} if place == "1" else set(range(PARTITIONS - 1)))
    assert scene.seen(scene.topics.results) == []


# --- Go ---------------------------------------------------------------------------------------------------------------


def built(directory: Path) -> Path:
    """Return the Go program, built; skip where there is no Go, or the program's modules are missing."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    program = directory / "replying"
    fetched = go("mod", "download")
    if fetched.returncode:
        pytest.skip(f"the modules of the client in Go cannot be had: {fetched.stderr.strip()[-200:]}")
    made = go("build", "-o", str(program), ".")
    assert made.returncode == 0, made.stderr
    return program


def go(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    return run_to_end(["go", *arguments], cwd=CLIENTS / "replying", env=environment, seconds=600)


@pytest.mark.slow(
    why="a Go program with its modules is compiled: a minute of CPU",
    instead="tests/acceptance/test_request_reply.py::test_every_answer_is_where_its_sender_waits_and_nowhere_else",
)
def test_a_client_in_go_gets_every_reply(scene: Scene, replies: str) -> None:
    program = built(scene.directory)
    codes = scene.new_tokens(20)
    commands = [*(body(code, fields_set="number") for code in codes), b"not JSON"]
    with allowing(scene, replies):
        done = run_to_end(
            [str(program), scene.kafka.bootstrap, scene.topics.commands, replies],
            given=b"\n".join(commands).decode(),
            seconds=300,
        )
    assert done.returncode == 0, done.stderr

    lines = sorted((line.split("\t") for line in done.stdout.splitlines()), key=lambda line: int(line[0]))
    assert [code for _, _, code, _ in lines] == ["OK"] * 20 + ["MALFORMED_REQUEST"]
    assert [json.loads(value)["data"] for *_, value in lines[:20]] == [{"number": code} for code in codes]
    assert scene.seen(scene.topics.results) == []
