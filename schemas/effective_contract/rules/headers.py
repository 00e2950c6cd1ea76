"""The headers of a command: the fault of each by itself, and of those that belong together (CONTRACT, Command)."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, partial
from typing import Final

from effective_contract import headers as h
from effective_contract.rules.faults import Fault, invalid, quoted, text_fault

_TWICE: Final = "is given more than once"
CORRELATIONS: Final = (h.CORRELATION_ID, h.KAFKA_CORRELATION_ID)
REPLIES: Final = frozenset((h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.KAFKA_REPLY_PARTITION))


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


_TEXT_FAULTS: Final[Mapping[str, Callable[[str], str | None]]] = {
    h.CE_SPEC_VERSION: _spec_version_fault,
    h.CE_TYPE: _no_fault,  # which methods there are is an argument of read_headers
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
"""The fault of each header that is a text; None for a right one."""
_KNOWN: Final = frozenset((*_TEXT_FAULTS, *CORRELATIONS, *REPLIES))
"""The headers that are read."""
_REPEATED: Final = frozenset(
    (h.CE_SPEC_VERSION, h.CE_TYPE, h.CE_SOURCE, h.CONTENT_TYPE, h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.DRY_RUN)
)
"""The headers that have the same value in every command of a sender."""


Header = tuple[str, bytes]
Read = tuple[Mapping[str, bytes], Mapping[str, str], Mapping[str, str]]
"""The headers as they were given, those without a fault as texts, and the faults of the others. By name."""


def read_headers(headers: Iterable[Header], types: Collection[str]) -> Read:
    """Read the headers of a command. Others are ignored, and an empty one counts as not given.

    ``types`` holds every ``ce_type`` that is carried out; iterated, it gives them in the order to name them in.
    """
    given: dict[str, bytes] = {}
    right: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, value in headers:
        if not value or name not in _KNOWN:
            continue
        if name in given:
            wrong[name] = _TWICE
        elif name in _TEXT_FAULTS:
            repeated = name in _REPEATED and len(value) <= h.LONGEST_TEXT
            text, what = (_read_repeated if repeated else _read)(name, value)
            if what is None:
                right[name] = text
            else:
                wrong[name] = what
        else:
            what = (_partition_fault if name == h.KAFKA_REPLY_PARTITION else _correlation_fault)(value)
            if what is not None:
                wrong[name] = what
        given[name] = value
    if given:
        _judge_identity(given, right, wrong, types)
        if not REPLIES.isdisjoint(given):
            _judge_reply(given, right, wrong)
    return given, right, wrong


def first_fault(given: Mapping[str, bytes], wrong: Mapping[str, str]) -> Fault | None:
    """Return the fault of the first wrong header, or None. It counts only if the body is valid."""
    first = next((name for name in given if name in wrong), None)
    return None if first is None else invalid(f"the header {first} {wrong[first]}", first)


def structured_mode(given: Mapping[str, bytes], wrong: Mapping[str, str]) -> bool | Fault:
    """True if the content type announces a whole CloudEvent; its fault if it does so in a form that is not read."""
    content = given.get(h.CONTENT_TYPE, b"").lower()
    if not content.startswith(h.CLOUD_EVENT_CONTENT.encode()):
        return False
    if content.startswith(h.BATCH_CONTENT.encode()):
        what = f"the header {h.CONTENT_TYPE} announces a batch of CloudEvents: send one event in each message"
        return invalid(what, h.CONTENT_TYPE)
    what = wrong.get(h.CONTENT_TYPE, "")
    return invalid(f"the header {h.CONTENT_TYPE} {what}", h.CONTENT_TYPE) if what else True


def _judge_identity(
    given: Mapping[str, bytes], right: Mapping[str, str], wrong: dict[str, str], types: Collection[str]
) -> None:
    """Note in ``wrong`` an id without a source, and a type that is none of these."""
    if h.CE_ID in given and h.CE_SOURCE not in given:
        wrong[h.CE_ID] = f"needs {h.CE_SOURCE}"
    named = right.get(h.CE_TYPE)
    if named is not None and named not in types:
        known = " or ".join(f'"{each}"' for each in types)
        wrong[h.CE_TYPE] = f'must be {known}, not "{quoted(named)}"'


def _judge_reply(given: Mapping[str, bytes], right: Mapping[str, str], wrong: dict[str, str]) -> None:
    """Note in ``wrong`` headers that name two topics to answer on, or a partition of none."""
    if len({right[name] for name in (h.REPLY_TO, h.KAFKA_REPLY_TOPIC) if name in right}) > 1:
        wrong.setdefault(h.KAFKA_REPLY_TOPIC, f"names another topic than {h.REPLY_TO}")
    if h.REPLY_TO not in given and h.KAFKA_REPLY_TOPIC not in given:
        wrong.setdefault(h.KAFKA_REPLY_PARTITION, f"needs {h.REPLY_TO} or {h.KAFKA_REPLY_TOPIC}")


def _read(name: str, value: bytes) -> tuple[str, str | None]:
    """Return the text of a header and its fault, if it has one."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "", "is not UTF-8"
    return text, _TEXT_FAULTS[name](text)


_read_repeated: Final = lru_cache(maxsize=256)(_read)


def _correlation_fault(value: bytes) -> str | None:
    return f"is longer than {h.LONGEST_CORRELATION} bytes" if len(value) > h.LONGEST_CORRELATION else None


def _partition_fault(value: bytes) -> str | None:
    if len(value) != h.PARTITION_BYTES:
        return f"must be a number of {h.PARTITION_BYTES} bytes, big-endian, not of {len(value)}"
    return "must not be negative" if value[0] & 0x80 else None
