"""The world that an acceptance test takes place in."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests.acceptance.scene import Scene
from tests.acceptance.worker_process import worker_settings
from tests.providers.kafka import KafkaServer, TopicNames, create_topics, delete_topics
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from worker.embedded.postgres import Login


@pytest.fixture
def scene(
    kafka: KafkaServer,
    postgres_server: PostgresServer,
    topics: TopicNames,
    database: DatabaseUnderTest,
    tmp_path: Path,
) -> Scene:
    """Topics and a database of the test's own. No worker runs in it yet."""
    settings = worker_settings(kafka.bootstrap, topics, database.worker_dsn)
    return Scene(kafka, postgres_server, topics, database, settings, tmp_path)


@pytest.fixture(scope="module")
def shared_scene(
    kafka: KafkaServer,
    postgres_server: PostgresServer,
    database_template: str,
    worker_role: Login,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    """The same for tests of one module that do not get into each other's way."""
    # A test before may have left them stopped.
    asyncio.run(kafka.start())
    asyncio.run(postgres_server.start())
    run = uuid4().hex[:12]
    topics = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
    every = (topics.commands, topics.results, topics.transitions, topics.dead_letters)
    create_topics(kafka.bootstrap, *every)
    name = f"test_{run}"
    asyncio.run(_execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{database_template}"'))
    database = DatabaseUnderTest(postgres_server.dsn(name), postgres_server.dsn(name, worker_role), name)
    settings = worker_settings(kafka.bootstrap, topics, database.worker_dsn)
    yield Scene(kafka, postgres_server, topics, database, settings, tmp_path_factory.mktemp("shared"))
    delete_topics(kafka.bootstrap, *every)
    asyncio.run(_execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.owner_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
