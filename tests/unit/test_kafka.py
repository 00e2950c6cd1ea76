"""What the group's coordinator answers instead of offsets is an error, and not the absence of offsets."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.protocol.commit import OffsetFetchRequest, OffsetFetchResponse_v3
from aiokafka.protocol.coordination import FindCoordinatorRequest

from worker.kafka import OffsetsNotTold, hear_offset_errors

OFFSETS = OffsetFetchRequest("group", [("commands", [0])])


class Coordinator:
    """The client's side of the group's coordinator, which gives one answer to everything."""

    def __init__(self, error: int, *, of_a_partition: int = 0) -> None:
        partitions = [(0, 5, "", 0), (1, -1, "", of_a_partition)]
        self.answer = OffsetFetchResponse_v3(0, [("commands", partitions)], error)
        self.is_known = True

    async def _send_req(self, _: Any) -> Any:
        return self.answer

    def coordinator_dead(self) -> None:
        self.is_known = False


def heard(error: int, *, of_a_partition: int = 0) -> Coordinator:
    coordinator = Coordinator(error, of_a_partition=of_a_partition)
    hear_offset_errors(cast(AIOKafkaConsumer, SimpleNamespace(_coordinator=coordinator)))
    return coordinator


@pytest.mark.parametrize("place", ["the whole", "a partition"])
@pytest.mark.parametrize(
    ("code", "error", "is_known"),
    [
        (3, kafka.UnknownTopicOrPartitionError, True),
        (14, kafka.GroupLoadInProgressError, True),
        (15, kafka.GroupCoordinatorNotAvailableError, False),
        (16, kafka.NotCoordinatorForGroupError, False),
        (29, kafka.TopicAuthorizationFailedError, True),
        (30, kafka.GroupAuthorizationFailedError, True),
        (88, OffsetsNotTold, True),
        (9999, OffsetsNotTold, True),
    ],
)
async def test_an_error_instead_of_an_offset_is_raised(
    code: int, error: type[kafka.KafkaError], is_known: bool, place: str
) -> None:
    coordinator = heard(code) if place == "the whole" else heard(0, of_a_partition=code)
    with pytest.raises(error) as raised:
        await coordinator._send_req(OFFSETS)
    assert coordinator.is_known == is_known
    # What the client does not try again ends its task, and the worker with it.
    forbidden = {kafka.GroupAuthorizationFailedError, kafka.TopicAuthorizationFailedError}
    assert raised.value.retriable == (error not in forbidden)


async def test_a_good_answer_is_passed_on() -> None:
    coordinator = heard(0)
    assert await coordinator._send_req(OFFSETS) is coordinator.answer


async def test_answers_to_anything_else_are_the_clients_own_affair() -> None:
    coordinator = heard(16)
    assert await coordinator._send_req(FindCoordinatorRequest("group", 0)) is coordinator.answer
