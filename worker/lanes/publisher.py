"""Publish the messages of a batch, and the offset with them (DESIGN 2).

A publisher is a replaceable producer. It never aborts: whatever goes wrong, it is dropped, and the InitProducerId of
the next one settles its open transaction and fences what is still in the network.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka

from worker.errors import (
    KAFKA_ERRORS,
    DependencyUnavailable,
    LaneLost,
    OutcomeUnknown,
    WorkerError,
    from_kafka,
    kafka_away,
)
from worker.journey.messages import Message
from worker.kafka.client import keyed
from worker.kafka.internals import drop_producer, follow, intercept_producer_requests, unread_futures
from worker.lanes.context import LaneId
from worker.resilience.background import retrieve

BATCH_BYTES: Final = 512 * 1024
"""The largest batch of records: well below the 1 MiB that a broker takes by default."""
CLOSE_SECONDS: Final = 1.0
"""Seconds that each of two steps of closing may take.

A lane that is cancelled in a rebalance must be gone before the group stops waiting for the worker.
"""

# Errors that aiokafka hides behind a retry: the first request may still be on its way, and may yet be carried out.
_HIDDEN_RETRIES = (kafka.KafkaConnectionError, kafka.RequestTimedOutError, kafka.NodeNotReadyError)


class Publisher(Protocol):
    """The operations that a lane needs of either delivery mode. Every method has a deadline."""

    async def open(self) -> None:
        """Fence every earlier producer of this lane, and settle what it left open. Raises ``DependencyUnavailable``."""

    async def publish(self, messages: Sequence[Message], offset: int) -> None:
        """Publish the messages and commit ``offset`` as the next one to read.

        Raises ``MessageTooLarge`` if the broker will never take one of them, ``Fenced`` or ``LaneLost`` if another
        worker has the lane, ``OutcomeUnknown`` if the outcome is unknown. After any error the publisher must be opened
        again.
        """

    async def close(self) -> None:
        """Drop the producer, whatever it is doing. Safe twice, and before ``open``."""


class TransactionalPublisher:
    """Delivery ``exactly_once``: messages and offset in one Kafka transaction."""

    def __init__(
        self, lane: LaneId, options: Mapping[str, Any], *, transaction_timeout_ms: int, partitions: Callable[[], int]
    ) -> None:
        """``options`` are the producer's connection settings; ``partitions`` returns the command topic's count now."""
        self._lane = lane
        self._options = {
            **options,
            "transactional_id": transactional_id(lane),
            "transaction_timeout_ms": transaction_timeout_ms,
        }
        self._former = former_id(lane)
        self._deadline = transaction_timeout_ms / 1000 * 0.45
        self._partitions = partitions
        self._producer: WatchedProducer | None = None

    async def open(self) -> None:
        await self.close()
        if self._former is not None:
            await settle_former(self._former, self._options, self._deadline)
            self._former = None
        self._producer = await started(self._options, self._deadline)

    async def publish(self, messages: Sequence[Message], offset: int) -> None:
        watched = _opened(self._producer)
        producer = watched.producer
        sent = Sent()
        try:
            async with asyncio.timeout(self._deadline):
                await producer.begin_transaction()
                handed = await send(producer, messages, self._lane.source, self._partitions(), sent)
                # A commit would succeed even over a refused batch, so every single answer is awaited first.
                await asyncio.gather(
                    *handed, producer.send_offsets_to_transaction({self._lane.source: offset}, self._lane.group)
                )
                await producer.commit_transaction()
        except KAFKA_ERRORS as error:
            raise sent.failed(error, messages) from error
        if watched.tainted:
            raise OutcomeUnknown("a request was retried under the surface")

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.drop()


class Commits:
    """The offset commits of all lanes: one request at a time, and commits that come meanwhile go with the next one.

    The broker waits some milliseconds with each for others to join it, and answers a connection's requests in turn: if
    every lane sent its own, the last of twelve would wait twelve times as long.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._free = asyncio.Lock()
        self._next = _Commit()

    async def commit(self, source: TopicPartition, offset: int) -> None:
        """Commit the next offset to read. Raises what the consumer raises, for every lane of the request."""
        request = self._next
        request.offsets[source] = offset
        try:
            async with self._free:
                if request is self._next:
                    self._next = _Commit()
                    await request.send(self._consumer)
        except asyncio.CancelledError:
            request.offsets.pop(source, None)
            raise
        if isinstance(request.failure, asyncio.CancelledError):  # its sender's, not ours
            await self.commit(source, offset)
        elif request.failure is not None:
            raise request.failure


@dataclass(slots=True)
class _Commit:
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    failure: BaseException | None = None

    async def send(self, consumer: AIOKafkaConsumer) -> None:
        try:
            await consumer.commit(self.offsets)
        except BaseException as error:
            self.failure = error
            raise


class IdempotentPublisher:
    """Delivery ``at_least_once``: an idempotent producer, then an offset commit that the group's generation fences."""

    def __init__(
        self,
        lane: LaneId,
        options: Mapping[str, Any],
        *,
        transaction_timeout_ms: int,
        partitions: Callable[[], int],
        commits: Commits,
    ) -> None:
        self._lane = lane
        self._settling = {
            **options,
            "transactional_id": transactional_id(lane),
            "transaction_timeout_ms": transaction_timeout_ms,
        }
        self._options = {**options, "enable_idempotence": True}
        self._former = former_id(lane)
        self._deadline = transaction_timeout_ms / 1000 * 0.45
        self._partitions = partitions
        self._commits = commits
        self._producer: WatchedProducer | None = None

    async def open(self) -> None:
        await self.close()
        if self._former is not None:
            await settle_former(self._former, self._settling, self._deadline)
            self._former = None
        # A worker that died in the other mode may have left a transaction open, which would hide results (DESIGN 2).
        await settle(self._settling, self._deadline)
        self._producer = await started(self._options, self._deadline)

    async def publish(self, messages: Sequence[Message], offset: int) -> None:
        producer = _opened(self._producer).producer
        sent = Sent()
        try:
            async with asyncio.timeout(self._deadline):
                handed = await send(producer, messages, self._lane.source, self._partitions(), sent)
                await asyncio.gather(*handed)
                await self._commits.commit(self._lane.source, offset)
        except (kafka.CommitFailedError, kafka.IllegalStateError) as error:
            raise LaneLost(f"kafka: the group has moved on ({type(error).__name__})") from error
        except KAFKA_ERRORS as error:
            raise sent.failed(error, messages) from error

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.drop()


def transactional_id(lane: LaneId) -> str:
    """Return the id of the lane's producer: one per input partition, the same for every worker.

    This is what fences (DESIGN 2). The first dot ends the group and the last one begins the number, because neither
    holds a dot; a topic may.
    """
    group = lane.group.replace("%", "%25").replace(".", "%2E")
    return f"{group}.{lane.source.topic}.{lane.source.partition}"


def former_id(lane: LaneId) -> str | None:
    """Return the id that an older worker gives the lane's producer, or None if it is the same.

    Group ``a`` with topic ``b.c`` and group ``a.b`` with topic ``c`` had one id, and fenced each other.
    """
    former = f"{lane.group}.{lane.source.topic}.{lane.source.partition}"
    return None if former == transactional_id(lane) else former


def _opened(producer: "WatchedProducer | None") -> "WatchedProducer":
    if producer is None:
        raise OutcomeUnknown("the producer is not open")
    return producer


class WatchedProducer:
    """A producer that knows if a request failed under the surface, and that can be dropped at any moment."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.tainted = False
        intercept_producer_requests(producer, self._watching)

    def _watching(self, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        self._send = send
        return self._watched

    async def _watched(self, *args: Any, **options: Any) -> Any:
        try:
            return await self._send(*args, **options)
        except _HIDDEN_RETRIES:
            self.tainted = True
            raise

    async def drop(self) -> None:
        """Stop without a flush, a commit or an abort: ``stop()`` can wait forever for a broker (DESIGN 6)."""
        tasks = drop_producer(self.producer)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(*KAFKA_ERRORS):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.producer.client.close()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for finished in done:
                retrieve(finished)
        for future in unread_futures(self.producer):
            future.add_done_callback(retrieve)


async def started(options: Mapping[str, Any], deadline: float) -> WatchedProducer:
    """Start a producer: its InitProducerId is answered within ``deadline`` seconds.

    Raises ``DependencyUnavailable``.
    """
    watched = WatchedProducer(AIOKafkaProducer(**options, max_batch_size=BATCH_BYTES, linger_ms=0, acks="all"))
    try:
        async with asyncio.timeout(deadline):
            await watched.producer.start()
    except KAFKA_ERRORS as error:
        await watched.drop()
        raise kafka_away(error, "while a producer was started") from error
    except BaseException:  # a revocation cancels a lane wherever it is
        await watched.drop()
        raise
    watched.tainted = False  # retries of InitProducerId do no harm: each fences the one before
    return watched


async def settle(options: Mapping[str, Any], deadline: float) -> None:
    """Fence the holder of a transactional id, and settle its open transaction. Raises ``DependencyUnavailable``."""
    await (await started(options, deadline)).drop()


async def settle_former(former: str, options: Mapping[str, Any], deadline: float) -> None:
    """Do the same with the lane's former id: an older worker knows no other (DESIGN 2).

    Raises ``DependencyUnavailable``.
    """
    try:
        await settle({**options, "transactional_id": former}, deadline)
    except DependencyUnavailable as away:
        # An id that this worker may not use, no other worker of this deployment may use.
        if not isinstance(away.__cause__, kafka.TransactionalIdAuthorizationFailed):
            raise


class Sent:
    """The batches of one publication: the outcome and the topic of each."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Any]] = []
        self._topics: list[str] = []

    def add(self, topic: str, future: "asyncio.Future[Any]") -> None:
        self.futures.append(future)
        self._topics.append(topic)

    def failed(self, error: BaseException, messages: Sequence[Message]) -> WorkerError:
        """Map the error that the publication of these messages raised."""
        redirected = _redirected(messages)
        ours = (future for topic, future in zip(self._topics, self.futures, strict=True) if topic not in redirected)
        return from_kafka(error, self.to_blame(messages), refused_by_ours=any(map(_refused_the_stamp, ours)))

    def to_blame(self, messages: Sequence[Message]) -> frozenset[str]:
        """Return the topics of redirected answers that failed or were late, if our own topics took everything."""
        redirected = _redirected(messages)
        if not redirected:
            return frozenset()
        refused = {topic for topic, future in zip(self._topics, self.futures, strict=True) if not _delivered(future)}
        # A batch for a topic that has vanished is not even handed over.
        refused |= redirected.difference(self._topics)
        return frozenset(refused) if refused <= redirected else frozenset()


def _redirected(messages: Sequence[Message]) -> set[str]:
    return {message.topic for message in messages if message.partition is not None}


def _refused_the_stamp(future: "asyncio.Future[Any]") -> bool:
    return future.done() and not future.cancelled() and isinstance(future.exception(), kafka.InvalidTimestampError)


def _delivered(future: "asyncio.Future[Any]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


async def send(
    producer: AIOKafkaProducer,
    messages: Sequence[Message],
    source: TopicPartition,
    partitions: int,
    sent: Sent | None = None,
) -> list["asyncio.Future[Any]"]:
    """Hand all messages over, and return the futures of their batches. Order is kept within each partition.

    Batches that were handed over are in ``sent``, even if the rest could not be.
    """
    sent = Sent() if sent is None else sent
    follow(producer, {message.topic for message in messages})
    topics = {message.topic for message in messages if message.partition is None}
    counts = {topic: len(await producer.partitions_for(topic)) for topic in topics}
    grouped: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in messages:
        topic, partition = message.topic, message.partition
        if partition is None:
            partition = own_or_keyed(message.key, source.partition, partitions, counts[topic])
        grouped[topic, partition].append(message)
    await asyncio.gather(*(_send_to(producer, *target, group, sent) for target, group in grouped.items()))
    return sent.futures


def own_or_keyed(key: bytes | None, own: int, own_count: int, count: int) -> int:
    """Return the lane's own partition number while the counts are equal, otherwise the one by key.

    See CONTRACT, Topics.
    """
    if own_count == count or key is None:
        return own % count
    return keyed(key, count)


async def _send_to(
    producer: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[Message], sent: Sent
) -> None:
    batch = producer.create_batch()
    for message in messages:
        if not _appended(batch, message):
            sent.add(topic, await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            _appended(batch, message)  # an empty batch takes any first message; the broker judges its size
    sent.add(topic, await producer.send_batch(batch, topic, partition=partition))


def _appended(batch: Any, message: Message) -> bool:
    added = batch.append(timestamp=None, key=message.key, value=message.value, headers=list(message.headers))
    return added is not None
