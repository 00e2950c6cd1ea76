"""The world that an acceptance test takes place in."""

from pathlib import Path

import pytest

from tests.acceptance.scene import Scene
from tests.acceptance.worker_process import worker_settings
from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest, PostgresServer


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
