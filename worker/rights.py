"""What a broker lets this login do, beside what a worker must do (deploy/ACCESS.md)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DescribeGroupsRequest_v0, DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from worker.model import Value
from worker.settings import Settings

_NOT_TOLD: Final = -1 << 31
_TRANSACTIONS: Final = 1
"""The kind of coordinator that is asked for."""


class Operation(IntEnum):
    """What may be allowed, by the number that it has in Kafka's protocol."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10


class Right(Value, frozen=True):
    """An operation on something by its name."""

    operation: Operation
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation.name} on {self.kind} {self.name}"


def operations(told: int) -> frozenset[Operation]:
    """Read the set of operations that a broker gives as bits."""
    return frozenset(operation for operation in Operation if told >> operation & 1)


def needed(settings: Settings, transactional_id: str | None) -> Iterator[Right]:
    """What a worker cannot do without. ``transactional_id`` is one of its ids, if it uses any."""
    topics = settings.topics
    for name in topics.read:
        yield Right(Operation.READ, "topic", name)
    for name in (topics.results, topics.transitions, topics.dead_letters):
        yield Right(Operation.WRITE, "topic", name)
    yield Right(Operation.READ, "group", settings.kafka.group_id)
    if transactional_id is not None:
        yield Right(Operation.WRITE, "transactional id", transactional_id)


async def lacking(admin: AIOKafkaAdminClient, rights: Sequence[Right]) -> list[Right]:
    """Tell which of them the broker would refuse, as far as it says. A topic that is not there is refused to nobody."""
    topics = await _of_topics(admin, sorted({right.name for right in rights if right.kind == "topic"}))
    found = []
    for right in rights:
        if right.kind == "topic":
            allowed = topics[right.name]
        elif right.kind == "group":
            allowed = await _of_group(admin, right.name)
        else:
            allowed = await _of_transactional_id(admin, right.name)
        if allowed is not None and right.operation not in allowed:
            found.append(right)
    return found


async def _of_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, frozenset[Operation] | None]:
    found: dict[str, frozenset[Operation] | None] = dict.fromkeys(names)
    try:
        answer = await admin._send_request(TopicRights(names))
    except (NotImplementedError, kafka.IncompatibleBrokerVersion):  # it is older than this question
        return found
    for topic in answer.to_object()["topics"]:
        told = topic.get("authorized_operations", _NOT_TOLD)
        if kafka.for_code(topic["error_code"]) is kafka.TopicAuthorizationFailedError:
            found[topic["topic"]] = frozenset()
        elif not topic["error_code"] and told != _NOT_TOLD:
            found[topic["topic"]] = operations(told)
    return found


async def _of_group(admin: AIOKafkaAdminClient, name: str) -> frozenset[Operation] | None:
    try:
        coordinator = await admin.find_coordinator(name)
    except kafka.GroupAuthorizationFailedError:
        return frozenset()
    answer = await admin._send_request(GroupRights(name), coordinator)
    [group] = answer.to_object()["groups"]
    if kafka.for_code(group["error_code"]) is kafka.GroupAuthorizationFailedError:
        return frozenset()
    told = group.get("authorized_operations", _NOT_TOLD)
    return None if told == _NOT_TOLD else operations(told)


async def _of_transactional_id(admin: AIOKafkaAdminClient, name: str) -> frozenset[Operation] | None:
    """Who may find its coordinator may describe it, which whoever may write may: more is not told."""
    answer = await admin._send_request(FindCoordinatorRequest(name, _TRANSACTIONS))
    return frozenset() if kafka.for_code(answer.error_code) is kafka.TransactionalIdAuthorizationFailed else None


# --- the newer forms of two questions, which the client does not know -------------------------------------------------


class _DescribeGroups(DescribeGroupsRequest_v3):  # type: ignore[misc] # aiokafka carries no types
    """The client's own reads an older answer, without the rights."""

    RESPONSE_TYPE = DescribeGroupsResponse_v3


class GroupRights(Request[DescribeGroupsRequest_v0 | _DescribeGroups]):  # type: ignore[misc] # as above
    """A group with what one may do to it, where the broker says that."""

    API_KEY = _DescribeGroups.API_KEY

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        """The newest form that broker and client both know."""
        if request_struct_class is _DescribeGroups:
            return _DescribeGroups([self._group], True)
        return request_struct_class([self._group])


class _Metadata(Response):  # type: ignore[misc] # as above
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc] # as above
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Metadata
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class TopicRights(Request[_MetadataRequest]):  # type: ignore[misc] # as above
    """Topics with what one may do to them. One that is not there is not made by asking."""

    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: Any) -> Any:
        """Its one form is as old as Kafka 2.3."""
        return request_struct_class(self._names, False, False, True)
