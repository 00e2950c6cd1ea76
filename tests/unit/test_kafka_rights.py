"""Rights as a broker reports them: those that it would refuse, and those that it does not mention."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.admin import DescribeGroupsResponse_v0, DescribeGroupsResponse_v3
from aiokafka.protocol.coordination import FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import MetadataResponse_v5

from worker.errors import DependencyUnavailable
from worker.kafka.metadata import TopicsRequest, _Response
from worker.kafka.rights import Operation, Right, _told, lacking, needed
from worker.settings import Settings, read_settings

READ_COMMANDS: Final = Right(Operation.READ, "topic", "commands")
READ_GROUP: Final = Right(Operation.READ, "group", "workers")
WRITE_ID: Final = Right(Operation.WRITE, "transactional id", "workers.commands.0")
NOT_TOLD: Final = -(1 << 31)


def bits(*allowed: Operation) -> int:
    return sum(1 << operation for operation in allowed)


def topic(told: int, error: int = 0) -> Any:
    return _Response(0, [], "cluster", 1, [(error, "commands", UUID(int=7), False, [], told, {})], NOT_TOLD, {})


def older(error: int = 0) -> Any:
    """Return the answer of a broker that does not support this request."""
    return MetadataResponse_v5(0, [], "cluster", 1, [(error, "commands", False, [])])


class Admin:
    """A broker that gives these answers. Before it tells the coordinator, these errors are raised."""

    def __init__(self, *answers: Any, errors: Sequence[Exception] = ()) -> None:
        self._answers = list(answers)
        self._errors = list(errors)

    async def find_coordinator(self, _: str) -> int:
        if self._errors:
            raise self._errors.pop(0)
        return 1

    async def _send_request(self, _: object, __: object = None) -> Any:
        return self._answers.pop(0)


async def found(right: Right, *answers: Any, errors: Sequence[Exception] = (), seconds: float = 60.0) -> bool:
    """True if the right is reported as missing."""
    topics = [] if right.kind == "topic" else [topic(NOT_TOLD)]
    return await lacking(Admin(*topics, *answers, errors=errors), [right], seconds) == [right]


@pytest.mark.parametrize(
    ("answer", "is_lacking"),
    [
        (topic(bits(Operation.READ, Operation.DESCRIBE)), False),
        (topic(bits(Operation.WRITE, Operation.DESCRIBE)), True),
        (topic(0), True),
        (topic(NOT_TOLD), False),
        (topic(NOT_TOLD, kafka.TopicAuthorizationFailedError.errno), True),
        (topic(NOT_TOLD, kafka.UnknownTopicOrPartitionError.errno), False),
        (older(), False),
        (older(kafka.TopicAuthorizationFailedError.errno), True),
    ],
)
async def test_a_topic(answer: Any, is_lacking: bool) -> None:
    assert await found(READ_COMMANDS, answer) is is_lacking


@pytest.mark.parametrize(
    ("answer", "errors", "is_lacking"),
    [
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], bits(Operation.READ))]), [], False),
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], bits(Operation.DESCRIBE))]), [], True),
        (DescribeGroupsResponse_v3(0, [(30, "workers", "Dead", "", "", [], NOT_TOLD)]), [], True),
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], NOT_TOLD)]), [], False),
        (DescribeGroupsResponse_v0([(0, "workers", "Dead", "", "", [])]), [], False),
        (None, [kafka.GroupAuthorizationFailedError()], True),
        (
            DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], bits(Operation.DESCRIBE))]),
            [kafka.GroupCoordinatorNotAvailableError()],
            True,
        ),
    ],
)
async def test_a_group(answer: Any, errors: Sequence[Exception], is_lacking: bool) -> None:
    assert await found(READ_GROUP, answer, errors=errors) is is_lacking


async def test_a_coordinator_that_does_not_come_is_told() -> None:
    errors = [kafka.GroupCoordinatorNotAvailableError()] * 1000
    with pytest.raises(DependencyUnavailable, match="the coordinator of the group workers does not answer"):
        await found(READ_GROUP, errors=errors, seconds=0.05)


@pytest.mark.parametrize(("error", "is_lacking"), [(0, False), (53, True), (15, False)])
async def test_a_transactional_id(error: int, is_lacking: bool) -> None:
    answer = FindCoordinatorResponse_v1(0, error, None, 1, "here", 1)
    assert await found(WRITE_ID, answer) is is_lacking


def test_a_worker_needs_its_topics_and_group_and_ids_where_it_uses_them() -> None:
    settings = read_settings({"WORKER_TOPICS__BULK_COMMANDS": "bulk"})
    with_ids = [*needed(settings, "id")]
    assert [right.kind for right in with_ids] == ["topic"] * 5 + ["group", "transactional id"]
    assert [*needed(settings, None)] == with_ids[:-1]
    assert str(next(needed(Settings(), None))) == "READ on topic access-token.set-effective.commands"


def test_operations_are_read_from_their_bits() -> None:
    assert _told(bits(*Operation)) == frozenset(Operation)
    assert _told(0b0100) == frozenset()
    assert _told(NOT_TOLD) is None


@pytest.mark.parametrize(("newest", "version", "asks"), [(13, 10, True), (9, 5, False)])
def test_topics_are_asked_for_with_rights_where_broker_and_client_can(newest: int, version: int, asks: bool) -> None:
    request = TopicsRequest(["t"], with_operations=True).prepare({3: (0, newest)})
    assert (request.API_VERSION, request.encode() != TopicsRequest(["t"]).prepare({3: (0, newest)}).encode()) == (
        version,
        asks,
    )
