"""The schema comes up to date once, whoever asks and however often."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from worker.dsn import DsnUnusable
from worker.embedded.postgres import Login, make_database, make_login
from worker.errors import DependencyAway
from worker.migrate import MigrationError, apply_migrations, owner_connection, pending, user_of
from worker.schema import NEEDED as ALL


@pytest.fixture
async def empty(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The owner's DSN of a database with nothing in it."""
    await postgres_server.start()
    name = f"empty_{uuid4().hex}"
    await make_database(postgres_server.owner_dsn, name)
    yield postgres_server.dsn(name)
    async with owner_connection(postgres_server.owner_dsn) as connection:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def stranger(postgres_server: PostgresServer) -> AsyncIterator[Login]:
    """A role that was granted nothing."""
    login = Login(f"stranger-{uuid4().hex[:8]}", "stranger's own")
    await make_login(postgres_server.owner_dsn, login)
    yield login
    async with owner_connection(postgres_server.owner_dsn) as connection:
        await connection.execute(f'DROP OWNED BY "{login.user}"')
        await connection.execute(f'DROP ROLE "{login.user}"')


async def test_everything_is_pending_until_it_is_applied(empty: str) -> None:
    assert await pending(empty) == ALL
    assert await apply_migrations(empty) == ALL
    assert await pending(empty) == ()


async def test_asking_what_is_pending_writes_nothing(empty: str) -> None:
    await pending(empty)
    async with owner_connection(empty) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_a_second_run_applies_nothing(empty: str) -> None:
    await apply_migrations(empty)
    assert await apply_migrations(empty) == ()


async def test_several_at_once_apply_each_migration_once(empty: str) -> None:
    applied = await asyncio.gather(*(apply_migrations(empty) for _ in range(5)))
    assert sorted(applied) == [(), (), (), (), ALL]


async def test_the_user_of_the_worker_may_work_and_no_more(
    empty: str, stranger: Login, postgres_server: PostgresServer
) -> None:
    dsn = postgres_server.dsn(empty.rpartition("/")[2].partition("?")[0], stranger)
    await apply_migrations(empty, dsn)
    async with owner_connection(dsn) as connection:
        assert await connection.fetchval("SELECT count(*) FROM access_token") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM access_token")
    assert await pending(dsn) == ()


async def test_a_user_that_does_not_exist_is_named_with_the_statement_that_makes_it(empty: str) -> None:
    with pytest.raises(MigrationError, match=r'CREATE ROLE "no ""body" LOGIN PASSWORD .* IN ROLE effective_worker'):
        await apply_migrations(empty, "postgresql://no%20%22body:canary@localhost/x")
    assert await pending(empty) == ()


async def test_an_owner_without_the_rights_is_told_which(
    stranger: Login, database: DatabaseUnderTest, postgres_server: PostgresServer
) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("UPDATE _pogo_migration SET migration_id = 'another'")
        await connection.execute(f'GRANT ALL ON _pogo_migration, _pogo_version TO "{stranger.user}"')
    with pytest.raises(MigrationError, match="permission denied"):
        await apply_migrations(postgres_server.dsn(database.name, stranger))


async def test_an_owner_who_may_not_make_roles_migrates_where_the_role_is_there(
    stranger: Login, empty: str, database: DatabaseUnderTest, postgres_server: PostgresServer
) -> None:
    """``database`` has been migrated, so its server knows the role."""
    name = empty.rpartition("/")[2].partition("?")[0]
    async with owner_connection(empty) as connection:
        await connection.execute(f'ALTER DATABASE "{name}" OWNER TO "{stranger.user}"')
    assert await apply_migrations(postgres_server.dsn(name, stranger)) == ALL


async def test_a_server_that_is_away_is_a_dependency_that_is_away() -> None:
    with pytest.raises(DependencyAway):
        await pending("postgresql://owner:canary@127.0.0.1:1/effective")


@pytest.mark.parametrize("dsn", ["postgresql://owner:canary@host:port:1/x", "canary", "postgresql://[canary/x"])
async def test_a_dsn_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    with pytest.raises(DsnUnusable) as raised:
        await pending(dsn)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("dsn", "user"),
    [
        ("postgresql://worker:secret@host/db", "worker"),
        ("postgresql://a%40b@host/db", "a@b"),
        ("postgresql://host/db?user=worker", "worker"),
        ("postgresql://host/db", "from-environment"),
    ],
)
def test_the_user_of_a_dsn_is_found_as_libpq_finds_it(dsn: str, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGUSER", "from-environment")
    assert user_of(dsn) == user
