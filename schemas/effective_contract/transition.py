"""The transition event and the hash chain that events of one lane form (CONTRACT, Transition event)."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from effective_contract.base import Schema
from effective_contract.states import LifeCycleState

FIRST_PREVIOUS_HASH: Final = "0" * 64
"""``previous_hash`` of a lane's first event."""

DIGESTED: Final = "hmac:"
"""The prefix of a :func:`command_name` that is a digest."""
_BLOCK: Final = 64
"""Bytes in a block of SHA-256."""
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_LARGEST_EXACT_INTEGER: Final = 2**53 - 1
"""The largest integer that RFC 8785 can write."""


def _a_moment_that_exists(text: str) -> str:
    datetime.fromisoformat(text)
    return text


EventTime = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"),
    AfterValidator(_a_moment_that_exists),
]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=_LARGEST_EXACT_INTEGER)]
State = Annotated[LifeCycleState, Field(strict=False)]
Id = Annotated[str, Field(min_length=1)]

# The check below, for readers that only have the JSON Schema.
_NULL: Final[JsonValue] = {"type": "null"}
_TEXT: Final[JsonValue] = {"type": "string"}
_CAUSES: Final[list[JsonValue]] = [
    {
        "properties": {
            "cause": {"const": "API"},
            **dict.fromkeys(("from_state", "user_id", "unit_id", "command_id"), _TEXT),
        }
    },
    {"properties": {"cause": {"const": "IMPORT"}, **dict.fromkeys(("from_state", "user_id"), _NULL)}},
]


class TransitionEvent(Schema):
    """One applied transition. No personal data."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [*_CAUSES]})

    organisation: Id
    """The organisation that the access token belongs to."""
    access_token_id: Id
    """Unique within the organisation."""
    version: Count
    """Counts 1, 2, 3 … per access token."""
    from_state: State | None
    """``null`` for the first state of an imported token."""
    to_state: State
    """The state from now on."""
    occurred_at: EventTime
    """RFC 3339, UTC, with microseconds."""
    user_id: Id | None
    """The user who asked for the transition."""
    unit_id: Id | None
    """The unit that the user was logged in to."""
    command_id: Id | None
    """The command that was applied: its ``rec:`` id, or of a sender's own id a keyed digest (:func:`command_name`)."""
    cause: Literal["API", "IMPORT"]
    """A command, or the import of the token."""
    lane: Id
    """The name of the one writer whose events ``sequence`` counts."""
    sequence: Count
    """Counts 1, 2, 3 … per lane."""
    previous_hash: Hash
    """The ``hash`` of the lane's event before; 64 zeros in the first."""
    hash: Hash
    """Lower-case hex SHA-256 of the RFC 8785 JSON of all members but this one."""

    @model_validator(mode="after")
    def _members_fit_the_cause(self) -> "TransitionEvent":
        by_whom = (self.from_state, self.user_id, self.unit_id, self.command_id)
        if self.cause == "API" and None in by_whom:
            raise ValueError("a transition by a command names its state before, user, unit and command")
        if self.cause == "IMPORT" and (self.from_state is not None or self.user_id is not None):
            raise ValueError("the first state of an imported token has no state before and no user")
        return self


def naming_key(secret: str) -> bytes:
    """Derive the key of :func:`command_name` from a worker's digest key (the first of ``WORKER_DIGEST_KEYS``)."""
    return hmac.digest(secret.encode(), b"effective-worker commands", "sha256")


def command_name(key: bytes, command_id: str) -> str:
    """Return the ``command_id`` of a command in events, from its id in its result.

    A ``rec:`` id stays as it is. Any other becomes ``hmac:`` and the lower-case hex HMAC-SHA256: an id that a sender
    chose may say something about a person, and events are kept forever.
    """
    if command_id.startswith(("rec:", DIGESTED)):
        return command_id
    inner, outer = (half.copy() for half in _begun(key))
    inner.update(command_id.encode())
    outer.update(inner.digest())
    return DIGESTED + outer.hexdigest()


@lru_cache(maxsize=8)
def _begun(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """Return the two hashes of an HMAC (RFC 2104) after the key, which is half the work of :mod:`hmac` per command."""
    padded = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return hashlib.sha256(padded.translate(_INNER)), hashlib.sha256(padded.translate(_OUTER))


def event_hash(event: Mapping[str, Any]) -> str:
    """Return the lower-case hex SHA-256 of the RFC 8785 JSON of all members but ``hash``.

    The names of members are ASCII, and values are strings, ``None`` or integers below 2^53: for these, sorted compact
    JSON is the canonical one.
    """
    members = {name: value for name, value in event.items() if name != "hash"}
    return hashlib.sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The first event at which a chain does not hold."""

    position: int
    """The index of the event, from 0, in the order given."""
    sequence: int
    """The expected sequence number."""
    reason: str


def verify_chain(
    events: Iterable[Mapping[str, Any]], *, sequence: int = 0, previous_hash: str = FIRST_PREVIOUS_HASH
) -> BrokenLink | None:
    """Return the first broken link of one lane's events, in their sequence; ``None`` if the chain is whole.

    ``sequence`` and ``previous_hash`` are those of the event before the first one given, for a chain read in parts.
    """
    lane: object = None
    for position, event in enumerate(events):
        sequence += 1
        lane = event.get("lane") if position == 0 else lane
        if event.get("lane") != lane:
            return BrokenLink(position, sequence, "the event is of another lane")
        if event.get("sequence") != sequence:
            return BrokenLink(position, sequence, "the sequence has a gap or a repetition")
        if event.get("previous_hash") != previous_hash:
            return BrokenLink(position, sequence, "previous_hash is not the hash of the event before")
        previous_hash = event_hash(event)
        if event.get("hash") != previous_hash:
            return BrokenLink(position, sequence, "hash is not the hash of the event")
    return None
