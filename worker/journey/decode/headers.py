"""The headers of a command: valid ones make the envelope, the first invalid one refuses the command.

See CONTRACT, Command.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from effective_contract import headers as h
from effective_contract.methods import METHODS, SET_EFFECTIVE, Methods
from effective_contract.rules import headers as rules
from effective_contract.rules.faults import Fault
from effective_contract.rules.headers import CORRELATIONS, REPLIES
from worker.journey.model import Envelope, Refused, ReplyTo
from worker.journey.refusals import refused
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


def read_headers(headers: Sequence[Header], methods: Methods = METHODS) -> Headers:
    """Read the headers of a command into its envelope, by the contract's rules."""
    given, right, wrong = rules.read_headers(headers, methods.of_type)
    if not given:
        return _NO_HEADERS
    mode = rules.structured_mode(given, wrong) if h.CONTENT_TYPE in given else False
    fault = rules.first_fault(given, wrong) if wrong else None
    return Headers(
        _envelope(given, right, wrong, methods),
        None if fault is None else refused(fault),
        refused(mode) if isinstance(mode, Fault) else mode,
    )


def _envelope(
    given: Mapping[str, bytes], right: Mapping[str, str], wrong: Mapping[str, str], methods: Methods
) -> Envelope:
    if wrong:
        right = {name: text for name, text in right.items() if name not in wrong}
    identity, source = right.get(h.CE_ID), right.get(h.CE_SOURCE)
    # An id means something only together with its source.
    whole = identity is not None and source is not None
    return Envelope(
        ce_id=identity if whole else None,
        ce_source=source if whole else None,
        correlation=tuple([(name, given[name]) for name in CORRELATIONS if name in given and name not in wrong]),
        traceparent=right.get(h.TRACEPARENT),
        tracestate=right.get(h.TRACESTATE),
        reply=None if REPLIES.isdisjoint(given) else _reply(given, right, wrong),
        dry_run=right.get(h.DRY_RUN) == h.TRUE,
        method=methods.of_type.get(right.get(h.CE_TYPE, ""), SET_EFFECTIVE),
    )


def _reply(given: Mapping[str, bytes], right: Mapping[str, str], wrong: Mapping[str, str]) -> ReplyTo | None:
    """Return the topic and partition that the sender wants its answer in; None if their headers are invalid."""
    if not REPLIES.isdisjoint(wrong):
        return None
    header = h.REPLY_TO if h.REPLY_TO in right else h.KAFKA_REPLY_TOPIC
    partition = given.get(h.KAFKA_REPLY_PARTITION)
    return ReplyTo(header, right[header], None if partition is None else int.from_bytes(partition, "big"))
