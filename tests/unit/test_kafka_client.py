"""An error of the group's coordinator is an error, and not the absence of offsets."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitResponse_v3,
    OffsetFetchRequest,
    OffsetFetchResponse_v3,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import (
    HeartbeatRequest,
    HeartbeatResponse_v1,
    JoinGroupRequest,
    JoinGroupResponse_v5,
    SyncGroupRequest,
    SyncGroupResponse_v3,
)

from tests.support.doubles import consumer_of
from worker.kafka.client import TopicLook
from worker.kafka.group import InstanceTaken, OffsetsNotTold, StaticMembership, hear_offset_errors

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
    hear_offset_errors(consumer_of(coordinator))
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
    # An error that the client does not retry ends its task, and the worker with it.
    forbidden = {kafka.GroupAuthorizationFailedError, kafka.TopicAuthorizationFailedError}
    assert raised.value.retriable == (error not in forbidden)


async def test_a_good_answer_is_passed_on() -> None:
    coordinator = heard(0)
    assert await coordinator._send_req(OFFSETS) is coordinator.answer


async def test_answers_to_anything_else_are_the_clients_own_affair() -> None:
    coordinator = heard(16)
    assert await coordinator._send_req(FindCoordinatorRequest("group", 0)) is coordinator.answer


# --- the place in the group -------------------------------------------------------------------------------------------

FENCED, UNKNOWN_MEMBER = 82, 25
HEARTBEAT = HeartbeatRequest("group", 3, "member")
SYNC = SyncGroupRequest("group", 3, "member", "pod-0", [])
COMMIT = OffsetCommitRequest("group", 3, "member", -1, [("commands", [(0, 5, "")])])


def join(member_id: str = "") -> JoinGroupRequest:
    return JoinGroupRequest("group", 1000, 1000, member_id, "pod-0", "consumer", [])


def joined(member_id: str, error: int = 0) -> JoinGroupResponse_v5:
    return JoinGroupResponse_v5(0, error, 3, "roundrobin", "leader", member_id, [])


class StaticMember:
    """The client's side of a group. ``answers`` are the replies it gets, one after the other."""

    def __init__(self, instance_id: str | None = "pod-0") -> None:
        self._group_instance_id = instance_id
        self.answers: list[Any] = []
        self.asked_as: list[str] = []
        self.static_membership = StaticMembership(consumer_of(self))

    async def _send_req(self, request: Any) -> Any:
        self.asked_as.append(getattr(request, "_member_id", ""))
        return self.answers.pop(0)

    async def ask(self, request: Any, answer: Any) -> Any:
        self.answers = [answer]
        return await self._send_req(request)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (join(), joined("", FENCED)),
        (SYNC, SyncGroupResponse_v3(0, FENCED, b"")),
        (HEARTBEAT, HeartbeatResponse_v1(0, FENCED)),
        (COMMIT, OffsetCommitResponse_v3(0, [("commands", [(0, FENCED)])])),
    ],
    ids=["join", "sync", "heartbeat", "commit"],
)
async def test_who_has_lost_its_place_hears_it_whatever_it_asks_and_asks_nothing_more(
    request_: Any, answer: Any
) -> None:
    member = StaticMember()
    member.static_membership.check()
    with pytest.raises(kafka.KafkaError):
        await member.ask(request_, answer)
    with pytest.raises(InstanceTaken, match="WORKER_KAFKA__GROUP_INSTANCE_ID=pod-0"):
        member.static_membership.check()
    # Another join would take the place back.
    asked = len(member.asked_as)
    with pytest.raises(kafka.KafkaError):
        await member.ask(join(), joined("another"))
    assert len(member.asked_as) == asked


async def test_who_joins_again_does_so_as_the_member_that_it_was() -> None:
    member = StaticMember()
    await member.ask(join(), joined("pod-0-a"))
    await member.ask(join(), joined("pod-0-a"))
    await member.ask(join("pod-0-a"), joined("pod-0-a"))
    assert member.asked_as == ["", "pod-0-a", "pod-0-a"]
    member.static_membership.check()


@pytest.mark.parametrize("others", [[], [(SYNC, SyncGroupResponse_v3(0, 16, b""))]], ids=["at once", "not told"])
async def test_an_id_that_only_a_former_coordinator_knows_is_no_later_comer_but_once(others: Any) -> None:
    member = StaticMember()
    await member.ask(join(), joined("pod-0-a"))
    for request, answer in others:
        await member.ask(request, answer)
    with pytest.raises(kafka.KafkaError):
        await member.ask(join("pod-0-a"), joined("", FENCED))
    member.static_membership.check()
    await member.ask(join("pod-0-a"), joined("pod-0-b"))
    assert member.asked_as[-1] == ""
    with pytest.raises(kafka.KafkaError):
        await member.ask(join("pod-0-b"), joined("", FENCED))
    with pytest.raises(InstanceTaken):
        member.static_membership.check()


@pytest.mark.parametrize("proof", [(SYNC, SyncGroupResponse_v3(0, 0, b"")), (HEARTBEAT, HeartbeatResponse_v1(0, 0))])
async def test_who_was_a_member_and_is_fenced_has_lost_its_place(proof: Any) -> None:
    member = StaticMember()
    await member.ask(join(), joined("pod-0-a"))
    await member.ask(*proof)
    with pytest.raises(kafka.KafkaError):
        await member.ask(join("pod-0-a"), joined("", FENCED))
    with pytest.raises(InstanceTaken):
        member.static_membership.check()


async def test_who_is_no_member_any_more_joins_as_a_stranger() -> None:
    member = StaticMember()
    await member.ask(join(), joined("pod-0-a"))
    await member.ask(join(), joined("", UNKNOWN_MEMBER))
    await member.ask(join(), joined("pod-0-b"))
    assert member.asked_as == ["", "pod-0-a", ""]
    member.static_membership.check()


async def test_a_join_that_is_to_be_tried_again_is_no_loss() -> None:
    member = StaticMember()
    await member.ask(join(), joined("pod-0-a"))
    await member.ask(join(), joined("", kafka.NotCoordinatorForGroupError.errno))
    await member.ask(join(), joined("pod-0-a"))
    assert member.asked_as == ["", "pod-0-a", "pod-0-a"]


async def test_a_member_without_a_place_of_its_own_is_left_alone() -> None:
    member = StaticMember(instance_id=None)
    await member.ask(join(), joined("a"))
    await member.ask(join(), joined("b"))
    assert member.asked_as == ["", ""]


class Client:
    """A client of a broker that knows one topic, after a request for its brokers."""

    def __init__(self, **_: Any) -> None:
        self.is_ready = self.is_closed = False

    async def bootstrap(self) -> None:
        await asyncio.sleep(0)
        self.is_ready = True

    def get_random_node(self) -> int | None:
        return 1 if self.is_ready else None

    async def send(self, node: int | None, _: Any) -> Any:
        await asyncio.sleep(0)
        if node is None or self.is_closed:
            raise kafka.NodeNotReadyError
        topic = {"topic": "commands", "error_code": 0, "is_internal": False, "partitions": [{}, {}]}
        return SimpleNamespace(to_object=lambda: {"topics": [topic]})

    async def close(self) -> None:
        self.is_closed = True


async def test_lanes_that_look_their_topic_up_at_once_do_not_take_the_client_from_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.kafka.client.AIOKafkaClient", Client)
    look = TopicLook({})
    assert await asyncio.gather(*(look.partitions(["commands"]) for _ in range(3))) == [{"commands": 2}] * 3
    await look.close()


async def test_a_look_that_is_given_up_leaves_no_half_made_client_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.kafka.client.AIOKafkaClient", Client)
    look = TopicLook({})
    given_up = asyncio.create_task(look.partitions(["commands"]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await look.partitions(["commands"]) == {"commands": 2}
    assert given_up.cancelled()
    await look.close()
