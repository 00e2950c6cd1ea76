"""The servers behind the tests keep their address and their data when they are stopped and started again."""

import asyncio

import asyncpg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest, Mode, PostgresServer
from tests.support.pace import patience

pytestmark = pytest.mark.own_servers


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_what_was_committed_survives_a_restart_of_postgres(
    postgres_server: PostgresServer, database: DatabaseUnderTest, mode: Mode
) -> None:
    connection = await asyncpg.connect(database.owner_dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")

    await postgres_server.restart(mode)

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection = await asyncpg.connect(database.owner_dsn)
    assert await connection.fetchval("SELECT one FROM kept") == 1
    await connection.close()


# The embedded broker writes to disk when it finds the time: its last records do not survive a kill.
@pytest.mark.parametrize("how", ["stop", pytest.param("kill", marks=pytest.mark.real_kafka)])
async def test_what_was_sent_survives_a_restart_of_the_broker(kafka: KafkaServer, topics: TopicNames, how: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "log_level": 0})
    producer.produce(topics.commands, b"kept", partition=0)
    assert producer.flush(30) == 0

    await getattr(kafka, how)()
    await kafka.start()

    assert await asyncio.to_thread(high_watermark, kafka.bootstrap, topics.commands) == 1


def high_watermark(bootstrap: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "providers", "log_level": 0})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=patience(60))[1])
    finally:
        consumer.close()
