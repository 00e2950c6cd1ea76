"""The broker takes no record of that size: the answer is shortened, its status stays, and no other is affected."""

from typing import Final

import pytest

from tests.acceptance.clients import Outgoing
from tests.acceptance.deliveries import in_both_deliveries
from tests.acceptance.scene import Scene, answer, body, event_id, history, status
from tests.support.seeded import CODE

pytestmark = pytest.mark.real_kafka

SMALL: Final = 2000
"""Bytes: enough for a refusal, and for an answer of a few fields; not for one with an account in it."""


def limit(scene: Scene, topic: str, size: int) -> None:
    """Set the largest batch of records, in bytes, that the topic takes from now on."""
    scene.set_up(topic, "max.message.bytes", str(size))


@in_both_deliveries(
    pytest.mark.slow(
        why="the same story in the other delivery: 6 s",
        instead="tests/acceptance/test_large_answer.py::test_an_answer_too_large_keeps_its_status_and_loses_its_data",
    )
)
def test_an_answer_too_large_keeps_its_status_and_loses_its_data(scene: Scene, delivery: str) -> None:
    codes = scene.new_tokens(6)
    small = [Outgoing(body(code, fields_set="number"), code.encode(), (), 1) for code in codes]
    large = Outgoing(body(CODE), b"large", event_id("large"), 1)
    limit(scene, scene.topics.results, SMALL)
    scene.send(*small[:3], large, *small[3:])
    with scene.worker(DELIVERY=delivery) as worker:
        records = scene.results(7)
        scene.wait_consumed()
        assert worker.events("answer_shortened")
        assert worker.terminate() == 0

    assert [status(record) for record in records] == [("OK", "false")] * 7
    assert [answer(record)["data"] for record in records] == [
        *({"number": code} for code in codes[:3]),
        {},
        *({"number": code} for code in codes[3:]),
    ]
    messages = [answer(record)["status"]["message"] for record in records]
    assert "too large" in messages.pop(3)
    assert messages == [""] * 6
    assert [record.key for record in records] == [record.key for record in (*small[:3], large, *small[3:])]
    # At least once, the events of the attempts that the results topic refused are out.
    events = {(event.key, event.value) for event in scene.transitions()}
    assert len(events) == len(history(scene)) == 7
    assert delivery == "at_least_once" or len(scene.transitions()) == 7
    assert scene.dead_letters() == []


def test_a_replay_of_an_answer_too_large_comes_whole_once_there_is_room(scene: Scene) -> None:
    limit(scene, scene.topics.results, SMALL)
    with scene.worker():
        scene.send(Outgoing(body(CODE), b"", event_id("large"), 0))
        scene.results(1)
        limit(scene, scene.topics.results, 1_000_000)
        scene.send(Outgoing(body(CODE), b"", event_id("large"), 0))
        first, again = scene.results(2)

    assert (status(first), status(again)) == (("OK", "false"), ("OK", "true"))
    assert first.header("ce_id") == again.header("ce_id")
    assert answer(first)["data"] == {}
    assert answer(again)["data"]["authentication_code"] == CODE


def test_a_dead_letter_too_large_is_cut(scene: Scene) -> None:
    code = scene.new_tokens(1)[0]
    garbage = b"x" * 200_000
    limit(scene, scene.topics.dead_letters, 100_000)
    scene.send(
        Outgoing(garbage, b"key", [("correlation_id", b"7"), ("other", b"y" * 50_000)], 2),
        Outgoing(body(code), b"", (), 2),
        Outgoing(b"not JSON", b"small", [("other", b"z")], 2),
    )
    with scene.worker():
        records = scene.results(3)
        scene.wait_consumed()

    assert [status(record)[0] for record in records] == ["MALFORMED_REQUEST", "OK", "MALFORMED_REQUEST"]
    assert records[0].header("correlation_id") == b"7"
    cut, whole = scene.dead_letters()
    assert cut.header("dl_truncated") == b"true"
    assert (cut.key, cut.header("dl_code"), cut.header("dl_offset")) == (b"key", b"MALFORMED_REQUEST", b"0")
    assert cut.value == garbage[: len(cut.value or b"")]
    assert len(cut.value or b"") > 10_000
    assert whole.header("dl_truncated") is None
    assert (whole.key, whole.value, whole.header("other")) == (b"small", b"not JSON", b"z")
