"""The servers of the fault tests, each behind a proxy."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.acceptance.scene import Scene
from tests.acceptance.worker_process import worker_settings
from tests.conftest import real_kafka_is_demanded
from tests.faults.load import LOGIN_SECONDS
from tests.faults.one_broker import ProxiedKafka
from tests.faults.proxy import HOST, KafkaProxy, PostgresProxy
from tests.providers import Unavailable
from tests.providers.kafka import TopicNames, warm_up
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.support.pace import in_milliseconds
from worker.demo.servers.processes import EmbeddedFailed


@pytest.fixture(scope="session")
def kafka() -> Iterator[ProxiedKafka]:
    """Yield the broker: in this package, always Apache Kafka as a process of this machine."""
    server = ProxiedKafka()
    try:
        asyncio.run(server.start())
        warm_up(server.bootstrap)
    except (Unavailable, EmbeddedFailed) as reason:
        asyncio.run(server.dispose())
        if real_kafka_is_demanded():
            pytest.exit(f"no broker for the fault tests: {reason}", returncode=1)
        pytest.skip(f"needs Apache Kafka as a process: {reason}")
    yield server
    asyncio.run(server.dispose())


@pytest.fixture
def kafka_proxy(kafka: ProxiedKafka) -> Iterator[KafkaProxy]:
    """Yield the proxy between the broker and the workers. No fault is left in it."""
    yield kafka.proxy
    kafka.proxy.disarm()


@pytest.fixture
def postgres_proxy(database: DatabaseUnderTest) -> Iterator[PostgresProxy]:
    """Yield the proxy between the workers' database and a worker that is given ``through(proxy, dsn)``."""
    proxy = PostgresProxy(urlsplit(database.worker_dsn).port or 5432)
    with proxy:
        yield proxy


@pytest.fixture
def scene(
    kafka: ProxiedKafka,
    postgres_server: PostgresServer,
    topics: TopicNames,
    database: DatabaseUnderTest,
    *,
    postgres_proxy: PostgresProxy,
    tmp_path: Path,
) -> Scene:
    """Return topics and a database of the test's own; its workers reach both servers through the proxies."""
    dsn = through(postgres_proxy, database.worker_dsn)
    settings = worker_settings(kafka.workers_bootstrap, topics, dsn) | {
        # Short, for faults that last longer than each of these: those are scaled alike.
        "WORKER_KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(2),
        "WORKER_KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(3),
        "WORKER_KAFKA__TRANSACTION_TIMEOUT_MS": in_milliseconds(4),
        "WORKER_LOGIN__LONGEST_SECONDS": str(LOGIN_SECONDS),
    }
    return Scene(kafka, postgres_server, topics, database, settings, tmp_path)


def through(proxy: PostgresProxy, dsn: str) -> str:
    """Return the DSN of the same database through the proxy."""
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{HOST}:{proxy.port}"))
