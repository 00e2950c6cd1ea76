"""The schema is migrated once, by any owner and after any number of attempts."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.support.connections import connected
from tests.support.waiting import in_time, until, until_answered
from worker.demo.servers.postgres import Login, make_database, make_login
from worker.dsn import DsnUnusable
from worker.errors import DependencyUnavailable
from worker.postgres.connect import owner_connection
from worker.postgres.migrate import RENEWS_RULE, MigrationError, apply_migrations, pending, user_of
from worker.postgres.schema import DEFAULT_ROLE, MIGRATIONS, WorkerRole, lacking_rights, surplus_rights
from worker.postgres.schema import NEEDED as ALL


@pytest.fixture
async def empty(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Yield the owner's DSN of a database with nothing in it."""
    await postgres_server.start()
    name = f"empty_{uuid4().hex}"
    await make_database(postgres_server.owner_dsn, name)
    yield postgres_server.dsn(name)
    async with owner_connection(postgres_server.owner_dsn) as connection:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def stranger(postgres_server: PostgresServer) -> AsyncIterator[Login]:
    """Yield a role that was granted nothing."""
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


class BusyLane:
    """A lane that commits batch after batch, and waits for locks no longer than a lane does."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.batches = 0

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            async with self._connection.transaction():
                self.batches += 1
                await self._connection.execute(
                    "UPDATE lane SET first_offset = next_offset, next_offset = next_offset + 1"
                )
                await self._connection.execute("SELECT FROM access_token FOR NO KEY UPDATE")
                await self._connection.execute(TRANSITION, self.batches)
                await self._connection.execute(RECORD, self.batches)


LANE: Final = """
INSERT INTO organisation (id, name) VALUES ('O', 'O');
INSERT INTO access_token (organisation, id, number, life_cycle_state) VALUES ('O', 'T', 'N', 'NOT_EFFECTIVE');
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)
    VALUES ('c', 'g', 't', 0, gen_random_uuid(), now(), 0, 0)
"""
TRANSITION: Final = """
INSERT INTO transition (organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id,
        command_id, cause, lane, sequence, previous_hash, hash)
    SELECT 'O', 'T' || $1::bigint, 1, 'NOT_EFFECTIVE', 'EFFECTIVE', now(), 'U', '1', $1::text, 'API', 1, $1, sha256(''),
        sha256('')
"""
RECORD: Final = """
INSERT INTO command_record (lane, record_offset, record_timestamp, command_key, command_id, status, message, replayed,
        fields, decided_at)
    SELECT 1, $1::bigint, 1, gen_random_uuid(), $1::text, 'ACCESS_DENIED', '', false, 0, now()
"""


async def rights_then(connection: asyncpg.Connection, role: WorkerRole) -> None:
    """Grant all that an earlier release granted after its migrations, which grant the rest."""
    await connection.execute(f"GRANT SELECT ON _pogo_migration, _pogo_version TO {role.name}")


@pytest.fixture
def migrated_before(empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Awaitable[None]]:
    """Migrate the database to the release before the one that brought a migration, then to this one."""

    async def migrate(name: str) -> None:
        for earlier in ALL[: ALL.index(name)]:
            shutil.copy(MIGRATIONS / f"{earlier}.sql", tmp_path)
        with monkeypatch.context() as release:
            release.setattr("worker.postgres.migrate.MIGRATIONS", tmp_path)
            release.setattr("worker.postgres.migrate.give_rights", rights_then)
            await apply_migrations(empty)

    monkeypatch.setattr("worker.postgres.migrate.LOCK_PAUSE_SECONDS", 0.2)
    return migrate


@pytest.mark.parametrize("name", ALL[1:])
async def test_no_lane_waits_for_a_migration_that_waits_for_a_long_snapshot(
    empty: str, migrated_before: Callable[[str], Awaitable[None]], name: str
) -> None:
    await migrated_before(name)
    async with connected(empty) as other, connected(empty, lock_timeout="2s") as connection:
        await other.execute(LANE)
        lane, stop = BusyLane(connection), asyncio.Event()
        working = asyncio.ensure_future(lane.work(stop))
        snapshot = other.transaction(isolation="repeatable_read")
        await snapshot.start()
        for table in ("lane", "access_token", "transition", "command_record"):
            await other.execute(f"SELECT FROM {table}")

        migrating = asyncio.ensure_future(apply_migrations(empty))
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"

        async def held_up() -> bool:
            return migrating.done() or bool(await other.fetchval(waits))

        await until_answered(held_up, bool, what="the migration waited, or was over")
        before = lane.batches
        await until(lambda: lane.batches, lambda done: done > before + 50 or working.done(), what="the lane went on")
        await snapshot.rollback()
        assert name in await in_time(migrating, "the migration was over")
        stop.set()
        await in_time(working, "the lane had waited for nothing too long")
    assert await pending(empty) == ()


async def test_a_lock_that_is_never_there_is_given_up_with_a_word_on_who_may_hold_it(
    empty: str, migrated_before: Callable[[str], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.postgres.migrate.LOCK_TRIES", 2)
    name = "0004_mended_lanes"
    await migrated_before(name)
    async with connected(empty, application_name="a report") as other, other.transaction():
        await other.execute("SELECT FROM lane")
        pid = other.get_server_pid()

        with capture_logs() as lines, pytest.raises(MigrationError) as raised:
            await apply_migrations(empty)

    assert re.search(rf"{name} did not get a lock .* process {pid} of .* \(a report\), \d+ s old", str(raised.value))
    assert [line["event"] for line in lines] == ["migration_waits"] * 2
    assert await apply_migrations(empty) == ALL[ALL.index(name) :]


THEN: Final = """
GRANT USAGE ON SCHEMA public TO effective_worker;
GRANT SELECT ON organisation, unit, app_user, revoked_login, contact, accounts_receivable, rewards_participant,
    classification, access_token, lane, transition, command_record, command_loss, attempt TO effective_worker;
GRANT INSERT ON transition, command_record, command_loss, lane TO effective_worker;
GRANT UPDATE (settled) ON command_loss TO effective_worker;
GRANT INSERT, DELETE, UPDATE (failed, forgiven, last_at) ON attempt TO effective_worker;
GRANT DELETE ON command_record TO effective_worker;
GRANT UPDATE (life_cycle_state, version, updated_date, updated_by_user, updated_by_unit) ON access_token
    TO effective_worker;
GRANT UPDATE (owner, owned_since, first_offset, next_offset, chain_sequence, chain_hash, ordered_offset, topic_id,
    last_offset, last_timestamp, blocked, blocked_since) ON lane TO effective_worker;
"""
"""The rights of the worker's role before functions did a part of its work."""


async def test_what_an_earlier_release_has_granted_and_nobody_needs_any_more_is_taken(
    empty: str, migrated_before: Callable[[str], Awaitable[None]]
) -> None:
    await migrated_before("0015_retention_by_function")
    async with owner_connection(empty) as connection:
        await connection.execute(THEN)

        await apply_migrations(empty)

        assert await lacking_rights(connection, "effective_worker", DEFAULT_ROLE) == []
        assert await surplus_rights(connection, "effective_worker", DEFAULT_ROLE) == []


async def test_the_rule_of_0002_is_the_same_whichever_way_it_came(
    empty: str, migrated_before: Callable[[str], Awaitable[None]], database: DatabaseUnderTest
) -> None:
    rule = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 'transition_rule%'"
    await migrated_before(RENEWS_RULE)
    await apply_migrations(empty)

    async with connected(empty) as online, connected(database.owner_dsn) as fresh:
        assert await online.fetch(rule) == await fresh.fetch(rule) != []


async def test_where_there_are_transitions_0002_is_not_run_as_it_was_released(
    empty: str, migrated_before: Callable[[str], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrated_before(RENEWS_RULE)
    for name in ALL:
        shutil.copy(MIGRATIONS / f"{name}.sql", tmp_path)
    released = tmp_path / f"{RENEWS_RULE}.sql"
    released.write_text(released.read_text().replace("-- migrate: apply", "-- migrate: apply\n\nSELECT 1 / 0;\n", 1))
    monkeypatch.setattr("worker.postgres.migrate.MIGRATIONS", tmp_path)

    assert await apply_migrations(empty) == ALL[1:]


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
    with pytest.raises(MigrationError, match=r'CREATE ROLE "no ""body" LOGIN PASSWORD .* IN ROLE "effective_worker"'):
        await apply_migrations(empty, "postgresql://no%20%22body:canary@localhost/x")
    assert await pending(empty) == ()


async def test_an_owner_without_the_rights_is_told_which(
    stranger: Login, database: DatabaseUnderTest, postgres_server: PostgresServer
) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("UPDATE _pogo_migration SET migration_id = 'another'")
        await connection.execute(f'GRANT ALL ON _pogo_migration, _pogo_version TO "{stranger.user}"')
        await connection.execute(f'GRANT CONNECT ON DATABASE "{database.name}" TO "{stranger.user}"')
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
    with pytest.raises(DependencyUnavailable):
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
