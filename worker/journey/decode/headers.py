"""The headers of a command: valid ones make the envelope, the first invalid one refuses the command.

See CONTRACT, Command.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final

from effective_contract import headers as h
from effective_contract.methods import METHODS, SET_EFFECTIVE, Methods
from worker.journey.model import Envelope, Refused, ReplyTo
from worker.journey.refusals import invalid, quoted, text_fault
from worker.kafka.delivery import Header
from worker.values import Value


class Headers(Value, frozen=True):
    """The content of a record's headers."""

    envelope: Envelope
    fault: Refused | None
    """The first invalid header. It counts only if the body is valid."""
    structured: bool | Refused = False
    """True if the content type announces a whole CloudEvent, whose members are not those of a command. A refusal if it
    announces a form that is not read."""


_NO_HEADERS: Final = Headers(Envelope(), None)
_CORRELATIONS: Final = (h.CORRELATION_ID, h.KAFKA_CORRELATION_ID)


def _no_fault(_: str) -> None:
    return None


def _spec_version_fault(text: str) -> str | None:
    return None if text == h.SPEC_VERSION else f'must be "{h.SPEC_VERSION}", not "{quoted(text)}"'


_attribute_fault: Final = partial(text_fault, longest=h.LONGEST_TEXT)
_tracestate_fault: Final = partial(text_fault, longest=h.LONGEST_TRACESTATE)


def _time_fault(text: str) -> str | None:
    return _attribute_fault(text) or (None if h.is_time(text) else "is not an RFC 3339 time")


def _content_fault(text: str) -> str | None:
    if h.is_structured_content(text):
        return None
    return None if h.is_json_content(text) else f'must be "{h.JSON_CONTENT}" in UTF-8, not "{quoted(text)}"'


def _traceparent_fault(text: str) -> str | None:
    return None if h.is_traceparent(text) else "is not a W3C trace context"


def _topic_fault(text: str) -> str | None:
    return None if h.is_topic(text) else f'is not the name of a topic: "{quoted(text)}"'


def _dry_run_fault(text: str) -> str | None:
    return None if text in {h.TRUE, h.FALSE} else f'must be "{h.TRUE}" or "{h.FALSE}", not "{quoted(text)}"'


def _partition_fault(value: bytes) -> str | None:
    if len(value) != h.PARTITION_BYTES:
        return f"must be a number of {h.PARTITION_BYTES} bytes, big-endian, not of {len(value)}"
    return "must not be negative" if value[0] & 0x80 else None


_TEXT_HEADERS: Final[Mapping[str, Callable[[str], str | None]]] = {
    h.CE_SPEC_VERSION: _spec_version_fault,
    h.CE_TYPE: _no_fault,  # which methods there are is an argument
    h.CE_ID: _attribute_fault,
    h.CE_SOURCE: _attribute_fault,
    h.CE_SUBJECT: _attribute_fault,
    h.CE_TIME: _time_fault,
    h.CONTENT_TYPE: _content_fault,
    h.TRACEPARENT: _traceparent_fault,
    h.TRACESTATE: _tracestate_fault,
    h.REPLY_TO: _topic_fault,
    h.KAFKA_REPLY_TOPIC: _topic_fault,
    h.DRY_RUN: _dry_run_fault,
}
_REPLIES: Final = frozenset((h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.KAFKA_REPLY_PARTITION))
_KNOWN: Final = frozenset((*_TEXT_HEADERS, *_CORRELATIONS, *_REPLIES))
_REPEATED: Final = frozenset(
    (h.CE_SPEC_VERSION, h.CE_TYPE, h.CE_SOURCE, h.CONTENT_TYPE, h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.DRY_RUN)
)
"""The headers that have the same value in every command of a sender."""


_TWICE: Final = "is given more than once"


def read_headers(headers: Sequence[Header], methods: Methods = METHODS) -> Headers:
    """Read the headers that the worker knows. Others are ignored, and an empty one counts as not given."""
    given: dict[str, bytes] = {}
    right: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, value in headers:
        if not value or name not in _KNOWN:
            continue
        if name in given:
            wrong[name] = _TWICE
        elif name in _CORRELATIONS:
            if len(value) > h.LONGEST_CORRELATION:
                wrong[name] = f"is longer than {h.LONGEST_CORRELATION} bytes"
        elif name == h.KAFKA_REPLY_PARTITION:
            what = _partition_fault(value)
            if what is not None:
                wrong[name] = what
        else:
            repeated = name in _REPEATED and len(value) <= h.LONGEST_TEXT
            text, what = (_read_repeated if repeated else _read)(name, value)
            if what is None:
                right[name] = text
            else:
                wrong[name] = what
        given[name] = value
    if not given:
        return _NO_HEADERS
    _judge_identity(given, right, wrong, methods)
    reply = None if _REPLIES.isdisjoint(given) else _reply(given, right, wrong)
    fault = invalid(_first_fault(given, wrong)) if wrong else None
    structured = h.CONTENT_TYPE in given and structured_mode(given[h.CONTENT_TYPE], wrong.get(h.CONTENT_TYPE))
    return Headers(_envelope(given, right, wrong, reply, methods), fault, structured)


def _judge_identity(
    given: Mapping[str, bytes], right: Mapping[str, str], wrong: dict[str, str], methods: Methods
) -> None:
    """Note in ``wrong`` an id without a source, and a type that is none of these methods'."""
    if h.CE_ID in given and h.CE_SOURCE not in given:
        wrong[h.CE_ID] = f"needs {h.CE_SOURCE}"
    named = right.get(h.CE_TYPE)
    if named is not None and named not in methods.of_type:
        known = " or ".join(f'"{each}"' for each in methods.of_type)
        wrong[h.CE_TYPE] = f'must be {known}, not "{quoted(named)}"'


def _first_fault(given: Mapping[str, bytes], wrong: Mapping[str, str]) -> str:
    return next(f"the header {name} {wrong[name]}" for name in given if name in wrong)


def _reply(given: Mapping[str, bytes], right: Mapping[str, str], wrong: dict[str, str]) -> ReplyTo | None:
    """Return the topic and partition that the sender wants its answer in.

    If they are invalid, return None and note the fault in ``wrong``.
    """
    named = {name: right[name] for name in (h.REPLY_TO, h.KAFKA_REPLY_TOPIC) if name in right}
    if len(set(named.values())) > 1:
        wrong.setdefault(h.KAFKA_REPLY_TOPIC, f"names another topic than {h.REPLY_TO}")
    if h.REPLY_TO not in given and h.KAFKA_REPLY_TOPIC not in given:
        wrong.setdefault(h.KAFKA_REPLY_PARTITION, f"needs {h.REPLY_TO} or {h.KAFKA_REPLY_TOPIC}")
    if not _REPLIES.isdisjoint(wrong):
        return None
    header, topic = next(iter(named.items()))
    partition = given.get(h.KAFKA_REPLY_PARTITION)
    return ReplyTo(header, topic, None if partition is None else int.from_bytes(partition, "big"))


def _read(name: str, value: bytes) -> tuple[str, str | None]:
    """Return the text of a header and its fault, if it has one."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "", "is not UTF-8"
    return text, _TEXT_HEADERS[name](text)


_read_repeated: Final = lru_cache(maxsize=256)(_read)


def _envelope(
    given: Mapping[str, bytes],
    right: Mapping[str, str],
    wrong: Mapping[str, str],
    reply: ReplyTo | None,
    methods: Methods,
) -> Envelope:
    if wrong:
        right = {name: text for name, text in right.items() if name not in wrong}
    identity, source = right.get(h.CE_ID), right.get(h.CE_SOURCE)
    # An id means something only together with its source.
    whole = identity is not None and source is not None
    return Envelope(
        ce_id=identity if whole else None,
        ce_source=source if whole else None,
        correlation=tuple([(name, given[name]) for name in _CORRELATIONS if name in given and name not in wrong]),
        traceparent=right.get(h.TRACEPARENT),
        tracestate=right.get(h.TRACESTATE),
        reply=reply,
        dry_run=right.get(h.DRY_RUN) == h.TRUE,
        method=methods.of_type.get(right.get(h.CE_TYPE, ""), SET_EFFECTIVE),
    )


def structured_mode(content: bytes, fault: str | None) -> bool | Refused:
    """True if the content type announces a whole CloudEvent; a refusal if it does so in a form that is not read."""
    if not content.lower().startswith(h.CLOUD_EVENT_CONTENT.encode()):
        return False
    if content.lower().startswith(h.BATCH_CONTENT.encode()):
        return invalid(f"the header {h.CONTENT_TYPE} announces a batch of CloudEvents: send one event in each message")
    return True if fault is None else invalid(f"the header {h.CONTENT_TYPE} {fault}")
