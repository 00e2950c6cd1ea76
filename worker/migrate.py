"""Bring the schema up to date, whoever else is doing so at the same moment."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from pogo_core.error import BadMigrationError
from pogo_core.util import migrate as pogo

from worker.database import CONNECT_SECONDS, SERVER_SETTINGS
from worker.dsn import read_dsn
from worker.errors import POSTGRES_ERRORS, WorkerError, from_postgres
from worker.schema import MIGRATIONS, NAME, lacking_rights, require_utf8
from worker.schema import pending as pending_of
from worker.sql import statement

WORKER_ROLE: Final = "effective_worker"
ALONE_SECONDS: Final = 0.1
_OF_EVERY_SESSION: Final = ("application_name", "timezone", "search_path", "default_transaction_isolation")
# Any number does, as long as every release takes the same one.
_LOCK_KEY: Final = 0x0EFF_EC71_7E00
_QUIET: Final = logging.getLogger("worker.migrate.pogo")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class MigrationError(WorkerError):
    """A migration or the grant of the worker's role failed; the text says what to do."""


async def apply_migrations(owner_dsn: str, worker_dsn: str | None = None) -> tuple[str, ...]:
    """Apply what is pending and let the user of ``worker_dsn`` work. Returns the names applied, oldest first.

    Safe to run twice or by several at once: the others wait for the first. Raises ``MigrationError``,
    ``SchemaUnfit`` and ``DependencyAway``.
    """
    async with owner_connection(owner_dsn) as connection:
        await _alone(connection)
        await require_utf8(connection)
        before = await pending_of(connection)
        if before:
            try:
                await pogo.apply(connection, MIGRATIONS, schema_name=NAME, logger=_QUIET)
            except BadMigrationError as error:
                raise MigrationError(f"{error}: {_cause(error)}") from error
        if before or await lacking_rights(connection, WORKER_ROLE):
            await connection.execute(statement("worker_rights"))
        if worker_dsn is not None:
            await _let_work(connection, user_of(worker_dsn))
        return before


async def _alone(connection: asyncpg.Connection) -> None:
    """Wait until nobody else migrates, and let nobody else. A statement that waited would be one that indexes wait for.

    For the session, so that it also covers the tables in which the library keeps its own account.
    """
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):  # noqa: ASYNC110 - it is Postgres that knows
        await asyncio.sleep(ALONE_SECONDS)


async def pending(owner_dsn: str) -> tuple[str, ...]:
    """The names of the migrations that are not applied yet, oldest first. Writes nothing. Raises ``DependencyAway``."""
    async with owner_connection(owner_dsn) as connection:
        return await pending_of(connection)


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, asyncpg.InsufficientPrivilegeError):
        return f"{cause}; the owner needs the rights to create tables and roles (CREATEROLE)"
    return str(cause or error)


async def _let_work(connection: asyncpg.Connection, user: str) -> None:
    """Make ``user`` a member of the worker's role. The owner and superusers may do everything already."""
    if await connection.fetchval("SELECT current_user") == user:
        return
    quoted = '"' + user.replace('"', '""') + '"'
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", user):
        raise MigrationError(
            f"the user {quoted} of WORKER_POSTGRES__DSN does not exist; create it and migrate again: "
            f"CREATE ROLE {quoted} LOGIN PASSWORD '...' IN ROLE {WORKER_ROLE};"
        )
    if await connection.fetchval("SELECT pg_has_role($1::name, $2::name, 'MEMBER')", user, WORKER_ROLE):
        return
    try:
        await connection.execute(f"GRANT {WORKER_ROLE} TO {quoted}")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"the owner may not make {quoted} a member of {WORKER_ROLE}; let an administrator say: "
            f"GRANT {WORKER_ROLE} TO {quoted};"
        ) from error


def user_of(dsn: str) -> str:
    """The Postgres user whom ``dsn`` names, by the rules of libpq."""
    parts = urlsplit(dsn)
    named = unquote(parts.username) if parts.username else parse_qs(parts.query).get("user", [""])[0]
    return named or os.environ.get("PGUSER") or getuser()


@asynccontextmanager
async def owner_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the schema's owner, without the worker's timeouts. Errors come out mapped (``worker.errors``).

    Raises ``DsnUnusable``.
    """
    address = read_dsn(dsn)
    session = {name: SERVER_SETTINGS[name] for name in _OF_EVERY_SESSION} | address.session
    try:
        connection = await asyncpg.connect(
            address.dsn, timeout=address.connect_seconds or CONNECT_SECONDS, server_settings=session
        )
        address.set_socket(connection)
    except POSTGRES_ERRORS as error:
        raise from_postgres(error) from error
    try:
        yield connection
    except POSTGRES_ERRORS as error:
        raise from_postgres(error) from error
    finally:
        await _close(connection)


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=CONNECT_SECONDS)
    except POSTGRES_ERRORS:
        connection.terminate()
