"""Load fixture lines (CONTRACT 8, ``import``): organisations first, then all else in chunks, each chunk set-based.

A chunk that Postgres refuses because of a row in it is halved until the bad line stands alone, so no line costs its
neighbours. Lines are read twice rather than held.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import NoneType
from typing import IO, Annotated, Any, Final, Literal, Protocol, get_args

import argon2
import asyncpg
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.access_token import AccessToken, AccountsReceivable, Classification, RewardsParticipant, Unit, User
from worker.announce import hold_import_lane, write_first_states
from worker.credentials import HASHER
from worker.decode import quoted
from worker.errors import BatchRefused, WorkerError, from_postgres
from worker.migrate import owner_connection
from worker.sql import statement

CHUNK: Final = 1000
_HASHED_AT_ONCE: Final = 100
"""Pass codes per chunk: each takes some 15 ms of a core, and a person watches the bar."""
_DEADLOCK_RETRIES: Final = 5


class ImportingError(WorkerError):
    """Nothing can be imported at all: a file that cannot be read, or a database without the schema."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was skipped: where it stands (from 1), and what is wrong with it, without what it says."""

    file: str
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """``read`` counts the lines that are not blank, ``loaded`` the good ones; the rest are ``bad``, in order."""

    read: int
    loaded: int
    bad: tuple[BadLine, ...]


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """``bytes_done`` of ``bytes_total`` (every file is read twice), and how many lines are loaded so far."""

    bytes_done: int
    bytes_total: int
    loaded: int


OnProgress = Callable[[ImportProgress], None]


# --- what a line may say ----------------------------------------------------------------------------------------------

# Nothing longer could be sent in a command or a login token.
Name = Annotated[str, Field(min_length=1, max_length=255)]


class _Line(BaseModel):
    """Strict, and no error repeats what a line says: it may be a secret."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class _OrganisationLine(_Line):
    kind: Literal["organisation"]
    id: Name
    name: str
    active: bool = True


class _UnitLine(Unit):
    kind: Literal["unit"]
    organisation: Name
    id: Name
    active: bool = True


class _UserLine(User):
    kind: Literal["user"]
    organisation: Name
    id: Name
    username: Name
    unit: Name | None
    active: bool = True
    rights: list[Name] = Field(default=[])


class _RevokedLoginLine(_Line):
    kind: Literal["revoked_login"]
    organisation: Name
    jti: Name


class _AccessTokenLine(AccessToken):
    kind: Literal["access_token"]
    organisation: Name
    id: Name
    number: Name
    authentication_code: Name | None
    identifier: Name | None
    pass_code: Name | None = Field(repr=False)
    pass_code_hash: str | None = Field(repr=False)


_AnyLine = _OrganisationLine | _UnitLine | _UserLine | _RevokedLoginLine | _AccessTokenLine

_KINDS: Final[Mapping[str, type[_AnyLine]]] = {
    "organisation": _OrganisationLine,
    "unit": _UnitLine,
    "user": _UserLine,
    "revoked_login": _RevokedLoginLine,
    "access_token": _AccessTokenLine,
}


class _Bad(Exception):
    """What is wrong with a line, without what it says."""


def _parsed(raw: bytes) -> _AnyLine:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Bad(f"not JSON: {error.msg}") from None
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _Bad(f"not a JSON object whose kind is one of {', '.join(_KINDS)}")
    if b"\\u0000" in raw and any("\0" in text for text in _texts(value)):
        raise _Bad("U+0000 in a string")
    try:
        line: _AnyLine = _KINDS[kind].model_validate(_completed(_KINDS[kind], value))
    except ValidationError as error:
        raise _Bad(_what(error)) from None
    if isinstance(line, _AccessTokenLine):
        _check_pass_code(line)
    return line


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _completed(model: type[BaseModel], value: object) -> object:
    """``value`` with the members that a line may leave out: ``null``, or an object of nulls where one always stands.

    A user or a unit may be named by its id alone.
    """
    if isinstance(value, str) and model in {User, Unit}:
        value = {"id": value}
    if not isinstance(value, dict):
        return value
    whole = dict(value)
    for name, inner, optional in _members(model):
        if optional:
            whole.setdefault(name, None)
        elif inner is not None:
            whole.setdefault(name, {})
        if inner is not None:
            whole[name] = _completed(inner, whole[name])
    return whole


@cache
def _members(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel] | None, bool], ...]:
    """The members that may be ``null`` or are objects: name, model, and whether it may be ``null``."""
    members = []
    for name, member in model.model_fields.items():
        kinds = get_args(member.annotation) or (member.annotation,)
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        optional = NoneType in kinds
        if member.is_required() and (optional or inner is not None):
            members.append((name, inner, optional))
    return tuple(members)


def _what(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)
    texts = [f"{_member(fault['loc'])}: {_REASONS.get(fault['type']) or fault['msg']}" for fault in faults[:3]]
    return "; ".join(texts) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


_REASONS: Final = {
    "extra_forbidden": "unknown member",
    "missing": "missing",
    "string_pattern_mismatch": "not a date YYYY-MM-DDThh:mm:ss",
    "value_error": "no such date",
}


def _member(location: tuple[int | str, ...]) -> str:
    # A mistyped line may hold anything in the place of a name.
    return quoted(".".join(str(part) for part in location))


def _check_pass_code(line: _AccessTokenLine) -> None:
    if line.pass_code_hash is None:
        return
    if line.pass_code is not None:
        raise _Bad("pass_code and pass_code_hash: one of them, not both")
    try:
        kind = argon2.extract_parameters(line.pass_code_hash).type
    except argon2.exceptions.InvalidHashError:
        raise _Bad("pass_code_hash: not an Argon2id hash ($argon2id$...)") from None
    if kind is not argon2.Type.ID:
        raise _Bad("pass_code_hash: not an Argon2id hash ($argon2id$...)")


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    file: int
    line: int


@dataclass(frozen=True, slots=True)
class _Good:
    source: _Source
    line: _AnyLine
    pass_code_hash: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Run:
    """One import under way."""

    files: Sequence[Path]
    on_progress: OnProgress
    clock: Callable[[], float]
    bytes_total: int
    bytes_done: int = 0
    read: int = 0
    loaded: int = 0
    bad: dict[_Source, str] = field(default_factory=dict)

    def lines(self) -> Iterator[tuple[_Source, bytes]]:
        """Every line that is not blank, in order."""
        for index, path in enumerate(self.files):
            with _opened(path) as file:
                for number, raw in enumerate(file, start=1):
                    self.bytes_done += len(raw)
                    if not raw.isspace():
                        yield _Source(index, number), raw

    def report(self) -> ImportReport:
        places = sorted(self.bad, key=lambda source: (source.file, source.line))
        bad = tuple(BadLine(str(self.files[place.file]), place.line, self.bad[place]) for place in places)
        return ImportReport(self.read, self.loaded, bad)

    def progressed(self) -> None:
        self.on_progress(ImportProgress(self.bytes_done, self.bytes_total, self.loaded))


async def import_files(
    owner_dsn: str,
    files: Sequence[Path | str],
    *,
    on_progress: OnProgress = lambda _: None,
    clock: Callable[[], float] = time.time,
) -> ImportReport:
    """Upsert the lines of ``files`` (NDJSON); bad ones are reported and skipped. Running it again loads the same.

    The first state of every new access token is an event, which ``worker.announce`` publishes. ``clock`` gives seconds
    since the epoch.
    Raises ``ImportingError`` if a file cannot be read or the schema is not there, ``DependencyAway`` for Postgres.
    """
    paths = [Path(file) for file in files]
    run = _Run(paths, on_progress, clock, 2 * sum(_size(path) for path in paths))
    async with owner_connection(owner_dsn) as connection:
        if await connection.fetchval("SELECT to_regclass('access_token') IS NULL"):
            raise ImportingError("the database has no schema yet: run `effective-worker migrate` first")
        await connection.execute(statement("import_new_tokens"))
        await connection.execute(statement("import_open_lane"))
        await _load_organisations(connection, run)
        await _load_the_rest(connection, run)
        # A worker that comes before autovacuum would have plans for tables that nobody has looked at: seconds a batch.
        await connection.execute(statement("import_analyze"))
    return run.report()


def _size(path: Path) -> int:
    if path.exists() and not path.is_file():
        raise ImportingError(f"{path} is not a regular file, and it has to be read twice")
    with _opened(path):
        return path.stat().st_size


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ImportingError(f"{path} cannot be read: {error.strerror}") from error


async def _load_organisations(connection: asyncpg.Connection, run: _Run) -> None:
    chunk: list[_Good] = []
    for source, raw in run.lines():
        run.read += 1
        try:
            line = _parsed(raw) if _may_be_organisation(raw) else None
        except _Bad:
            continue  # the second reading says so
        if isinstance(line, _OrganisationLine):
            chunk.append(_Good(source, line))
        if len(chunk) == CHUNK:
            await _load(connection, run, chunk)
            chunk = []
        if run.read % CHUNK == 0:
            run.progressed()
    await _load(connection, run, chunk)


def _may_be_organisation(raw: bytes) -> bool:
    """Spares the first reading most of its parsing: the kind is written out, or (which nobody does) in escapes."""
    return re.search(rb'"organisation"\s*[,}]', raw) is not None or b"\\u" in raw


async def _load_the_rest(connection: asyncpg.Connection, run: _Run) -> None:
    known = {row["id"] for row in await connection.fetch("SELECT id FROM organisation")}
    chunk: list[_Good] = []
    to_hash = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="argon2") as threads:
        for source, raw in run.lines():
            try:
                line = _parsed(raw)
                if isinstance(line, _OrganisationLine):
                    continue
                if line.organisation not in known:
                    raise _Bad("organisation: not known")
            except _Bad as error:
                run.bad[source] = str(error)
                continue
            chunk.append(_Good(source, line))
            to_hash += isinstance(line, _AccessTokenLine) and line.pass_code is not None
            if len(chunk) == CHUNK or to_hash == _HASHED_AT_ONCE:
                await _load(connection, run, await _hashed(chunk, threads))
                chunk, to_hash = [], 0
        await _load(connection, run, await _hashed(chunk, threads))


async def _hashed(chunk: Sequence[_Good], threads: ThreadPoolExecutor) -> list[_Good]:
    loop = asyncio.get_running_loop()

    async def with_hash(good: _Good) -> _Good:
        line = good.line
        if not isinstance(line, _AccessTokenLine):
            return good
        if line.pass_code is None:
            return replace(good, pass_code_hash=line.pass_code_hash)
        return replace(good, pass_code_hash=await loop.run_in_executor(threads, HASHER.hash, line.pass_code))

    return list(await asyncio.gather(*map(with_hash, chunk)))


# --- loading ----------------------------------------------------------------------------------------------------------

_Row = dict[str, Any]
_TableRow = tuple[str, tuple[str, ...], _Row]
"""A row: its table, its primary key, its columns."""
_Referred = AccountsReceivable | Classification | RewardsParticipant | Unit | User
_Tables = dict[str, dict[tuple[str, ...], _Row]]

# In the order of their foreign keys; a line of its own comes after a mention.
_TABLES: Final = (
    "organisation",
    "mentioned_unit",
    "unit",
    "mentioned_user",
    "app_user",
    "revoked_login",
    "contact",
    "accounts_receivable",
    "rewards_participant",
    "classification",
    "access_token",
)


async def _load(connection: asyncpg.Connection, run: _Run, chunk: Sequence[_Good]) -> None:
    """Load a chunk; halve it where Postgres refuses a row, left before right, so that the last good line still wins."""
    if not chunk:
        return
    try:
        await _load_at_once(connection, chunk, datetime.fromtimestamp(run.clock(), UTC))
    except BatchRefused as error:
        if len(chunk) == 1:
            constraint = getattr(error.__cause__, "constraint_name", None)
            run.bad[chunk[0].source] = _CONSTRAINTS.get(constraint) or f"Postgres refuses it: {error.reason}"
            return
        half = len(chunk) // 2
        await _load(connection, run, chunk[:half])
        await _load(connection, run, chunk[half:])
        return
    run.loaded += len(chunk)
    run.progressed()


_CONSTRAINTS: Final[Mapping[str | None, str]] = {
    "access_token_number_key": "number: another access token of the organisation has it",
    "access_token_authentication_code_key": "authentication_code: another access token of the organisation has it",
    "access_token_identifier_key": "identifier: another access token of the organisation has it",
    "app_user_username_key": "username: another user of the organisation has it",
}


async def _load_at_once(connection: asyncpg.Connection, chunk: Sequence[_Good], now: datetime) -> None:
    tables: _Tables = {table: {} for table in _TABLES}
    for good in chunk:
        for table, key, row in _rows(good):
            if table == "access_token" and key in tables[table]:
                _keep(row, tables[table][key])
            tables[table][key] = row
    for attempt in range(1, _DEADLOCK_RETRIES + 1):
        try:
            async with connection.transaction():
                await _write(connection, dict(tables), now)
            return
        except asyncpg.DeadlockDetectedError as error:
            if attempt == _DEADLOCK_RETRIES:
                raise from_postgres(error) from error
        except asyncpg.PostgresError as error:
            raise from_postgres(error) from error


async def _write(connection: asyncpg.Connection, tables: _Tables, now: datetime) -> None:
    tokens = tables.pop("access_token")
    # Before all other rows, as in a worker's transaction.
    lane = await hold_import_lane(connection) if tokens else None
    for table, rows in tables.items():
        if rows:
            await connection.execute(statement(f"import_{table}"), _json(rows))
    if lane is not None:
        for replaced in await connection.fetch(statement("import_replaced_token"), _json(tokens)):
            _keep(tokens[replaced["organisation"], replaced["id"]], dict(replaced))
        made = await connection.fetch(statement("import_access_token"), _json(tokens))
        await write_first_states(connection, lane, made, now)


# The statement keeps these as well, where the access token is in the database already.
_KEPT: Final = (
    *("pass_code_hash", "created_date", "created_by_user", "created_by_unit"),
    *("updated_date", "updated_by_user", "updated_by_unit"),
)


def _keep(row: _Row, former: Mapping[str, Any]) -> None:
    """Take over from an earlier line of the access token what ``row`` does not give: its pass code and its log."""
    for column in _KEPT:
        if row[column] is None:
            row[column] = former[column]


def _json(rows: Mapping[tuple[str, ...], _Row]) -> str:
    # Sorted, so that two imports, or an import and a lane, take their locks in one order.
    return orjson.dumps([rows[key] for key in sorted(rows)]).decode()


def _rows(good: _Good) -> Iterator[_TableRow]:
    """The rows that a line stands for."""
    line = good.line
    if isinstance(line, _AccessTokenLine):
        yield from _access_token_rows(line, good.pass_code_hash)
        return
    row = line.model_dump(exclude={"kind"})
    if isinstance(line, _OrganisationLine):
        yield "organisation", (line.id,), row
    elif isinstance(line, _RevokedLoginLine):
        yield "revoked_login", (line.organisation, line.jti), row
    else:
        yield "unit" if isinstance(line, _UnitLine) else "app_user", (line.organisation, line.id), row


_OF_ITS_OWN: Final = {
    "kind",
    "pass_code",
    "pass_code_hash",
    "verified_by_user",
    "classification",
    "accounts_receivable",
    "rewards_participant",
    "log_information",
}


def _access_token_rows(line: _AccessTokenLine, pass_code_hash: str | None) -> Iterator[_TableRow]:
    organisation, rewards, log = line.organisation, line.rewards_participant, line.log_information
    if line.classification is not None:
        yield _row("classification", organisation, line.classification)
    if rewards is not None:
        yield from _account_rows(organisation, rewards.accounts_receivable)
        yield _row("rewards_participant", organisation, rewards, accounts_receivable=_id(rewards.accounts_receivable))
    yield from _account_rows(organisation, line.accounts_receivable)
    for user in (line.verified_by_user, log.created_by_user, log.updated_by_user):
        if user is not None and user.username is not None:
            yield _row("mentioned_user", organisation, user)
    for unit in (log.created_by_unit, log.updated_by_unit):
        if unit is not None and unit.name is not None:
            yield _row("mentioned_unit", organisation, unit)
    row = line.model_dump(exclude=_OF_ITS_OWN)
    row |= {
        "pass_code_hash": pass_code_hash,
        "verified_by_user": _id(line.verified_by_user),
        "classification": _id(line.classification),
        "accounts_receivable": _id(line.accounts_receivable),
        "rewards_participant": _id(rewards),
        "created_date": log.created_date,
        "updated_date": log.updated_date,
        "created_by_user": _id(log.created_by_user),
        "updated_by_user": _id(log.updated_by_user),
        "created_by_unit": _id(log.created_by_unit),
        "updated_by_unit": _id(log.updated_by_unit),
    }
    yield "access_token", (organisation, line.id), row


def _account_rows(organisation: str, account: AccountsReceivable | None) -> Iterator[_TableRow]:
    if account is None:
        return
    owner = account.account_owner
    if owner is not None:
        row = {"organisation": organisation, "id": owner.id, "body": owner.model_dump()}
        yield "contact", (organisation, owner.id), row
    yield _row("accounts_receivable", organisation, account, account_owner=_id(owner))


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


def _id(referred: _Identified | None) -> str | None:
    return None if referred is None else referred.id


def _row(table: str, organisation: str, value: _Referred, **references: str | None) -> _TableRow:
    """The row of an object that has one; ``references`` are the ids in the place of the objects inside it."""
    columns = value.model_dump(exclude=set(references))
    return table, (organisation, value.id), {"organisation": organisation, **columns, **references}
