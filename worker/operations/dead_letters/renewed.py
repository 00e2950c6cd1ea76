"""Turn a dead letter into a command again, with a fresh login token and an id that makes sending it twice safe."""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from msgspec.structs import replace

from effective_contract import headers as h
from worker.journey.decode.command import decode
from worker.journey.model import Command, Envelope, Refused, command_key
from worker.kafka.delivery import Coordinates, Delivery
from worker.operations.dead_letters.letters import Letter, Source

MASKED: Final = "***"
"""The replacement of a secret in a dead letter (CONTRACT, Dead letter)."""
REPLAY_SOURCE: Final = "/effective-worker/dead-letters"
"""``ce_source`` of a command that brought no id of its own."""


class NotRenewed(Exception):
    """The dead letter cannot become a command. The text gives the reason, and holds no secret."""


class PassCodeGone(NotRenewed):
    """The command names its access token by an identifier, and the pass code is masked."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A command to send. ``envelope`` and ``command`` are its parts as a worker will read them."""

    delivery: Delivery
    envelope: Envelope
    command: Command = field(repr=False)


def renewed(letter: Letter, source: Source, cluster: str, *, login_token: str, max_bytes: int) -> Renewed:
    """Return a dead letter's command, ready to be sent again.

    A worker's own decoder judges it: a command that it would refuse is not worth sending. Raises ``NotRenewed``, and
    ``PassCodeGone`` if only its sender could send it again.
    """
    headers = letter.command_headers
    where = Coordinates(cluster, source.topic, source.partition, source.offset, source.timestamp)
    structured = any(name == h.CONTENT_TYPE and _is_event(value) for name, value in headers)
    value = _with_login(letter.value, login_token, structured=structured)
    delivery = Delivery(where, letter.key, value, headers, stamped_by_broker=False)
    decoded = decode(delivery, max_bytes=max_bytes)
    if isinstance(decoded.request, Command) and decoded.envelope.ce_id is None and decoded.envelope.request_id is None:
        delivery = _with_id(delivery, structured=structured)
        decoded = decode(delivery, max_bytes=max_bytes)
    if isinstance(decoded.request, Refused):
        raise NotRenewed(f"{decoded.request.code}: {decoded.request.message}")
    if decoded.request.identifier is not None and decoded.request.pass_code == MASKED:
        raise PassCodeGone
    return Renewed(delivery, decoded.envelope, decoded.request)


def _is_event(content_type: bytes) -> bool:
    return h.is_structured_content(content_type.decode(errors="replace"))


def _with_login(value: bytes | None, login_token: str, *, structured: bool) -> bytes | None:
    """Replace the login token in a command, or in the event that holds one; any other value stays as it is."""
    body = _object(value)
    if body is None:
        return value
    if not structured:
        return _written(body | {"token": login_token}) if "token" in body else value
    data, encoded = body.get("data"), body.get("data_base64")
    if isinstance(data, dict) and "token" in data:
        return _written(body | {"data": data | {"token": login_token}})
    if isinstance(encoded, str):
        try:
            inner = _with_login(b64decode(encoded, validate=True), login_token, structured=False)
        except ValueError:
            return value
        return _written(body | {"data_base64": b64encode(inner or b"").decode()})
    return value


def _with_id(delivery: Delivery, *, structured: bool) -> Delivery:
    """Give a command without an id one that is always the same for this dead letter (CONTRACT, Command)."""
    place = delivery.coordinates.command_id
    identity = place if len(place) <= h.LONGEST_TEXT else command_key(place)
    if structured:
        body = _object(delivery.value) or {}
        usual = {"specversion": h.SPEC_VERSION, "type": h.COMMAND_TYPE}
        usual = {name: text for name, text in usual.items() if body.get(name) in (None, "")}
        return replace(delivery, value=_written(body | usual | {"id": identity, "source": REPLAY_SOURCE}))
    given = {name for name, value in delivery.headers if value}
    ours = {h.CE_ID: identity, h.CE_SOURCE: REPLAY_SOURCE}
    ours |= {
        name: text
        for name, text in ((h.CE_SPEC_VERSION, h.SPEC_VERSION), (h.CE_TYPE, h.COMMAND_TYPE))
        if name not in given
    }
    kept = [header for header in delivery.headers if header[0] not in ours]
    return replace(delivery, headers=(*kept, *((name, text.encode()) for name, text in ours.items())))


def _object(value: bytes | None) -> dict[str, Any] | None:
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _written(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise NotRenewed("it is nested too deeply to be written again") from None
