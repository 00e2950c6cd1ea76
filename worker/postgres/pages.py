"""Read millions of rows in pages, each in a transaction of its own that is over in milliseconds.

A snapshot that stays open keeps Postgres from removing the versions of rows that came after it, and every batch of
every lane would have to step over them (DESIGN 2).
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import asyncpg

from worker.postgres.pool import Row
from worker.postgres.sql import statement

ROWS: Final = 1_000
"""The most rows of a page."""


async def pages(
    connection: asyncpg.Connection, query: str, begin: tuple[Any, ...], key: Callable[[Row], tuple[Any, ...]], *of: Any
) -> AsyncIterator[list[Row]]:
    """Yield the pages of a query for the rows after a key, in the order of their keys; the last one may be short.

    The query's parameters are ``of``, then the members of the key, of which ``begin`` is the first, then the number of
    rows.
    """
    after = begin
    while rows := await connection.fetch(query, *of, *after, ROWS):
        yield rows
        if len(rows) < ROWS:
            return
        after = key(rows[-1])


async def by_token(
    connection: asyncpg.Connection, query: str, *, organisation: str | None, on_page: Callable[[int], None]
) -> AsyncIterator[Row]:
    """Yield the rows of a query about access tokens and their histories, for all of them or for one ``organisation``.

    The query's parameters are two keys of access tokens: it reads after the first, up to and with the second.
    ``on_page`` gets the number of access tokens of each page.
    """
    after = (organisation or "", "")
    next_ = statement("audit/tokens") if organisation is None else statement("audit/tokens_of_organisation")
    while (last := await connection.fetchrow(next_, *after, ROWS)) is not None:
        until = (last["organisation"], last["id"])
        for row in await connection.fetch(query, *after, *until):
            yield row
        on_page(last["tokens"])
        after = until
