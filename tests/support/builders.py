"""Builders of the journey's values and of Kafka records that need only the members a test cares about."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import ConsumerRecord

from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE, Method
from effective_contract.states import LifeCycleState
from worker.journey.messages import OutgoingTopics
from worker.journey.model import (
    Answer,
    Answered,
    Caller,
    Decoded,
    Envelope,
    LockedToken,
    Presented,
    Refused,
    TokenKey,
    Transition,
)
from worker.kafka.delivery import Coordinates, Delivery, Header

OUTGOING: Final = OutgoingTopics("results", "transitions", "dead-letters", "group", "host:7")
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WHERE: Final = Coordinates("cluster", "commands", 3, 41, 1_700_000_000_123)
CALLER: Final = Caller("ORG1", "user", "1", None)
KEY: Final = TokenKey("ORG1", "t1")
COMMAND_ID: Final = "ce:ORG1:s:1"
DIGEST: Final = b"first request"
WRONG: Final = Refused(StatusCode.INVALID_CREDENTIALS, "identifier and pass_code do not go together")


def delivery(
    value: bytes | None,
    headers: tuple[Header, ...] = (),
    *,
    offset: int = 7,
    where: Coordinates | None = None,
    key: bytes | None = b"key",
) -> Delivery:
    """Return a record of the commands topic with this value and these headers, by default in its first partition."""
    place = where or Coordinates("cluster", "commands", 0, offset, 1_700_000_000_000)
    return Delivery(place, key, value, headers, stamped_by_broker=False)


def record(
    value: bytes | None = None,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
    *,
    topic: str = "results",
    partition: int = 0,
    offset: int = 0,
    timestamp: int = 0,
) -> ConsumerRecord:
    """Return a record of any topic, as the client hands it to its reader."""
    sizes = (-1 if key is None else len(key), -1 if value is None else len(value))
    return ConsumerRecord(topic, partition, offset, timestamp, 0, key, value, None, *sizes, tuple(headers))


def refused(command: Delivery, refusal: Refused, *, envelope: Envelope | None = None, **said: Any) -> Answered:
    """Return the answer to a refused command that is known by its coordinates. ``said`` adds to the answer."""
    answer = Answer(command.coordinates.command_id, refusal.code, refusal.message, NOW, **said)
    return Answered(Decoded(command, envelope or Envelope(), refusal), answer, None)


def transition(token: str, version: int = 1, **said: Any) -> Transition:
    """Return the transition of an access token that was set effective, but for ``said``."""
    whole: dict[str, Any] = {
        "organisation": "ORG1",
        "from_state": LifeCycleState.NOT_EFFECTIVE,
        "to_state": LifeCycleState.EFFECTIVE,
        "occurred_at": NOW,
        "user": "u",
        "unit": "1",
        "command_id": WHERE.command_id,
        "cause": "API",
        "lane": "cluster/group/commands/3",
        "sequence": 1,
        "previous_hash": bytes(32),
    }
    return Transition(token=token, version=version, **(whole | said))


def locked(key: TokenKey = KEY, state: LifeCycleState = LifeCycleState.NOT_EFFECTIVE, version: int = 0) -> LockedToken:
    """Return an access token as it is locked, found by its authentication code alone."""
    return LockedToken(key, state, version, None, f"code of {key.token}", None)


def presented(
    command_id: str = COMMAND_ID,
    digest: bytes = DIGEST,
    token: TokenKey = KEY,
    fields: int = 1,
    caller: Caller = CALLER,
    *,
    method: Method = SET_EFFECTIVE,
) -> Presented:
    """Return a command whose caller has the right and whose credentials are correct."""
    return Presented(method, command_id, digest, fields, caller, token)
