"""Postgres for the tests, from the first provider that can serve: a DSN given, a container, a wheel."""

import asyncio
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from testcontainers.core.container import DockerContainer

from tests.providers import GivenAway, Unavailable
from tests.providers.docker_engine import require_engine
from tests.support import waiting
from tests.support.pace import patience
from worker.demo.servers.postgres import HOST, OWNER, Login, Postgres, make_database, make_login
from worker.demo.servers.postgres import dsn as dsn_of
from worker.demo.servers.processes import EmbeddedFailed, EmbeddedUnavailable, free_port, until
from worker.demo.servers.stack import temporary_directory
from worker.operations.imports.load import import_files
from worker.postgres.migrate import apply_migrations

Mode = Literal["fast", "immediate"]

IMAGE: Final = "postgres:18"
WORKER_LOGIN: Final = "worker_login"
START_SECONDS: Final = 60.0
FIXTURE: Final = Path(__file__).parents[1] / "seed" / "fixture.ndjson"


@dataclass(frozen=True, slots=True)
class DatabaseUnderTest:
    """A database of the test's own, with the schema and the fixture in it."""

    owner_dsn: str = field(repr=False)
    worker_dsn: str = field(repr=False)
    name: str


class PostgresServer(ABC):
    """A server that keeps its address and its data when it is stopped and started again."""

    name: str
    """The name of this server, for people."""
    owner_dsn: str
    """DSN of a superuser, to the database that is always there."""
    template: str
    """The name of a database with the schema and the fixture, to be copied; known once it is prepared."""
    worker: Login
    """The role that workers log in with, on the whole server; known once it is prepared."""

    @abstractmethod
    async def start(self) -> None:
        """Start it, unless it runs already. Raises ``Unavailable`` if this provider cannot serve here."""

    @abstractmethod
    async def stop(self, mode: Mode = "fast") -> None:
        """Stop it: ``fast`` ends every session and shuts down; ``immediate`` is a crash. Safe to call twice."""

    async def restart(self, mode: Mode = "fast") -> None:
        """Stop, start, and return when it answers."""
        await self.stop(mode)
        await self.start()

    async def dispose(self) -> None:
        """Leave nothing behind."""
        await self.stop("immediate")

    def dsn(self, database: str, login: Login | None = None) -> str:
        """Return the DSN of the superuser, unless another ``login`` is given."""
        parts = urlsplit(self.owner_dsn)
        if login is not None:
            address = parts.netloc.rpartition("@")[2]
            user = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}"
            parts = parts._replace(netloc=f"{user}@{address}")
        return urlunsplit(parts._replace(path=f"/{database}"))

    async def prepare(self) -> None:
        """Make the database that every test's own is a copy of, and the role that workers log in with."""
        self.template = f"template_{uuid4().hex}"
        self.worker = Login(WORKER_LOGIN, secrets.token_urlsafe(24))
        await make_prepared(self, self.template, self.worker)

    async def copy(self, source: str | None = None) -> DatabaseUnderTest:
        """Make a database with the schema and the fixture in it, for one test or one module.

        Given a ``source``, copy its present state; it must have no connections.
        """
        name = f"test_{uuid4().hex}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{source or self.template}"')
        # Rights on a database are no part of a copy.
        await self._execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        await self._execute(f'GRANT CONNECT ON DATABASE "{name}" TO effective_worker')
        return DatabaseUnderTest(self.dsn(name), self.dsn(name, self.worker), name)

    async def drop(self, name: str) -> None:
        """Remove a database, even with sessions still connected to it."""
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.owner_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class GivenPostgres(PostgresServer):
    """A server that belongs to others: databases are made and dropped in it, and it is never stopped."""

    def __init__(self) -> None:
        self.owner_dsn = os.environ.get("TEST_POSTGRES_DSN", "")
        self.name = f"the one given at {urlsplit(self.owner_dsn).netloc.rpartition('@')[2]}"

    async def start(self) -> None:
        if not self.owner_dsn:
            raise Unavailable("TEST_POSTGRES_DSN gives no address")
        if not await _answers(self.owner_dsn):
            raise GivenAway(f"no Postgres answers at {self.name} (TEST_POSTGRES_DSN)")

    async def stop(self, mode: Mode = "fast") -> None:  # noqa: ARG002 - no mode will do
        raise AssertionError("a Postgres given by its address is not stopped")

    async def dispose(self) -> None:
        """Leave it as it is."""


class ContainerPostgres(PostgresServer):
    """A container, on a fixed port: it must come back at the same address."""

    def __init__(self) -> None:
        self.name = f"{IMAGE} (container)"
        self._port = free_port(HOST)
        self._owner = Login(OWNER, secrets.token_urlsafe(24))
        self.owner_dsn = dsn_of(self._owner, self._port, "postgres")
        self._container: Any = None

    async def start(self) -> None:
        if self._container is None:
            require_engine()
            await asyncio.to_thread(self._create)
        else:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        try:
            await until(lambda: _answers(self.owner_dsn), patience(START_SECONDS))
        except TimeoutError:
            raise Unavailable("the Postgres in the container does not answer") from None

    def _create(self) -> None:
        container = DockerContainer(IMAGE)
        container.with_env("POSTGRES_USER", self._owner.user).with_env("POSTGRES_PASSWORD", self._owner.password)
        container.with_env("POSTGRES_DB", "postgres")
        # On this machine only; the library's own method publishes on every interface.
        published: dict[str, Any] = {"5432/tcp": (HOST, self._port)}
        container.ports.update(published)
        self._container = container
        try:
            container.start()
        except Exception as error:
            raise Unavailable(f"the container does not start: {type(error).__name__}") from error

    async def stop(self, mode: Mode = "fast") -> None:
        inner = self._container.get_wrapped_container()
        if mode == "fast":
            await asyncio.to_thread(inner.stop)
            return
        with suppress(Exception):  # the engine complains if it does not run
            await asyncio.to_thread(inner.kill)

    async def dispose(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)


class WheelPostgres(PostgresServer):
    """The Postgres of the embedded stack, without the flushes that only a power cut would miss."""

    def __init__(self) -> None:
        self.name = "Postgres 18 (wheel)"
        self._owner = Login(OWNER, secrets.token_urlsafe(24))
        self._directory: Path = temporary_directory()
        self._server = Postgres(self._directory, self._owner, options={"fsync": "off"})
        self.owner_dsn = self._server.dsn()
        self._wanted = False
        """True if it was started and not asked to stop since."""
        self._falls: list[str] = []

    async def start(self) -> None:
        self.fallen()
        try:
            await self._server.start()
        except EmbeddedUnavailable as error:
            raise Unavailable(str(error)) from error
        self._wanted = True

    async def stop(self, mode: Mode = "fast") -> None:
        self.fallen()
        self._wanted = False
        await self._server.stop(mode)

    def fallen(self) -> list[str]:
        """Return the exit codes with which it ended unasked."""
        process = self._server._process
        if self._wanted and process is not None and process.exit_code is not None:
            self._wanted = False
            self._falls.append(f"Postgres ended with {process.exit_code}")
        return list(self._falls)

    def log(self) -> str:
        """Return its whole log, or nothing if there is none."""
        log = self._directory / "postgres.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    async def dispose(self) -> None:
        await self._server.stop("immediate")
        shutil.rmtree(self._directory, ignore_errors=True)


OWN_PROVIDERS: Final[tuple[type[PostgresServer], ...]] = (ContainerPostgres, WheelPostgres)
PROVIDERS: Final[tuple[type[PostgresServer], ...]] = (GivenPostgres, *OWN_PROVIDERS)


async def choose(providers: Sequence[type[PostgresServer]] = PROVIDERS) -> PostgresServer:
    """Start the first server that can serve. Raises ``Unavailable``, with every reason, if none can."""
    reasons: list[str] = []
    for provider in providers:
        server = provider()
        try:
            await server.start()
        except GivenAway:
            raise
        except (Unavailable, EmbeddedFailed) as error:
            await server.dispose()
            reasons.append(str(error))
            continue
        return server
    raise Unavailable("; ".join(reasons))


async def make_prepared(server: PostgresServer, name: str, worker: Login) -> None:
    """Make a database with the schema and the fixture in it, and a login for workers.

    Its access tokens have no first states in their histories, so a test's own transitions are all there are, and the
    first of each token has version 1; and none is effective, as that would need one.
    """
    await make_database(server.owner_dsn, name)
    await make_login(server.owner_dsn, worker)
    await apply_migrations(server.dsn(name), server.dsn(name, worker))
    report = await import_files(server.dsn(name), [FIXTURE])
    assert not report.bad
    connection = await asyncpg.connect(server.dsn(name))
    try:
        await connection.execute(_FORGET_FIRST_STATES)
    finally:
        await connection.close()


_FORGET_FIRST_STATES: Final = """
ALTER TABLE transition DISABLE TRIGGER transition_append_only;
TRUNCATE transition;
ALTER TABLE transition ENABLE TRIGGER transition_append_only;
TRUNCATE lane RESTART IDENTITY;
ALTER TABLE access_token DISABLE TRIGGER access_token_life_cycle;
UPDATE access_token SET version = 0, life_cycle_state = 'NOT_EFFECTIVE' WHERE life_cycle_state = 'EFFECTIVE';
ALTER TABLE access_token ENABLE TRIGGER access_token_life_cycle;
UPDATE access_token SET version = 0;
"""


async def until_waiting(connection: asyncpg.Connection, sessions: int = 1) -> None:
    """Wait until so many sessions of the connection's database wait for a lock, its own aside."""
    query = (
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        " AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
    )
    what = f"{sessions} sessions waited for a lock"

    async def count() -> int:
        # A transaction keeps seeing the sessions of its first look, and misses one that connects later.
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        return int(await connection.fetchval(query))

    await waiting.until_answered(count, lambda found: found >= sessions, what=what)


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True
