"""The watchdog over the real client: one whose fetcher hangs is found, one that has nothing to fetch is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

from tests.acceptance.clients import Outgoing, send, wait_settled
from tests.providers.kafka import KafkaServer, TopicNames
from tests.support.pace import patience
from tests.support.waiting import in_time
from worker.errors import ClientStuck
from worker.kafka.backlog import Backlog
from worker.kafka.watchdog import PATIENCE_SECONDS, Watchdog
from worker.observability.health import Health


class Reading:
    """One partition read as a lane does, and a watchdog whose clock the test moves."""

    def __init__(self, consumer: AIOKafkaConsumer, source: TopicPartition) -> None:
        self.consumer = consumer
        self.source = source
        self.looks: dict[TopicPartition, asyncio.Future[Any]] = {}
        self.now = 0.0
        backlog = Backlog(consumer, lambda: self.now)
        self.watchdog = Watchdog(consumer, self.looks, Health(), backlog, lambda: self.now)

    async def take(self) -> list[Any]:
        return [record.value for record in (await self.look(10_000)).get(self.source, [])]

    def look(self, timeout_ms: int) -> "asyncio.Future[Any]":
        self.looks[self.source] = asyncio.ensure_future(self.consumer.getmany(self.source, timeout_ms=timeout_ms))
        return self.looks[self.source]

    async def wait_in_vain(self) -> None:
        """Look once, and let the watchdog look before and after its patience."""
        looking = self.look(60_000)
        await asyncio.sleep(0)
        await self.watchdog.look()
        self.now += PATIENCE_SECONDS + 1
        await self.watchdog.look()
        assert not looking.done()
        looking.cancel()


@pytest.fixture
async def reading(kafka: KafkaServer, topics: TopicNames) -> AsyncIterator[Reading]:
    source = TopicPartition(topics.commands, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        group_id=f"readers of {topics.commands}",
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    consumer.assign([source])
    yield Reading(consumer, source)
    await consumer.stop()


async def test_a_fetcher_that_hangs_is_found(reading: Reading, kafka: KafkaServer, topics: TopicNames) -> None:
    send(kafka.bootstrap, topics.commands, [Outgoing(b"read", partition=0)])
    assert await reading.take() == [b"read"]

    hanging = asyncio.Event()

    async def hangs(*_: Any) -> bool:
        hanging.set()
        with contextlib.suppress(asyncio.CancelledError):  # it is cancelled when the consumer stops
            await asyncio.Event().wait()
        return False

    reading.consumer._fetcher._proc_fetch_request = hangs
    await in_time(hanging.wait(), "the fetcher hung")
    send(kafka.bootstrap, topics.commands, [Outgoing(b"never read", partition=0)])
    await reading.wait_in_vain()

    with pytest.raises(ClientStuck, match="that do not come"):
        reading.watchdog.check()


async def test_a_log_that_ends_with_a_marker_is_no_lag(
    reading: Reading, kafka: KafkaServer, topics: TopicNames
) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topics.commands})
    producer.init_transactions(patience(60))
    for finish in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(topics.commands, b"read", partition=0)
        producer.flush()
        finish()
    wait_settled(kafka.bootstrap, topics.commands)
    assert await reading.take() == [b"read"]
    await reading.wait_in_vain()

    reading.watchdog.check()
