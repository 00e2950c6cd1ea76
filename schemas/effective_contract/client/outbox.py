"""Send commands with an idempotent producer, which is replaced after every failure."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

BATCH_BYTES: Final = 64 * 1024
"""Bytes that a topic must take anyway for the largest command: no command is refused because of others in its batch."""
LINGER_MS: Final = 2
BACKOFF_SECONDS: Final = 0.2
CLOSE_SECONDS: Final = 1.0

_FAULTS = (kafka.KafkaError, OSError, TimeoutError)
_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_REFUSED = (
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.InvalidTopicError,
    kafka.InvalidMessageError,
    kafka.InvalidTimestampError,
    kafka.UnsupportedForMessageFormatError,
)


class TooLarge(Exception):
    """The broker takes no record of that size. Nothing was written."""


class Refused(Exception):
    """The broker refuses the record, and would refuse it again. Nothing was written."""


class Concealed:
    """Bytes that appear in no log: aiokafka logs everything it sends, at level DEBUG."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __repr__(self) -> str:
        return "***"

    @staticmethod
    def reveal(concealed: "Concealed") -> bytes:
        return concealed._content


class Outbox:
    """A sender to one topic, which keeps trying until it is cancelled."""

    def __init__(self, topic: str, options: Mapping[str, Any]) -> None:
        """``options`` are the producer's connection settings."""
        self._topic = topic
        self._options = dict(options)
        self._batch_bytes = BATCH_BYTES
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()

    async def open(self) -> None:
        """Connect. Raises aiokafka's errors."""
        self._producer = await self._started()

    async def topics(self) -> frozenset[str]:
        """Return the topics that exist and that we may see. Creates none."""
        known = await self._opened().client.fetch_all_metadata()
        return frozenset(known.topics(exclude_internal_topics=False))

    async def send(self, value: bytes, headers: Sequence[tuple[str, bytes]], key: bytes | None) -> None:
        """Send a record, and return when the broker has it. It may be there twice if an acknowledgement was lost.

        Raises ``TooLarge`` or ``Refused``.
        """
        while True:
            producer, batch_bytes = self._opened(), self._batch_bytes
            try:
                delivery = await producer.send(self._topic, Concealed(value), key, headers=headers)
                await delivery
                return
            except _TOO_LARGE as error:
                if batch_bytes == 1:
                    raise TooLarge from error
                # The batch may be too large, not the record: from now on each goes alone.
                self._batch_bytes = 1
            except _REFUSED as error:
                await self._replace(producer)
                raise Refused from error
            except _FAULTS:
                await asyncio.sleep(BACKOFF_SECONDS)
            # For aiokafka the sequence numbers of refused records are used; for the broker they are not.
            await self._replace(producer)

    async def close(self) -> None:
        """Close, and drop the records that were not sent. Safe to call twice, and before ``open``."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _drop(producer)

    def _opened(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise Refused("the outbox is closed")
        return self._producer

    async def _replace(self, failed: AIOKafkaProducer) -> None:
        """Replace a failed producer, unless another call has. Tries until it is cancelled."""
        async with self._replacing:
            while self._producer is failed:
                await _drop(failed)
                try:
                    started = await self._started()
                except _FAULTS:
                    await asyncio.sleep(BACKOFF_SECONDS)
                    continue
                if self._producer is failed:
                    self._producer = started
                else:  # closed in the meantime
                    await _drop(started)

    async def _started(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._options,
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_batch_size=self._batch_bytes,
            value_serializer=Concealed.reveal,
        )
        try:
            await producer.start()
        except BaseException:
            await _drop(producer)
            raise
        return producer


async def _drop(producer: AIOKafkaProducer) -> None:
    """Stop without a flush: ``stop()`` waits without end for a broker that is unavailable. Safe to call twice."""
    producer._closed = True  # otherwise it complains, when collected, that it was not stopped
    sender = producer._sender.sender_task
    tasks = set() if sender is None else {sender, *_under_way(sender)}
    for task in tasks:
        task.cancel()
    with contextlib.suppress(*_FAULTS):
        async with asyncio.timeout(CLOSE_SECONDS):
            await producer.client.close()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
    accumulator = producer._message_accumulator
    held = [*accumulator._pending_batches, *(batch for batches in accumulator._batches.values() for batch in batches)]
    accumulator.fail_all(kafka.KafkaError("the producer was dropped"))
    for future in (*tasks, *(batch._drain_waiter for batch in held)):
        future.add_done_callback(seen)


def _under_way(sender: "asyncio.Task[Any]") -> "set[asyncio.Task[Any]]":
    """Return the requests that aiokafka's sender waits for, even if cancelled. It keeps them in a local variable."""
    frame = getattr(sender.get_coro(), "cr_frame", None)
    return set() if frame is None else set(frame.f_locals.get("tasks", ()))


def seen(future: "asyncio.Future[Any]") -> None:
    """Retrieve a failure that no longer matters, so that asyncio does not report it as never retrieved."""
    if not future.cancelled():
        future.exception()
