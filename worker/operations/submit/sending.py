"""Send commands in their order within each partition, until the broker has them."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from aiokafka import errors as kafka

from worker.errors import KAFKA_ERRORS, DependencyUnavailable, OperatorError, in_words, kafka_away
from worker.lanes.publisher import WatchedProducer, started

MOST_RECORDS: Final = 2000
"""The most commands in one batch."""
DEADLINE_SECONDS: Final = 30.0
"""Seconds for a round of batches: the client itself would wait without end."""
BACKOFF_SECONDS: Final = 0.5

Header = tuple[str, bytes]
_TOO_LARGE: Final = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_REFUSED: Final = (
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.InvalidTopicError,
    kafka.InvalidMessageError,
    kafka.UnsupportedForMessageFormatError,
)


class SendingRefused(OperatorError):
    """The broker refuses our commands, and will go on refusing them."""


class Outgoing(NamedTuple):
    """One sending of one line. ``repr`` hides ``value``, which holds secrets."""

    line: int
    value: bytes
    headers: list[Header]

    def __repr__(self) -> str:
        return f"Outgoing(line={self.line})"


class Outbox:
    """A sender of one batch for each partition at a time; its idempotent producer is replaced after every failure.

    A batch whose fate is unknown is sent again: it may be in the log twice, which the commands' ids make harmless.
    """

    def __init__(self, topic: str, partitions: int, options: Mapping[str, Any]) -> None:
        """``options`` are the producer's connection settings."""
        self.topic = topic
        self._options = {**options, "enable_idempotence": True}
        self._queues: list[deque[Outgoing]] = [deque() for _ in range(partitions)]
        self._most = MOST_RECORDS
        self._put = asyncio.Event()
        self._producer: WatchedProducer | None = None
        self.trouble: str | None = None
        """The reason why nothing can be sent just now."""
        self.on_too_large: Callable[[int], None] = _ignored
        """A callback for lines that the broker will never take."""
        self.on_sent: Callable[[], None] = _nothing
        """A callback for whenever the broker has taken some."""

    def put(self, partition: int, outgoing: Outgoing) -> None:
        self._queues[partition].append(outgoing)
        self._put.set()

    def __len__(self) -> int:
        """Return the number of commands that the broker is not known to have."""
        return sum(map(len, self._queues))

    async def open(self) -> None:
        """Connect. Raises ``DependencyUnavailable``."""
        self._producer = await started(self._options, DEADLINE_SECONDS)

    async def close(self) -> None:
        """Close the producer. Safe to call twice, and before ``open``."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.drop()

    async def run(self) -> None:
        """Send until cancelled. Raises ``SendingRefused``."""
        while True:
            await self._put.wait()
            self._put.clear()
            while len(self):
                try:
                    if self._producer is None:
                        await self.open()
                    await self._round()
                    self.trouble = None
                    self.on_sent()
                except DependencyUnavailable as away:
                    self.trouble = str(away)
                    await asyncio.sleep(BACKOFF_SECONDS)

    async def _round(self) -> None:
        """Hand over the next batch of each partition, and remove acknowledged commands from the queues."""
        assert self._producer is not None
        producer = self._producer.producer
        handed: list[tuple[deque[Outgoing], int]] = []
        acknowledgements = []
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for partition, queue in enumerate(self._queues):
                    if queue:
                        batch = producer.create_batch()
                        count = self._fill(batch, queue)
                        acknowledgements.append(await producer.send_batch(batch, self.topic, partition=partition))
                        handed.append((queue, count))
                results = await asyncio.gather(*acknowledgements, return_exceptions=True)
        except KAFKA_ERRORS as error:
            await self.close()
            raise kafka_away(error, "while commands were sent") from error
        failed = []
        for (queue, count), result in zip(handed, results, strict=True):
            if isinstance(result, BaseException):
                failed.append((queue, count, result))
            else:
                for _ in range(count):
                    queue.popleft()
        if failed:
            # For aiokafka the sequence numbers of the failed batches are used; for the broker they may not be.
            await self.close()
            self._judge(*failed[0])

    def _judge(self, queue: deque[Outgoing], count: int, failure: BaseException) -> None:
        """Handle a failed batch; the others are sent again unchanged.

        Raises ``SendingRefused``, ``DependencyUnavailable``.
        """
        if isinstance(failure, _REFUSED):
            raise SendingRefused(f"the broker does not take commands in {self.topic}: {in_words(failure)}")
        if not isinstance(failure, _TOO_LARGE):
            raise kafka_away(failure, "while commands were sent")
        if count > 1:
            self._most = max(1, count // 2)
        else:
            self.on_too_large(queue.popleft().line)

    def _fill(self, batch: Any, queue: deque[Outgoing]) -> int:
        count = 0
        for outgoing in islice(queue, self._most):
            if batch.append(timestamp=None, key=None, value=outgoing.value, headers=outgoing.headers) is None and count:
                break
            count += 1
        return count


def _nothing() -> None:
    """Do nothing: the default of ``on_sent``."""


def _ignored(_: int) -> None:
    """Do nothing: the default of ``on_too_large``."""
