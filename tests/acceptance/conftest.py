"""The scenes of the acceptance tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance.scene import Scene, on_a_broker_of_its_own
from tests.acceptance.worker_process import worker_settings
from tests.providers.kafka import JvmKafka, KafkaServer, TopicNames, create_topics, delete_topics
from tests.providers.postgres import DatabaseUnderTest, PostgresServer


@pytest.fixture
def scene(
    kafka: KafkaServer,
    postgres_server: PostgresServer,
    topics: TopicNames,
    database: DatabaseUnderTest,
    tmp_path: Path,
) -> Scene:
    """Return topics and a database of the test's own. No worker runs in it yet."""
    settings = worker_settings(kafka.bootstrap, topics, database.worker_dsn)
    return Scene(kafka, postgres_server, topics, database, settings, tmp_path)


@pytest.fixture(scope="module")
def shared_scene(
    shared_kafka: KafkaServer, shared_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Yield the same for tests of one module that do not get into each other's way."""
    run = uuid4().hex[:12]
    topics = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
    every = (topics.commands, topics.results, topics.transitions, topics.dead_letters)
    create_topics(shared_kafka.bootstrap, *every)
    database = asyncio.run(shared_postgres.copy())
    settings = worker_settings(shared_kafka.bootstrap, topics, database.worker_dsn)
    yield Scene(shared_kafka, shared_postgres, topics, database, settings, tmp_path_factory.mktemp("shared"))
    delete_topics(shared_kafka.bootstrap, *every)
    asyncio.run(shared_postgres.drop(database.name))


class GuardedKafka(JvmKafka):
    """A broker on which every user may do everything, unless told otherwise, and a requested topic is created."""

    def _settings(self, directory: Path) -> dict[str, str]:
        return {
            **super()._settings(directory),
            "auto.create.topics.enable": "true",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }


@pytest.fixture
def guarded(scene: Scene) -> Iterator[Scene]:
    """Yield the same scene on a broker of its own, which guards its topics."""
    with on_a_broker_of_its_own(scene, GuardedKafka()) as guarded:
        yield guarded
