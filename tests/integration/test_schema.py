"""The schema that a worker finds: its own, none, an older one, a newer one, or one that it may not work in."""

from collections.abc import AsyncIterator
from dataclasses import astuple
from typing import Final
from uuid import uuid4

import asyncpg
import pytest

from tests.providers.postgres import DatabaseUnderTest
from worker.demo.servers.postgres import Login, make_login
from worker.errors import Unfit
from worker.postgres.connect import owner_connection
from worker.postgres.migrate import apply_migrations
from worker.postgres.pool import Database
from worker.postgres.schema import DEFAULT_ROLE, SchemaUnfit, WorkerRole, lacking_rights, require_schema, surplus_rights


@pytest.fixture
async def owner(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    async with owner_connection(database.owner_dsn) as connection:
        yield connection


async def look(database: DatabaseUnderTest, role: WorkerRole = DEFAULT_ROLE) -> None:
    """Check as a worker does at its start."""
    opened = await Database.open(database.worker_dsn, connections=1)
    try:
        async with opened.connection() as connection:
            await require_schema(connection, role)
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
            "REVOKE EXECUTE ON FUNCTION retire_records FROM effective_worker",
            r"worker_login lacks EXECUTE on retire_records\(integer,interval,integer,bigint\)",
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


async def test_verification_codes_are_granted_where_they_are_revealed_and_nowhere_else(
    database: DatabaseUnderTest, owner: asyncpg.Connection
) -> None:
    revealing = WorkerRole(reveals_verification_codes=True)
    with pytest.raises(SchemaUnfit, match=r"lacks SELECT on access_token\.verification_code\. .*CODE=true"):
        await look(database, revealing)

    await apply_migrations(database.owner_dsn, role=revealing)
    await look(database, revealing)
    assert await surplus_rights(owner, "effective_worker", revealing) == []

    await apply_migrations(database.owner_dsn)
    assert await surplus_rights(owner, "effective_worker", DEFAULT_ROLE) == []
    assert await lacking_rights(owner, "effective_worker", revealing) == ["SELECT on access_token.verification_code"]


async def test_who_may_not_even_ask_which_schema_it_is_hears_of_the_right(
    database: DatabaseUnderTest, owner: asyncpg.Connection
) -> None:
    await owner.execute("REVOKE SELECT ON _pogo_version FROM effective_worker")

    with pytest.raises(
        Unfit, match=r"permission denied for table _pogo_version \(42501\)\. .*effective-worker migrate"
    ):
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
    assert await lacking_rights(owner, "effective_worker", DEFAULT_ROLE)

    assert await apply_migrations(database.owner_dsn, database.worker_dsn) == ()

    await look(database)
    assert await lacking_rights(owner, "effective_worker", DEFAULT_ROLE) == []


# --- rights too many --------------------------------------------------------------------------------------------------

TOO_MUCH: Final = {
    "GRANT UPDATE ON transition TO {user}": "UPDATE on transition",
    "GRANT DELETE ON command_record TO effective_worker": "DELETE on command_record",
    "GRANT SELECT ON access_token TO {user}": "SELECT on access_token",
    "GRANT SELECT (pass_code_hash) ON access_token TO {user}": "SELECT on access_token.pass_code_hash",
    "GRANT SELECT (verification_code) ON access_token TO effective_worker": "SELECT on access_token.verification_code",
    "GRANT SELECT ON import_run TO {user}": "SELECT on import_run",
    "GRANT UPDATE (pass_code_hash) ON access_token TO {user}": "UPDATE on access_token.pass_code_hash",
    "GRANT INSERT (name) ON organisation TO effective_worker": "INSERT on organisation.name",
    "GRANT DELETE ON contact TO PUBLIC": "DELETE on contact",
    "GRANT USAGE ON SEQUENCE lane_id_seq TO {user}": "USAGE on sequence lane_id_seq",
    "GRANT CREATE ON SCHEMA public TO {user}": "CREATE on schema public",
    "GRANT TEMPORARY ON DATABASE {name} TO PUBLIC": "TEMPORARY on the database",
    "GRANT CREATE ON DATABASE {name} TO {user}": "CREATE on the database",
    "GRANT CONNECT ON DATABASE {name} TO PUBLIC": "CONNECT of PUBLIC to the database",
    "GRANT EXECUTE ON FUNCTION refuse_transition() TO PUBLIC": "EXECUTE on refuse_transition()",
    "GRANT pg_read_all_settings TO {user}": "the rights of pg_read_all_settings",
    "ALTER ROLE {user} CREATEDB": "CREATEDB",
    "ALTER ROLE {user} CREATEROLE": "CREATEROLE",
    "ALTER ROLE {user} BYPASSRLS": "BYPASSRLS",
    "CREATE SCHEMA elsewhere; GRANT CREATE ON SCHEMA elsewhere TO {user}": "CREATE on schema elsewhere",
    "CREATE VIEW codes AS SELECT 1 AS code; GRANT SELECT ON codes TO {user}": "SELECT on codes",
}
"""Grants of an administrator, and the name that each is reported by."""


@pytest.fixture
async def user(database: DatabaseUnderTest, owner: asyncpg.Connection) -> AsyncIterator[str]:
    """Yield a login of this test's own, whose rights no other test uses."""
    login = Login(f"worker_{uuid4().hex[:8]}", "canary")
    await make_login(database.owner_dsn, login)
    await owner.execute(f"GRANT effective_worker TO {login.user}")
    yield login.user
    await owner.execute(f"DROP OWNED BY {login.user}")
    await owner.execute(f"DROP ROLE {login.user}")


@pytest.mark.parametrize("granted", TOO_MUCH)
async def test_whatever_is_granted_too_much_is_named(
    database: DatabaseUnderTest, owner: asyncpg.Connection, user: str, granted: str
) -> None:
    assert await surplus_rights(owner, user, DEFAULT_ROLE) == []

    await owner.execute(granted.format(user=user, name=database.name))

    assert await surplus_rights(owner, user, DEFAULT_ROLE) == [TOO_MUCH[granted]]


async def test_of_a_superuser_that_comes_first(owner: asyncpg.Connection, user: str) -> None:
    await owner.execute(f"ALTER ROLE {user} SUPERUSER")

    first, *others = await surplus_rights(owner, user, DEFAULT_ROLE)

    assert first == "SUPERUSER"
    assert "TRUNCATE on transition" in others


async def test_migrate_takes_from_public_what_a_copy_of_the_database_has_given_it(
    database: DatabaseUnderTest, owner: asyncpg.Connection
) -> None:
    await owner.execute(f"GRANT ALL ON DATABASE {database.name} TO PUBLIC")
    await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert await surplus_rights(owner, "effective_worker", DEFAULT_ROLE) == [
        "CONNECT of PUBLIC to the database",
        "CREATE on the database",
        "TEMPORARY on the database",
        "CREATE on schema public",
    ]

    assert await apply_migrations(database.owner_dsn, database.worker_dsn) == ()

    assert await surplus_rights(owner, "effective_worker", DEFAULT_ROLE) == []
    await look(database)
