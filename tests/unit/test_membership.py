"""The meaning of the group's silence and its refusals for a worker."""

import pytest
from aiokafka import errors as kafka

from tests.support.doubles import consumer_of
from worker.errors import DependencyUnavailable
from worker.lanes.membership import Membership


class Coordinator:
    """The client's side of the group. ``answers`` are the replies to its heartbeats, one after the other."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers = list(answers)

    async def _do_heartbeat(self) -> bool:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_heartbeat_that_is_refused_is_tried_again() -> None:
    coordinator = Coordinator(kafka.KafkaError("loading"), True)
    membership = Membership(consumer_of(coordinator), session_seconds=60)
    # The client ends its heartbeats for good if one raises.
    assert await coordinator._do_heartbeat() is False
    assert await coordinator._do_heartbeat() is True
    await membership.look()


async def test_a_group_that_refuses_for_a_session_is_away_and_says_why() -> None:
    coordinator = Coordinator(kafka.GroupAuthorizationFailedError("the group"))
    membership = Membership(consumer_of(coordinator), session_seconds=-1)
    membership.takes_part = True
    await coordinator._do_heartbeat()
    with pytest.raises(DependencyUnavailable, match="the group"):
        await membership.look()
