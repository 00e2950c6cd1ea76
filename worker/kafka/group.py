"""Membership of a consumer group: errors that aiokafka overlooks, and the seat of a ``group_instance_id``."""

from collections.abc import Iterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka_errors
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from worker.errors import OperatorError
from worker.kafka.internals import Send, forget_coordinator, instance_id_of, intercept_group_requests, join_as
from worker.settings import PREFIX


def hear_offset_errors(consumer: AIOKafkaConsumer) -> None:
    """Make the consumer raise the errors that the group's coordinator answers instead of offsets.

    aiokafka overlooks an error of the whole answer, and an unknown partition, and reports offsets that could not be
    read as absent (DESIGN 6). An error on which it would not try again ends one of its tasks for good: only a refusal
    may do so.
    """

    def hearing(send: Send) -> Send:
        async def heard(request: Any) -> Any:
            answer = await send(request)
            for code in errors_of(answer) if isinstance(request, OffsetFetchRequest) else ():
                error = kafka_errors.for_code(code)
                if error in _ASK_ANOTHER:
                    forget_coordinator(consumer)
                raise error if error.retriable or error in _FORBIDDEN else OffsetsNotTold(f"error {code}")
            return answer

        return heard

    intercept_group_requests(consumer, hearing)


class InstanceTaken(OperatorError):
    """Another worker has joined the group later under the same ``group_instance_id``."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"another worker has joined the group with {PREFIX}KAFKA__GROUP_INSTANCE_ID={instance_id}:"
            " give every worker one of its own"
        )


class StaticMembership:
    """A member's seat in the group by its ``group_instance_id``: each id has one, and the last to join has it.

    aiokafka sends that id only when it joins, and does not know the error for a member that has lost its seat (DESIGN
    6): it would join again as a stranger and so take the seat back, forever. Here it joins as the member that it was,
    which the broker refuses, and nothing more is asked of the group.

    A coordinator that was replaced while it stood still may give out a member id that its successor does not know, and
    refuses in the same way. So, once, a refusal of an id under which nothing was answered yet proves no later member.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        """Make it before the consumer subscribes. Without a ``group_instance_id`` nothing changes."""
        self._instance_id = instance_id_of(consumer)
        self._member_id: str = JoinGroupRequest.UNKNOWN_MEMBER_ID
        self._doubtful = True
        """True until an answer proves that the seat is this member's."""
        self._taken = False
        if self._instance_id:
            intercept_group_requests(consumer, self._watching)

    def check(self) -> None:
        """Check the seat. Raises ``InstanceTaken`` once another worker has it."""
        if self._taken:
            raise InstanceTaken(self._instance_id)

    def _watching(self, send: Send) -> Send:
        self._send = send
        return self._watched

    async def _watched(self, request: Any) -> Any:
        if self._taken:
            raise _Fenced
        joins = isinstance(request, JoinGroupRequest)
        if joins:
            join_as(request, self._member_id)
        answer = await self._send(request)
        codes = set(errors_of(answer))
        if _FENCED_INSTANCE_ID in codes:
            self._taken = not (joins and self._member_id and self._doubtful)
            self._member_id, self._doubtful = JoinGroupRequest.UNKNOWN_MEMBER_ID, False
            raise _Fenced
        if joins and not codes:
            self._member_id = answer.member_id
        elif joins and kafka_errors.UnknownMemberIdError.errno in codes:
            self._member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID  # no member has the seat: it is free
        elif isinstance(request, HeartbeatRequest | SyncGroupRequest) and not codes:
            self._doubtful = False
        return answer


class _Fenced(kafka_errors.KafkaError):  # type: ignore[misc] # aiokafka carries no types
    """The error for the client: as if the group had not answered, until the process ends."""

    retriable = True


class OffsetsNotTold(kafka_errors.KafkaError):  # type: ignore[misc] # aiokafka carries no types
    """The group's coordinator answered with an error that aiokafka does not know, or would not try again after."""

    retriable = True


def errors_of(answer: Any) -> Iterator[int]:
    """Yield the error codes in an answer of the group's coordinator: of the whole, and of each partition."""
    topics = getattr(answer, "topics", ())
    codes = [getattr(answer, "error_code", 0), *(code for _, places in topics for *_, code in places)]
    return (code for code in codes if code)


_FENCED_INSTANCE_ID: Final = 82
_FORBIDDEN: Final = frozenset({kafka_errors.GroupAuthorizationFailedError, kafka_errors.TopicAuthorizationFailedError})
_ASK_ANOTHER: Final = frozenset(
    {kafka_errors.NotCoordinatorForGroupError, kafka_errors.GroupCoordinatorNotAvailableError}
)
