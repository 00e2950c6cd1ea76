"""The servers of all measurements: one Apache Kafka and one Postgres with its defaults, for the whole run."""

import asyncio
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

import asyncpg

from tests.providers.kafka import HEAP, JvmKafka, TopicNames, create_topics, delete_topics, warm_up
from tests.providers.postgres import FIXTURE
from worker.demo.servers.postgres import OWNER, Login, Postgres, make_database, make_login
from worker.demo.servers.stack import temporary_directory
from worker.operations.imports.load import import_files
from worker.postgres.migrate import apply_migrations

DATABASE: Final = "bench"
LATENCY_TRIES: Final = 200
STATED: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "wal_sync_method",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
)
"""The settings of Postgres that a reader of the figures must know."""


class MeasuredKafka(JvmKafka):
    """A broker whose process is known."""

    java_options = ()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker was not started"
        return self._process.pid

    @property
    def data(self) -> Path:
        """Return the directory of its logs."""
        assert self._directory is not None, "the broker was not started"
        return self._directory / "data"


class MeasuredPostgres(Postgres):
    """A server whose process is known, and whose settings are the defaults."""

    @property
    def pid(self) -> int:
        assert self._process is not None, "Postgres was not started"
        return self._process.pid


@dataclass(frozen=True, slots=True)
class Stage:
    """Both servers, running; the database is migrated and holds the tests' reference data (ORG1)."""

    bootstrap: str
    owner_dsn: str = field(repr=False)
    """DSN of the superuser."""
    dsn: str = field(repr=False)
    """DSN of the worker's role."""
    kafka_pid: int
    postgres_pid: int
    kafka_data: Path
    directory: Path
    """For logs; gone after the run."""
    facts: dict[str, str]
    """Versions and settings."""

    async def new_topics(self, partitions: int) -> TopicNames:
        """Create four topics of a run's own. Answers bear the broker's clock, by which rates are taken."""
        run = uuid4().hex[:8]
        names = TopicNames(f"commands-{run}", f"results-{run}", f"transitions-{run}", f"dead-letters-{run}")
        others = (names.commands, names.transitions, names.dead_letters)
        await asyncio.to_thread(create_topics, self.bootstrap, *others, partitions=partitions)
        stamped = {"message.timestamp.type": "LogAppendTime"}
        await asyncio.to_thread(create_topics, self.bootstrap, names.results, partitions=partitions, settings=stamped)
        return names

    async def drop_topics(self, names: TopicNames) -> None:
        every = (names.commands, names.results, names.transitions, names.dead_letters)
        await asyncio.to_thread(delete_topics, self.bootstrap, *every)

    async def commit_latency(self) -> float:
        """Return the median of a transaction that inserts one row, in seconds."""
        async with self.owner() as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS commit_latency (n integer)")
            insert = await connection.prepare("INSERT INTO commit_latency VALUES ($1)")
            taken = []
            for number in range(LATENCY_TRIES):
                began = time.perf_counter()
                await insert.fetch(number)
                taken.append(time.perf_counter() - began)
        return median(taken)

    async def wal(self) -> int:
        """Return the bytes of write-ahead log that Postgres has written so far."""
        async with self.owner() as connection:
            return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def log_bytes(self, topic: str) -> int:
        """Return the bytes that the broker keeps of a topic, indexes left out."""
        return sum(file.stat().st_size for file in self.kafka_data.glob(f"{topic}-*/*.log"))

    async def settle(self) -> None:
        """Write out dirty pages, so that no run pays for another's."""
        async with self.owner() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.owner_dsn)
        try:
            yield connection
        finally:
            await connection.close()

    def describe(self) -> dict[str, str]:
        """Describe the conditions of the figures."""
        return dict(self.facts)


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Start both servers. Nothing is left behind. Raises ``Unavailable`` where there is no Java, or no Postgres."""
    async with AsyncExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        kafka = MeasuredKafka()
        opened.push_async_callback(kafka.dispose)
        await kafka.start()
        await asyncio.to_thread(warm_up, kafka.bootstrap)
        home = temporary_directory()
        opened.callback(shutil.rmtree, home, ignore_errors=True)
        postgres = MeasuredPostgres(home, Login(OWNER, secrets.token_urlsafe(24)))
        opened.push_async_callback(postgres.stop, "immediate")
        await postgres.start()
        worker = Login("worker_login", secrets.token_urlsafe(24))
        owner_dsn, dsn = postgres.dsn(DATABASE), postgres.dsn(DATABASE, worker)
        await make_database(postgres.dsn(), DATABASE)
        await make_login(postgres.dsn(), worker)
        await apply_migrations(owner_dsn, dsn)
        report = await import_files(owner_dsn, [FIXTURE])
        assert not report.bad
        facts = machine() | {"kafka": f"{kafka.name}, heap {HEAP}"}
        stage = Stage(kafka.bootstrap, owner_dsn, dsn, kafka.pid, postgres.pid, kafka.data, directory, facts)
        async with stage.owner() as connection:
            said = {f"postgres {name}": str(await connection.fetchval(f"SHOW {name}")) for name in STATED}
        latency = {"commit latency": f"{await stage.commit_latency() * 1000:.2f} ms (median of {LATENCY_TRIES})"}
        stage.facts.update(said | latency)
        yield stage


def machine() -> dict[str, str]:
    """Return the machine and its software."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiokafka", "asyncpg", "uvloop", "orjson"))
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}, {libraries}",
    }
