"""The schema that a worker finds: its own, none, an older one, a newer one, or one that it may not work in."""

from collections.abc import AsyncIterator
from dataclasses import astuple
from uuid import uuid4

import asyncpg
import pytest

from tests.providers.postgres import DatabaseUnderTest
from worker.database import Database
from worker.errors import Unfit
from worker.migrate import apply_migrations, owner_connection
from worker.schema import SchemaUnfit, lacking_rights, require_schema


@pytest.fixture
async def owner(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    async with owner_connection(database.owner_dsn) as connection:
        yield connection


async def look(database: DatabaseUnderTest) -> None:
    """As a worker does at its start."""
    opened = await Database.open(database.worker_dsn, connections=1)
    try:
        async with opened.connection() as connection:
            await require_schema(connection)
    finally:
        await opened.close()


async def test_its_own_schema_is_fit(database: DatabaseUnderTest) -> None:
    await look(database)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE _pogo_version", "has not been migrated. Do so with: effective-worker migrate"),
        (
            "DELETE FROM _pogo_migration WHERE migration_id LIKE '0004%'",
            "the schema is older than this worker, pending: 0004_mended_lanes.*effective-worker migrate",
        ),
        (
            "INSERT INTO _pogo_migration VALUES ('hash', '9999_to_come', now(), 'public')",
            "this worker is older than the schema, to which was applied: 9999_to_come",
        ),
        (
            "REVOKE INSERT ON transition FROM effective_worker",
            "worker_login lacks INSERT on transition. Grant them with: effective-worker migrate",
        ),
        (
            "REVOKE UPDATE (updated_by_unit) ON access_token FROM effective_worker",
            "lacks UPDATE on access_token.updated_by_unit",
        ),
    ],
)
async def test_another_one_is_refused_with_the_way_out(
    database: DatabaseUnderTest, owner: asyncpg.Connection, change: str, said: str
) -> None:
    await owner.execute(change)

    with pytest.raises(SchemaUnfit, match=said):
        await look(database)


async def test_who_may_not_even_ask_which_schema_it_is_hears_of_the_right(
    database: DatabaseUnderTest, owner: asyncpg.Connection
) -> None:
    await owner.execute("REVOKE SELECT ON _pogo_version FROM effective_worker")

    with pytest.raises(Unfit, match=r"permission denied for table _pogo_version\. .*effective-worker migrate"):
        await look(database)


async def test_a_database_that_is_not_utf_8_is_refused(database: DatabaseUnderTest, owner: asyncpg.Connection) -> None:
    name = f"ascii_{uuid4().hex}"
    await owner.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    other = DatabaseUnderTest(*(each.replace(database.name, name) for each in astuple(database)))
    try:
        with pytest.raises(SchemaUnfit, match="the encoding of the database is SQL_ASCII, and must be UTF8"):
            await look(other)
        with pytest.raises(SchemaUnfit, match="must be UTF8"):
            await apply_migrations(other.owner_dsn)
    finally:
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_migrate_grants_again_what_was_revoked(database: DatabaseUnderTest, owner: asyncpg.Connection) -> None:
    await owner.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM effective_worker")
    assert await lacking_rights(owner, "effective_worker")

    assert await apply_migrations(database.owner_dsn, database.worker_dsn) == ()

    await look(database)
    assert await lacking_rights(owner, "effective_worker") == []
