"""Bring the schema up to date, safely even if other processes do so at the same moment."""

import asyncio
import logging
import os
from getpass import getuser
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import structlog
from pogo_core.error import BadMigrationError
from pogo_core.migration import Migration
from pogo_core.util import migrate as pogo
from pogo_core.util import sql as pogo_sql

from worker.errors import OperatorError
from worker.postgres.connect import owner_connection
from worker.postgres.schema import (
    DEFAULT_ROLE,
    MIGRATIONS,
    NAME,
    WorkerRole,
    give_rights,
    lacking_rights,
    quoted,
    require_utf8,
    surplus_rights,
    to_join,
)
from worker.postgres.schema import pending as pending_of
from worker.postgres.sql import statement

RENEWS_RULE: Final = "0002_imported_anew"
LOCK_TIMEOUT: Final = "500ms"
"""Less than a lane waits for a lock: a waiting migration holds up all lanes behind it."""
LOCK_PAUSE_SECONDS: Final = 5.0
LOCK_TRIES: Final = 120
ALONE_SECONDS: Final = 0.1
_IS_ROLE: Final = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
# Any number serves, as long as every release takes the same one.
_LOCK_KEY: Final = 0x0EFF_EC71_7E00
_QUIET: Final = logging.getLogger("worker.postgres.migrate.pogo")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

log = structlog.get_logger(__name__)


class MigrationError(OperatorError):
    """A migration or the grant of the worker's role failed; the text says what to do."""


async def apply_migrations(
    owner_dsn: str, worker_dsn: str | None = None, *, role: WorkerRole = DEFAULT_ROLE
) -> tuple[str, ...]:
    """Apply pending migrations, give ``role`` its rights, and let the user of ``worker_dsn`` work as a member of it.

    Returns the names applied, oldest first.

    Safe to run twice or by several at once: the others wait for the first, and no lane waits. Raises
    ``MigrationError``, ``SchemaUnfit`` and ``DependencyUnavailable``.
    """
    async with owner_connection(owner_dsn) as connection:
        await _alone(connection)
        await require_utf8(connection)
        await _make_role(connection, role)
        before = await pending_of(connection)
        if before:
            await _apply_patiently(connection)
        if before or await _unlike(connection, role):
            await give_rights(connection, role)
        if worker_dsn is not None:
            await _let_work(connection, user_of(worker_dsn), role)
        return before


async def _unlike(connection: asyncpg.Connection, role: WorkerRole) -> bool:
    """True if the role's rights are not those of a worker."""
    return bool(await lacking_rights(connection, role.name, role) or await surplus_rights(connection, role.name, role))


async def _apply_patiently(connection: asyncpg.Connection) -> None:
    """Apply pending migrations without holding up the lanes: a lock that is not free at once is tried again later.

    A session that waits for a table's lock holds up every later one, every lane included. Raises ``MigrationError``.
    """
    held_up = ""
    for _ in range(LOCK_TRIES):
        await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        try:
            await _renew_rule(connection)
            await pogo.apply(connection, MIGRATIONS, schema_name=NAME, logger=_QUIET)
        except (BadMigrationError, asyncpg.LockNotAvailableError) as error:
            if not isinstance(error.__cause__ or error, asyncpg.LockNotAvailableError):
                raise MigrationError(f"{error}: {_cause(error)}") from error
            held_up = await _held_up(connection)
            log.warning("migration_waits", reason=held_up, again_in_seconds=LOCK_PAUSE_SECONDS)
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
        else:
            await connection.execute("RESET lock_timeout")
            return
    raise MigrationError(
        f"given up: {held_up}. End that transaction, and migrate again; what was applied stays applied"
    )


async def _held_up(connection: asyncpg.Connection) -> str:
    name = (await pending_of(connection))[0]
    oldest = await connection.fetchrow(statement("schema/oldest_transaction"))
    if oldest is None:
        return f"{name} did not get a lock in {LOCK_TIMEOUT}"
    who = f"process {oldest['pid']} of {oldest['name']} ({oldest['application']})"
    return f"{name} did not get a lock in {LOCK_TIMEOUT}; the oldest transaction is {who}, {oldest['seconds']} s old"


async def _renew_rule(connection: asyncpg.Connection) -> None:
    """Do the work of 0002 on a table with transitions: 0002 reads them all, and no lane may write meanwhile.

    Released files stay as they are. If nothing was applied yet, there is nothing to read. If cut short, it goes on next
    time.
    """
    if (await pending_of(connection))[:1] != (RENEWS_RULE,):
        return
    proven = await connection.fetchval(statement("schema/rule_state"))
    if proven is None:
        await connection.execute(statement("schema/rule_again"))
    if not proven:
        await connection.execute(statement("schema/rule_proven"))
    await connection.execute(statement("schema/rule_replaced"))
    applied = Migration(RENEWS_RULE, MIGRATIONS / f"{RENEWS_RULE}.sql", None)
    await pogo_sql.migration_applied(connection, applied.id, applied.hash, schema_name=NAME)


async def _alone(connection: asyncpg.Connection) -> None:
    """Wait until no other session migrates, and keep all others out.

    It tries again and again: a statement that waited would be one that indexes wait for. The lock lasts for the
    session, so that it also covers the tables in which the library keeps its own account.
    """
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):  # noqa: ASYNC110 - it is Postgres that knows
        await asyncio.sleep(ALONE_SECONDS)


async def pending(owner_dsn: str) -> tuple[str, ...]:
    """Return the names of the migrations that are not applied yet, oldest first. Raises ``DependencyUnavailable``.

    Writes nothing.
    """
    async with owner_connection(owner_dsn) as connection:
        return await pending_of(connection)


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, asyncpg.InsufficientPrivilegeError):
        return f"{cause}; the owner must own the database, and what is in it"
    return str(cause or error)


async def _make_role(connection: asyncpg.Connection, role: WorkerRole) -> None:
    """Create the worker's role unless it exists. Raises ``MigrationError`` if the owner may not.

    Roles belong to the whole server: the migration of another database may be creating it at this very moment.
    """
    if await connection.fetchval(_IS_ROLE, role.name):
        return
    create = f"CREATE ROLE {quoted(role.name)} NOLOGIN"
    try:
        await connection.execute(create)
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"the owner may not make the role of workers; let an administrator say: {create};"
            " (docs/operating.md has all three of the roles, WORKER_POSTGRES__ROLE is its name)"
        ) from error


async def _let_work(connection: asyncpg.Connection, user: str, role: WorkerRole) -> None:
    """Make ``user`` a member of the worker's role. The owner and superusers may do everything already."""
    if await connection.fetchval("SELECT current_user") == user:
        return
    group, member = quoted(role.name), quoted(user)
    if not await connection.fetchval(_IS_ROLE, user):
        raise MigrationError(
            f"the user {member} of WORKER_POSTGRES__DSN does not exist; create it and migrate again: "
            f"CREATE ROLE {member} LOGIN PASSWORD '...' IN ROLE {group};"
        )
    joining = await to_join(connection, user, role)
    if joining is None:
        return
    try:
        await connection.execute(f"GRANT {group} TO {member}")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"the owner may not grant it: {joining} Or, if that role is another installation's, set"
            " WORKER_POSTGRES__ROLE to a name of its own"
        ) from error


def user_of(dsn: str) -> str:
    """Return the Postgres user that ``dsn`` names, by the rules of libpq."""
    parts = urlsplit(dsn)
    named = unquote(parts.username) if parts.username else parse_qs(parts.query).get("user", [""])[0]
    return named or os.environ.get("PGUSER") or getuser()
