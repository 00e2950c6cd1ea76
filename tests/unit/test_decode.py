"""Decoding: from bytes to a command or its refusal, and the data that answers and dead letters may show."""

import hashlib
import json
import re
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from effective_contract.access_token import ALL_FIELDS, FIELD_NAMES, fields_mask
from effective_contract.codes import StatusCode
from effective_contract.command import SetEffectiveCommand
from effective_contract.rules.faults import quoted
from tests.support.builders import delivery
from worker.journey.decode import command
from worker.journey.decode.command import decode
from worker.journey.model import Command, Decoded, Envelope, Refused, ReplyTo
from worker.journey.redact import masked
from worker.journey.refusals import unquoted
from worker.kafka.delivery import KEPT_BYTES, Cut, Header

MAX_BYTES = 65_536
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GOOD: dict[str, Any] = {"token": "a login", "access_token_identifier": {"authentication_code": "99021047380"}}


def decoded(value: object, *headers: Header) -> Decoded:
    return decode(delivery(orjson.dumps(value), headers), max_bytes=MAX_BYTES)


def the_command(value: object, *headers: Header) -> Command:
    request = decoded(value, *headers).request
    assert isinstance(request, Command), request
    return request


def the_refusal(value: object, *headers: Header) -> Refused:
    request = decoded(value, *headers).request
    assert isinstance(request, Refused)
    return request


REFUSALS = {StatusCode.MALFORMED_REQUEST, StatusCode.MISSING_PARAMETER, StatusCode.INVALID_PARAMETER}
NAMES = ["token", "access_token_identifier", "authentication_code", "identifier", "pass_code", "fields_set", "ce_id"]
TEXTS = st.sampled_from(["", "x", "number", "number,id", " ", ",", "\0", "é" * 255, "x" * 256, "x" * 4097])
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS | st.lists(TEXTS, max_size=2)
IDENTIFIERS = st.dictionaries(st.sampled_from(["authentication_code", "identifier", "pass_code", "x"]), TEXTS | VALUES)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "token": TEXTS | VALUES,
        "access_token_identifier": IDENTIFIERS | VALUES,
        "fields_set": TEXTS | VALUES,
        "request_unique_identifier": TEXTS | VALUES,
        "colour": VALUES,
    },
)


# --- commands -----------------------------------------------------------------------------------------------------


def test_a_command_without_headers_works() -> None:
    assert decoded(GOOD).request == Command("a login", "99021047380", None, None, ALL_FIELDS)
    assert decoded(GOOD).envelope == Envelope()


def test_a_command_by_identifier_keeps_its_pass_code() -> None:
    command = the_command({"token": "t", "access_token_identifier": {"identifier": "i", "pass_code": "p"}})

    assert (command.authentication_code, command.identifier, command.pass_code) == (None, "i", "p")


def test_a_pass_code_beside_a_code_is_accepted_and_dropped() -> None:
    command = the_command({"token": "t", "access_token_identifier": {"authentication_code": "c", "pass_code": "p"}})

    assert command.pass_code is None


@pytest.mark.parametrize("most", [100, 2 * KEPT_BYTES])
def test_a_value_that_is_too_large_is_cut_to_its_beginning_and_its_headers_count(most: int) -> None:
    value = b"x" * (3 * KEPT_BYTES)

    answer = decode(delivery(value, (("correlation_id", b"7"),)), max_bytes=most)

    assert answer.request == Refused(StatusCode.MALFORMED_REQUEST, f"the command is larger than {most} bytes")
    assert answer.envelope.correlation == (("correlation_id", b"7"),)
    assert answer.delivery.value == value[:KEPT_BYTES]
    assert answer.delivery.cut == Cut(answer.request.message, len(value), hashlib.sha256(value).digest())


def test_a_value_that_is_too_large_and_small_is_kept() -> None:
    answer = decode(delivery(b"x" * KEPT_BYTES), max_bytes=100)

    assert isinstance(answer.request, Refused)
    assert (answer.delivery.value, answer.delivery.cut) == (b"x" * KEPT_BYTES, None)


@pytest.mark.parametrize(
    ("size", "message"),
    [(MAX_BYTES + 1, f"the command is larger than {MAX_BYTES} bytes"), (3, "why"), (None, "why")],
)
def test_what_was_not_read_whole_is_refused_whatever_is_left_of_it(size: int | None, message: str) -> None:
    good = orjson.dumps(GOOD)

    answer = decode(replace(delivery(good), cut=Cut("why", size)), max_bytes=MAX_BYTES)

    assert answer.request == Refused(StatusCode.MALFORMED_REQUEST, message)
    assert answer.delivery.value == good


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_empty_count_as_not_given(nothing: str | None) -> None:
    command = decoded(
        {
            "token": "t",
            "access_token_identifier": {"authentication_code": "c", "identifier": nothing, "pass_code": nothing},
            "fields_set": nothing,
            "request_unique_identifier": nothing,
        }
    )

    assert command.request == Command("t", "c", None, None, ALL_FIELDS)
    assert command.envelope.request_id is None


def test_lengths_count_characters_and_not_bytes() -> None:
    longest = "\U0001f511" * 255

    assert (
        the_command({**GOOD, "access_token_identifier": {"authentication_code": longest}}).authentication_code
        == longest
    )


def test_codes_and_tokens_are_taken_as_they_are() -> None:
    command = the_command({"token": " t ", "access_token_identifier": {"authentication_code": " 9é\n"}})

    assert (command.login_token, command.authentication_code) == (" t ", " 9é\n")


def test_a_command_shows_no_secret_when_it_is_printed() -> None:
    printed = repr(
        decoded({"token": "tell-me", "access_token_identifier": {"identifier": "id-me", "pass_code": "pass-me"}})
    )

    assert "-me" not in printed


def test_exactly_as_many_bytes_as_allowed_are_read() -> None:
    value = orjson.dumps(GOOD)

    assert isinstance(decode(delivery(value), max_bytes=len(value)).request, Command)
    assert isinstance(decode(delivery(value), max_bytes=len(value) - 1).request, Refused)


# --- fields_set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields_set", [" ", "\t\r\n ", None, ""])
def test_a_blank_fields_set_asks_for_every_field(fields_set: str | None) -> None:
    assert the_command({**GOOD, "fields_set": fields_set}).fields == ALL_FIELDS


@given(st.lists(st.sampled_from(FIELD_NAMES), min_size=1, max_size=60), st.sampled_from([",", " , ", ",\t", "\n,"]))
def test_names_are_trimmed_and_said_twice_count_once(names: list[str], comma: str) -> None:
    assert the_command({**GOOD, "fields_set": f" {comma.join(names)} "}).fields == fields_mask(names)


# --- the order of the checks --------------------------------------------------------------------------------------


def test_faults_are_reported_in_the_order_of_the_contract() -> None:
    bad_header = ("ce_specversion", b"0.3")
    everything: dict[str, Any] = {"fields_set": 7, "colour": "red", "access_token_identifier": {}}
    story = []
    for change in (
        {"fields_set": "colour"},
        {"token": "t"},
        {"access_token_identifier": {"identifier": "i"}},
        {"access_token_identifier": {"identifier": "i", "pass_code": "p"}},
        {"colour": ...},
        {"fields_set": "number"},
    ):
        refusal = the_refusal(everything, bad_header)
        story.append((refusal.code.value, refusal.message.split()[0]))
        everything = {name: value for name, value in {**everything, **change}.items() if value is not ...}
    last = the_refusal(everything, bad_header)

    assert story == [
        ("MALFORMED_REQUEST", "fields_set"),
        ("MISSING_PARAMETER", "token"),
        ("INVALID_PARAMETER", "exactly"),
        ("MISSING_PARAMETER", "access_token_identifier.pass_code"),
        ("INVALID_PARAMETER", "unknown"),
        ("INVALID_PARAMETER", "fields_set"),
    ]
    assert (last.code, last.message.split()[:3]) == (StatusCode.INVALID_PARAMETER, ["the", "header", "ce_specversion"])


# --- headers ------------------------------------------------------------------------------------------------------


def test_good_headers_reach_the_envelope_as_they_came() -> None:
    envelope = decoded(
        {**GOOD, "request_unique_identifier": "r-1"},
        ("ce_specversion", b"1.0"),
        ("ce_id", "id-é".encode()),
        ("ce_source", b"/shop"),
        ("ce_type", b"access_token.set_effective.v1"),
        ("ce_time", b"2026-12-31T23:59:60.123456789+02:00"),
        ("ce_subject", b"anything"),
        ("content-type", b'Application/JSON; charset="UTF-8"'),
        ("correlation_id", b"\xff\0\xfe"),
        ("kafka_correlationId", b"\1\2"),
        ("traceparent", TRACE),
        ("tracestate", b"vendor=1"),
    ).envelope

    assert envelope == Envelope(
        ce_id="id-é",
        ce_source="/shop",
        correlation=(("correlation_id", b"\xff\0\xfe"), ("kafka_correlationId", b"\1\2")),
        traceparent=TRACE.decode(),
        tracestate="vendor=1",
        request_id="r-1",
    )


def test_an_id_needs_a_source_and_nothing_else() -> None:
    good = decoded(GOOD, ("ce_id", b"1"), ("ce_source", b"/shop"))

    assert isinstance(good.request, Command)
    assert (good.envelope.ce_id, good.envelope.ce_source) == ("1", "/shop")


def test_unknown_headers_are_ignored_whatever_they_hold() -> None:
    headers = (("x-request", b"\xff"), ("x-request", b"\xff"), ("Content-Type", b"text/xml"), ("ce_other", b"\0"))

    assert decoded(GOOD, *headers).envelope == Envelope()
    the_command(GOOD, *headers)


@pytest.mark.parametrize(
    "name",
    ["ce_specversion", "ce_id", "ce_type", "ce_time", "content-type", "reply_to", "traceparent", "correlation_id"],
)
@pytest.mark.parametrize("nothing", [b"", None])
def test_a_header_without_a_value_counts_as_not_given(name: str, nothing: Any) -> None:
    assert decoded(GOOD, (name, nothing)).envelope == Envelope()
    the_command(GOOD, (name, nothing), (name, nothing))


def test_a_wrong_header_drops_only_itself_from_the_answer() -> None:
    envelope = decoded(
        GOOD,
        ("ce_id", b"1"),
        ("ce_source", b"/shop"),
        ("ce_type", b"something.else"),
        ("correlation_id", b"c"),
        ("kafka_correlationId", b"k" * 1025),
        ("traceparent", b"no trace"),
    ).envelope

    assert envelope == Envelope(ce_id="1", ce_source="/shop", correlation=(("correlation_id", b"c"),))


@pytest.mark.parametrize(
    "pair",
    [
        (("ce_id", b"1"), ("ce_source", b"\xff")),
        (("ce_id", b"\0"), ("ce_source", b"/shop")),
        (("ce_id", b"1"), ("ce_id", b"2"), ("ce_source", b"/shop")),
        (("ce_id", b"1"),),
    ],
)
def test_an_id_and_its_source_are_dropped_together(pair: tuple[Header, ...]) -> None:
    answer = decoded(GOOD, *pair)

    assert isinstance(answer.request, Refused)
    assert answer.envelope == Envelope()


@pytest.mark.parametrize("value", [None, b"not JSON", b"{}", b'{"token":"' + b"x" * MAX_BYTES])
def test_a_refused_body_is_answered_with_its_headers_all_the_same(value: bytes | None) -> None:
    headers = (("ce_id", b"1"), ("ce_source", b"/shop"), ("correlation_id", b"c"), ("traceparent", TRACE))
    answer = decode(delivery(value, headers), max_bytes=MAX_BYTES)

    assert isinstance(answer.request, Refused)
    assert answer.envelope == Envelope("1", "/shop", (("correlation_id", b"c"),), TRACE.decode())


@pytest.mark.parametrize(("value", "dry"), [(b"true", True), (b"false", False), (b"", False)])
def test_a_command_may_be_a_dry_run(value: bytes, dry: bool) -> None:
    asked = decoded(GOOD, ("dry_run", value))

    assert isinstance(asked.request, Command)
    assert asked.envelope == Envelope(dry_run=dry)


@pytest.mark.parametrize(
    "headers",
    [
        (("dry_run", b"yes"),),
        (("dry_run", b"True"),),
        (("dry_run", b"\xff"),),
        (("dry_run", b"true" + b" " * 300),),
        (("dry_run", b"true"), ("dry_run", b"true")),
        (("dry_run", b"true"), ("dry_run", b"false")),
    ],
)
def test_what_is_not_clearly_a_dry_run_is_refused_as_a_real_command(headers: tuple[Header, ...]) -> None:
    asked = decoded(GOOD, *headers)

    assert isinstance(asked.request, Refused)
    assert asked.request.code is StatusCode.INVALID_PARAMETER
    assert asked.request.message.startswith("the header dry_run ")
    assert not asked.envelope.dry_run


@pytest.mark.parametrize("value", [None, b"not JSON", b"{}", orjson.dumps({**GOOD, "colour": "red"})])
def test_a_dry_run_that_is_refused_is_one_all_the_same(value: bytes | None) -> None:
    asked = decode(delivery(value, (("dry_run", b"true"), ("ce_type", b"wrong"))), max_bytes=MAX_BYTES)

    assert isinstance(asked.request, Refused)
    assert asked.envelope.dry_run


@pytest.mark.parametrize("change", [{"token": 1}, {"token": ""}, {"colour": "red"}, {"fields_set": "colour"}])
def test_a_refused_body_is_answered_under_its_own_request_id(change: dict[str, Any]) -> None:
    answer = decoded({**GOOD, "request_unique_identifier": "r-1", **change})

    assert isinstance(answer.request, Refused)
    assert answer.envelope.request_id == "r-1"


@pytest.mark.parametrize("wrong", [1, "r" * 256, "r\0", ["r"]])
def test_a_wrong_request_id_is_not_repeated(wrong: object) -> None:
    assert decoded({**GOOD, "request_unique_identifier": wrong}).envelope.request_id is None


# --- the reply topic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["reply_to", "kafka_replyTopic"])
def test_a_sender_may_name_a_topic_for_its_answer_and_a_partition(header: str) -> None:
    place = (header, b"replies.shop")

    assert decoded(GOOD, place).envelope.reply == ReplyTo(header, "replies.shop", None)
    numbered = decoded(GOOD, place, ("kafka_replyPartition", b"\0\0\1\2"))
    assert numbered.envelope.reply == ReplyTo(header, "replies.shop", 258)
    assert isinstance(numbered.request, Command)


def test_a_sender_may_name_the_same_topic_twice_over() -> None:
    twice = decoded(GOOD, ("kafka_replyTopic", b"replies"), ("reply_to", b"replies"))

    assert isinstance(twice.request, Command)
    assert twice.envelope.reply == ReplyTo("reply_to", "replies", None)


@pytest.mark.parametrize(
    "headers",
    [
        (("reply_to", b"a topic"),),
        (("reply_to", b"one"), ("kafka_replyTopic", b"other")),
        (("reply_to", b"one"), ("kafka_replyTopic", b"\xff")),
        (("reply_to", b"one"), ("reply_to", b"one")),
        (("reply_to", b"one"), ("kafka_replyPartition", b"1")),
        (("reply_to", b"one"), ("kafka_replyPartition", b"\xff\0\0\0")),
        (("kafka_replyPartition", b"\0\0\0\1"),),
    ],
)
def test_a_place_that_is_wrong_in_any_way_is_no_place(headers: tuple[Header, ...]) -> None:
    answer = decoded(GOOD, *headers)

    assert answer.envelope.reply is None
    assert isinstance(answer.request, Refused)
    assert answer.request.code is StatusCode.INVALID_PARAMETER


@pytest.mark.parametrize("value", [None, b"not JSON", b"{}"])
def test_a_refused_body_is_answered_where_its_sender_waits(value: bytes | None) -> None:
    answer = decode(delivery(value, (("reply_to", b"replies"), ("ce_type", b"wrong"))), max_bytes=MAX_BYTES)

    assert answer.envelope.reply == ReplyTo("reply_to", "replies", None)


# --- CloudEvents in structured mode -------------------------------------------------------------------------------

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/shop",
    "type": "access_token.set_effective.v1",
    "time": "2026-01-01T00:00:00Z",
    "subject": "anything",
    "datacontenttype": "application/json",
    "extension": 7,
    "data": GOOD,
}
STRUCTURED = ("content-type", b"application/cloudevents+json; charset=utf-8")


def test_a_whole_event_is_the_command_in_its_data() -> None:
    answer = decoded(EVENT, STRUCTURED, ("correlation_id", b"c"), ("reply_to", b"replies"))

    assert answer.request == the_command(GOOD)
    assert answer.envelope == Envelope(
        "1", "/shop", (("correlation_id", b"c"),), reply=ReplyTo("reply_to", "replies", None)
    )


def test_a_whole_event_is_a_dry_run_by_the_header_of_its_message() -> None:
    assert decoded(EVENT, STRUCTURED, ("dry_run", b"true")).envelope.dry_run
    assert not decoded({**EVENT, "dry_run": "true", "dryrun": "true"}, STRUCTURED).envelope.dry_run


def test_an_event_may_hold_its_data_in_base64() -> None:
    data = b64encode(orjson.dumps({**GOOD, "request_unique_identifier": "r"})).decode()
    event = {name: value for name, value in EVENT.items() if name not in {"data", "datacontenttype"}}

    answer = decoded({**event, "data_base64": data}, STRUCTURED)

    assert answer.request == the_command(GOOD)
    assert answer.envelope.request_id == "r"


def test_an_events_own_attributes_count_and_not_their_copies_in_headers() -> None:
    copies = (("ce_id", b"2"), ("ce_source", b"/copy"), ("ce_type", b"copy"), ("ce_id", b"3"))

    answer = decoded(EVENT, STRUCTURED, *copies)

    assert isinstance(answer.request, Command)
    assert (answer.envelope.ce_id, answer.envelope.ce_source) == ("1", "/shop")


def test_the_trace_of_the_message_is_nearer_than_the_one_of_the_event() -> None:
    other = TRACE.replace(b"-01", b"-00").decode()
    event = {**EVENT, "traceparent": other, "tracestate": "event=1"}

    assert decoded(event, STRUCTURED).envelope.traceparent == other
    assert decoded(event, STRUCTURED).envelope.tracestate == "event=1"
    assert decoded(event, STRUCTURED, ("traceparent", TRACE)).envelope.traceparent == TRACE.decode()
    assert decoded(event, STRUCTURED, ("traceparent", TRACE)).envelope.tracestate is None


@pytest.mark.parametrize("nothing", [None, ""])
def test_attributes_without_a_value_count_as_not_given(nothing: str | None) -> None:
    answer = decoded({**dict.fromkeys(EVENT, nothing), "data": GOOD}, STRUCTURED)

    assert isinstance(answer.request, Command)
    assert answer.envelope == Envelope()


@given(BODIES | BODIES.map(lambda body: body | GOOD), st.booleans())
def test_an_events_data_is_judged_like_a_body_of_its_own(body: dict[str, Any], encoded: bool) -> None:
    data = {"data_base64": b64encode(orjson.dumps(body)).decode()} if encoded else {"data": body}
    alone = decoded(body, ("ce_id", b"1"), ("ce_source", b"/shop"))

    answer = decoded({"id": "1", "source": "/shop", **data}, STRUCTURED)

    assert (answer.request, answer.envelope) == (alone.request, alone.envelope)


# --- anything at all ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.tuples(st.sampled_from([*NAMES, "traceparent"]), st.binary(max_size=40))))
def test_no_bytes_make_the_decoder_raise(value: bytes, headers: list[Header]) -> None:
    request = decode(delivery(value, tuple(headers)), max_bytes=100).request

    assert isinstance(request, Refused)
    assert request.code in REFUSALS


def as_written(body: dict[str, Any], written: str, place: int, piece: bytes) -> bytes:
    """Generate a body as JSON, with a piece of something else somewhere in it."""
    value = orjson.dumps(body) if written == "plain" else json.dumps(body, ensure_ascii=written == "escaped").encode()
    at = place % (len(value) + 1)
    return value[:at] + piece + value[at:]


PIECES = [
    b"",
    b" ",
    b'"',
    b"{",
    b"0",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"\\n",
    b"\\u0000",
    b"\\ud800",
    b'"token":"u",',
    b'"token":7,',
    b'"colour":1,',
]


@given(
    BODIES | BODIES.map(lambda body: body | GOOD),
    st.sampled_from(["plain", "escaped", "spaced"]),
    st.integers(0, 400),
    st.sampled_from(PIECES),
    st.sampled_from([(), (("ce_id", b"1"), ("ce_source", b"/s")), (("ce_id", b"1"),)]),
)
def test_a_right_body_is_read_as_it_would_be_if_it_were_looked_at_twice(
    body: dict[str, Any], written: str, place: int, piece: bytes, headers: tuple[Header, ...]
) -> None:
    given_now = delivery(as_written(body, written, place, piece), headers)
    at_once = decode(given_now, max_bytes=MAX_BYTES)
    with pytest.MonkeyPatch.context() as slowly:
        slowly.setattr(command, "right_body", lambda *_: None)
        assert decode(given_now, max_bytes=MAX_BYTES) == at_once


@given(BODIES)
def test_the_schema_for_senders_takes_what_the_decoder_takes_and_no_more(body: dict[str, Any]) -> None:
    try:
        SetEffectiveCommand.model_validate(body)
    except ValidationError:
        assert isinstance(decoded(body).request, Refused)
    else:
        assert isinstance(decoded(body).request, Command)


@given(st.text())
def test_a_quote_is_short_and_printable(text: str) -> None:
    quote = quoted(text)

    assert len(quote) == min(len(text), 64)
    assert quote.isprintable()
    assert quote == text.replace('"', "'") or len(text) > 64 or not text.isprintable()


@given(st.text())
def test_a_record_keeps_nothing_of_a_quote(text: str) -> None:
    message = f'the member "{quoted(text)}" is given more than once, not "{quoted(text)}"'

    assert unquoted(message) == 'the member "…" is given more than once, not "…"'


# --- secrets ------------------------------------------------------------------------------------------------------

# The members of a whole event have rules of their own, and tests of their own.
OTHERS = st.text().filter(lambda name: name not in {"data", "data_base64"})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["token", "pass_code", "tokens", '"token"', "a\\"]) | OTHERS, inner, max_size=4
        )
    ),
)


def hidden(value: Any) -> Any:
    """Mask a value, in the simplest way that meets the rule: the reference for the real one."""
    if isinstance(value, list):
        return [hidden(item) for item in value]
    if isinstance(value, dict):
        return {name: "***" if name in {"token", "pass_code"} else hidden(item) for name, item in value.items()}
    return value


@given(st.dictionaries(st.sampled_from(["token", "pass_code", "x"]) | OTHERS, JSON, max_size=5), st.booleans())
def test_masking_replaces_the_secrets_of_an_object_and_nothing_else(value: dict[str, Any], indent: bool) -> None:
    shown = masked(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None))

    assert orjson.loads(shown or b"") == hidden(value)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"not JSON", b"[1, 2]", b'"token"', b"null", b"\xff\xfe", b'{"a": 1e400,}', b'{"token"', b"tokens"],
)
def test_what_holds_no_secret_is_shown_as_it_came(value: bytes | None) -> None:
    assert masked(value) == value


def test_what_stands_between_the_secrets_is_kept_byte_for_byte() -> None:
    value = b'{ "n" : 1.50e1,"big":123456789012345678901234567890, "token" :\t"s" ,"x":[{"pass_code":{"a":["s"]}}]}'

    assert masked(value) == (
        b'{ "n" : 1.50e1,"big":123456789012345678901234567890, "token" :\t"***" ,"x":[{"pass_code":"***"}]}'
    )


@pytest.mark.parametrize(
    "value",
    [
        b'{"token": "the-secret',
        b'{"token": "the-\\"secret", "pass_code": ["the-secret"',
        b'{"tok\\u0065n": "the-secret"}',
        b'{"token": NaN, "pass_code": "the-secret"}',
        b'{"token": "the-secret", "x": "\\ud800"}',
        b'{"token": "the-\xffsecret"}',
        b'{"a": "b"c", "token": "the,-secret"}',
        b"{'token': 'the,-secret'}",
        b"{token: the-secret}",
        b"\xef\xbb\xbf" + b'{"token": "the-secret"}',
        b'{"token": "the-secret"}{"pass_code": "the-secret"}',
        b'{"x":' * 5000 + b'{"token": "the-secret"}' + b"}" * 5000,
        b'{"token":' + b"[" * 5000 + b'"the-secret"',
        b'[{"token": "the-secret"}]',
        b'"{\\"token\\": \\"the-secret\\"}"',
        b'\0\0\0\0\1{"pass_code": "the-secret"}',
        b"token=the-secret",
        '{"token": "the-secret"}'.encode("utf-16"),
        '{"token": "the-secret"}'.encode("utf-32-be"),
    ],
)
def test_a_secret_does_not_outlive_a_senders_mistake(value: bytes) -> None:
    assert b"secret" not in (masked(value) or b"").replace(b"\0", b"")


@given(st.binary(max_size=300))
def test_masking_takes_any_bytes(value: bytes) -> None:
    masked(value)
    masked(b'{"token":' + value)


def test_a_secret_within_an_events_data_is_hidden_and_the_rest_stays() -> None:
    event = {"id": "1", "data": {"token": "the-secret", "fields_set": "id"}}

    assert orjson.loads(masked(orjson.dumps(event)) or b"") == {"id": "1", "data": {"token": "***", "fields_set": "id"}}


def test_a_secret_within_an_events_encoded_data_is_hidden_and_the_rest_can_be_sent_again() -> None:
    event = {"id": "1", "data_base64": b64encode(b'{"token": "the-secret", "fields_set":"id"}').decode()}

    shown = orjson.loads(masked(orjson.dumps(event)) or b"")

    assert shown["id"] == "1"
    assert b64decode(shown["data_base64"]) == b'{"token": "***", "fields_set":"id"}'


@pytest.mark.parametrize(
    "value",
    [
        b'{"data_base64": "%s"' % b64encode(b'{"token": "the-secret"}'),
        b'{"data_base64": "%s!"}' % b64encode(b'{"token": "the-secret"}'),
        b'{"data_base64": ["%s"]}' % b64encode(b'{"token": "the-secret"}'),
        b"{data_base64: %s}" % b64encode(b'{"token": "the-secret"}'),
        b'{"data_base64": "%s"}' % b64encode(b'{"data_base64": "%s"}' % b64encode(b"token=the-secret")),
        b'[{"data\\u005fbase64": "%s"}]' % b64encode(b'{"token": "the-secret"}'),
    ],
)
def test_a_secret_in_base64_does_not_outlive_a_senders_mistake(value: bytes) -> None:
    shown = masked(value) or b""

    for encoded in re.findall(rb"[A-Za-z0-9+/=]{8,}", shown):
        with suppress(ValueError):
            assert b"secret" not in b64decode(encoded)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_command_written_as_text_within_an_event_holds_its_secrets_no_longer(depth: int) -> None:
    text = '{"token": "the-secret", "é": 1}'
    for _ in range(depth):
        text = json.dumps({"data": text, "x": [1]})

    shown = json.loads(masked(text.encode()) or b"")

    assert "secret" not in str(shown)
    assert shown["x"] == [1]
    for _ in range(depth):
        shown = json.loads(shown["data"])
    assert shown == {"token": "***", "é": 1}


def test_data_within_data_is_looked_into_however_deep() -> None:
    deep = b'{"data":' * 5000 + b'{"data":"x","token":"the-secret"}' + b"}" * 5000

    assert masked(deep) == deep.replace(b"the-secret", b"***")


def test_encoded_data_without_secrets_is_shown_as_it_came() -> None:
    value = b'{"data_base64": "%s", "x": {"data_base64": null}}' % b64encode(b"nothing")

    assert masked(value) == value
