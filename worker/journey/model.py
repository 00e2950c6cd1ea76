"""The values of the journey, in the order that a command meets them: frozen, complete, and free of I/O.

A type proves that a step was taken: ``decide`` takes a :class:`Presented` command, which only exists once its login was
verified, its caller authorised, its access token loaded and locked, and its credentials compared.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE, Method
from effective_contract.states import LifeCycleState
from worker.kafka.delivery import Delivery, Header
from worker.values import Value, percent_encoded, rfc3339

A = TypeVar("A")
B = TypeVar("B")


IMPORT_LANE: Final = "import"
"""The lane in which imports count their events. No other lane has a name without slashes.

See CONTRACT, Transition event.
"""


def lane_name(cluster: str, group: str, topic: str, partition: int) -> str:
    """Return the name by which transition events know a lane (CONTRACT, Transition event).

    ``{cluster}/{group}/{topic}/{partition}``, its parts percent-encoded; the lane of imports has no cluster.
    """
    return "/".join(map(percent_encoded, (cluster, group, topic, str(partition)))) if cluster else IMPORT_LANE


# --- decoded ----------------------------------------------------------------------------------------------------------


class Refused(Value, frozen=True):
    """An answer other than ``OK``. ``message`` is for people and holds neither secrets nor personal data."""

    code: StatusCode
    message: str


class ReplyTo(Value, frozen=True):
    """The topic and partition that a sender wants its answer in, instead of the results topic (CONTRACT, Command)."""

    header: str
    """The header that names them: ``reply_to`` or ``kafka_replyTopic``."""
    topic: str
    partition: int | None
    """``None``: by the answer's key. Always a number once ``journey.reply_topics`` has judged it."""


class Envelope(Value, frozen=True):
    """The headers that the answer needs. Only valid ones are here; an invalid one is never echoed."""

    ce_id: str | None = None
    ce_source: str | None = None
    correlation: tuple[Header, ...] = ()
    """``correlation_id`` and ``kafka_correlationId`` as they came, under their own names."""
    traceparent: str | None = None
    tracestate: str | None = None
    request_id: str | None = None
    """``request_unique_identifier`` of the body, if the body could be read."""
    reply: ReplyTo | None = None
    dry_run: bool = False
    """True if the command must be answered as it would be, without any effect."""
    method: Method = SET_EFFECTIVE
    """The method of its ``ce_type``. A command that names none, or an unknown one, is answered by this one."""


def senders_id(organisation: str, account: str | None, envelope: Envelope) -> str | None:
    """Return the command id (CONTRACT, Command) for a sender's own id, or ``None`` if the sender gave none.

    ``organisation`` and ``account`` are those of the verified login. An id with an account has one part more than one
    without, so no consumer application can take the id of another sender's command.
    """
    if envelope.ce_id is not None:
        return f"ce:{_sender(organisation, account, envelope.ce_source or '')}:{percent_encoded(envelope.ce_id)}"
    if envelope.request_id is not None:
        return f"req:{_sender(organisation, account)}:{percent_encoded(envelope.request_id)}"
    return None


@lru_cache(maxsize=256)  # a sender sends more than one command
def _sender(organisation: str, account: str | None, *source: str) -> str:
    return ":".join(map(percent_encoded, (organisation, *(() if account is None else (account,)), *source)))


class Command(Value, frozen=True):
    """A well-formed command. Exactly one of ``authentication_code`` and ``identifier`` is given."""

    hidden = frozenset({"login_token", "authentication_code", "identifier", "pass_code"})

    login_token: str
    authentication_code: str | None
    identifier: str | None
    pass_code: str | None
    fields: int
    """The requested members, as a bit mask over ``effective_contract.access_token.FIELD_NAMES``."""


class Decoded(Value, frozen=True):
    """A delivery, with everything that could be read of it."""

    delivery: Delivery
    envelope: Envelope
    request: Command | Refused


# --- the caller -------------------------------------------------------------------------------------------------------


class Claims(Value, frozen=True):
    """The claims of a login token whose signature, algorithm and types are right. Expiry is not judged.

    See CONTRACT, Login token.
    """

    jti: str
    username: str
    organisation: str
    unit: str
    expires_at: float
    """Seconds since the epoch."""
    account: str | None
    """``acr``: a consumer application's login sees only this account's tokens."""


class Caller(Value, frozen=True):
    """The caller of a command, found active and with the right that its method takes."""

    organisation: str
    user: str
    """The user's id."""
    unit: str
    account: str | None


# --- the access token -------------------------------------------------------------------------------------------------


class TokenKey(Value, frozen=True):
    organisation: str
    token: str
    """The access token's id."""


class LockedToken(Value, frozen=True):
    """The parts of an access token that a decision needs, locked in the batch's transaction."""

    hidden = frozenset({"authentication_code", "identifier"})

    key: TokenKey
    state: LifeCycleState
    version: int
    account: str | None
    authentication_code: str | None
    identifier: str | None


# --- presented and decided --------------------------------------------------------------------------------------------


class Presented(Value, frozen=True):
    """A command that has passed every check, credentials included, with what it is decided on."""

    method: Method
    command_id: str
    digest: bytes
    """The digest by which a request is the same: of method, code or identifier, and fields, never of a secret.

    See CONTRACT, Command.
    """
    fields: int
    caller: Caller
    token: TokenKey


class Applied(Value, frozen=True):
    """The decision that changes the token. ``version`` is the one that it reaches."""

    presented: Presented
    from_state: LifeCycleState
    to_state: LifeCycleState
    version: int


class Replayed(Value, frozen=True):
    """The decision on a command whose id was applied before, for the same request: the same answer, and no change."""

    presented: Presented
    token: TokenKey | None
    """The token whose data the answer shows; ``None`` if it is gone, or no longer the one that the command names."""


Decision = Applied | Replayed | Refused


# --- answered, recorded, published ------------------------------------------------------------------------------------


class Answer(Value, frozen=True):
    """The answer to a command without the ``data``, as the record of commands keeps it (DESIGN 2)."""

    command_id: str
    code: StatusCode
    message: str
    decided_at: datetime
    replayed: bool = False
    token: TokenKey | None = None
    """The token whose data an ``OK`` shows."""
    version: int | None = None
    """The version that this very command brought the token to; ``None`` if it applied nothing."""
    fields: int = 0
    organisation: str | None = None
    """The verified organisation of the sender, once it is known."""
    digest: bytes | None = None
    """The digest by which a request is the same. For a refused attempt, the keyed digest of the code or identifier."""
    user: str | None = None
    """The id of the user whose attempt was refused."""


class Transition(Value, frozen=True):
    """One applied transition (CONTRACT, Transition event). The hashes are raw bytes here and lower-case hex outside."""

    organisation: str
    token: str
    version: int
    from_state: LifeCycleState | None
    """``None`` for the first state of an imported access token, which no user, unit or command brought about."""
    to_state: LifeCycleState
    occurred_at: datetime
    user: str | None
    unit: str | None
    command_id: str | None
    """The name by which facts know the command (``worker.journey.digests``)."""
    cause: str
    lane: str
    """The lane's name (:func:`lane_name`)."""
    sequence: int
    previous_hash: bytes
    hash: bytes = b""
    text: bytes = b""
    """The text that is hashed (:meth:`canonical`)."""
    offset: int | None = None
    """The offset of the command in the lane's log. It is in no event, but it finds the command's record."""

    def canonical(self) -> bytes:
        """Return the RFC 8785 JSON of the event without its ``hash``; the contract says why.

        See CONTRACT, Transition event.
        """
        return msgspec.json.encode(self.members(), order="sorted")

    def members(self) -> dict[str, str | int | None]:
        """Return the transition event without its ``hash``: the members that are hashed.

        See CONTRACT, Transition event.
        """
        return {
            "organisation": self.organisation,
            "access_token_id": self.token,
            "version": self.version,
            "from_state": self.from_state,
            "to_state": self.to_state,
            "occurred_at": rfc3339(self.occurred_at),
            "user_id": self.user,
            "unit_id": self.unit,
            "command_id": self.command_id,
            "cause": self.cause,
            "lane": self.lane,
            "sequence": self.sequence,
            "previous_hash": self.previous_hash.hex(),
        }


class Outcome(Value, frozen=True):
    """The decision on a record, made now or when it was first read, with the transition that it brought about."""

    answer: Answer
    transition: Transition | None


class Answered(Value, frozen=True):
    """A command that is through with Postgres, with everything that its messages are made of."""

    hidden = frozenset({"data"})

    decoded: Decoded
    answer: Answer
    data: bytes | None
    """The requested members as JSON; ``None`` where there is nothing to show."""
    transition: Transition | None = None


def request_digest(method: Method, kind: str, name: str, fields: int) -> bytes:
    """Return the digest by which a request is the same (CONTRACT, Command).

    ``kind`` is ``"code"`` or ``"identifier"``. The sender's text comes last, so no two requests share a text. Set
    effective has no name in it: records have such digests since before there were other methods.
    """
    named = "" if method is SET_EFFECTIVE else f"{method.name}\0"
    return hashlib.sha256(f"{named}{kind}\0{fields}\0{name}".encode()).digest()


def command_key(command_id: str) -> str:
    """Return the UUID that indexes an id in the record of commands, as 32 hexadecimal digits.

    The id itself may be longer than an index entry.
    """
    return hashlib.sha256(command_id.encode()).hexdigest()[:32]


def each_unrefused(items: Sequence[A | Refused], step: Callable[[A], B | Refused]) -> list[B | Refused]:
    """Take one step of the journey with every command that has not been refused yet, keeping the order."""
    return [item if isinstance(item, Refused) else step(item) for item in items]
