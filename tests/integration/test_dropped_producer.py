"""A dropped producer is gone, even while it waits: none of its tasks goes on trying in the background."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest

from tests.providers.kafka import KafkaServer, TopicNames
from tests.support.pace import patience
from tests.support.waiting import in_time
from worker.journey.messages import Message
from worker.lanes.publisher import WatchedProducer, send, started

SECONDS = 60.0


def tasks_of_clients() -> list[str]:
    """Return the background tasks that belong to some producer."""
    coroutines = (task.get_coro() for task in asyncio.all_tasks())
    names = [getattr(coroutine, "__qualname__", "") for coroutine in coroutines]
    return [name for name in names if name.startswith(("Sender.", "AIOKafka"))]


async def opened(kafka: KafkaServer, topics: TopicNames) -> WatchedProducer:
    options = {"bootstrap_servers": kafka.bootstrap, "transactional_id": topics.commands, "request_timeout_ms": 60_000}
    return await started(options, patience(SECONDS))


@pytest.mark.parametrize("which", [ProduceRequest, EndTxnRequest])
@pytest.mark.parametrize("answer", ["none", "connection lost"])
async def test_whatever_it_waits_for(kafka: KafkaServer, topics: TopicNames, which: Any, answer: str) -> None:
    watched = await opened(kafka, topics)
    producer, asked, whole = watched.producer, asyncio.Event(), watched._send

    async def unanswered(node: int, request: Any, **options: Any) -> Any:
        if not isinstance(request, which):
            return await whole(node, request, **options)
        asked.set()
        if answer == "none":
            await asyncio.Event().wait()
        raise kafka_errors.KafkaConnectionError("lost")

    watched._send = unanswered

    async def publish() -> None:
        await producer.begin_transaction()
        message = Message(topics.results, None, b"value", ())
        await asyncio.gather(*await send(producer, [message], TopicPartition(topics.commands, 0), 4))
        await producer.commit_transaction()

    publishing = asyncio.create_task(publish())
    await in_time(asked.wait(), f"a {which.__name__} was sent")
    publishing.cancel()
    await asyncio.wait({publishing})

    await watched.drop()

    assert tasks_of_clients() == []


async def test_one_that_has_nothing_to_do(kafka: KafkaServer, topics: TopicNames) -> None:
    watched = await opened(kafka, topics)
    assert "Sender._sender_routine" in tasks_of_clients()
    await watched.drop()
    assert tasks_of_clients() == []
