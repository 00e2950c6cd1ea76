"""Send commands: an idempotent producer, replaced whenever it failed."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

BATCH_BYTES: Final = 64 * 1024
"""What a topic must take anyhow for the largest command: no command is refused for the company that it was in."""
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
    """The broker does not take the record, and will not. Nothing was written."""


class Concealed:
    """Bytes that show in no log: aiokafka writes what it sends to its own, at level DEBUG."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __repr__(self) -> str:
        return "***"

    @staticmethod
    def reveal(concealed: "Concealed") -> bytes:
        return concealed._content


class Outbox:
    """Sends to one topic, and goes on trying until it is cancelled."""

    def __init__(self, topic: str, options: Mapping[str, Any]) -> None:
        """``options`` are the producer's connection settings."""
        self._topic = topic
        self._options = dict(options)
        self._batch_bytes = BATCH_BYTES
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()

    async def open(self) -> None:
        """Connect. Raises what aiokafka raises."""
        self._producer = await self._started()

    async def topics(self) -> frozenset[str]:
        """The topics that there are, as far as we may see them. Creates none."""
        known = await self._opened().client.fetch_all_metadata()
        return frozenset(known.topics(exclude_internal_topics=False))

    async def send(self, value: bytes, headers: Sequence[tuple[str, bytes]], key: bytes | None) -> None:
        """Return when the broker has the record; more than once, if an answer of the broker's was lost for good.

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
                # Smaller than the batch that it was in, perhaps: from now on each goes alone.
                self._batch_bytes = 1
            except _REFUSED as error:
                await self._replace(producer)
                raise Refused from error
            except _FAULTS:
                await asyncio.sleep(BACKOFF_SECONDS)
            # To aiokafka the sequence numbers of what the broker refused are used; to the broker they are not.
            await self._replace(producer)

    async def close(self) -> None:
        """Drop what was not sent. Safe twice, and before ``open``."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _drop(producer)

    def _opened(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise Refused("the outbox is closed")
        return self._producer

    async def _replace(self, failed: AIOKafkaProducer) -> None:
        """Make another producer of it, unless somebody else has. Tries until it is cancelled."""
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
    """Stop without a flush: ``stop()`` waits for a broker that is away, for ever. Safe twice."""
    producer._closed = True  # or it complains, when collected, that nobody stopped it
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
    """The requests that aiokafka's sender waits for, even when it is cancelled. It keeps them in a local variable."""
    frame = getattr(sender.get_coro(), "cr_frame", None)
    return set() if frame is None else set(frame.f_locals.get("tasks", ()))


def seen(future: "asyncio.Future[Any]") -> None:
    """Look at a failure that is no longer of interest, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()
