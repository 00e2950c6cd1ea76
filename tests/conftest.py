"""The servers that tests ask for: started when the first one asks, named in the summary, gone at the end."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from tests import pace
from tests.providers import Unavailable
from tests.providers import kafka as kafka_providers
from tests.providers import postgres as postgres_providers
from tests.providers.kafka import PARTITIONS, Chosen, KafkaServer, TopicNames, create_topics, delete_topics
from tests.providers.postgres import DatabaseUnderTest, PostgresServer, make_prepared
from worker.embedded.postgres import Login

# Property tests look at the same examples in every run, however slow the machine is.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

WORKER_LOGIN: Final = "worker_login"

BROKER: Final = pytest.StashKey[Chosen]()
POSTGRES: Final = pytest.StashKey[PostgresServer]()


def real_kafka_is_demanded() -> bool:
    """CI sets this: nothing but Apache Kafka will do, and nothing is skipped for want of it."""
    return os.environ.get("REQUIRE_REAL_KAFKA", "") not in {"", "0"}


def pytest_configure() -> None:
    """Measure the machine's pace, before anything that the tests start can slow it down."""
    pace.measured_once()


def pytest_report_header() -> list[str]:
    """The pace, and what a test that asks for a broker will get, as far as can be told without starting one."""
    demanded = ", nothing but Apache Kafka will do" if real_kafka_is_demanded() else ""
    return [
        f"pace: {pace.pace():.2f} (every ceiling is multiplied by it; {pace.VARIABLE} sets it)",
        f"broker: {kafka_providers.likely()}{demanded} (started when a test asks for it)",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The servers that the tests were run on."""
    chosen = config.stash.get(BROKER, None)
    terminalreporter.write_line(f"broker: {chosen.server.name if chosen else 'no test asked for one'}")
    if chosen is not None and not chosen.server.real:
        for reason in chosen.passed_over:
            terminalreporter.write_line(f"  not Apache Kafka: {reason}")
    if POSTGRES in config.stash:
        terminalreporter.write_line(f"postgres: {config.stash[POSTGRES].name}")


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[KafkaServer]:
    """The broker. Its methods are coroutines, and it is started by the thread that outlives every test."""
    try:
        chosen = asyncio.run(kafka_providers.choose(real_only=real_kafka_is_demanded()))
    except Unavailable as reasons:
        pytest.exit(f"no broker for the tests: {reasons}", returncode=1)
    pytestconfig.stash[BROKER] = chosen
    yield chosen.server
    asyncio.run(chosen.server.dispose())


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The Postgres server. Its methods are coroutines."""
    try:
        server = asyncio.run(postgres_providers.choose())
    except Unavailable as reasons:
        pytest.exit(f"no Postgres for the tests: {reasons}", returncode=1)
    pytestconfig.stash[POSTGRES] = server
    yield server
    asyncio.run(server.dispose())


@pytest.fixture(autouse=True)
def _apache_kafka_only(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("real_kafka") is None:
        return
    server: KafkaServer = request.getfixturevalue("kafka")
    if not server.real:
        pytest.skip(f"says something about Apache Kafka, and this is {server.name}")


@pytest.fixture(scope="session")
def worker_role() -> Login:
    """The role that workers log in with, on the whole server."""
    return Login(WORKER_LOGIN, secrets.token_urlsafe(24))


@pytest.fixture(scope="session")
def database_template(postgres_server: PostgresServer, worker_role: Login) -> Iterator[str]:
    """The name of a database with the schema and the fixture, which every test's own is a copy of."""
    name = f"template_{uuid4().hex}"
    asyncio.run(make_prepared(postgres_server, name, worker_role))
    yield name
    asyncio.run(_drop(postgres_server, name))


async def _drop(server: PostgresServer, name: str) -> None:
    await server.start()
    await _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.owner_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def database(
    postgres_server: PostgresServer, database_template: str, worker_role: Login
) -> AsyncIterator[DatabaseUnderTest]:
    """A database of the test's own, with the schema and the fixture in it."""
    # A test before this one may have left the server stopped.
    await postgres_server.start()
    name = f"test_{uuid4().hex}"
    await _execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{database_template}"')
    yield DatabaseUnderTest(postgres_server.dsn(name), postgres_server.dsn(name, worker_role), name)
    await _drop(postgres_server, name)


@pytest.fixture
def partitions() -> int:
    """How many partitions each topic of a test has."""
    return PARTITIONS


@pytest.fixture
async def topics(kafka: KafkaServer, partitions: int) -> AsyncIterator[TopicNames]:
    """The worker's four topics, of the test's own."""
    # A test before this one may have left the broker stopped.
    await kafka.start()
    run = uuid4().hex[:12]
    names = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
    every = (names.commands, names.results, names.transitions, names.dead_letters)
    await asyncio.to_thread(partial(create_topics, kafka.bootstrap, *every, partitions=partitions))
    yield names
    await asyncio.to_thread(delete_topics, kafka.bootstrap, *every)
