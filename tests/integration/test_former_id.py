"""A worker of an older version, which names a lane's producer otherwise, is fenced all the same."""

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors

from tests.providers.kafka import KafkaServer, TopicNames
from tests.support.pace import in_milliseconds, patience
from tests.support.waiting import in_time
from worker.lanes.context import LaneId
from worker.lanes.publisher import Commits, IdempotentPublisher, TransactionalPublisher, former_id, started

SECONDS = 60.0
TIMEOUT_MS = int(in_milliseconds(30))


@pytest.mark.real_kafka
@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
async def test_an_open_transaction_of_an_older_worker_is_settled(
    kafka: KafkaServer, topics: TopicNames, delivery: str
) -> None:
    lane = LaneId("cluster", "my.group", TopicPartition(topics.commands, 0))
    options: dict[str, Any] = {"bootstrap_servers": kafka.bootstrap}
    older = await started({**options, "transactional_id": former_id(lane)}, patience(SECONDS))
    producer: AIOKafkaProducer = older.producer
    await producer.begin_transaction()
    await in_time(producer.send_and_wait(topics.results, b"from an older worker", partition=0), "it has published")

    rest: dict[str, Any] = {"transaction_timeout_ms": TIMEOUT_MS, "partitions": lambda: 1}
    newer: TransactionalPublisher | IdempotentPublisher = TransactionalPublisher(lane, options, **rest)
    if delivery == "at_least_once":
        newer = IdempotentPublisher(lane, options, **rest, commits=Commits(None))
    await newer.open()
    with pytest.raises(kafka_errors.ProducerFenced):
        await in_time(producer.commit_transaction(), "its commit was answered")

    await newer.close()
    await older.drop()
