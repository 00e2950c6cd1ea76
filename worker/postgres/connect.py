"""A connection of the schema's owner, for migrations and for the commands of an operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from worker.dsn import read_dsn
from worker.errors import POSTGRES_ERRORS, from_postgres
from worker.postgres.pool import CONNECT_SECONDS, SERVER_SETTINGS

_OF_EVERY_SESSION: Final = ("application_name", "timezone", "search_path", "default_transaction_isolation")


@asynccontextmanager
async def owner_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of the schema's owner, without the worker's timeouts. Errors are mapped (``worker.errors``).

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
        raise from_postgres(error, address.servers) from error
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
