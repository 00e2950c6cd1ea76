"""Build the messages of an answered command: result, transition event, dead letter.

See CONTRACT, Result, Transition event and Dead letter.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache

from msgspec.structs import replace

from effective_contract.codes import StatusCode
from effective_contract.headers import CE_SUBJECT, DRY_RUN, SPEC_VERSION, TRANSITION_TYPE, TRUE
from effective_contract.methods import Method
from worker.journey.decode.body import shortened
from worker.journey.json import encode
from worker.journey.model import Answer, Answered, Decoded, Transition
from worker.journey.redact import masked
from worker.kafka.delivery import KEPT_BYTES, Coordinates, Cut, Header
from worker.observability.tracing import continued
from worker.values import Value, percent_encoded, rfc3339

INNOCENT_BYTES = 8 * 1024
"""A message up to this size is not cut: its size is not what keeps it from being written."""
NO_LETTER = "; its dead letter could not be written"
DEAD_LETTERED = frozenset({StatusCode.MALFORMED_REQUEST, StatusCode.INTERNAL_ERROR})


class Message(Value, frozen=True):
    """One record to publish."""

    hidden = frozenset({"value", "headers"})

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    partition: int | None = None
    """The partition that its sender chose; ``None`` leaves the choice to the publisher."""


@dataclass(frozen=True, slots=True)
class OutgoingTopics:
    """The topics that the worker writes to, and the names under which it writes."""

    results: str
    transitions: str
    dead_letters: str
    group: str
    worker: str
    source: str = "/effective-worker"
    """``ce_source`` of everything the worker writes."""


def result_message(
    answered: Answered, outgoing: OutgoingTopics, *, whole: bool = True, redirected: bool = True
) -> Message:
    """Build the one answer to a command, under the command's own key, for the topic that its sender wants.

    ``whole=False`` leaves the data out and says so, for a broker that does not take it whole; the status stays.
    ``redirected=False`` sends it to the results topic, whatever the sender wants.
    """
    decoded, answer, data = answered.decoded, answered.answer, answered.data
    key = decoded.delivery.key
    message = answer.message
    if not whole:
        key, data = key and key[:KEPT_BYTES], None
        message = message or "the data is too large for the topic"
    value = _result_value(decoded.envelope.method, answer.code, message, data)
    headers = _result_headers(decoded, answer, outgoing)
    reply = decoded.envelope.reply
    if reply is not None and redirected:
        return Message(reply.topic, key, value, headers, reply.partition)
    return Message(outgoing.results, key, value, headers)


def _result_value(method: Method, code: StatusCode, message: str, data: bytes | None) -> bytes:
    status = _status(code, method.description(code), message)
    return b"".join((b'{"data":', b"{}" if data is None else data, b',"status":', status, b"}"))


@lru_cache(maxsize=256)  # most answers of a batch say the same
def _status(code: StatusCode, description: str, message: str) -> bytes:
    return encode({"code": code, "description": description, "message": message})


def _result_headers(decoded: Decoded, answer: Answer, outgoing: OutgoingTopics) -> tuple[Header, ...]:
    envelope, where = decoded.envelope, decoded.delivery.coordinates
    # An applied command and its replays are one event; every refusal is an event of its own, and so is every dry run.
    is_applied = answer.code is StatusCode.OK and not envelope.dry_run
    identity = answer.command_id if is_applied else where.command_id
    headers = [
        ("ce_id", _event_id(identity)),
        *_cloud_event(outgoing.source, envelope.method.result_type, answer.decided_at),
        ("causation_id", (envelope.ce_id or envelope.request_id or where.command_id).encode()),
        ("command_id", answer.command_id.encode()),
        ("status_code", answer.code.encode()),
        ("replayed", b"true" if answer.replayed else b"false"),
        *envelope.correlation,
    ]
    if envelope.dry_run:
        # A dry run leaves no record that would say which command this answers.
        headers += [(DRY_RUN, TRUE.encode()), (CE_SUBJECT, where.command_id.encode())]
    if envelope.traceparent is not None:
        headers += _trace(envelope.traceparent, envelope.tracestate, where)
    return tuple(headers)


def _trace(parent: str, state: str | None, where: Coordinates) -> Iterator[Header]:
    traceparent = continued(parent, where.command_id.encode())
    if traceparent is not None:
        yield "traceparent", traceparent.encode()
        if state is not None:
            yield "tracestate", state.encode()


def transition_message(transition: Transition, outgoing: OutgoingTopics) -> Message:
    """Build the event of a transition, keyed so that the history of one access token stays in order."""
    key = f"{transition.organisation}:{transition.token}"
    identity = f"{percent_encoded(transition.organisation)}:{percent_encoded(transition.token)}:{transition.version}"
    subject = key.encode()
    headers = (
        ("ce_id", _event_id(identity)),
        *_cloud_event(outgoing.source, TRANSITION_TYPE, transition.occurred_at),
        ("ce_subject", subject),
    )
    return Message(outgoing.transitions, subject, _event_value(transition), headers)


def _event_value(transition: Transition) -> bytes:
    """Return the text that was hashed, with its hash (CONTRACT, Transition event)."""
    return b"".join((transition.text[:-1], b',"hash":"', transition.hash.hex().encode(), b'"}'))


def dead_letter_message(answered: Answered, outgoing: OutgoingTopics, *, whole: bool = True) -> Message:
    """Build the dead letter of a record that could not be handled, its secrets masked.

    ``whole=False`` cuts it (``dl_truncated``).
    """
    delivery, answer = answered.decoded.delivery, answered.answer
    where, cut, value = delivery.coordinates, delivery.cut, delivery.value
    headers = [header for header in delivery.headers if not header[0].startswith("dl_")]
    if not whole:
        headers = []
        if value is not None and len(value) > KEPT_BYTES:
            value, cut = shortened(value, "")
    # Cut first: the search for secrets takes longer for a larger value.
    value = masked(value)
    transitions = {
        "dl_code": answer.code,
        "dl_reason": answer.message,
        "dl_topic": where.topic,
        "dl_partition": str(where.partition),
        "dl_offset": str(where.offset),
        "dl_timestamp": str(where.timestamp),
        "dl_consumer_group": outgoing.group,
        "dl_worker": outgoing.worker,
        "dl_attempts": "1",
        "dl_failed_at": rfc3339(answer.decided_at),
    }
    if answer.organisation is not None:
        transitions["dl_organisation"] = answer.organisation
    if not whole or cut is not None:
        transitions["dl_truncated"] = "true"
    if cut is not None:
        transitions |= dict(_told_of(cut))
    headers += [(name, text.encode()) for name, text in transitions.items()]
    key = delivery.key
    return Message(outgoing.dead_letters, key if whole else key and key[:KEPT_BYTES], value, tuple(headers))


def _told_of(cut: Cut) -> Iterator[tuple[str, str]]:
    """Yield the headers about the part of a record that was not kept."""
    if cut.value_bytes is not None:
        yield "dl_value_bytes", str(cut.value_bytes)
    if cut.value_hash is not None:
        yield "dl_value_sha256", cut.value_hash.hex()
    if cut.batch_hash is not None:
        yield "dl_batch_sha256", cut.batch_hash.hex()


@lru_cache(maxsize=64)  # a batch is decided at one moment
def _cloud_event(source: str, event_type: str, moment: datetime) -> tuple[Header, ...]:
    """Return the CloudEvents headers of an event, except its id."""
    return (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event_type.encode()),
        ("ce_time", rfc3339(moment).encode()),
        ("content-type", b"application/json"),
    )


def _event_id(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).hexdigest()[:32].encode()


def is_dead_lettered(answered: Answered) -> bool:
    """True if a command goes to the dead letters. A dry run does not: it leaves nothing to send again."""
    return answered.answer.code in DEAD_LETTERED and not answered.decoded.envelope.dry_run


class Letters(Enum):
    """The ways to write dead letters. Smaller ones are for a broker that stops answering when sent larger ones."""

    WHOLE = "whole"
    CUT = "cut"
    NONE = "left out"


def messages(
    answered: Answered,
    outgoing: OutgoingTopics,
    *,
    whole: bool = True,
    redirected: bool = True,
    letters: Letters = Letters.WHOLE,
) -> list[Message]:
    """Build everything to publish for one command: its result, its transition event, and its dead letter.

    ``whole=False`` makes them small enough for any broker; ``redirected=False`` keeps the result to the worker's own
    topics. An answer whose dead letter is left out says so.
    """
    with_letter = is_dead_lettered(answered)
    if with_letter and letters is Letters.NONE:
        answer = replace(answered.answer, message=f"{answered.answer.message}{NO_LETTER}")
        answered, with_letter = replace(answered, answer=answer), False
    written = [result_message(answered, outgoing, whole=whole, redirected=redirected)]
    if answered.transition is not None:
        written.append(transition_message(answered.transition, outgoing))
    if with_letter:
        written.append(_letter(answered, outgoing, whole=whole, letters=letters))
    return written


def _letter(answered: Answered, outgoing: OutgoingTopics, *, whole: bool, letters: Letters) -> Message:
    letter = dead_letter_message(answered, outgoing, whole=whole)
    if whole and letters is Letters.CUT and _size(letter) > INNOCENT_BYTES:
        return dead_letter_message(answered, outgoing, whole=False)
    return letter


def _size(message: Message) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in message.headers)
    return headers + len(message.key or b"") + len(message.value or b"")
