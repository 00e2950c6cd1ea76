"""What every Kafka client of this package is made with."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.helpers import create_ssl_context
from aiokafka.partitioner import murmur2
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from worker.errors import KAFKA_ERRORS, DependencyAway, WorkerError
from worker.kafka.connection import mend_sending
from worker.kafka.metadata import TopicsRequest, id_of
from worker.kafka.record_batches import Bounds, bound_fetches
from worker.settings import PREFIX, KafkaSettings, SettingsError

CLIENT_ID: Final = "effective-worker"
# Less than the default of 100: every transaction that meets the one before it waits for as long (DESIGN 6).
RETRY_BACKOFF_MS: Final = 30
LOOK_SECONDS: Final = 5.0
MOST_NAMES: Final = 500
"""Of topics that one request asks for."""


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The arguments that aiokafka's consumer, producer and admin client share.

    Raises ``SettingsError`` if the certificates cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "request_timeout_ms": kafka.request_timeout_ms,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        }
    return options


def keyed(key: bytes, count: int) -> int:
    """Which of so many partitions every other Kafka client would choose for this key."""
    return int((murmur2(key) & 0x7FFFFFFF) % count)


class TopicLook:
    """Looks topics up by their names without creating any, which asking the usual way may do (DESIGN 6).

    It has a connection of its own, made when first needed: an answer of the consumer's waits behind a long poll.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """``options`` are the connection settings (``client_options``)."""
        self._options = options
        self._client: AIOKafkaClient | None = None
        self._turn = asyncio.Lock()

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions each has of those that exist, are not Kafka's own and may be seen.

        Raises ``DependencyAway``.
        """
        return {name: len(topic["partitions"]) for name, topic in (await self._topics(topics)).items()}

    async def ids(self, topics: Sequence[str]) -> dict[str, UUID | None]:
        """The id of each of them, ``None`` where the broker has none. Raises ``DependencyAway``."""
        return {name: id_of(topic) for name, topic in (await self._topics(topics)).items()}

    async def _topics(self, topics: Sequence[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        try:
            # In turn: a client that one of two made, the other would use half made, or close.
            async with asyncio.timeout(LOOK_SECONDS), self._turn, self._connected(topics[:1]) as client:
                for first in range(0, len(topics), MOST_NAMES):
                    found |= await _asked(client, list(topics[first : first + MOST_NAMES]))
        except KAFKA_ERRORS as error:
            raise DependencyAway("kafka", f"{type(error).__name__} while topics were looked up: {error}") from error
        return found

    @asynccontextmanager
    async def _connected(self, some: Sequence[str]) -> AsyncIterator[AIOKafkaClient]:
        """The client, for a look; after one that failed it is made anew, since its brokers may have moved."""
        try:
            if self._client is None:
                self._client = AIOKafkaClient(**self._options)
                await self._client.bootstrap()
                # Or it would go on to ask for all topics every few minutes.
                self._client._topics = set(some)
            yield self._client
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Safe twice, and before the first look."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _asked(client: AIOKafkaClient, topics: list[str]) -> dict[str, dict[str, Any]]:
    answer = await client.send(client.get_random_node(), TopicsRequest(topics))
    return {
        topic["topic"]: topic
        for topic in answer.to_object()["topics"]
        if not topic["error_code"] and not topic["is_internal"]
    }


def hear_offset_errors(consumer: AIOKafkaConsumer) -> None:
    """Let the consumer raise what the group's coordinator answers instead of offsets.

    aiokafka overlooks an error of the whole answer, and an unknown partition, and reports offsets that could not be
    read as absent (DESIGN 6). What it would not try again upon ends a task of its for good: only a refusal may do so.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_req

    async def heard(request: Any) -> Any:
        answer = await send(request)
        for code in errors_of(answer) if isinstance(request, OffsetFetchRequest) else ():
            error = kafka_errors.for_code(code)
            if error in _ASK_ANOTHER:
                coordinator.coordinator_dead()
            raise error if error.retriable or error in _FORBIDDEN else OffsetsNotTold(f"error {code}")
        return answer

    coordinator._send_req = heard


class InstanceTaken(WorkerError):
    """A later comer has joined the group under the same ``group_instance_id``."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"another worker has joined the group with {PREFIX}KAFKA__GROUP_INSTANCE_ID={instance_id}:"
            " give every worker one of its own"
        )


class Seat:
    """A member's place in the group by its ``group_instance_id``: there is one for each, and the last comer has it.

    aiokafka sends that id with joins only, and does not know the error for who has lost the place (DESIGN 6): it would
    join again as a stranger, and so take the place back, for ever. Here it joins as the member that it was, which the
    broker refuses, and nothing more is asked of the group.

    A coordinator that is none any more, since it stood still, may give out a member's id that its successor does not
    know, and refuses in the same way. So, once, an id by which nothing was answered yet proves no later comer.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        """Made before the consumer subscribes. Without a ``group_instance_id`` nothing is changed."""
        coordinator = consumer._coordinator
        self._instance_id: str = coordinator._group_instance_id or ""
        self._member_id: str = JoinGroupRequest.UNKNOWN_MEMBER_ID
        self._doubtful = True
        """True until something is answered that proves the place to be this member's."""
        self._taken = False
        self._send = coordinator._send_req
        if self._instance_id:
            coordinator._send_req = self._watched

    def check(self) -> None:
        """Raises ``InstanceTaken`` once the place is somebody else's."""
        if self._taken:
            raise InstanceTaken(self._instance_id)

    async def _watched(self, request: Any) -> Any:
        if self._taken:
            raise _Fenced
        joins = isinstance(request, JoinGroupRequest)
        if joins:
            request._member_id = self._member_id
        answer = await self._send(request)
        codes = set(errors_of(answer))
        if _FENCED_INSTANCE_ID in codes:
            self._taken = not (joins and self._member_id and self._doubtful)
            self._member_id, self._doubtful = JoinGroupRequest.UNKNOWN_MEMBER_ID, False
            raise _Fenced
        if joins and not codes:
            self._member_id = answer.member_id
        elif joins and kafka_errors.UnknownMemberIdError.errno in codes:
            self._member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID  # nobody has the place: it is free to be taken
        elif isinstance(request, HeartbeatRequest | SyncGroupRequest) and not codes:
            self._doubtful = False
        return answer


class _Fenced(kafka_errors.KafkaError):  # type: ignore[misc] # aiokafka carries no types
    """The client's view of it: as if the group had not answered, until the process ends."""

    retriable = True


def fetch_past(consumer: AIOKafkaConsumer, seconds: float) -> None:
    """Let records that no lane has taken yet hold up the next fetch from their broker for no longer than this.

    aiokafka waits a tenth of a second for them, and a lane that gives way leaves its records for longer (DESIGN 6).
    """
    consumer._fetcher._prefetch_backoff = seconds


def position_of(consumer: AIOKafkaConsumer, source: TopicPartition) -> int | None:
    """The offset that is read next, told without a wait; ``None`` for a partition not assigned, or not known yet."""
    if not consumer._subscription.is_assigned(source):
        return None
    state = consumer._subscription.subscription.assignment.state_value(source)
    return int(state.position) if state.has_valid_position else None


class OffsetsNotTold(kafka_errors.KafkaError):  # type: ignore[misc] # aiokafka carries no types
    """The group's coordinator answered with an error that aiokafka does not know, or would not try again upon."""

    retriable = True


def errors_of(answer: Any) -> Iterator[int]:
    """The codes of the errors of an answer of the group's coordinator: of the whole, and of each partition."""
    topics = getattr(answer, "topics", ())
    codes = [getattr(answer, "error_code", 0), *(code for _, places in topics for *_, code in places)]
    return (code for code in codes if code)


_FENCED_INSTANCE_ID: Final = 82
_FORBIDDEN: Final = frozenset({kafka_errors.GroupAuthorizationFailedError, kafka_errors.TopicAuthorizationFailedError})
_ASK_ANOTHER: Final = frozenset(
    {kafka_errors.NotCoordinatorForGroupError, kafka_errors.GroupCoordinatorNotAvailableError}
)


# Whoever imports this reads what others have written, over connections that break.
bound_fetches(Bounds())
mend_sending()


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        authorities: ssl.SSLContext = create_ssl_context(cafile=kafka.ssl_cafile)
    except (OSError, ValueError):
        raise SettingsError(((f"{PREFIX}KAFKA__SSL_CAFILE", "holds no usable certificate"),)) from None
    if kafka.ssl_certfile is None:
        return authorities
    try:
        own: ssl.SSLContext = create_ssl_context(
            cafile=kafka.ssl_cafile, certfile=kafka.ssl_certfile, keyfile=kafka.ssl_keyfile
        )
    except (OSError, ValueError):
        what = "the certificate and its key are not usable, or do not belong together"
        raise SettingsError(((f"{PREFIX}KAFKA__SSL_CERTFILE", what),)) from None
    return own
