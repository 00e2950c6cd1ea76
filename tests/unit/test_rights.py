"""What a broker says that it would refuse, and what it does not say."""

from typing import Any, Final

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.admin import DescribeGroupsResponse_v0, DescribeGroupsResponse_v3
from aiokafka.protocol.coordination import FindCoordinatorResponse_v1

from worker.rights import GroupRights, Operation, Right, TopicRights, _Metadata, lacking, needed, operations
from worker.settings import Settings, read_settings

READ_COMMANDS: Final = Right(Operation.READ, "topic", "commands")
READ_GROUP: Final = Right(Operation.READ, "group", "workers")
WRITE_ID: Final = Right(Operation.WRITE, "transactional id", "workers.commands.0")
NOT_TOLD: Final = -(1 << 31)


def bits(*allowed: Operation) -> int:
    return sum(1 << operation for operation in allowed)


def topic(told: int, error: int = 0) -> Any:
    return _Metadata(0, [], "cluster", 1, [(error, "commands", False, [], told)], NOT_TOLD)


class Admin:
    """A broker that gives these answers; an error is raised."""

    def __init__(self, *answers: Any, coordinator: Any = 1) -> None:
        self._answers = list(answers)
        self._coordinator = coordinator

    async def find_coordinator(self, _: str) -> Any:
        if isinstance(self._coordinator, Exception):
            raise self._coordinator
        return self._coordinator

    async def _send_request(self, _: object, __: object = None) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def found(right: Right, *answers: Any, coordinator: Any = 1) -> bool:
    """Tell if the right is found lacking."""
    topics = [] if right.kind == "topic" else [topic(NOT_TOLD)]
    return await lacking(Admin(*topics, *answers, coordinator=coordinator), [right]) == [right]


@pytest.mark.parametrize(
    ("answer", "is_lacking"),
    [
        (topic(bits(Operation.READ, Operation.DESCRIBE)), False),
        (topic(bits(Operation.WRITE, Operation.DESCRIBE)), True),
        (topic(0), True),
        (topic(NOT_TOLD), False),
        (topic(NOT_TOLD, kafka.TopicAuthorizationFailedError.errno), True),
        (topic(NOT_TOLD, kafka.UnknownTopicOrPartitionError.errno), False),
        (NotImplementedError("an older broker"), False),
        (kafka.IncompatibleBrokerVersion("an older broker"), False),
    ],
)
async def test_a_topic(answer: Any, is_lacking: bool) -> None:
    assert await found(READ_COMMANDS, answer) is is_lacking


@pytest.mark.parametrize(
    ("answer", "coordinator", "is_lacking"),
    [
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], bits(Operation.READ))]), 1, False),
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], bits(Operation.DESCRIBE))]), 1, True),
        (DescribeGroupsResponse_v3(0, [(30, "workers", "Dead", "", "", [], NOT_TOLD)]), 1, True),
        (DescribeGroupsResponse_v3(0, [(0, "workers", "Dead", "", "", [], NOT_TOLD)]), 1, False),
        (DescribeGroupsResponse_v0([(0, "workers", "Dead", "", "", [])]), 1, False),
        (None, kafka.GroupAuthorizationFailedError(), True),
    ],
)
async def test_a_group(answer: Any, coordinator: Any, is_lacking: bool) -> None:
    assert await found(READ_GROUP, answer, coordinator=coordinator) is is_lacking


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
    assert operations(bits(*Operation)) == frozenset(Operation)
    assert operations(0b0100) == frozenset()


@pytest.mark.parametrize(("request_", "key", "newest"), [(TopicRights(["t"]), 3, 13), (GroupRights("g"), 15, 6)])
def test_the_questions_are_put_in_forms_that_the_broker_knows(request_: Any, key: int, newest: int) -> None:
    assert request_.prepare({key: (0, newest)}).API_VERSION in {3, 8}
