"""The messages of an answered command, and the parts that stay the same in every answer.

See CONTRACT, Result, Transition event and Dead letter.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from effective_contract.codes import StatusCode
from effective_contract.headers import DeadLetterHeaders, ResultHeaders, TransitionHeaders
from effective_contract.result import Result
from effective_contract.transition import TransitionEvent, event_hash, verify_chain
from tests.support.builders import WHERE, delivery, transition
from worker.journey.messages import (
    INNOCENT_BYTES,
    Letters,
    Message,
    OutgoingTopics,
    dead_letter_message,
    messages,
    result_message,
    transition_message,
)
from worker.journey.model import Answer, Answered, Command, Decoded, Envelope, Refused, TokenKey, Transition
from worker.journey.redact import masked
from worker.kafka.delivery import KEPT_BYTES, Coordinates, Cut, Header

OUTGOING: Final = OutgoingTopics("results", "transitions", "dead-letters", "a group", "host:7")
MOMENT: Final = datetime(2026, 3, 4, 5, 6, 7, 80, UTC)
RECORD_ID: Final = "rec:cluster/commands/3/41@1700000000123"
COMMAND_ID: Final = "ce:ORG1:%2Fshop:order-7"
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMAND: Final = Command("login", "99021047380", None, None, 1)
OK: Final = Answer(COMMAND_ID, StatusCode.OK, "", MOMENT, token=TokenKey("ORG1", "t"), version=1, organisation="ORG1")
REFUSAL: Final = Answer(COMMAND_ID, StatusCode.INVALID_LIFE_CYCLE_STATE, "the access token is EFFECTIVE", MOMENT)
BROKEN: Final = Answer(RECORD_ID, StatusCode.MALFORMED_REQUEST, "the command is not JSON in UTF-8", MOMENT)
FACT: Final = transition("t", occurred_at=MOMENT, command_id=COMMAND_ID)
BODY: Final = (
    b'{"token": "secret-login", "access_token_identifier": {"identifier": "i", "pass_code": "secret-pass"}, "x": 1}'
)


def answered(
    answer: Answer = OK,
    *,
    envelope: Envelope | None = None,
    data: bytes | None = None,
    where: Coordinates = WHERE,
    value: bytes | None = BODY,
    headers: tuple[Header, ...] = (),
    key: bytes | None = b"the key",
    transition: Transition | None = None,
) -> Answered:
    sent = delivery(value, headers, where=where, key=key)
    request: Command | Refused = COMMAND if answer.code is StatusCode.OK else Refused(answer.code, answer.message)
    return Answered(Decoded(sent, envelope or Envelope(), request), answer, data, transition)


def hashed(transition: Transition) -> Transition:
    return replace(transition, text=transition.canonical(), hash=bytes.fromhex(event_hash(transition.members())))


@given(st.text(), st.text(), st.integers(0, 2**53 - 1))
def test_the_text_of_a_fact_is_canonical_and_what_is_hashed(name: str, lane: str, number: int) -> None:
    transition = replace(FACT, command_id=name, token=name, lane=lane, sequence=number)

    assert transition.canonical() == rfc8785.dumps(transition.members())
    assert event_hash(transition.members()) == hashlib.sha256(transition.canonical()).hexdigest()


def once(headers: Sequence[Header]) -> dict[str, bytes]:
    """Return the headers by name, each of which must be given only once."""
    named = dict(headers)
    assert len(named) == len(headers)
    return named


def texts(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in once(message.headers).items()}


def body_of(message: Message) -> Any:
    assert message.value is not None
    return json.loads(message.value)


# --- the result -------------------------------------------------------------------------------------------------------


def test_a_result_goes_to_the_results_topic_under_the_commands_key() -> None:
    message = result_message(answered(), OUTGOING)

    assert (message.topic, message.key) == ("results", b"the key")
    assert result_message(answered(key=None), OUTGOING).key is None


def test_an_ok_shows_the_data_as_it_is_and_no_words() -> None:
    message = result_message(answered(data=b'{"number":"AT1","udf_float_1":1.50}'), OUTGOING)

    assert message.value == (
        b'{"data":{"number":"AT1","udf_float_1":1.50},"status":{"code":"OK","description":"","message":""}}'
    )


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_a_refusal_shows_no_data_its_fixed_sentence_and_its_detail(code: StatusCode) -> None:
    message = result_message(answered(replace(REFUSAL, code=code)), OUTGOING)

    assert body_of(message) == {
        "data": {},
        "status": {"code": code.value, "description": code.description, "message": "the access token is EFFECTIVE"},
    }
    assert texts(message)["status_code"] == code.value
    assert message.value is not None
    Result.model_validate_json(message.value)


def test_a_result_carries_every_header_of_the_contract() -> None:
    envelope = Envelope(
        ce_id="order-7",
        ce_source="/shop",
        correlation=(("correlation_id", b"\x00\xff"), ("kafka_correlationId", b"k")),
        traceparent=TRACEPARENT,
        tracestate="vendor=1",
        request_id="req-1",
    )
    headers = once(result_message(answered(envelope=envelope), OUTGOING).headers)

    assert headers.pop("correlation_id") == b"\x00\xff"
    assert headers.pop("kafka_correlationId") == b"k"
    named = {name: value.decode() for name, value in headers.items()}
    ResultHeaders.model_validate(named)
    trace_id, span = TRACEPARENT.split("-")[1:3]
    assert named["traceparent"].split("-")[1] == trace_id
    assert named["traceparent"].split("-")[2] != span
    del named["traceparent"], named["ce_id"], named["ce_source"]
    assert named == {
        "ce_specversion": "1.0",
        "ce_type": "access_token.set_effective.result.v1",
        "ce_time": "2026-03-04T05:06:07.000080Z",
        "content-type": "application/json",
        "causation_id": "order-7",
        "command_id": COMMAND_ID,
        "status_code": "OK",
        "replayed": "false",
        "tracestate": "vendor=1",
    }


def test_a_command_without_headers_gets_no_echoes() -> None:
    assert {"correlation_id", "kafka_correlationId", "traceparent", "tracestate"}.isdisjoint(
        texts(result_message(answered(), OUTGOING))
    )


def test_a_tracestate_means_nothing_without_its_traceparent() -> None:
    assert "tracestate" not in texts(result_message(answered(envelope=Envelope(tracestate="vendor=1")), OUTGOING))


@pytest.mark.parametrize(
    ("envelope", "causation"),
    [
        (Envelope(ce_id="order-7", ce_source="/shop", request_id="req-1"), "order-7"),
        (Envelope(request_id="req-1"), "req-1"),
        (Envelope(), RECORD_ID),
    ],
)
def test_the_causation_is_the_senders_own_id_as_given(envelope: Envelope, causation: str) -> None:
    assert texts(result_message(answered(envelope=envelope), OUTGOING))["causation_id"] == causation


def ce_id(each: Answered) -> str:
    return texts(result_message(each, OUTGOING))["ce_id"]


def test_an_answer_and_its_replay_are_one_event() -> None:
    replay = answered(
        replace(OK, replayed=True, version=None, decided_at=datetime(2027, 1, 1, tzinfo=UTC)),
        where=replace(WHERE, offset=99, partition=0),
    )

    assert ce_id(answered()) == ce_id(replay)
    assert texts(result_message(replay, OUTGOING))["replayed"] == "true"


@pytest.mark.parametrize("answer", [OK, replace(OK, replayed=True), REFUSAL, BROKEN])
def test_the_answer_to_a_dry_run_is_that_answer_marked_and_an_event_of_its_own(answer: Answer) -> None:
    real, dry = answered(answer, data=b"{}"), answered(answer, data=b"{}", envelope=Envelope(dry_run=True))

    [message] = messages(dry, OUTGOING)

    assert message.value == result_message(real, OUTGOING).value
    headers, others = texts(message), texts(result_message(real, OUTGOING))
    assert (headers.pop("dry_run"), headers.pop("ce_subject")) == ("true", RECORD_ID)
    assert headers.pop("ce_id") != ce_id(answered(OK))
    del others["ce_id"]
    assert headers == others
    ResultHeaders.model_validate(texts(message))
    assert ce_id(dry) != ce_id(answered(answer, envelope=Envelope(dry_run=True), where=replace(WHERE, offset=42)))


def test_two_refusals_of_one_id_are_two_events_and_neither_is_the_ok() -> None:
    first = answered(REFUSAL)
    second = answered(REFUSAL, where=replace(WHERE, offset=42))

    assert len({ce_id(first), ce_id(second), ce_id(answered())}) == 3


def test_a_refusal_written_again_for_the_same_record_is_the_same_event() -> None:
    assert ce_id(answered(REFUSAL)) == ce_id(answered(replace(REFUSAL, decided_at=datetime(2027, 1, 1, tzinfo=UTC))))


def test_records_of_a_recreated_topic_are_other_events() -> None:
    assert ce_id(answered(REFUSAL)) != ce_id(answered(REFUSAL, where=replace(WHERE, timestamp=1)))


def test_the_same_answer_written_again_is_the_same_to_the_byte() -> None:
    envelope = Envelope(traceparent=TRACEPARENT)
    each = answered(envelope=envelope, data=b"{}", transition=hashed(FACT))

    assert messages(each, OUTGOING) == messages(each, OUTGOING)


# --- the transition event ---------------------------------------------------------------------------------------------


def test_a_transition_event_holds_the_members_of_the_contract_and_its_hash() -> None:
    message = transition_message(hashed(FACT), OUTGOING)

    event = body_of(message)
    assert (message.topic, message.key) == ("transitions", b"ORG1:t")
    assert event == {
        "organisation": "ORG1",
        "access_token_id": "t",
        "version": 1,
        "from_state": "NOT_EFFECTIVE",
        "to_state": "EFFECTIVE",
        "occurred_at": "2026-03-04T05:06:07.000080Z",
        "user_id": "u",
        "unit_id": "1",
        "command_id": COMMAND_ID,
        "cause": "API",
        "lane": "cluster/group/commands/3",
        "sequence": 1,
        "previous_hash": "0" * 64,
        "hash": event_hash(event),
    }
    TransitionEvent.model_validate(event)
    assert verify_chain([event]) is None


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 2**53 - 1))
def test_a_transition_event_is_the_bytes_that_are_hashed_with_the_hash_behind_them(
    name: str, lane: str, number: int
) -> None:
    transition = hashed(replace(FACT, token=name, user=name, lane=lane, sequence=number))
    value = transition_message(transition, OUTGOING).value or b""

    digest = hashlib.sha256(value.replace(b',"hash":"%s"' % transition.hash.hex().encode(), b"")).digest()

    assert value.endswith(b',"hash":"%s"}' % transition.hash.hex().encode())
    assert digest == transition.hash


def test_a_transition_event_is_a_cloud_event_about_its_key() -> None:
    headers = texts(transition_message(hashed(FACT), OUTGOING))

    TransitionHeaders.model_validate(headers)
    assert headers["ce_subject"] == "ORG1:t"
    assert headers["ce_time"] == "2026-03-04T05:06:07.000080Z"


def test_each_transition_of_a_token_is_an_event_of_its_own_and_stays_it() -> None:
    def event_id(transition: Transition) -> str:
        return texts(transition_message(transition, OUTGOING))["ce_id"]

    assert event_id(FACT) == event_id(replace(FACT, occurred_at=datetime(2027, 1, 1, tzinfo=UTC)))
    others = (replace(FACT, version=2), replace(FACT, token="t2"), replace(FACT, organisation="ORG2"))
    assert len({event_id(each) for each in (FACT, *others)}) == 4
    assert event_id(replace(FACT, organisation="a:b", token="c")) != event_id(
        replace(FACT, organisation="a", token="b:c")
    )


# --- the dead letter --------------------------------------------------------------------------------------------------


def test_a_dead_letter_keeps_key_and_headers_and_says_what_happened() -> None:
    original = (("ce_id", b"\xff"), ("ce_id", b"again"), ("mine", b""))
    message = dead_letter_message(answered(BROKEN, headers=original), OUTGOING)

    assert (message.topic, message.key) == ("dead-letters", b"the key")
    assert message.headers[:3] == original
    assert {name: value.decode() for name, value in once(message.headers[3:]).items()} == {
        "dl_code": "MALFORMED_REQUEST",
        "dl_reason": "the command is not JSON in UTF-8",
        "dl_topic": "commands",
        "dl_partition": "3",
        "dl_offset": "41",
        "dl_timestamp": "1700000000123",
        "dl_consumer_group": "a group",
        "dl_worker": "host:7",
        "dl_attempts": "1",
        "dl_failed_at": "2026-03-04T05:06:07.000080Z",
    }


def test_a_dead_letter_says_whose_login_the_command_brought() -> None:
    given_up = replace(BROKEN, code=StatusCode.INTERNAL_ERROR, organisation="ORG1")

    assert once(dead_letter_message(answered(given_up), OUTGOING).headers)["dl_organisation"] == b"ORG1"


def test_a_dead_letter_that_comes_back_tells_its_last_failure_only() -> None:
    former = (("dl_code", b"INTERNAL_ERROR"), ("dl_offset", b"1"), ("mine", b"kept"))

    headers = once(dead_letter_message(answered(BROKEN, headers=former), OUTGOING).headers)

    assert headers["dl_code"] == b"MALFORMED_REQUEST"
    assert headers["dl_offset"] == b"41"
    assert headers["mine"] == b"kept"


def test_a_dead_letter_masks_the_secrets_and_nothing_else() -> None:
    message = dead_letter_message(answered(BROKEN), OUTGOING)

    assert message.value is not None
    assert b"secret" not in message.value
    expected = orjson.loads(BODY)
    expected["token"] = expected["access_token_identifier"]["pass_code"] = "***"
    assert body_of(message) == expected


@pytest.mark.parametrize("value", [None, b"", b"not json", b"[1]", b"\xff\x00", b'"text"', b"null"])
def test_a_value_that_is_no_object_is_kept_to_the_byte(value: bytes | None) -> None:
    assert dead_letter_message(answered(BROKEN, value=value), OUTGOING).value == value


# --- all of a command's messages, and their short forms ---------------------------------------------------------------


def topics_of(each: Answered, *, whole: bool = True) -> list[str]:
    return [message.topic for message in messages(each, OUTGOING, whole=whole)]


def test_an_applied_command_brings_its_event() -> None:
    assert topics_of(answered(transition=hashed(FACT))) == ["results", "transitions"]
    assert topics_of(answered(replace(OK, replayed=True))) == ["results"]


@pytest.mark.parametrize("code", list(StatusCode))
def test_only_what_cannot_be_handled_brings_a_dead_letter(code: StatusCode) -> None:
    dead = {StatusCode.MALFORMED_REQUEST, StatusCode.INTERNAL_ERROR}

    assert ("dead-letters" in topics_of(answered(replace(REFUSAL, code=code)))) == (code in dead)


def size(message: Message) -> int:
    headers = sum(len(name) + len(value) for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers


def test_an_answer_too_large_for_the_broker_is_given_without_its_data_and_keeps_its_status() -> None:
    each = answered(data=b'{"number":"' + b"x" * 2_000_000 + b'"}', key=b"k" * 2_000_000, transition=hashed(FACT))

    result, transition = messages(each, OUTGOING, whole=False)

    assert body_of(result)["data"] == {}
    assert body_of(result)["status"]["code"] == "OK"
    assert body_of(result)["status"]["message"]
    assert result.headers == result_message(each, OUTGOING).headers
    assert result.key == b"k" * KEPT_BYTES
    assert transition == transition_message(hashed(FACT), OUTGOING)
    assert size(result) + size(transition) < 256 * 1024


def test_a_shortened_refusal_keeps_its_own_message() -> None:
    [result] = messages(answered(REFUSAL), OUTGOING, whole=False)

    assert result == result_message(answered(REFUSAL), OUTGOING)


def test_a_dead_letter_too_large_for_the_broker_is_cut_and_says_so() -> None:
    each = answered(BROKEN, value=b"x" * 2_000_000, headers=(("mine", b"y" * 2_000_000),), key=b"k" * 2_000_000)

    result, letter = messages(each, OUTGOING, whole=False)

    assert letter.value == b"x" * KEPT_BYTES
    assert once(letter.headers)["dl_truncated"] == b"true"
    assert "mine" not in once(letter.headers)
    assert size(result) + size(letter) < 256 * 1024 + 4096
    assert "dl_truncated" not in once(dead_letter_message(answered(BROKEN), OUTGOING).headers)


def test_a_dead_letter_of_what_was_not_read_whole_says_what_is_known_of_it() -> None:
    cut = Cut("too large", 9_000_000, b"\1" * 32, b"\2" * 32)
    each = answered(BROKEN, value=BODY, headers=(("mine", b"kept"),))
    delivery = replace(each.decoded.delivery, cut=cut)

    letter = dead_letter_message(replace(each, decoded=replace(each.decoded, delivery=delivery)), OUTGOING)

    assert letter.value == dead_letter_message(each, OUTGOING).value
    told = texts(letter)
    assert (told["dl_truncated"], told["dl_value_bytes"], told["mine"]) == ("true", "9000000", "kept")
    assert (told["dl_value_sha256"], told["dl_batch_sha256"]) == ("01" * 32, "02" * 32)
    DeadLetterHeaders.model_validate(told)


def test_a_value_that_the_broker_would_not_take_whole_is_told_by_its_digest() -> None:
    value = b"x" * 200_000

    told = texts(dead_letter_message(answered(BROKEN, value=value), OUTGOING, whole=False))

    assert (told["dl_value_bytes"], told["dl_value_sha256"]) == ("200000", hashlib.sha256(value).hexdigest())


def test_only_what_may_be_to_blame_for_its_size_is_cut() -> None:
    small, large = (answered(BROKEN, value=b"x" * size) for size in (INNOCENT_BYTES // 2, 2 * INNOCENT_BYTES))

    assert messages(small, OUTGOING, letters=Letters.CUT) == messages(small, OUTGOING)
    assert messages(large, OUTGOING, letters=Letters.CUT)[1] == dead_letter_message(large, OUTGOING, whole=False)


def test_an_answer_without_its_dead_letter_says_so() -> None:
    [alone] = messages(answered(BROKEN), OUTGOING, letters=Letters.NONE)

    assert body_of(alone)["status"]["message"] == f"{BROKEN.message}; its dead letter could not be written"
    assert messages(answered(REFUSAL), OUTGOING, letters=Letters.NONE) == messages(answered(REFUSAL), OUTGOING)


@pytest.mark.parametrize("form", ["as it is", "in an event", "as text in an event", "in base64"])
def test_what_is_cut_hides_its_secrets_wherever_it_is_cut(form: str) -> None:
    command = {"x": "1", "token": "SECRET1", "access_token_identifier": {"identifier": "i", "pass_code": "SECRET2"}}
    text = orjson.dumps(command)
    value = {
        "as it is": text,
        "in an event": orjson.dumps({"type": "t", "data": command}),
        "as text in an event": orjson.dumps({"type": "t", "data": text.decode()}),
        "in base64": orjson.dumps({"data_base64": b64encode(text).decode()}),
    }[form]

    for size in range(len(value) + 1):
        shown = masked(value[:size]) or b""
        assert b"SEC" not in shown
        assert b64encode(text)[20:40] not in shown


def test_a_cut_dead_letter_still_hides_the_secrets() -> None:
    value = b'{"token":"' + b"secret" * 20_000 + b'","x":"' + b"y" * 200_000

    letter = dead_letter_message(answered(BROKEN, value=value), OUTGOING, whole=False)

    assert letter.value is not None
    assert b"secret" not in letter.value


def test_nothing_to_publish_shows_its_text_when_printed() -> None:
    for message in messages(answered(BROKEN, headers=(("mine", b"secret"),)), OUTGOING):
        assert "secret" not in repr(message)
    assert "secret" not in repr(answered(BROKEN, headers=(("mine", b"secret"),), data=b"secret"))
