"""The rights that a broker grants to this login, and those that a worker needs (deploy/ACCESS.md)."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DescribeGroupsRequest_v0, DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request
from aiokafka.protocol.coordination import FindCoordinatorRequest

from worker.errors import DependencyUnavailable, in_words
from worker.kafka.client import RETRY_BACKOFF_MS
from worker.kafka.group import errors_of
from worker.kafka.internals import ask_broker
from worker.kafka.metadata import TopicsRequest
from worker.settings import Settings
from worker.values import Value

_NOT_TOLD: Final = -1 << 31
_TRANSACTIONS: Final = 1
"""The kind of coordinator to ask for."""
_LATER: Final = (
    kafka.GroupCoordinatorNotAvailableError,
    kafka.GroupLoadInProgressError,
    kafka.NotCoordinatorForGroupError,
)


class Operation(IntEnum):
    """An operation that may be allowed, by its number in Kafka's protocol."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10


class Right(Value, frozen=True):
    """An operation on a named resource."""

    operation: Operation
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation.name} on {self.kind} {self.name}"


def _told(bits: int) -> frozenset[Operation] | None:
    """Decode the set of operations that a broker gives as bits; ``None`` if it was not told."""
    return None if bits == _NOT_TOLD else frozenset(operation for operation in Operation if bits >> operation & 1)


def needed(settings: Settings, transactional_id: str | None) -> Iterator[Right]:
    """Yield the rights that a worker cannot do without. ``transactional_id`` is one of its ids, if it uses any."""
    topics = settings.topics
    for name in topics.read:
        yield Right(Operation.READ, "topic", name)
    for name in (topics.results, topics.transitions, topics.dead_letters):
        yield Right(Operation.WRITE, "topic", name)
    yield Right(Operation.READ, "group", settings.kafka.group_id)
    if transactional_id is not None:
        yield Right(Operation.WRITE, "transactional id", transactional_id)


async def lacking(admin: AIOKafkaAdminClient, rights: Sequence[Right], seconds: float) -> list[Right]:
    """Return the rights that the broker would refuse, as far as it tells. A missing topic counts as allowed.

    ``seconds`` is the longest wait for a coordinator. Raises ``DependencyUnavailable``.
    """
    topics = await _of_topics(admin, sorted({right.name for right in rights if right.kind == "topic"}))
    found = []
    for right in rights:
        if right.kind == "topic":
            allowed = topics[right.name]
        elif right.kind == "group":
            allowed = await of_group(admin, right.name, seconds)
        else:
            allowed = await _of_transactional_id(admin, right.name)
        if allowed is not None and right.operation not in allowed:
            found.append(right)
    return found


async def of_group(admin: AIOKafkaAdminClient, group: str, seconds: float) -> frozenset[Operation] | None:
    """Read the operations allowed on a group; ``None`` if the broker does not tell.

    Raises ``DependencyUnavailable``.
    """
    try:
        answer = await ask_coordinator(admin, group, GroupRights(group), seconds)
    except kafka.GroupAuthorizationFailedError:
        return frozenset()
    [described] = answer.to_object()["groups"]
    error = kafka.for_code(described["error_code"])
    if error is kafka.GroupAuthorizationFailedError:
        return frozenset()
    if described["error_code"]:
        raise DependencyUnavailable(
            "kafka",
            f"{error.__name__} of the group {group}",
            f"the group {group} cannot be looked at: {in_words(error())}",
        )
    return _told(described.get("authorized_operations", _NOT_TOLD))


async def ask_coordinator(admin: AIOKafkaAdminClient, group: str, request: Any, seconds: float) -> Any:
    """Ask the coordinator of a group. The first such question in a cluster makes the broker create it.

    Raises ``DependencyUnavailable`` if there is none after ``seconds``, and the error that it answers.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                with suppress(*_LATER):
                    answer = await ask_broker(admin, request, await admin.find_coordinator(group))
                    if codes := list(errors_of(answer)):
                        raise kafka.for_code(codes[0])(f"of the group {group}")
                    return answer
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
    except TimeoutError as error:
        raise DependencyUnavailable("kafka", f"the coordinator of the group {group} does not answer") from error


async def _of_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, frozenset[Operation] | None]:
    answer = await ask_broker(admin, TopicsRequest(names, with_operations=True))
    found: dict[str, frozenset[Operation] | None] = dict.fromkeys(names)
    for topic in answer.to_object()["topics"]:
        if kafka.for_code(topic["error_code"]) is kafka.TopicAuthorizationFailedError:
            found[topic["topic"]] = frozenset()
        elif not topic["error_code"]:
            found[topic["topic"]] = _told(topic.get("topic_operations", _NOT_TOLD))
    return found


async def _of_transactional_id(admin: AIOKafkaAdminClient, name: str) -> frozenset[Operation] | None:
    """Try to find the coordinator of a transactional id: a login that may write may do so. The broker tells no more."""
    answer = await ask_broker(admin, FindCoordinatorRequest(name, _TRANSACTIONS))
    return frozenset() if kafka.for_code(answer.error_code) is kafka.TransactionalIdAuthorizationFailed else None


# --- the newer form of a question, which the client does not know -----------------------------------------------------


class _DescribeGroups(DescribeGroupsRequest_v3):  # type: ignore[misc] # aiokafka carries no types
    """The client's own request reads an older answer, without the rights."""

    RESPONSE_TYPE = DescribeGroupsResponse_v3


class GroupRights(Request[DescribeGroupsRequest_v0 | _DescribeGroups]):  # type: ignore[misc] # as above
    """A request for a group with the operations that are allowed on it, if the broker tells that."""

    API_KEY = _DescribeGroups.API_KEY

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        """Return the newest form that broker and client both know."""
        if request_struct_class is _DescribeGroups:
            return _DescribeGroups([self._group], True)
        return request_struct_class([self._group])
