"""f. Kafka alone: consume, and echo answers of the worker's size in the worker's transactions, with no Postgres.

The same client, lanes, batches, topics and publisher as the worker's: the rest is the cost of Kafka.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec.structs import replace

from effective_contract.codes import StatusCode
from effective_contract.headers import CORRELATION_ID
from effective_contract.states import LifeCycleState
from tests.benchmarks.load import commands
from tests.benchmarks.subjects.lifetime import until_terminated
from worker.demo.commands import documented
from worker.journey.decode.command import decode
from worker.journey.messages import Message, OutgoingTopics, result_message, transition_message
from worker.journey.model import Answer, Answered, Transition
from worker.kafka.client import client_options
from worker.kafka.delivery import Coordinates, Delivery
from worker.lanes.context import LaneId
from worker.lanes.partition import IDLE_SECONDS
from worker.lanes.publisher import TransactionalPublisher
from worker.service import _consumer_options
from worker.settings import Settings, read_settings

ASSIGNED_SECONDS: Final = 0.05

Echo = Callable[[Any], tuple[Message, Message]]


def echo_of(settings: Settings) -> Echo:
    """Return the answer to a record: a result and a transition event as the worker writes them.

    All but the key and the correlation are alike.
    """
    topics = settings.topics
    post = OutgoingTopics(topics.results, topics.transitions, topics.dead_letters, settings.kafka.group_id, "bench:1")
    key, value, headers = next(commands("sample", [100_000]))
    where = Coordinates("x" * 22, topics.commands, 0, 100_000, int(time.time() * 1000))
    decoded = decode(Delivery(where, key, value, tuple(headers), stamped_by_broker=False), max_bytes=65_536)
    now, command_id = datetime.now(UTC), "ce:ORG1:%2Fbench:sample-100000"
    states = LifeCycleState.NOT_EFFECTIVE, LifeCycleState.EFFECTIVE
    lane = f"{where.cluster}/{settings.kafka.group_id}/{topics.commands}/0"
    transition = Transition(
        "ORG1", key.decode(), 1, *states, now, "1", "1", command_id, "API", lane, 1, b"\0" * 32, b"\0" * 32
    )
    data = orjson.dumps(documented("result.json")["data"])
    transition = replace(transition, text=transition.canonical())
    result = result_message(Answered(decoded, Answer(command_id, StatusCode.OK, "", now), data, transition), post)
    event = transition_message(transition, post)
    constant = tuple(header for header in result.headers if header[0] != CORRELATION_ID)

    def echo(record: Any) -> tuple[Message, Message]:
        correlation = (header for header in record.headers if header[0] == CORRELATION_ID)
        return Message(result.topic, record.key, result.value, (*constant, *correlation)), event

    return echo


async def lane(consumer: AIOKafkaConsumer, source: TopicPartition, settings: Settings, echo: Echo) -> None:
    """Process batch after batch of one partition, forever."""
    count = len(consumer.partitions_for_topic(source.topic) or ())
    publisher = TransactionalPublisher(
        LaneId("", settings.kafka.group_id, source),
        client_options(settings.kafka),
        transaction_timeout_ms=settings.kafka.transaction_timeout_ms,
        partitions=lambda: count,
    )
    await publisher.open()
    consumer.seek(source, (await consumer.beginning_offsets([source]))[source])
    while True:
        taken = await consumer.getmany(source, timeout_ms=int(IDLE_SECONDS * 1000), max_records=settings.max_batch)
        records: Sequence[Any] = taken.get(source, [])
        if records:
            await publisher.publish([message for each in records for message in echo(each)], records[-1].offset + 1)


async def run() -> None:
    settings = read_settings(os.environ)
    consumer = AIOKafkaConsumer(**client_options(settings.kafka), **_consumer_options(settings))
    await consumer.start()
    consumer.subscribe([settings.topics.commands])
    while not consumer.assignment():  # noqa: ASYNC110 - the client offers nothing to wait for
        await asyncio.sleep(ASSIGNED_SECONDS)
    echo = echo_of(settings)
    await until_terminated(*(lane(consumer, source, settings, echo) for source in consumer.assignment()))
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(run())
