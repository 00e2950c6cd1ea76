"""Read a reply topic: every partition, in no group, so that no rebalance takes a reply away."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka import errors as kafka

from effective_contract.client.outbox import seen

POLL_MS: Final = 500
METADATA_MAX_AGE_MS: Final = 5_000
"""The time for which a new partition of the reply topic may go unnoticed. Its replies come late, but none is missed."""
BACKOFF_SECONDS: Final = 0.2
CLOSE_SECONDS: Final = 1.0

_FAULTS = (kafka.KafkaError, OSError, TimeoutError)
_FORBIDDEN = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)

log = logging.getLogger(__name__)


class Replies:
    """A reader that passes every record after ``open`` to ``hear``, whatever happens to the broker meanwhile.

    The positions are kept here, not in the consumer, which is replaced after every failure.
    """

    def __init__(self, topic: str, options: Mapping[str, Any], hear: Callable[[ConsumerRecord], None]) -> None:
        """``options`` are the consumer's connection settings; ``hear`` must not raise."""
        self._topic = topic
        self._options = dict(options)
        self._hear = hear
        self._positions: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None

    async def open(self) -> None:
        """Note where each partition ends: every answer from now on is read. Raises aiokafka's errors."""
        consumer = self._consumer = await self._started()
        partitions = _partitions(consumer, self._topic)
        if not partitions:
            raise kafka.UnknownTopicOrPartitionError(self._topic)
        self._positions = dict(await consumer.end_offsets(partitions))

    async def run(self) -> None:
        """Read until cancelled. Raises only the errors that an operator must mend: the topic may not be read."""
        while True:
            try:
                await self._read()
            except _FORBIDDEN:
                raise
            except _FAULTS as error:
                log.warning("the reply topic is read again by another consumer: %s", type(error).__name__)
                await asyncio.sleep(BACKOFF_SECONDS)
            finally:
                await self.close()

    async def close(self) -> None:
        """Close the connections. Safe to call twice, and before ``open``."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _drop(consumer)

    async def _read(self) -> None:
        consumer = self._consumer = self._consumer or await self._started()
        self._assign(consumer)
        while True:
            for place, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                for record in records:
                    self._hear(record)
                self._positions[place] = records[-1].offset + 1
            if consumer._fetcher.error_future.done():
                raise kafka.KafkaError("the client's fetcher has ended")
            if not _partitions(consumer, self._topic) <= self._positions.keys():
                self._assign(consumer)

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Assign all partitions, each at its position. A partition added since ``open`` is read from its beginning."""
        for place in _partitions(consumer, self._topic):
            self._positions.setdefault(place, 0)
        consumer.assign(list(self._positions))
        for place, offset in self._positions.items():
            consumer.seek(place, offset)

    async def _started(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._options,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            # If a position is gone, the topic was recreated or cut. The rest of it may hold a reply.
            auto_offset_reset="earliest",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        try:
            await consumer.start()
            await consumer._client.set_topics([self._topic])
        except BaseException:
            await _drop(consumer)
            raise
        return consumer


async def _drop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer that may be broken: its connections are closed even if it does not stop cleanly."""
    for end in (consumer.stop, consumer._client.close):
        # In a task: if aiokafka cancels a fetch itself, it raises the cancellation as if it were ours.
        ending = asyncio.create_task(end())
        ending.add_done_callback(seen)
        await asyncio.wait({ending}, timeout=CLOSE_SECONDS)
        ending.cancel()


def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()}
