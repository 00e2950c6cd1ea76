"""The roles that an installation needs in Postgres, whatever role made them, and other installations beside it."""

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from tests.providers.postgres import OWN_PROVIDERS, PostgresServer, choose
from tests.support import preloaded
from tests.support.logins import SECRET
from worker.demo.servers.postgres import Login
from worker.operations.check import Check, check
from worker.postgres.connect import owner_connection
from worker.postgres.migrate import MigrationError, apply_migrations, pending
from worker.postgres.schema import NEEDED, WorkerRole, quoted
from worker.settings import Settings, read_settings

OPERATING: Final = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Installation:
    """A database, an owner without any rights elsewhere, and a login for workers, on a server of many."""

    server: PostgresServer
    database: str
    owner: Login
    worker: Login
    role: str

    @property
    def owner_dsn(self) -> str:
        return self.server.dsn(quote(self.database, safe=""), self.owner)

    @property
    def worker_dsn(self) -> str:
        return self.server.dsn(quote(self.database, safe=""), self.worker)

    async def migrate(self) -> tuple[str, ...]:
        return await apply_migrations(self.owner_dsn, self.worker_dsn, role=WorkerRole(self.role))

    def settings(self) -> Settings:
        return read_settings(
            {
                "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
                "WORKER_POSTGRES__DSN": self.worker_dsn,
                "WORKER_POSTGRES__ROLE": self.role,
                "WORKER_LOGIN__SECRETS": SECRET,
            }
        )

    async def checked(self) -> dict[str, Check]:
        return {each.name: each for each in await check(self.settings())}


@asynccontextmanager
async def installed(server: PostgresServer, kind: str, attribute: str = "") -> AsyncIterator[Installation]:
    """Yield an installation that is not migrated yet, with names that must be quoted; it is removed at the end."""
    await server.start()
    suffix = uuid4().hex[:8]
    names = [f'{kind} {part} "{suffix}"' for part in ("database", "owner", "worker", "role")]
    database, owner, worker, role = names
    installation = Installation(
        server, database, Login(owner, secrets.token_hex(8)), Login(worker, secrets.token_hex(8)), role
    )
    async with owner_connection(server.owner_dsn) as connection:
        for login, attributes in ((installation.owner, attribute), (installation.worker, "")):
            await connection.execute(f"CREATE ROLE {quoted(login.user)} LOGIN {attributes} PASSWORD '{login.password}'")
        await connection.execute(f"CREATE DATABASE {quoted(database)} OWNER {quoted(owner)}")
    yield installation
    async with owner_connection(server.owner_dsn) as connection:
        await connection.execute(f"DROP DATABASE {quoted(database)} WITH (FORCE)")
        for name in (worker, role, owner):
            await connection.execute(f"DROP ROLE IF EXISTS {quoted(name)}")


@pytest.fixture
async def one(postgres_server: PostgresServer) -> AsyncIterator[Installation]:
    """Yield an installation whose owner may make roles, but has no say over those of others."""
    async with installed(postgres_server, "one", "CREATEROLE") as installation:
        yield installation


@pytest.fixture
async def other(postgres_server: PostgresServer) -> AsyncIterator[Installation]:
    """Yield another one."""
    async with installed(postgres_server, "other", "CREATEROLE") as installation:
        yield installation


@pytest.fixture
async def humble(postgres_server: PostgresServer) -> AsyncIterator[Installation]:
    """Yield an installation whose owner may make no roles."""
    async with installed(postgres_server, "humble") as installation:
        yield installation


async def test_two_installations_share_a_server_and_no_right(one: Installation, other: Installation) -> None:
    for installation in (one, other):
        assert await installation.migrate() == NEEDED
        assert await installation.migrate() == ()

    for installation in (one, other):
        lines = await installation.checked()
        assert [lines[name].state for name in ("database", "sessions", "schema", "grants")] == ["ok"] * 4, lines
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
        await asyncpg.connect(one.server.dsn(quote(one.database, safe=""), other.worker))


async def test_another_installations_role_is_told_with_the_grant_and_with_the_setting(
    one: Installation, other: Installation
) -> None:
    await one.migrate()

    with pytest.raises(MigrationError) as raised:
        await apply_migrations(other.owner_dsn, other.worker_dsn, role=WorkerRole(one.role))

    assert f"GRANT {quoted(one.role)} TO {quoted(other.worker.user)};" in str(raised.value)
    assert "WORKER_POSTGRES__ROLE" in str(raised.value)


async def test_an_owner_who_may_make_no_role_is_told_which_one_before_anything_is_applied(
    humble: Installation,
) -> None:
    with pytest.raises(MigrationError) as raised:
        await humble.migrate()

    assert await pending(humble.owner_dsn) == NEEDED
    await administrate(humble, told(str(raised.value)))
    with pytest.raises(MigrationError) as raised:
        await humble.migrate()

    await administrate(humble, told(str(raised.value)))
    assert await humble.migrate() == ()
    assert (await humble.checked())["grants"].state == "ok"


async def test_check_names_the_grant_that_a_login_lacks(one: Installation) -> None:
    await one.migrate()
    grant = f"GRANT {quoted(one.role)} TO {quoted(one.worker.user)};"
    async with owner_connection(one.owner_dsn) as connection:  # the role that has granted it must revoke it
        await connection.execute(f"REVOKE {quoted(one.role)} FROM {quoted(one.worker.user)}")

    line = (await one.checked())["grants"]
    assert (line.state, told(line.detail)) == ("failed", grant)

    await administrate(one, f"GRANT CONNECT ON DATABASE {quoted(one.database)} TO {quoted(one.worker.user)}")
    line = (await one.checked())["grants"]
    assert (line.state, told(line.detail)) == ("failed", grant)

    await administrate(one, f"REVOKE ALL ON DATABASE {quoted(one.database)} FROM {quoted(one.worker.user)}; {grant}")
    assert (await one.checked())["grants"].state == "ok"


def told(text: str) -> str:
    """Return the statements that a message tells an administrator to run."""
    [statements] = re.findall(r"let an administrator say: (.*;)", text)
    return str(statements)


async def administrate(installation: Installation, statements: str) -> None:
    async with owner_connection(installation.server.owner_dsn) as connection:
        await connection.execute(statements)


def test_the_lines_of_the_documents_make_the_roles(tmp_path: Path) -> None:
    """On a server that knows none of them yet."""
    [lines] = re.findall(r"```sql\n(CREATE ROLE .*?)\n```", OPERATING, re.DOTALL)
    [database] = re.findall(r"```sql\n(CREATE DATABASE .*?;)\n```", OPERATING)
    assert len(lines.splitlines()) == 3
    server = asyncio.run(choose(OWN_PROVIDERS))
    try:
        for statement in (lines, database):
            asyncio.run(carried_out(server, statement))
        migrated, checked = (
            preloaded.run_to_end(command, cwd=tmp_path, env=environment(server))
            for command in (["migrate"], ["check", "--json"])
        )
    finally:
        asyncio.run(server.dispose())

    assert migrated.returncode == 0, migrated.stderr
    states = {line["name"]: line["state"] for line in json.loads(checked.stdout)["checks"]}
    assert [states[name] for name in ("database", "sessions", "schema", "grants")] == ["ok"] * 4, checked.stdout


async def carried_out(server: PostgresServer, statement: str) -> None:
    async with owner_connection(server.owner_dsn) as connection:
        await connection.execute(statement)


def environment(server: PostgresServer) -> dict[str, str]:
    dsn = {name: server.dsn("effective", Login(name, "...")) for name in ("worker", "owner")}
    return os.environ | {
        "PYTHONPATH": str(preloaded.ROOT),
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "WORKER_POSTGRES__DSN": dsn["worker"],
        "WORKER_POSTGRES__OWNER_DSN": dsn["owner"],
        "WORKER_LOGIN__SECRETS": SECRET,
    }
