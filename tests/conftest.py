"""The servers of the tests: started at the first request, named in the summary, gone at the end."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.providers import Unavailable
from tests.providers import kafka as kafka_providers
from tests.providers import postgres as postgres_providers
from tests.providers.kafka import PARTITIONS, KafkaServer, TopicNames, create_topics, delete_topics
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.providers.shared import LocalServers, RemoteServers, Servers, SharedKafka, SharedPostgres
from tests.support import pace
from tests.support.scheduling import OWN_SERVERS, Scheduling, rank
from worker.demo.servers.stack import temporary_directory

# Property tests use the same examples in every run, however slow the machine is.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

SERVERS: Final = pytest.StashKey[Servers]()


def real_kafka_is_demanded() -> bool:
    """True in CI, which accepts nothing but Apache Kafka and skips no test for want of it."""
    return os.environ.get("REQUIRE_REAL_KAFKA", "") not in {"", "0"}


# --- one session, in however many processes -------------------------------------------------------------------------


def steering(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that would steer the programs which tests start: a worker's, and those of an outer make."""
    own = {"ARGS", "VENV", "INSTALLED", "UPGRADE", "MFLAGS"}
    return [name for name in environment if name.startswith(("WORKER_", "MAKE")) or name in own]


def pytest_configure(config: pytest.Config) -> None:
    # Before anything that the tests start can slow the machine down.
    pace.measured_once()
    # Once for every program that any test starts: settings of this session are not passed on to them.
    for name in steering(os.environ):
        del os.environ[name]
    # A shell makes its background processes ignore these signals, and all processes started from there inherit that.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    told: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[SERVERS] = (
        LocalServers(real_kafka_only=real_kafka_is_demanded()) if told is None else RemoteServers(*told["servers"])
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist the address of the servers."""
    servers = node.config.stash[SERVERS]
    assert isinstance(servers, LocalServers)
    node.workerinput["servers"] = servers.address()


def pytest_unconfigure(config: pytest.Config) -> None:
    servers = config.stash.get(SERVERS, None)
    if isinstance(servers, LocalServers):
        servers.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid.partition("::")[0]))


def pytest_report_header() -> list[str]:
    """Report the pace, and the broker that tests will get, as far as can be told without starting it."""
    demanded = ", nothing but Apache Kafka will do" if real_kafka_is_demanded() else ""
    return [
        f"pace: {pace.pace():.2f} (every ceiling is multiplied by it; {pace.VARIABLE} sets it)",
        f"broker: {kafka_providers.likely()}{demanded} (started when a test asks for it)",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report the servers that the tests were run on."""
    servers = config.stash[SERVERS]
    if not isinstance(servers, LocalServers):
        return
    broker, postgres = servers.started_broker, servers.started_postgres
    terminalreporter.write_line(f"broker: {broker.name if broker else 'no test asked for one'}")
    if broker is not None and not broker.real:
        for reason in broker.passed_over:
            terminalreporter.write_line(f"  not Apache Kafka: {reason}")
    if postgres is not None:
        terminalreporter.write_line(f"postgres: {postgres.name}")


# --- servers --------------------------------------------------------------------------------------------------------


def _whose(request: pytest.FixtureRequest) -> Literal["own", "shared"]:
    return "shared" if request.node.get_closest_marker(OWN_SERVERS) is None else "own"


@pytest.fixture(scope="session")
def shared_kafka(pytestconfig: pytest.Config) -> KafkaServer:
    """Return the broker of the whole session, in any of its processes."""
    try:
        return SharedKafka(pytestconfig.stash[SERVERS].broker())
    except Unavailable as reasons:
        pytest.fail(f"no broker for the tests: {reasons}", pytrace=False)


@pytest.fixture(scope="session")
def own_kafka() -> Iterator[KafkaServer]:
    """Start the broker of the tests that stop one: by this process, and by the thread that outlives every test."""
    providers = kafka_providers.OWN_PROVIDERS
    try:
        server = asyncio.run(kafka_providers.choose(providers, real_only=real_kafka_is_demanded())).server
    except Unavailable as reasons:
        pytest.fail(f"no broker for tests that stop one: {reasons}", pytrace=False)
    yield server
    asyncio.run(server.dispose())


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> KafkaServer:
    """Return the broker. Its methods are coroutines. Only a test that is marked own_servers may stop it."""
    server: KafkaServer = request.getfixturevalue(f"{_whose(request)}_kafka")
    return server


@pytest.fixture(scope="session")
def shared_postgres(pytestconfig: pytest.Config) -> PostgresServer:
    """Return the Postgres server of the whole session, in any of its processes."""
    try:
        return SharedPostgres(pytestconfig.stash[SERVERS].postgres())
    except Unavailable as reasons:
        pytest.fail(f"no Postgres for the tests: {reasons}", pytrace=False)


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """Yield the Postgres server of the tests that stop one."""
    try:
        server = asyncio.run(postgres_providers.choose(postgres_providers.OWN_PROVIDERS))
    except Unavailable as reasons:
        pytest.fail(f"no Postgres for tests that stop one: {reasons}", pytrace=False)
    asyncio.run(server.prepare())
    yield server
    asyncio.run(server.dispose())


@pytest.fixture
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """Return the Postgres server. Its methods are coroutines. Only a test that is marked own_servers may stop it."""
    server: PostgresServer = request.getfixturevalue(f"{_whose(request)}_postgres")
    return server


@pytest.fixture(autouse=True)
def _apache_kafka_only(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("real_kafka") is None:
        return
    server: KafkaServer = request.getfixturevalue("kafka")
    if not server.real:
        pytest.skip(f"says something about Apache Kafka, and this is {server.name}")


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[DatabaseUnderTest]:
    """Yield a database of the test's own, with the schema and the fixture in it."""
    # A test before this one may have left the server stopped.
    await postgres_server.start()
    copy = await postgres_server.copy()
    yield copy
    await postgres_server.start()
    await postgres_server.drop(copy.name)


@pytest.fixture
def kept() -> Iterator[Path]:
    """Yield a directory for a stack, which its Postgres can reach under any user."""
    directory = temporary_directory()
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@pytest.fixture
def partitions() -> int:
    """Return the number of partitions of each topic of a test."""
    return PARTITIONS


@pytest.fixture
async def topics(kafka: KafkaServer, partitions: int) -> AsyncIterator[TopicNames]:
    """Yield the worker's four topics, of the test's own."""
    # A test before this one may have left the broker stopped.
    await kafka.start()
    run = uuid4().hex[:12]
    names = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
    every = (names.commands, names.results, names.transitions, names.dead_letters)
    await asyncio.to_thread(partial(create_topics, kafka.bootstrap, *every, partitions=partitions))
    yield names
    await asyncio.to_thread(delete_topics, kafka.bootstrap, *every)
