"""The mark up to which imports have announced, kept in Kafka: an offset of a group of their own (DESIGN 2, Imports).

A database that is restored to an older state has forgotten the announcements; a mark beside the topic has not. It lets
an import notice that, and never announce a sequence number twice.
"""

import re
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from worker.errors import OperatorError
from worker.kafka.rights import Operation, ask_coordinator, of_group
from worker.kafka.topics import admin_client
from worker.settings import Settings
from worker.values import Value

KEPT_MS: Final = 100 * 365 * 24 * 60 * 60 * 1000
"""A hundred years: a group without members forgets an offset after seven days, unless its commit says otherwise."""
_PARTITION: Final = 0
"""The partition of the transitions topic that holds the mark. Events go by their keys; the mark covers them all."""
_SAID: Final = re.compile(r"(0|[1-9][0-9]*) ([0-9a-f]{64})")
_FORBIDDEN: Final = (kafka.GroupAuthorizationFailedError, kafka.TopicAuthorizationFailedError)


class MarkForbidden(OperatorError):
    """A right is missing to read or write the mark."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            "imports may not keep in Kafka how far they have announced, so an older database in the place of the right"
            f" one would not be noticed: allow READ on the group {group_of(settings)} and on the topic"
            f" {settings.topics.transitions}"
        )


class Mark(Value, frozen=True):
    """The last event of imports that may have been announced: its sequence and its hash."""

    sequence: int
    hash: bytes


def group_of(settings: Settings) -> str:
    """Return the group whose offset is the mark. It has no members."""
    return f"{settings.kafka.group_id}.import"


def mark_of(offset: int, metadata: str | None) -> Mark | None:
    """Read the mark from a committed offset; ``None`` if there is none, or if it was not committed by an import.

    The metadata holds the sequence as well: tools that copy a group to another cluster translate its offset.
    """
    said = _SAID.fullmatch(metadata or "")
    if said is None or int(said[1]) != offset:
        return None
    return Mark(offset, bytes.fromhex(said[2]))


async def read_mark(settings: Settings) -> Mark | None:
    """Read the mark; ``None`` if nothing was announced or it is gone.

    Raises ``MarkForbidden``, ``DependencyUnavailable``.
    """
    where = [(settings.topics.transitions, [_PARTITION])]
    answer = await _ask(settings, OffsetFetchRequest(group_of(settings), where))
    marks = (mark_of(offset, metadata) for _, places in answer.topics for _, offset, metadata, _ in places)
    return next(marks, None)  # a broker may leave out partitions without an offset


async def write_mark(settings: Settings, mark: Mark) -> None:
    """Set the mark, before the events up to it are announced. Raises ``MarkForbidden``, ``DependencyUnavailable``."""
    what = [(settings.topics.transitions, [(_PARTITION, mark.sequence, f"{mark.sequence} {mark.hash.hex()}")])]
    await _ask(settings, OffsetCommitRequest(group_of(settings), -1, "", KEPT_MS, what))


async def may_mark(settings: Settings) -> bool | None:
    """Return True if this login may commit for the group; ``None`` if the broker does not say.

    The right on the topic is not checked. Raises ``DependencyUnavailable``.
    """
    async with admin_client(settings) as admin:
        allowed = await of_group(admin, group_of(settings), _seconds(settings))
    return None if allowed is None else Operation.READ in allowed


async def _ask(settings: Settings, request: Any) -> Any:
    async with admin_client(settings) as admin:
        try:
            return await ask_coordinator(admin, group_of(settings), request, _seconds(settings))
        except _FORBIDDEN as error:
            raise MarkForbidden(settings) from error


def _seconds(settings: Settings) -> float:
    return settings.kafka.request_timeout_ms / 1000
