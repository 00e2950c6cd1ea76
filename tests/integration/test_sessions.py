"""Sessions are as the worker sets them up, despite settings of role and database, or are refused with the reason."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from tests.providers.kafka import TopicNames
from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.support.settings import settings_for
from worker.demo.servers.postgres import Login
from worker.errors import SessionUnfit
from worker.operations.check import check
from worker.postgres.connect import owner_connection
from worker.postgres.pool import SERVER_SETTINGS, Database
from worker.settings import PostgresSettings

NAMED: Final = (b"user", b"database", b"client_encoding", b"application_name")
"""The settings that a pooler passes on by itself."""
OTHERWISE: Final = {"statement_timeout": "0", "search_path": "nowhere", "default_transaction_isolation": "serializable"}


@pytest.fixture
async def login(database: DatabaseUnderTest, postgres_server: PostgresServer) -> AsyncIterator[Login]:
    """Yield a worker's role of the test's own, which has settings of its own."""
    login = Login(f"login_{uuid4().hex[:8]}", "its own")
    async with owner_connection(database.owner_dsn) as owner:
        await owner.execute(f"CREATE ROLE {login.user} LOGIN PASSWORD '{login.password}' IN ROLE effective_worker")
        yield login
        await owner.execute(f"DROP ROLE {login.user}")


async def settle(database: DatabaseUnderTest, login: Login, settings: dict[str, str]) -> None:
    async with owner_connection(database.owner_dsn) as owner:
        for name, value in settings.items():
            await owner.execute(f"ALTER ROLE {login.user} SET {name} = '{value}'")


@asynccontextmanager
async def pooler(dsn: str, *, ignores: bool = True) -> AsyncIterator[str]:
    """Yield the DSN of a pooler that, like PgBouncer, ignores or refuses parameters at the start of a session."""
    server = urlsplit(dsn)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        if length == 8:  # the client asks for TLS
            await reader.readexactly(4)
            writer.write(b"N")
            length = int.from_bytes(await reader.readexactly(4))
        start = await reader.readexactly(length - 4)
        head, words = start[:4], start[4:].rstrip(b"\0").split(b"\0")
        pairs = list(zip(words[::2], words[1::2], strict=True))
        unknown = [name for name, _ in pairs if name not in NAMED]
        if unknown and not ignores:
            text = b"SFATAL\0C08P01\0Munsupported startup parameter: " + unknown[0] + b"\0\0"
            writer.write(b"E" + (len(text) + 4).to_bytes(4) + text)
            writer.close()
            return
        kept = b"".join(name + b"\0" + value + b"\0" for name, value in pairs if name in NAMED) + b"\0"
        there = await asyncio.open_connection(server.hostname, server.port)
        there[1].write((len(head + kept) + 4).to_bytes(4) + head + kept)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield urlunsplit(server._replace(netloc=f"{server.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))


async def look(dsn: str) -> None:
    """Check as a worker does before anything else."""
    database = await Database.open(dsn, connections=1)
    try:
        await database.look()
    finally:
        await database.close()


@pytest.fixture
def own(database: DatabaseUnderTest, login: Login, postgres_server: PostgresServer) -> str:
    """Return the DSN of the test's own role."""
    return postgres_server.dsn(database.name, login)


async def test_what_role_or_database_say_does_not_reach_a_worker(
    database: DatabaseUnderTest, login: Login, own: str
) -> None:
    await settle(database, login, OTHERWISE)

    await look(own)

    async with owner_connection(own) as connection:
        assert await connection.fetchval("SHOW search_path") == "public"
        assert await connection.fetchval("SHOW default_transaction_isolation") == "read committed"


async def test_behind_a_pooler_that_passes_nothing_on_each_setting_that_does_not_hold_is_named(
    database: DatabaseUnderTest, login: Login, own: str
) -> None:
    await settle(database, login, OTHERWISE)

    async with pooler(own) as pooled:
        with pytest.raises(SessionUnfit) as refused:
            await look(pooled)

    said = str(refused.value)
    assert "statement_timeout is 0, not 10s" in said
    assert "search_path is nowhere, not public" in said
    assert "default_transaction_isolation is serializable, not read committed" in said
    assert "lock_timeout is 0, not 2s" in said
    assert "ALTER ROLE ... SET" in said


async def test_behind_a_pooler_a_role_that_sets_the_same_will_do(
    database: DatabaseUnderTest, login: Login, own: str
) -> None:
    same = {name: value for name, value in SERVER_SETTINGS.items() if name != "application_name"}
    await settle(database, login, same)

    async with pooler(own) as pooled:
        await look(pooled)


async def test_a_pooler_that_refuses_a_setting_is_not_away(own: str) -> None:
    async with pooler(own, ignores=False) as pooled:
        with pytest.raises(SessionUnfit, match="unsupported startup parameter: "):
            await look(pooled)


async def test_check_says_which_settings_do_not_arrive(own: str) -> None:
    nowhere = settings_for("127.0.0.1:1", TopicNames("commands", "results", "transitions", "dead-letters"))
    async with pooler(own) as pooled:
        postgres = PostgresSettings.model_validate({"dsn": pooled})
        lines = {each.name: each for each in await check(nowhere.model_copy(update={"postgres": postgres}))}
    assert lines["database"].state == "ok"
    assert lines["sessions"].state == "failed"
    assert "lock_timeout is 0, not 2s" in lines["sessions"].detail
    assert "transaction_timeout" not in lines["sessions"].detail  # the session itself is told so
