"""The servers behind the tests keep the properties that the tests rely on."""

import asyncio

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.connections import connected
from tests.support.pace import patience


async def test_a_database_of_a_test_holds_the_fixture(database: DatabaseUnderTest) -> None:
    async with connected(database.owner_dsn) as connection:
        assert await connection.fetchval("SELECT count(*) FROM access_token") > 0


async def test_the_workers_role_may_read_tokens_and_not_delete_them(database: DatabaseUnderTest) -> None:
    async with connected(database.worker_dsn) as connection:
        assert await connection.fetchval("SELECT count(*) FROM access_token") > 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM access_token")


async def test_topics_have_four_partitions(kafka: KafkaServer, topics: TopicNames) -> None:
    known = await asyncio.to_thread(
        AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics, timeout=patience(60)
    )
    assert len(known.topics[topics.commands].partitions) == 4
