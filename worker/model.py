"""The values of the journey, in the order a command meets them. Frozen, whole, and free of I/O.

A type proves that a step was taken: ``decide`` takes a :class:`Presented` command, which only exists once its login
was verified, its caller authorised, its access token loaded and locked, and its credentials compared.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import quote

from schemas.codes import StatusCode
from schemas.states import LifeCycleState

Header = tuple[str, bytes]

A = TypeVar("A")
B = TypeVar("B")


def percent_encoded(part: str) -> str:
    """One part of a command id (CONTRACT 2): every separator in it is escaped, so that two ids never coincide."""
    return quote(part, safe="")


# --- a record as Kafka delivered it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a command stands in Kafka. ``timestamp`` is in milliseconds and tells a re-created topic from the old one."""

    cluster: str
    topic: str
    partition: int
    offset: int
    timestamp: int

    @property
    def command_id(self) -> str:
        """The ``rec:`` id of CONTRACT 2, for a command that brings none of its own or whose sender is not verified."""
        return (
            f"rec:{percent_encoded(self.cluster)}/{percent_encoded(self.topic)}"
            f"/{self.partition}/{self.offset}@{self.timestamp}"
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record of the commands topic, untouched."""

    coordinates: Coordinates
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    stamped_by_broker: bool
    """Whether ``coordinates.timestamp`` is the broker's (``LogAppendTime``) and may judge an expiry."""


# --- decoded ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer other than ``OK``. ``message`` is for people and holds neither secrets nor personal data."""

    code: StatusCode
    message: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the answer needs of the headers. Only headers that were right stand here; a wrong one is never echoed."""

    ce_id: str | None = None
    ce_source: str | None = None
    correlation: tuple[Header, ...] = ()
    """``correlation_id`` and ``kafka_correlationId`` as they came, under their own names."""
    traceparent: str | None = None
    tracestate: str | None = None
    request_id: str | None = None
    """``request_unique_identifier`` of the body, as far as the body could be read."""


@dataclass(frozen=True, slots=True)
class Command:
    """A well-formed command. Exactly one of ``authentication_code`` and ``identifier`` is given."""

    login_token: str = field(repr=False)
    authentication_code: str | None = field(repr=False)
    identifier: str | None = field(repr=False)
    pass_code: str | None = field(repr=False)
    fields: int
    """The asked-for members as a bit mask over ``schemas.access_token.FIELD_NAMES``."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A delivery together with what could be read of it."""

    delivery: Delivery
    envelope: Envelope
    request: Command | Refused


# --- the caller -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a login token whose signature, algorithm and types were verified (CONTRACT 4). Expiry is not judged."""

    jti: str
    username: str
    organisation: str
    unit: str
    expires_at: float
    """Seconds since the epoch."""
    account: str | None
    """``acr``: a consumer application's login sees this account's tokens only."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, read and found active in the batch's own transaction, and allowed to set tokens effective."""

    organisation: str
    user: str
    """The user's id."""
    unit: str
    account: str | None


# --- the access token -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenKey:
    organisation: str
    token: str
    """The access token's id."""


@dataclass(frozen=True, slots=True)
class LockedToken:
    """The part of an access token that a decision looks at, locked in the batch's transaction."""

    key: TokenKey
    state: LifeCycleState
    version: int
    account: str | None
    authentication_code: str | None = field(repr=False)
    identifier: str | None = field(repr=False)
    pass_code_hash: str | None = field(repr=False)


# --- the record of commands -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the record of commands keeps of an answer (DESIGN 2). Never its ``data``."""

    command_id: str
    code: StatusCode
    message: str
    replayed: bool
    organisation: str | None
    token: str | None
    version: int | None
    """The version the token reached by this command; ``None`` where nothing was applied."""
    fields: int
    digest: bytes
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Presented:
    """A command that has passed every check up to the credentials, with what it is decided upon."""

    command_id: str
    digest: bytes
    """What "the same request" compares (CONTRACT 2): the code or identifier and the fields, never a secret."""
    fields: int
    caller: Caller
    token: TokenKey


# --- decided ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """The token changed. ``version`` is the one it reached."""

    presented: Presented
    from_state: LifeCycleState
    to_state: LifeCycleState
    version: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """The command's id was applied before, for the same request: the same answer, and nothing changes."""

    presented: Presented
    token: TokenKey | None
    """Whose data the answer shows; ``None`` if that token is gone or is no longer what the command names."""


Decision = Applied | Replayed | Refused


def request_digest(kind: str, name: str, fields: int) -> bytes:
    """The digest of what "the same request" compares (CONTRACT 2).

    ``kind`` is ``"code"`` or ``"identifier"``. Fixed-width and length-free parts come first, so no two requests share a text.
    """
    return hashlib.sha256(f"{kind}\0{fields}\0{name}".encode()).digest()


def command_key(command_id: str) -> bytes:
    """The 16 bytes by which the record of commands finds an id: a command id may be longer than an index entry."""
    return hashlib.sha256(command_id.encode()).digest()[:16]


GENESIS: Final = "0" * 64
"""``previous_hash`` of a lane's first transition event (CONTRACT 6)."""


def each_unrefused(items: Sequence[A | Refused], step: Callable[[A], B | Refused]) -> list[B | Refused]:
    """Take one step of the journey with every command that has not been refused yet, keeping the order."""
    return [item if isinstance(item, Refused) else step(item) for item in items]
