"""Messages that mention a customer are recognised, whatever text a sender puts around the words."""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import record
from tests.support.seeded import CODE, IDENTIFIER
from worker.journey.digests import CommandNames
from worker.operations.erasure.mentions import Mentions, Sought, is_mentioned
from worker.operations.erasure.mentions import _merged as merged

NAMES: Final = CommandNames((b"key",))
SHORT: Final = "A7"
SOUGHT: Final = Sought(
    places=frozenset({("commands", 0, 7, 1_000)}),
    commands=frozenset({NAMES.of("ce:ORG1:shop:7"), "rec:cluster/commands/0/7@1000"}),
    names=NAMES,
    needles=frozenset({IDENTIFIER, CODE, SHORT.casefold()}),
)
Wrapping = Callable[[bytes], bytes]


def as_member(text: bytes) -> bytes:
    return json.dumps({"a": [{"b": text.decode("utf-8", "replace")}]}).encode()


def as_name(text: bytes) -> bytes:
    return json.dumps({text.decode("utf-8", "replace"): 1}).encode()


def escaped(text: bytes) -> bytes:
    shown = text.decode("utf-8", "replace")
    return b'{"a": "' + "".join(f"\\u{ord(c):04x}" for c in shown).encode() + b'"}'


def as_data(text: bytes) -> bytes:
    return json.dumps({"data_base64": b64encode(text).decode()}).encode()


def percent(text: bytes) -> bytes:
    return quote(text, safe="").encode()


def wide(text: bytes) -> bytes:
    return json.dumps({"a": text.decode("utf-8", "replace")}, ensure_ascii=False).encode("utf-16-le")


def amid(text: bytes) -> bytes:
    return b"order of " + text + b", in a hurry"


INNER: Final[list[Wrapping]] = [as_member, as_name, escaped, as_data, percent]


@given(
    st.sampled_from([IDENTIFIER, "Polina@Example.COM", CODE]),
    st.booleans(),
    st.lists(st.sampled_from(INNER), max_size=2),
    st.sampled_from(["key", "value", "header", "name of a header"]),
)
def test_a_text_is_found_however_it_is_wrapped_and_wherever_it_stands(
    text: str, is_amid: bool, wrappings: list[Wrapping], place: str
) -> None:
    raw = amid(text.encode()) if is_amid else text.encode()
    for wrap in wrappings:
        raw = wrap(raw)
    records = {
        "key": record(key=raw),
        "value": record(value=raw),
        "header": record(headers=[("x", raw)]),
        "name of a header": record(headers=[(raw.decode(), b"x")]),
    }

    assert is_mentioned(records[place], SOUGHT)


def test_text_in_utf_16_is_found() -> None:
    assert is_mentioned(record(value=wide(IDENTIFIER.encode())), SOUGHT)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_nothing_that_anybody_wrote_raises(value: bytes, inner: bytes) -> None:
    is_mentioned(record(key=inner, value=value, headers=[("x", None), ("dl_offset", inner)]), SOUGHT)
    is_mentioned(record(value=as_data(inner)), SOUGHT)


@pytest.mark.parametrize(
    "message",
    [
        record(topic="commands", partition=0, offset=7, timestamp=1_000),
        record(headers=[("command_id", b"ce:ORG1:shop:7")]),
        record(headers=[("command_id", b"rec:cluster/commands/0/7@1000")]),
        record(headers=[("ce_subject", b"rec:cluster/commands/0/7@1000")]),
        record(
            headers=[
                ("dl_topic", b"commands"),
                ("dl_partition", b"0"),
                ("dl_offset", b"7"),
                ("dl_timestamp", b"1000"),
            ]
        ),
        record(value=b'{"code": "a7"}'),
    ],
    ids=["by its place", "answer", "answer by place", "dry run", "dead letter", "short code"],
)
def test_a_message_is_known_by_its_command_too(message: ConsumerRecord) -> None:
    assert is_mentioned(message, SOUGHT)


@pytest.mark.parametrize(
    "message",
    [
        record(topic="commands", partition=0, offset=7, timestamp=1_001),
        record(headers=[("command_id", b"ce:ORG1:shop:8")]),
        record(headers=[("dl_topic", b"commands"), ("dl_partition", b"0"), ("dl_offset", b"8")]),
        record(value=b'{"code": "A77"}'),
        record(),
    ],
    ids=["another timestamp", "another id", "another letter", "a short code amid another", "nothing"],
)
def test_what_speaks_of_somebody_else_is_not(message: ConsumerRecord) -> None:
    assert not is_mentioned(message, SOUGHT)


def test_what_is_looked_for_is_not_shown() -> None:
    assert "polina" not in repr(SOUGHT)


def test_two_looks_at_one_partition_are_told_as_one() -> None:
    earlier = Mentions("results", 0, records=3, up_to=9, others=0, gone_by=None)
    later = Mentions("results", 0, records=2, up_to=12, others=0, gone_by=None)

    [both] = merged([earlier, later]).values()

    assert (both.records, both.up_to, both.gone_by) == (3, 12, None)
