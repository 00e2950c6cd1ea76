"""A command sent, read or retried once more (CONTRACT, Idempotency), case by case."""

from collections.abc import Iterator
from itertools import count
from typing import Final
from uuid import uuid4

import pytest

from tests.acceptance.clients import Headers, Outgoing, Record, read_to_end
from tests.acceptance.scene import NUMBER, Scene, answer, body, event_id, history, status
from tests.acceptance.worker_process import WorkerProcess
from tests.support.logins import login_token
from tests.support.seeded import IDENTIFIER, PASS_CODE

pytestmark = pytest.mark.real_kafka

NEW: Final = ("OK", "false")
REPLAY: Final = ("OK", "true")


def by_identifier(pass_code: str, **members: str) -> bytes:
    return body("", access_token_identifier={"identifier": IDENTIFIER, "pass_code": pass_code}, **members)


# --- repetitions while the worker runs: one worker for all, access tokens of its own for each test ------------------


class Conversation:
    """A running worker, given one command after the other."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._numbers = count(1)

    def ask(self, *commands: tuple[bytes, Headers]) -> list[Record]:
        """Send the commands at once, and wait for the answer of each."""
        numbers = [str(next(self._numbers)).encode() for _ in commands]
        self.scene.send(
            *(
                Outgoing(value, b"key", [(NUMBER, number), *headers], 0)
                for number, (value, headers) in zip(numbers, commands, strict=True)
            )
        )
        self.scene.wait_consumed()
        answers = read_to_end(self.scene.kafka.bootstrap, self.scene.topics.results)
        asked = [[record for record in answers if record.header(NUMBER) == number] for number in numbers]
        assert [len(found) for found in asked] == [1] * len(commands)
        return [found[0] for found in asked]

    def ask_one(self, value: bytes, headers: Headers = ()) -> Record:
        return self.ask((value, headers))[0]

    def new_code(self, *, organisation: str = "ORG1") -> str:
        """Return the code of a new access token that is not effective."""
        return self.scene.new_tokens(1, prefix=f"token-{uuid4().hex[:8]}", organisation=organisation)[0]

    def count_transitions(self, code: str) -> int:
        """Return the number of changes of the access token, on which the events and the table must agree."""
        events = [answer(record)["access_token_id"] for record in self.scene.transitions()]
        recorded = [event["access_token_id"] for event in history(self.scene)]
        assert events.count(code) == recorded.count(code)
        return events.count(code)


@pytest.fixture(scope="module")
def conversation(shared_scene: Scene) -> Iterator[Conversation]:
    with shared_scene.worker():
        yield Conversation(shared_scene)


def test_a_new_delivery_of_an_applied_event_is_answered_again(conversation: Conversation) -> None:
    code, headers = conversation.new_code(), event_id("applied")
    first = conversation.ask_one(body(code), headers)
    again = conversation.ask_one(body(code), headers)

    assert (status(first), status(again)) == (NEW, REPLAY)
    assert answer(again) == answer(first)
    for name in ("ce_id", "command_id", "causation_id"):
        assert again.header(name) == first.header(name)
    assert first.header("command_id") == b"ce:ORG1:%2Fshop:applied"
    assert conversation.count_transitions(code) == 1


def test_a_new_delivery_of_a_request_id_is_answered_again(conversation: Conversation) -> None:
    code = conversation.new_code()
    first = conversation.ask_one(body(code, request_unique_identifier="request 1"))
    again = conversation.ask_one(body(code, request_unique_identifier="request 1"))

    assert (status(first), status(again)) == (NEW, REPLAY)
    assert answer(again) == answer(first)
    assert again.header("ce_id") == first.header("ce_id")
    assert again.header("command_id") == first.header("command_id") == b"req:ORG1:request%201"
    assert again.header("causation_id") == b"request 1"
    assert conversation.count_transitions(code) == 1


def test_an_event_id_goes_before_a_request_id(conversation: Conversation) -> None:
    code = conversation.new_code()
    first = conversation.ask_one(body(code, request_unique_identifier="r-2"), event_id("e-2"))
    again = conversation.ask_one(body(code), event_id("e-2"))
    other = conversation.ask_one(body(code, request_unique_identifier="r-2"))

    assert (status(first), status(again)) == (NEW, REPLAY)
    assert first.header("causation_id") == b"e-2"
    assert status(other)[0] == "INVALID_LIFE_CYCLE_STATE"


def test_the_same_event_id_of_another_source_is_another_command(conversation: Conversation) -> None:
    codes = [conversation.new_code() for _ in "ab"]
    answers = [
        conversation.ask_one(body(code), event_id("shared", source))
        for code, source in zip(codes, ("/shop", "/app"), strict=True)
    ]
    assert [status(record) for record in answers] == [NEW, NEW]


@pytest.mark.parametrize("named", ["ce_id", "request_unique_identifier"])
def test_another_request_under_an_applied_id_is_a_duplicate(conversation: Conversation, named: str) -> None:
    code, other = conversation.new_code(), conversation.new_code()
    headers = event_id("conflict") if named == "ce_id" else ()
    members = {} if named == "ce_id" else {"request_unique_identifier": "conflict"}
    first = conversation.ask_one(body(code, fields_set="id, number", **members), headers)
    for changed in (body(other, fields_set="id,number", **members), body(code, fields_set="id", **members)):
        refused = conversation.ask_one(changed, headers)
        assert status(refused) == ("DUPLICATE_REQUEST", "false")
        assert answer(refused)["data"] == {}
        assert refused.header("command_id") == first.header("command_id")
        assert refused.header("ce_id") != first.header("ce_id")
    same = conversation.ask_one(body(code, fields_set="number,id,number", **members), headers)

    assert (status(first), status(same)) == (NEW, REPLAY)
    assert conversation.count_transitions(code) == 1
    assert conversation.count_transitions(other) == 0


def test_a_refused_command_may_be_put_right_under_its_id(conversation: Conversation) -> None:
    code, headers = conversation.new_code(), event_id("put right")
    refusals = [
        body(code, colour="red"),
        body(code, token="no token"),
        body(code, token=login_token(user="reader")),
        body("no such code"),
        body(conversation.scene.set_effective()),
    ]
    refused = [conversation.ask_one(value, headers) for value in refusals]
    good = conversation.ask_one(body(code), headers)

    assert [status(record)[0] for record in refused] == [
        "INVALID_PARAMETER",
        "INVALID_TOKEN",
        "ACCESS_DENIED",
        "ACCESS_TOKEN_NOT_FOUND",
        "INVALID_LIFE_CYCLE_STATE",
    ]
    assert status(good) == NEW
    assert len({record.header("ce_id") for record in (*refused, good)}) == len(refused) + 1
    assert conversation.count_transitions(code) == 1


def test_the_same_id_in_another_organisation_is_another_command(conversation: Conversation) -> None:
    codes = [conversation.new_code(), conversation.new_code(organisation="ORG2")]
    logins = [login_token(), login_token("ORG2")]
    answers = [
        conversation.ask_one(body(code, token=login), event_id("one for all"))
        for code, login in zip(codes, logins, strict=True)
    ]

    assert [status(record) for record in answers] == [NEW, NEW]
    assert [record.header("command_id") for record in answers] == [
        b"ce:ORG1:%2Fshop:one%20for%20all",
        b"ce:ORG2:%2Fshop:one%20for%20all",
    ]
    assert answers[0].header("ce_id") != answers[1].header("ce_id")
    assert [conversation.count_transitions(code) for code in codes] == [1, 1]


def test_a_used_id_lends_no_answer_to_who_has_not_the_credentials(conversation: Conversation) -> None:
    headers = event_id("with pass code")
    first = conversation.ask_one(by_identifier(PASS_CODE), headers)
    for refused, code in (
        (by_identifier("a wrong one"), "INVALID_CREDENTIALS"),
        (by_identifier(PASS_CODE, token=login_token(cii="app", acr="another account")), "INVALID_CREDENTIALS"),
        (by_identifier(PASS_CODE, token=login_token(user="reader")), "ACCESS_DENIED"),
        (by_identifier(PASS_CODE, token=login_token(exp=1_700_000_000)), "EXPIRED_TOKEN"),
    ):
        record = conversation.ask_one(refused, headers)
        assert status(record) == (code, "false")
        assert answer(record)["data"] == {}
    again = conversation.ask_one(by_identifier(PASS_CODE), headers)

    assert (status(first), status(again)) == (NEW, REPLAY)
    assert answer(again) == answer(first)


def test_a_retry_may_carry_a_fresh_login(conversation: Conversation) -> None:
    code, headers = conversation.new_code(), event_id("fresh login")
    first = conversation.ask_one(body(code, token=login_token(jti="monday")), headers)
    again = conversation.ask_one(body(code, token=login_token(jti="tuesday")), headers)

    assert (status(first), status(again)) == (NEW, REPLAY)


def test_a_replay_shows_the_access_token_as_it_is_now(conversation: Conversation) -> None:
    code, headers = conversation.new_code(), event_id("as it is now")
    conversation.ask_one(body(code, fields_set="udf_string_1"), headers)
    conversation.scene.execute("UPDATE access_token SET udf_string_1 = 'since then' WHERE id = $1", code)
    again = conversation.ask_one(body(code, fields_set="udf_string_1"), headers)

    assert status(again) == REPLAY
    assert answer(again)["data"] == {"udf_string_1": "since then"}


def test_without_an_id_every_delivery_is_a_command_of_its_own(conversation: Conversation) -> None:
    code = conversation.new_code()
    first, second = conversation.ask((body(code), ()), (body(code), ()))

    assert status(first) == NEW
    assert status(second)[0] == "INVALID_LIFE_CYCLE_STATE"
    for record in (first, second):
        assert (record.header("command_id") or b"").startswith(b"rec:")
        assert record.header("causation_id") == record.header("command_id")
    assert first.header("command_id") != second.header("command_id")


def test_correlation_comes_back_as_it_was(conversation: Conversation) -> None:
    code, opaque = conversation.new_code(), bytes(range(256)) * 4
    record = conversation.ask_one(body(code), [("kafka_correlationId", opaque)])
    refused = conversation.ask_one(body(code), [("kafka_correlationId", opaque[::-1])])

    assert record.header("kafka_correlationId") == opaque
    assert refused.header("kafka_correlationId") == opaque[::-1]


# --- repetitions in one batch -----------------------------------------------------------------------------------------


def in_one_batch(scene: Scene, *commands: tuple[bytes, Headers]) -> list[Record]:
    """Return the answers to commands that a worker finds waiting when it starts, and takes all at once."""
    scene.send(*(Outgoing(value, b"key", headers, 1) for value, headers in commands))
    with scene.worker() as worker:
        records = scene.results(len(commands))
        assert batches(worker) == {"count": 1, "sum": len(commands)}
    return records


def batches(worker: WorkerProcess) -> dict[str, float]:
    name = "effective_worker_batch_commands_"
    worker.wait(worker.metrics, "counts its batch", wanted=lambda told: f"{name}count 0.0" not in told)
    found = [line.removeprefix(name).split() for line in worker.metrics().splitlines() if line.startswith(name)]
    return {kind: float(value) for kind, value in found if kind in {"count", "sum"}}


def test_commands_of_one_batch_see_what_the_ones_before_them_did(scene: Scene) -> None:
    one, other, third = scene.new_tokens(3)
    records = in_one_batch(
        scene,
        (body(one), ()),  # a message without any header
        (body(one), ()),  # two commands for one access token
        (body(other), event_id("twice")),
        (body(other), event_id("twice")),  # one id twice
        (body(third), event_id("twice")),  # for another request
        (body(third), ()),
    )

    assert [status(record) for record in records] == [
        NEW,
        ("INVALID_LIFE_CYCLE_STATE", "false"),
        NEW,
        REPLAY,
        ("DUPLICATE_REQUEST", "false"),
        NEW,
    ]
    assert answer(records[3]) == answer(records[2])
    assert records[3].header("ce_id") == records[2].header("ce_id")
    assert [answer(event)["access_token_id"] for event in scene.transitions()] == [one, other, third]
    assert len(history(scene)) == 3


def test_one_id_in_two_partitions_at_once_applies_once(scene: Scene) -> None:
    codes = scene.new_tokens(300)
    token = login_token()
    for partition in (0, 1, 2, 3):
        scene.send(*(Outgoing(body(code, token=token), b"", event_id(code), partition) for code in codes))
    with scene.worker(MAX_BATCH="50"):
        records = scene.results(4 * len(codes))

    assert sorted(map(status, records)) == [NEW] * len(codes) + [REPLAY] * 3 * len(codes)
    assert len({record.header("ce_id") for record in records}) == len(codes)
    assert sorted(answer(event)["access_token_id"] for event in scene.transitions()) == sorted(codes)


# --- the same record read again ---------------------------------------------------------------------------------------


def test_offsets_set_back_by_hand_bring_the_same_answers_and_no_second_transition(scene: Scene) -> None:
    codes = scene.new_tokens(3)
    scene.send(
        Outgoing(body(codes[0]), b"a", [*event_id("a"), ("correlation_id", b"1")], 3),
        Outgoing(body(codes[0]), b"b", [("correlation_id", b"2")], 3),  # refused: it is effective by then
        Outgoing(b"not JSON", b"c", (), 3),
        Outgoing(body(codes[1]), b"d", (), 3),
        Outgoing(body(codes[0]), b"e", event_id("a"), 3),  # a replay
    )
    with scene.worker(MAX_BATCH="2") as worker:
        first = scene.results(5)
        assert worker.terminate() == 0
    tokens = scene.every_table()["access_token"]
    scene.set_offset(3, 0)
    # Read again, a record is answered before any check: by now its login may have expired, and its user may have gone.
    scene.execute("UPDATE app_user SET active = false WHERE username = 'mpadmin'")
    with scene.worker() as worker:
        both = scene.results(10)
        assert worker.events("offsets_set_back")
        assert "effective_worker_offsets_set_back_total 1.0" in worker.metrics()
        scene.wait_consumed()

    again = both[5:]
    assert both[:5] == first
    assert [(record.key, record.value, record.headers) for record in again] == [
        (record.key, record.value, record.headers) for record in first
    ]
    assert [status(record) for record in first] == [
        NEW,
        ("INVALID_LIFE_CYCLE_STATE", "false"),
        ("MALFORMED_REQUEST", "false"),
        NEW,
        REPLAY,
    ]
    events = scene.transitions()
    assert [(event.key, event.value, event.headers) for event in events[2:]] == [
        (event.key, event.value, event.headers) for event in events[:2]
    ]
    assert len(events) == 4
    assert len(history(scene)) == 2
    assert len(scene.dead_letters()) == 2
    assert scene.every_table()["access_token"] == tokens


@pytest.mark.slow(
    why="the group is emptied and filled once more: 7 s",
    instead="tests/acceptance/test_idempotency.py::test_offsets_set_back_by_hand_bring_the_same_answers_and_no_second_transition",
)
def test_a_command_that_comes_after_the_offsets_were_set_back_is_judged_anew(scene: Scene) -> None:
    code = scene.new_tokens(1)[0]
    scene.send(Outgoing(body(code), b"", event_id("a"), 0))
    with scene.worker() as worker:
        scene.results(1)
        assert worker.terminate() == 0
    scene.set_offset(0, 0)
    scene.send(Outgoing(body(code), b"", event_id("a"), 0), Outgoing(body(code), b"", (), 0))
    with scene.worker():
        records = scene.results(4)

    assert [status(record) for record in records] == [NEW, NEW, REPLAY, ("INVALID_LIFE_CYCLE_STATE", "false")]
    assert len(history(scene)) == 1
