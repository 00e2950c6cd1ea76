"""The private parts of aiokafka that a worker needs: a function for each, with the measured fact behind it.

No other module of the worker reaches into private parts of aiokafka, so an upgrade is read against this page (DESIGN 6
has the measurements). The version is bounded in both ``pyproject.toml``, and a test looks for every attribute that is
named here. CONTRIBUTING, An upgrade of aiokafka, has the rest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest
from aiokafka.protocol.produce import ProduceRequest

Send = Callable[[Any], Awaitable[Any]]
"""Send one request and return its answer."""

# --- every client: sending --------------------------------------------------------------------------------------------

_write = AIOKafkaConnection.send


def mend_sending() -> None:
    """Make every Kafka client of this process tell a broken or slow connection from a bug.

    uvloop raises ``RuntimeError`` for a write on a connection that it already knows to be broken, which would end the
    client's own tasks. And after a timeout aiokafka closes a connection that it looks up once more by name, which may
    be another one by then.
    """
    AIOKafkaConnection.send = _written
    AIOKafkaClient.send = _sent


def _written(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Awaitable[Any]:
    """Send a request. Raises ``KafkaConnectionError`` also for a connection that only uvloop knows to be broken."""
    writer = connection._writer
    try:
        answer: Awaitable[Any] = _write(connection, request, expect_response)
    except RuntimeError as error:
        if writer is None or not writer.transport.is_closing():
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        what = f"Connection at {connection.host}:{connection.port} broken"
        raise KafkaConnectionError(what) from error
    return answer


async def _sent(
    client: AIOKafkaClient, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
) -> Any:
    """Send a request, and after a timeout close the very connection that was slow."""
    connection = await client._get_conn(node_id, group=group)
    if connection is None:
        raise NodeNotReadyError(f"Attempt to send a request to node which is not ready (node id {node_id}).")
    is_silent = isinstance(request, ProduceRequest) and request.required_acks == 0
    try:
        return await connection.send(request, expect_response=not is_silent)
    except TimeoutError as error:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        raise RequestTimedOutError from error


def keep_only(client: AIOKafkaClient, topics: Sequence[str]) -> None:
    """Make a client refresh the metadata of these topics only. By itself it asks for all topics every few minutes."""
    client._topics = set(topics)


def follow(producer: AIOKafkaProducer, topics: Iterable[str]) -> None:
    """Make a producer keep the metadata of these topics, too.

    What it knows from an answer about all topics it does not follow by itself: when it asks for a topic that is new to
    it, it forgets them, and a batch for one of them waits in vain for its leader (DESIGN 6).
    """
    for topic in topics:
        producer.client.add_topic(topic)


# --- consumers: records -----------------------------------------------------------------------------------------------


class BoundedRecords(Protocol):
    """The records of one partition in the answer to a fetch, and the bytes that reading them has taken so far."""

    work: int

    @property
    def most_work(self) -> int:
        """The most bytes of work for one read."""


def read_fetches_with(records: Callable[[bytes], BoundedRecords]) -> None:
    """Make every consumer of this process read the answers to its fetches with ``records``.

    aiokafka inflates a record batch whole and at once, and a single consumer has no setting to change that.
    """
    fetcher.MemoryRecords = records
    fetcher.FetchResult = BoundedFetch


class BoundedFetch(fetcher.FetchResult):  # type: ignore[misc] # aiokafka carries no types
    """The records of a fetch, with a bound on how many one read takes."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return up to ``max_records``, and no more than ``most_work`` has room for; the rest stays."""
        if not self.has_more() or not self.check_assignment(self._topic_partition):
            return []
        records: list[Any] = []
        source: BoundedRecords = self._partition_records._records
        until = source.work + source.most_work
        is_over = True
        for record in self._partition_records:
            records.append(record)
            if len(records) == max_records or source.work >= until:
                is_over = False
                break
        self._update_position()
        if is_over:
            self._partition_records = None
        return records


def fetch_past(consumer: AIOKafkaConsumer, seconds: float) -> None:
    """Set the longest time for which records that no lane has taken hold up the next fetch from their broker.

    aiokafka waits a tenth of a second for them, and a lane that gives way leaves its records for longer.
    """
    consumer._fetcher._prefetch_backoff = seconds


def position_of(consumer: AIOKafkaConsumer, source: TopicPartition) -> int | None:
    """Return the offset that is read next, without waiting; ``None`` if it is not assigned, or not known yet.

    The public ``position`` waits for the broker if the position is not known.
    """
    if not consumer._subscription.is_assigned(source):
        return None
    state = consumer._subscription.subscription.assignment.state_value(source)
    return int(state.position) if state.has_valid_position else None


def has_fetcher_ended(consumer: AIOKafkaConsumer) -> bool:
    """True if the consumer has stopped reading: its fetcher hides an error while no lane waits for records."""
    return bool(consumer._fetcher.error_future.done())


async def know_topic(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Fetch the metadata of a topic for a consumer that assigns its partitions itself, which asks for none."""
    await consumer._client.set_topics([topic])


async def cluster_metadata(consumer: AIOKafkaConsumer) -> ClusterMetadata:
    """Fetch the metadata of all topics. A consumer that has assigned nothing knows of no topic."""
    return await consumer._client.fetch_all_metadata()


async def close_connections(consumer: AIOKafkaConsumer) -> None:
    """Close the connections of a consumer whose ``stop`` has failed half-way."""
    await consumer._client.close()


@dataclass(frozen=True, slots=True)
class ConsumerTasks:
    """The background tasks of a consumer, by name. None of them reports its own death."""

    lasting: Mapping[str, "asyncio.Task[Any]"]
    """Tasks that run for as long as the consumer does."""
    passing: Mapping[str, "asyncio.Task[Any]"]
    """Tasks that come and go with the group's generation. No new one follows one that failed."""


def tasks_of(consumer: AIOKafkaConsumer) -> ConsumerTasks:
    """Return the background tasks that a consumer has now."""
    coordinator = consumer._coordinator
    lasting = {"fetcher": consumer._fetcher._fetch_task, "coordinator": coordinator._coordination_task}
    passing = {"heartbeat": coordinator._heartbeat_task, "committed offsets": coordinator._commit_refresh_task}
    return ConsumerTasks(
        {name: task for name, task in lasting.items() if task is not None},
        {name: task for name, task in passing.items() if task is not None},
    )


# --- consumers: the group ---------------------------------------------------------------------------------------------


def intercept_group_requests(consumer: AIOKafkaConsumer, wrap: Callable[[Send], Send]) -> None:
    """Send every request to the group's coordinator through ``wrap(send)``. Call this before the consumer subscribes.

    aiokafka overlooks some answers of the coordinator (:mod:`worker.kafka.group`), and no listener is told of them.
    """
    coordinator = consumer._coordinator
    coordinator._send_req = wrap(coordinator._send_req)


def intercept_heartbeats(
    consumer: AIOKafkaConsumer, wrap: Callable[[Callable[[], Awaitable[bool]]], Callable[[], Awaitable[bool]]]
) -> None:
    """Send every heartbeat through ``wrap(heartbeat)``, which returns True if the heartbeat succeeded.

    An error that aiokafka does not expect ends its heartbeats for good, and nothing starts them again.
    """
    coordinator = consumer._coordinator
    coordinator._do_heartbeat = wrap(coordinator._do_heartbeat)


def member_id_of(consumer: AIOKafkaConsumer) -> str:
    """Return the id by which the broker knows this member of the group; empty before the first answer."""
    return str(consumer._coordinator.member_id)


def forget_coordinator(consumer: AIOKafkaConsumer) -> None:
    """Make the consumer look for the group's coordinator again before its next request."""
    consumer._coordinator.coordinator_dead()


def instance_id_of(consumer: AIOKafkaConsumer) -> str:
    """Return the ``group_instance_id`` of a consumer, empty if it has none."""
    return consumer._coordinator._group_instance_id or ""


def join_as(request: JoinGroupRequest, member_id: str) -> None:
    """Make a request to join the group come from this member. aiokafka joins as a stranger after every error."""
    request._member_id = member_id


async def leave_group(consumer: AIOKafkaConsumer) -> None:
    """Unsubscribe, and tell the coordinator that the member has left, also one with a ``group_instance_id``.

    aiokafka keeps the seat of such a member until its session is over; the broker takes LeaveGroup by member id.
    """
    coordinator = consumer._coordinator
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    coordinator.reset_generation()  # or the client would say it as well for members without such an id
    consumer.unsubscribe()
    await coordinator._send_req(request)


# --- producers --------------------------------------------------------------------------------------------------------


def intercept_producer_requests(
    producer: AIOKafkaProducer, wrap: Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]
) -> None:
    """Send every request of a producer through ``wrap(send)``: the client hides it when it sends a request again."""
    producer.client.send = wrap(producer.client.send)


def drop_producer(producer: AIOKafkaProducer) -> "set[asyncio.Task[Any]]":
    """Take a producer out of use without a flush, a commit or an abort: its ``stop`` can wait forever for a broker.

    Returns its tasks, which the caller must cancel: the sender and the requests under way, which try again for as long
    as the broker is away.
    """
    producer._closed = True  # or it complains, when collected, that it was not stopped
    sender = producer._sender.sender_task
    return set() if sender is None else {sender, *_under_way(sender)}


def unread_futures(producer: AIOKafkaProducer) -> "list[asyncio.Future[Any]]":
    """Return the futures of a dropped producer. Those that fail unread are reported as errors that were overlooked."""
    waiting = [batch._drain_waiter for held in producer._message_accumulator._batches.values() for batch in held]
    transaction = getattr(producer._txn_manager, "_transaction_waiter", None)
    return waiting if transaction is None else [*waiting, transaction]


def _under_way(sender: "asyncio.Task[Any]") -> "set[asyncio.Task[Any]]":
    """Return the requests that the sender waits for, also when cancelled. It has them in a local variable."""
    frame = getattr(sender.get_coro(), "cr_frame", None)
    return set() if frame is None else set(frame.f_locals.get("tasks", ()))


# --- the admin client -------------------------------------------------------------------------------------------------


async def ask_broker(admin: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
    """Send a request that the admin client has no method for, to ``node`` or to any broker."""
    return await (admin._send_request(request) if node is None else admin._send_request(request, node))


def oldest_versions(admin: AIOKafkaAdminClient, api_key: int) -> Iterator[int]:
    """Yield the oldest version of a request that each connected broker takes. The client shows them nowhere else."""
    for connection in admin._client._conns.values():
        if connection._versions:
            yield connection._versions[api_key][0]
