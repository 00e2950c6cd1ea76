"""The schema that a worker needs, and the rights to work in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from pogo_core.util import sql as pogo

from worker.errors import OperatorError
from worker.postgres.pool import Connection
from worker.postgres.sql import statement

MIGRATIONS: Final = Path(__file__).parent / "migrations"
NAME: Final = "public"
NEEDED: Final = tuple(sorted(path.stem for path in MIGRATIONS.glob("*.sql")))
"""The migrations that this worker knows, oldest first."""

_READ: Final = (
    "organisation",
    "unit",
    "app_user",
    "revoked_login",
    "contact",
    "accounts_receivable",
    "rewards_participant",
    "classification",
    "transition",
    "command_record",
    "lane",
    "command_loss",
    "attempt",
    "_pogo_migration",
    "_pogo_version",  # the library's account of what was applied
)
_ON_TABLES: Final = (
    *((table, "SELECT") for table in _READ),
    *((table, "INSERT") for table in ("transition", "command_record", "lane")),
    ("command_loss", "INSERT"),
    ("attempt", "INSERT"),
    ("attempt", "DELETE"),
)
# All columns of an access token except the hash of its pass code and its verification code.
_READ_OF_A_TOKEN: Final = (
    "organisation",
    "id",
    "number",
    "life_cycle_state",
    "version",
    "authentication_code",
    "identifier",
    "card_masked_number",
    "card_last_4_digits",
    "verified_date",
    "verified_by_user",
    *(f"udf_string_{number}" for number in range(1, 9)),
    *(f"udf_{kind}_{number}" for kind in ("float", "date") for number in range(1, 5)),
    "classification",
    "accounts_receivable",
    "rewards_participant",
    "created_date",
    "updated_date",
    "created_by_user",
    "updated_by_user",
    "created_by_unit",
    "updated_by_unit",
)
_VERIFICATION_CODE: Final = ("access_token", "verification_code", "SELECT")
_CHANGED: Final = (
    *(("access_token", column) for column in ("life_cycle_state", "version")),
    *(("access_token", column) for column in ("updated_date", "updated_by_user", "updated_by_unit")),
    *(("lane", column) for column in ("owner", "owned_since", "first_offset", "next_offset")),
    *(("lane", column) for column in ("chain_sequence", "chain_hash", "ordered_offset")),
    ("command_loss", "settled"),
    *(("attempt", column) for column in ("failed", "forgiven", "last_at")),
    *(("lane", column) for column in ("topic_id", "last_offset", "last_timestamp", "blocked", "blocked_since")),
)
_ON_COLUMNS: Final = (
    *(("access_token", column, "SELECT") for column in _READ_OF_A_TOKEN),
    *((table, column, "UPDATE") for table, column in _CHANGED),
)
_TO_CALL: Final = (
    "public.retire_records(integer,interval,integer,bigint)",
    "public.pass_code_hashes(text[],text[])",
)
"""The functions that do, with their owner's rights, the things that the worker's role may not do by itself."""


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """The role that workers are members of. It reads verification codes only if a setting reveals them."""

    name: str = "effective_worker"
    reveals_verification_codes: bool = False

    def to_let_in(self, user: str, *, is_there: bool = True) -> str:
        """Return the SQL that makes ``user`` a member, for the creator of the role or an administrator to run."""
        made = "" if is_there else f"CREATE ROLE {quoted(self.name)} NOLOGIN; "
        return (
            f"{quoted(user)} must be a member of {quoted(self.name)}; let an administrator say:"
            f" {made}GRANT {quoted(self.name)} TO {quoted(user)};"
        )

    def to_grant(self, lacking: Sequence[str]) -> str:
        """Return the way to grant rights that are lacking."""
        way = "Grant them with: effective-worker migrate"
        if _told(_VERIFICATION_CODE) not in lacking:
            return way
        return (
            f"{way}, with WORKER_REVEAL_VERIFICATION_CODE=true as here; it says:"
            f" GRANT SELECT (verification_code) ON access_token TO {quoted(self.name)};"
        )

    def to_take(self, surplus: Sequence[str]) -> str:
        """Return the way to take away rights that a worker does not need."""
        way = (
            "take it away, with effective-worker migrate if it is of PUBLIC, or give WORKER_POSTGRES__DSN another role"
        )
        if _told(_VERIFICATION_CODE) not in surplus or self.reveals_verification_codes:
            return way
        revoke = f"REVOKE SELECT (verification_code) ON access_token FROM {quoted(self.name)};"  # noqa: S608 - shown only
        return f"{way}. WORKER_REVEAL_VERIFICATION_CODE is not true: {revoke}"


DEFAULT_ROLE: Final = WorkerRole()


def _told(right: tuple[str, str, str]) -> str:
    table, column, privilege = right
    return f"{privilege} on {table}.{column}"


def quoted(name: str) -> str:
    """Quote an identifier for SQL, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


class SchemaUnfit(OperatorError):
    """The schema is not the worker's, or the worker may not work in it; the text gives the way out."""


async def require_schema(connection: Connection, role: WorkerRole) -> None:
    """Raise ``SchemaUnfit`` unless the schema is of this version, not newer, and the worker may work with all of it."""
    await require_utf8(connection)
    await require_version(connection)
    lack = await what_lacks(connection, role)
    if lack is not None:
        raise SchemaUnfit(lack)


async def require_utf8(connection: Connection) -> None:
    """Raise ``SchemaUnfit`` unless the database is in UTF-8: any other loses some texts or takes invalid ones."""
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise SchemaUnfit(
            f"the encoding of the database is {encoding}, and must be UTF8. Make one with: CREATE DATABASE ... ENCODING"
            " 'UTF8' TEMPLATE template0"
        )


async def require_version(connection: Connection) -> None:
    """Raise ``SchemaUnfit`` if the schema is not there, or older or newer than this worker."""
    applied = await _applied(connection)
    if not applied:
        raise SchemaUnfit("the database has not been migrated. Do so with: effective-worker migrate")
    waiting = ", ".join(name for name in NEEDED if name not in applied)
    if waiting:
        raise SchemaUnfit(
            f"the schema is older than this worker, pending: {waiting}. Apply them with: effective-worker migrate"
        )
    unknown = ", ".join(sorted(applied.difference(NEEDED)))
    if unknown:
        raise SchemaUnfit(
            f"this worker is older than the schema, to which was applied: {unknown}."
            " Run the release of effective-worker that knows it, or a later one"
        )


async def pending(connection: Connection) -> tuple[str, ...]:
    """Return the names of the migrations that are not applied yet, oldest first. Writes nothing."""
    applied = await _applied(connection)
    return tuple(name for name in NEEDED if name not in applied)


async def what_lacks(connection: Connection, role: WorkerRole) -> str | None:
    """Return the rights of a worker that the user lacks, and the way to get them; ``None`` if it has all."""
    user = await connection.fetchval("SELECT current_user")
    lacking = await lacking_rights(connection, user, role)
    if not lacking:
        return None
    joining = await to_join(connection, user, role)
    return f"{user} lacks {', '.join(lacking)}. {role.to_grant(lacking)}" if joining is None else joining


async def to_join(connection: Connection, user: str, role: WorkerRole) -> str | None:
    """Return the way for a user to join the worker's role; ``None`` if it is a member."""
    row = await connection.fetchrow(statement("schema/membership"), user, role.name)
    assert row is not None, "it says so, whatever there is"
    return None if row["is_member"] else role.to_let_in(user, is_there=row["is_there"])


async def lacking_rights(connection: Connection, user: str, role: WorkerRole) -> list[str]:
    """List the rights of a worker that a user lacks, as ``RIGHT on table``. The schema must be of this version."""
    rows = await connection.fetch(statement("schema/lacking_rights"), user, *_needed(role))
    return [row["lacking"] for row in rows]


async def surplus_rights(connection: Connection, user: str, role: WorkerRole) -> list[str]:
    """List the rights of a user that a worker does not need, the gravest first. The schema must be of this version."""
    rows = await connection.fetch(statement("schema/surplus_rights"), user, *_needed(role), role.name)
    return [row["surplus"] for row in rows]


async def give_rights(connection: asyncpg.Connection, role: WorkerRole) -> None:
    """Make the rights of the worker's role those of a worker, all at once. The schema must be of this version."""
    async with connection.transaction():
        for row in await connection.fetch(statement("schema/worker_rights"), role.name, *_needed(role)):
            await connection.execute(row["said"])


def _needed(role: WorkerRole) -> list[tuple[str, ...]]:
    """Return the rights of a worker by column, as the statements take them."""
    on_columns = (*_ON_COLUMNS, _VERIFICATION_CODE) if role.reveals_verification_codes else _ON_COLUMNS
    return [*zip(*_ON_TABLES, strict=True), *zip(*on_columns, strict=True), _TO_CALL]


async def _applied(connection: Any) -> frozenset[str]:
    """Return the migrations that were applied; none if the library has no account of them yet."""
    if await pogo.get_pogo_version(connection) is None:
        return frozenset()
    return frozenset(await pogo.get_applied_migrations(connection, schema_name=NAME))
