"""The broker and the Postgres that all tests of a session share, in any number of processes.

The session's main process starts a server when the first test asks for it, and stops it at the end. Under pytest-xdist
the processes that run tests ask the main one, over a socket of this machine.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, Generic, Protocol, TypeVar

from tests.providers import Unavailable
from tests.providers import kafka as kafka_providers
from tests.providers import postgres as postgres_providers
from tests.providers.kafka import KafkaServer
from tests.providers.postgres import Mode, PostgresServer
from worker.demo.servers.postgres import Login

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker, and the reasons why the preferred ones do not run."""

    bootstrap: str
    name: str
    real: bool
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A running Postgres, with a database to copy and the login of workers."""

    owner_dsn: str = field(repr=False)
    name: str
    template: str
    """The name of a database with the schema and the fixture. No session stays connected to it."""
    worker: Login


class Servers(Protocol):
    """Both servers, wherever they were started. Each call raises ``Unavailable``, with every reason, if none runs."""

    def broker(self) -> Broker: ...

    def postgres(self) -> Prepared: ...


class SharedKafka(KafkaServer):
    """The session's broker, as one of its tests sees it."""

    def __init__(self, broker: Broker) -> None:
        self.bootstrap, self.name, self.real = broker.bootstrap, broker.name, broker.real

    async def start(self) -> None:
        """Do nothing: it runs."""

    async def stop(self) -> None:
        raise AssertionError(_NOT_YOURS)

    async def kill(self) -> None:
        raise AssertionError(_NOT_YOURS)


class SharedPostgres(PostgresServer):
    """The session's Postgres, as one of its tests sees it."""

    def __init__(self, prepared: Prepared) -> None:
        self.owner_dsn, self.name = prepared.owner_dsn, prepared.name
        self.template, self.worker = prepared.template, prepared.worker

    async def start(self) -> None:
        """Do nothing: it runs."""

    async def stop(self, mode: Mode = "fast") -> None:  # noqa: ARG002 - no mode will do
        raise AssertionError(_NOT_YOURS)


_NOT_YOURS: Final = "other tests use this server: mark a test that stops it own_servers"


class LocalServers:
    """Both servers, started by this process. The owner must close it."""

    def __init__(self, *, real_kafka_only: bool) -> None:
        self._kafka = _Kept(lambda: _start_kafka(real_only=real_kafka_only))
        self._postgres = _Kept(_start_postgres)
        self._door: _Door | None = None

    def broker(self) -> Broker:
        return self._kafka.take()

    def postgres(self) -> Prepared:
        return self._postgres.take()

    @property
    def started_broker(self) -> Broker | None:
        """Return the broker, if any test has asked for one and got it."""
        return self._kafka.started

    @property
    def started_postgres(self) -> Prepared | None:
        """Return Postgres likewise."""
        return self._postgres.started

    def address(self) -> tuple[str, bytes]:
        """Return the address and key with which other processes of the session ask."""
        self._door = self._door or _Door(self)
        return self._door.address, self._door.key

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
        self._kafka.close()
        self._postgres.close()


class RemoteServers:
    """Both servers, asked of the session's main process."""

    def __init__(self, address: str, key: bytes) -> None:
        self._address, self._key = address, key

    def broker(self) -> Broker:
        answer: Broker = self._asked("broker")
        return answer

    def postgres(self) -> Prepared:
        answer: Prepared = self._asked("postgres")
        return answer

    def _asked(self, question: str) -> Any:
        with Client(self._address, authkey=self._key) as connection:
            connection.send(question)
            answer = connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Kept(Generic[T]):
    """A server that is started once, at the first request, by a thread that outlives it.

    A server ends with the thread that started it, so no other may do so.
    """

    def __init__(self, start: Callable[[], tuple[T, Callable[[], None]]]) -> None:
        self._start = start
        self._thread = ThreadPoolExecutor(1)
        self._lock = Lock()
        self._server: Future[tuple[T, Callable[[], None]]] | None = None

    def take(self) -> T:
        with self._lock:
            self._server = self._server or self._thread.submit(self._start)
        return self._server.result()[0]

    @property
    def started(self) -> T | None:
        server = self._server
        return server.result()[0] if server is not None and server.done() and server.exception() is None else None

    def close(self) -> None:
        if self._server is not None and self._server.exception() is None:
            self._thread.submit(self._server.result()[1]).result()
        self._thread.shutdown()


class _Door(Thread):
    """Answers the other processes of the session, each on a thread of its own: a start takes seconds."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(name="servers", daemon=True)
        self._servers = servers
        self._directory = tempfile.TemporaryDirectory(prefix="servers-")
        self.address = str(Path(self._directory.name) / "socket")
        self.key = secrets.token_bytes(32)
        self._listener = Listener(self.address, authkey=self.key)
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # closed
                return
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: "Connection[Any, Any]") -> None:
        with connection, suppress(OSError, EOFError):  # the asking process may be gone
            question = connection.recv()
            try:
                answer: object = self._servers.broker() if question == "broker" else self._servers.postgres()
            except Unavailable as reasons:
                answer = reasons
            connection.send(answer)

    def close(self) -> None:
        self._listener.close()
        self._directory.cleanup()


def _start_kafka(*, real_only: bool) -> tuple[Broker, Callable[[], None]]:
    chosen = asyncio.run(kafka_providers.choose(real_only=real_only))
    server = chosen.server
    return Broker(server.bootstrap, server.name, server.real, chosen.passed_over), lambda: asyncio.run(server.dispose())


def _start_postgres() -> tuple[Prepared, Callable[[], None]]:
    server = asyncio.run(_prepared())
    prepared = Prepared(server.owner_dsn, server.name, server.template, server.worker)
    return prepared, lambda: asyncio.run(_leave(server))


async def _prepared() -> PostgresServer:
    server = await postgres_providers.choose()
    await server.prepare()
    return server


async def _leave(server: PostgresServer) -> None:
    await server.drop(server.template)
    await server.dispose()
