"""Connections to Postgres, and the transaction that a batch is given.

No step of the journey takes a connection of its own: a transaction is an argument.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker.dsn import read_dsn
from worker.errors import POSTGRES_ERRORS, SessionUnfit, from_postgres, is_read_only
from worker.postgres.sql import statement

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Row = asyncpg.Record

# A stalled worker must not hold up its successor: the server ends whatever waits or idles for longer than this.
SERVER_SETTINGS = {
    "application_name": "effective-worker",
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    # A role or a database may have settings of its own, with which the worker was never tested.
    "search_path": "public",
    "default_transaction_isolation": "read committed",
    # Every statement is planned once per connection, and again when a table's statistics change. Planning for each
    # batch would take half of a lone command's time, and find the same plan (tests/integration/test_plans.py).
    "plan_cache_mode": "force_generic_plan",
    # A batch looks rows up by key, however small a table is at the time of planning: it grows by thousands of rows a
    # second, and a plan that reads all of it would stay until Postgres next analyses it (DESIGN 6).
    "enable_seqscan": "off",
}
TRANSACTION_TIMEOUT = "20s"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""A safety net for a dead network: longer than any server-side timeout above, so that the server speaks first."""


class Database:
    """The worker's pool. Opening it does not connect, so that a worker may start before its Postgres does."""

    def __init__(self, pool: asyncpg.Pool, servers: str | None = None) -> None:
        """``servers`` are host and port of each, for the error when none answers."""
        self._pool = pool
        self._servers = servers

    @classmethod
    async def open(cls, dsn: str, *, connections: int) -> "Database":
        """Make the pool, of at most ``connections``. Raises ``DsnUnusable``."""
        address = read_dsn(dsn)

        async def set_up(connection: asyncpg.Connection) -> None:
            address.set_socket(connection)
            await _bound_transactions(connection)
            await _require_kept(connection)

        pool = await asyncpg.create_pool(
            address.dsn,
            min_size=0,
            max_size=connections,
            timeout=address.connect_seconds or CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=SERVER_SETTINGS | address.session,
            init=set_up,
            reset=_keep_session,
        )
        return cls(pool, address.servers)

    async def close(self) -> None:
        """Close the connections; those that do not answer are dropped."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection outside a transaction. Its errors are mapped (``worker.errors``)."""
        try:
            # No deadline here: every holder of a connection has one, and a busy pool is not the fault of Postgres.
            async with self._pool.acquire() as connection:
                yield connection
        except POSTGRES_ERRORS as error:
            if is_read_only(error):
                await self._pool.expire_connections()
            raise from_postgres(error, self._servers) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a READ COMMITTED transaction, committed at the end of the block. Its errors are mapped."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def look(self) -> None:
        """Raise ``DependencyUnavailable`` if Postgres does not answer."""
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")


@asynccontextmanager
async def rolled_back(transaction: Connection) -> AsyncIterator[None]:
    """Run the block as a part of a transaction that leaves nothing behind, neither rows nor locks, however it ends.

    Constraints that are deferred to the commit are checked at the end of the block.
    """
    savepoint = transaction.transaction()
    await savepoint.start()
    try:
        yield
        await transaction.execute(statement("connection/constraints_now"))
    finally:
        await savepoint.rollback()


async def _bound_transactions(connection: asyncpg.Connection) -> None:
    """Bound transactions: a worker that stalls between two messages of one statement is not idle to Postgres."""
    if _bounds_transactions(connection):
        await connection.execute(f"SET transaction_timeout = '{TRANSACTION_TIMEOUT}'")


def _bounds_transactions(connection: asyncpg.Connection) -> bool:
    return connection.get_server_version() >= (17,)  # older ones have no such setting


async def _require_kept(connection: asyncpg.Connection) -> None:
    """Read back the settings, which a pooler may not pass on. Raises ``SessionUnfit``."""
    wanted = {name: value for name, value in SERVER_SETTINGS.items() if name != "application_name"}
    if _bounds_transactions(connection):
        wanted["transaction_timeout"] = TRANSACTION_TIMEOUT
    found = {row["name"]: row["value"] for row in await connection.fetch(statement("connection/session"), list(wanted))}
    lost = {name: value for name, value in wanted.items() if found[name] != value}
    if lost:
        raise SessionUnfit(", ".join(f"{name} is {found[name]}, not {value}" for name, value in lost.items()))


async def _keep_session(_: Any) -> None:
    """Release a connection without a round trip: the journey leaves nothing in a session that would need a reset."""
