"""Load fixture lines: organisations first, then all else in chunks, each chunk set-based.

A chunk is copied into a staging table, and loaded from there table by table, while the next one is read. If Postgres
refuses a chunk because of a row in it, the chunk is cut up until the bad line is alone, so no line costs its
neighbours. The position of the import is written with each chunk: whatever stops it, the next import of the same files
goes on from there. Lines are read twice rather than held.

See CONTRACT, Command line, ``import``.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

import asyncpg
from msgspec.structs import replace

from worker.errors import BatchRefused, OperatorError, from_postgres
from worker.journey.pass_codes import HASHER
from worker.operations.imports.lines import AccessTokenLine, Bad, Line, OrganisationLine, may_be_organisation, parsed
from worker.operations.imports.publish import hold_import_lane, write_first_states
from worker.operations.imports.rows import COLUMNS, Row, tables_of
from worker.postgres.connect import owner_connection
from worker.postgres.sql import statement
from worker.values import Value

CHUNK: Final = 5000
CHUNK_BYTES: Final = 8 * 2**20
"""Bytes. The lines of a chunk are held in memory, and those of the next one too."""
LONGEST_LINE: Final = 2**20
"""Bytes. A longer line is bad, whatever it holds."""
BAD_HELD: Final = 1000
"""Bad lines that a report names; ``on_bad`` gets all of them."""
FORGOTTEN_DAYS: Final = 7
"""The days after which an import that did not end is forgotten, by the next import of any files."""
HELD_SECONDS: Final = 10
"""Seconds that a new import waits for the session of one that was killed, which may still run its last statement."""
_HASHED_AT_ONCE: Final = 100
"""Pass codes per chunk: each takes some 15 ms of a core, and a person watches the bar."""
_LINES_AT_ONCE: Final = 16
"""Lines parsed before Postgres gets its turn on the event loop: some half a millisecond."""
_PIECES: Final = 8
"""Pieces into which a refused chunk is cut. With two, the lines beside a bad one would be tried twice as often."""
_DEADLOCK_RETRIES: Final = 5
_NO_SCHEMA: Final = "SELECT to_regclass('access_token') IS NULL OR to_regclass('import_run') IS NULL"
_BAD_PAGE: Final = 1000


class ImportingError(OperatorError):
    """Nothing can be imported at all: a file cannot be read, or the database has no schema."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was skipped: its number (from 1), and the fault, without the line's values."""

    file: str
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """``read`` counts the lines that are not blank, ``loaded`` the good ones; ``bad`` are the first bad ones, in order.

    ``bad`` has at most ``BAD_HELD`` lines.
    """

    read: int
    loaded: int
    bad: tuple[BadLine, ...]

    @property
    def bad_count(self) -> int:
        """The number of bad lines, including those that ``bad`` does not hold."""
        return self.read - self.loaded


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """``bytes_done`` of ``bytes_total`` (every file is read twice), and the number of lines loaded so far."""

    bytes_done: int
    bytes_total: int
    loaded: int


OnProgress = Callable[[ImportProgress], None]
OnResumed = Callable[[str, int], None]
"""A callback that gets the file and the line after which a stopped import goes on."""
OnBad = Callable[[BadLine], None]
Before = Callable[[asyncpg.Connection], Awaitable[None]]
"""A check of the database over the connection that will write. It raises to prevent the import."""


async def _go_on(_: asyncpg.Connection) -> None:
    """The default check, which allows every import."""


# --- reading ----------------------------------------------------------------------------------------------------------


class _Place(Value, frozen=True):
    """The end of a line: the number of its file (from 0), its own number, and the byte after it."""

    file: int = 0
    line: int = 0
    position: int = 0


class _Entry(Value, frozen=True):
    """A line that is not blank: its contents with the hash of its pass code, or its fault."""

    hidden = frozenset({"line", "pass_code_hash"})

    place: _Place
    line: Line | None
    what: str = ""
    pass_code_hash: str | None = None


@dataclass(slots=True)
class _Run:
    """One import under way. ``done`` is the position up to which the second reading is loaded."""

    files: Sequence[Path]
    on_progress: OnProgress
    clock: Callable[[], float]
    sizes: Sequence[int]
    digest: bytes = b""
    done: _Place = field(default_factory=_Place)
    bytes_done: int = 0
    read: int = 0
    loaded: int = 0

    def lines(self, first: _Place, on_bytes: Callable[[bytes], None]) -> Iterator[tuple[_Place, bytes | None]]:
        """Yield every line after ``first`` that is not blank, in order; ``None`` for one that is too long.

        ``on_bytes`` gets all bytes that are read.
        """
        for index in range(first.file, len(self.files)):
            number, position = (first.line, first.position) if index == first.file else (0, 0)
            with _opened(self.files[index]) as file:
                file.seek(position)
                while raw := file.readline(LONGEST_LINE + 1):
                    on_bytes(raw)
                    number += 1
                    position += len(raw)
                    too_long = len(raw) > LONGEST_LINE and not raw.endswith(b"\n")
                    while len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                        raw = file.readline(LONGEST_LINE + 1)
                        on_bytes(raw)
                        position += len(raw)
                    if too_long or not raw.isspace():
                        yield _Place(index, number, position), None if too_long else raw

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def progressed(self) -> None:
        self.on_progress(ImportProgress(self.bytes_done, 2 * sum(self.sizes), self.loaded))

    def count(self, raw: bytes) -> None:
        self.bytes_done += len(raw)


async def import_files(
    owner_dsn: str,
    files: Sequence[Path | str],
    *,
    on_progress: OnProgress = lambda _: None,
    on_resumed: OnResumed = lambda _file, _line: None,
    on_bad: OnBad = lambda _: None,
    from_start: bool = False,
    before: Before = _go_on,
    clock: Callable[[], float] = time.time,
) -> ImportReport:
    """Upsert the lines of ``files`` (NDJSON); bad ones are reported and skipped. A second run loads the same.

    If an import of the same files did not end, this one goes on from there, unless it must begin ``from_start``; the
    report covers both. ``on_bad`` gets every bad line at the end, in order. The first state of every new access token
    is an event, which ``worker.operations.imports.publish`` publishes. ``before`` is called before anything is written.
    ``clock`` gives seconds since the epoch.

    Raises ``ImportingError`` if a file cannot be read, the schema is missing, or another import of the same files is
    running; ``DependencyUnavailable`` for Postgres; and the errors of ``before``.
    """
    paths = [Path(file) for file in files]
    run = _Run(paths, on_progress, clock, [_size(path) for path in paths])
    async with owner_connection(owner_dsn) as connection:
        await _require_schema(connection)
        await before(connection)
        await connection.fetchval(statement("imports/session"))
        await connection.execute(statement("imports/stage"))
        await connection.execute(statement("imports/open_lane"))
        run.digest = await _load_organisations(connection, run)
        await _open_run(connection, run, from_start=from_start)
        if run.read:
            on_resumed(str(run.files[run.done.file]), run.done.line)
        await _load_everything(connection, run)
        # Until autovacuum has analysed the tables, a worker would have plans that take seconds a batch.
        await connection.execute(statement("imports/analyze"))
        bad = await _tell_bad_lines(connection, run, on_bad)
        await connection.execute(statement("imports/close_run"), run.digest)
    return ImportReport(run.read, run.loaded, bad)


async def _require_schema(connection: asyncpg.Connection) -> None:
    if await connection.fetchval(_NO_SCHEMA):
        raise ImportingError("the database has no schema yet, or an older one: run `effective-worker migrate` first")


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


async def _load_organisations(connection: asyncpg.Connection, run: _Run) -> bytes:
    """Load the organisations in a first reading, and return the digest of the files. The second reports bad lines."""
    digest = hashlib.sha256(repr(run.sizes).encode())

    def read(raw: bytes) -> None:
        digest.update(raw)
        run.count(raw)

    chunk: list[Line] = []
    for count, (_, raw) in enumerate(run.lines(_Place(), read), start=1):
        if raw is not None and may_be_organisation(raw):
            with suppress(Bad):
                line = parsed(raw)
                chunk += [line] if isinstance(line, OrganisationLine) else []
        if len(chunk) >= CHUNK:
            await _load_each(connection, chunk)
            chunk = []
        if count % CHUNK == 0:
            run.progressed()
            await asyncio.sleep(0)
    await _load_each(connection, chunk)
    return digest.digest()


async def _load_each(connection: asyncpg.Connection, organisations: Sequence[Line]) -> None:
    """Load the organisations that Postgres does not refuse; the second reading reports the others."""
    if not organisations:
        return
    tables = tables_of((line, None) for line in organisations)
    try:
        await _committed(connection, partial(_load_rows, connection, tables))
    except BatchRefused:
        half = len(organisations) // 2
        if half:
            await _load_each(connection, organisations[:half])
            await _load_each(connection, organisations[half:])


async def _open_run(connection: asyncpg.Connection, run: _Run, *, from_start: bool) -> None:
    now = run.now()
    await connection.execute(statement("imports/forget_runs"), now - timedelta(days=FORGOTTEN_DAYS))
    await connection.fetchval(statement("imports/lock_timeout"), f"{HELD_SECONDS}s")
    try:
        await connection.fetchval(statement("imports/hold_run"), int.from_bytes(run.digest[:8], signed=True))
    except asyncpg.LockNotAvailableError as error:
        raise ImportingError("somebody is importing the same files at this moment") from error
    await connection.fetchval(statement("imports/lock_timeout"), "0")
    if from_start:
        await connection.execute(statement("imports/close_run"), run.digest)
    row = await connection.fetchrow(statement("imports/open_run"), run.digest, now)
    assert row is not None, "an upsert returns its row"
    run.done = _Place(row["file"], row["line"], row["position"])
    run.read, run.loaded = row["read"], row["loaded"]
    run.bytes_done += sum(run.sizes[: run.done.file]) + run.done.position


async def _tell_bad_lines(connection: asyncpg.Connection, run: _Run, on_bad: OnBad) -> tuple[BadLine, ...]:
    held: list[BadLine] = []
    after = (0, 0)
    while page := await connection.fetch(statement("imports/bad_lines"), run.digest, *after, _BAD_PAGE):
        for row in page:
            bad = BadLine(str(run.files[row["file"]]), row["line"], row["what"])
            on_bad(bad)
            held += [bad] if len(held) < BAD_HELD else []
        after = (page[-1]["file"], page[-1]["line"])
    return tuple(held)


# --- chunks -----------------------------------------------------------------------------------------------------------


class _Chunk(Value, frozen=True):
    """Lines that are loaded in one transaction: good and bad ones, in order, and the rows of the good ones."""

    hidden = frozenset({"entries", "tables"})

    entries: Sequence[_Entry]
    tables: Mapping[str, list[Row]]

    @classmethod
    def of(cls, entries: Sequence[_Entry]) -> "_Chunk":
        return cls(entries, tables_of((each.line, each.pass_code_hash) for each in entries if each.line is not None))

    def good(self) -> list[int]:
        """Return the indexes of the good lines among the entries."""
        return [place for place, entry in enumerate(self.entries) if entry.line is not None]


async def _load_everything(connection: asyncpg.Connection, run: _Run) -> None:
    """Load all lines in a second reading: a chunk is read while the one before it is loaded."""
    known = {row["id"] for row in await connection.fetch("SELECT id FROM organisation")}
    lines = run.lines(run.done, run.count)
    with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="argon2") as threads:
        read = partial(_next_chunk, lines, known, threads)
        async with _under_way(read()) as coming:
            while chunk := await coming.pop():
                coming.append(asyncio.ensure_future(read()))
                await _load(connection, run, chunk)


@asynccontextmanager
async def _under_way(first: Awaitable["_Chunk | None"]) -> "AsyncIterator[list[asyncio.Future[_Chunk | None]]]":
    """The chunk that is being read; the read is cancelled at the end of the block."""
    coming: list[asyncio.Future[_Chunk | None]] = [asyncio.ensure_future(first)]
    try:
        yield coming
    finally:
        for each in coming:
            each.cancel()
        await asyncio.gather(*coming, return_exceptions=True)


async def _next_chunk(
    lines: Iterator[tuple[_Place, bytes | None]], known: frozenset[str] | set[str], threads: ThreadPoolExecutor
) -> _Chunk | None:
    """Read the next chunk; ``None`` at the end. Pass codes are hashed on all cores meanwhile."""
    entries: list[_Entry] = []
    hashes: dict[int, asyncio.Future[str]] = {}
    loop, size = asyncio.get_running_loop(), 0
    for place, raw in lines:
        entry = _entry(place, raw, known)
        line = entry.line
        if isinstance(line, AccessTokenLine) and line.pass_code is not None:
            hashes[len(entries)] = loop.run_in_executor(threads, HASHER.hash, line.pass_code)
        entries.append(entry)
        size += len(raw or b"")
        if len(entries) >= CHUNK or size >= CHUNK_BYTES or len(hashes) == _HASHED_AT_ONCE:
            break
        if len(entries) % _LINES_AT_ONCE == 0:
            await asyncio.sleep(0)
    for number, hashed in hashes.items():
        entries[number] = replace(entries[number], pass_code_hash=await hashed)
    return _Chunk.of(entries) if entries else None


def _entry(place: _Place, raw: bytes | None, known: frozenset[str] | set[str]) -> _Entry:
    try:
        if raw is None:
            raise Bad(f"longer than {LONGEST_LINE} bytes")
        line = parsed(raw)
        if not isinstance(line, OrganisationLine) and line.organisation not in known:
            raise Bad("organisation: not known")
    except Bad as bad:
        return _Entry(place, None, str(bad))
    return _Entry(place, line, pass_code_hash=getattr(line, "pass_code_hash", None))


# --- loading ----------------------------------------------------------------------------------------------------------


async def _load(connection: asyncpg.Connection, run: _Run, chunk: _Chunk) -> None:
    """Load a chunk; cut it if Postgres refuses a row. Pieces keep their order, so the last good line still wins."""
    good, entries = chunk.good(), chunk.entries
    try:
        await _committed(connection, partial(_write, connection, run, chunk))
    except BatchRefused as error:
        if not good:
            raise
        for piece in _pieces(entries, good) if len(good) > 1 else [_without(entries, good[0], error)]:
            await _load(connection, run, _Chunk.of(piece))
        return
    run.done = entries[-1].place
    run.read += len(entries)
    run.loaded += len(good)
    run.progressed()


def _pieces(entries: Sequence[_Entry], good: Sequence[int]) -> list[Sequence[_Entry]]:
    """Cut the entries into pieces with as many good lines each."""
    count = min(_PIECES, len(good))
    cuts = [0, *(good[len(good) * number // count] for number in range(1, count)), len(entries)]
    return [entries[first:last] for first, last in pairwise(cuts)]


def _without(entries: Sequence[_Entry], alone: int, error: BatchRefused) -> list[_Entry]:
    """Return the entries with their only good line turned into a bad one."""
    constraint = getattr(error.__cause__, "constraint_name", None)
    what = _CONSTRAINTS.get(constraint) or f"Postgres refuses it: {error.reason}"
    return [*entries[:alone], replace(entries[alone], line=None, what=what), *entries[alone + 1 :]]


_CONSTRAINTS: Final[Mapping[str | None, str]] = {
    "access_token_number_key": "number: another access token of the organisation has it",
    "access_token_authentication_code_key": "authentication_code: another access token of the organisation has it",
    "access_token_identifier_key": "identifier: another access token of the organisation has it",
    "app_user_username_key": "username: another user of the organisation has it",
}


async def _committed(connection: asyncpg.Connection, write: Callable[[], Awaitable[None]]) -> None:
    """Write in one transaction, and again after a deadlock. Raises ``BatchRefused`` and ``DependencyUnavailable``."""
    for attempt in range(1, _DEADLOCK_RETRIES + 1):
        try:
            async with connection.transaction():
                await write()
            return
        except asyncpg.DeadlockDetectedError as error:
            if attempt == _DEADLOCK_RETRIES:
                raise from_postgres(error) from error
        except asyncpg.PostgresError as error:
            raise from_postgres(error) from error


async def _write(connection: asyncpg.Connection, run: _Run, chunk: _Chunk) -> None:
    """Write a chunk, and the import's position after it."""
    now, tables = run.now(), dict(chunk.tables)
    tokens = tables.pop("access_token", None)
    # Locked before all other rows, as in a worker's transaction.
    lane = await hold_import_lane(connection) if tokens else None
    await _load_rows(connection, tables)
    made = (1, 0)
    if tokens and lane is not None:
        await _stage(connection, "access_token", tokens)
        await connection.execute(statement("imports/replaced_token"), lane.id, run.digest)
        first_states = await connection.fetch(statement("imports/access_token"))
        await write_first_states(connection, lane, first_states, now)
        made = (lane.chain.sequence + 1, lane.chain.sequence + len(first_states))
    bad = [(run.digest, each.place.file, each.place.line, each.what) for each in chunk.entries if each.line is None]
    if bad:
        await connection.copy_records_to_table("import_bad_line", records=bad)
    end, counts = chunk.entries[-1].place, (len(chunk.entries), len(chunk.entries) - len(bad))
    place = (end.file, end.line, end.position)
    await connection.execute(statement("imports/move_run"), run.digest, now, *place, *counts, *made)


async def _load_rows(connection: asyncpg.Connection, tables: Mapping[str, list[Row]]) -> None:
    """Load rows without a history, in the order of their foreign keys."""
    for table, rows in tables.items():
        await _stage(connection, table, rows)
        await connection.execute(statement(f"imports/{table}"))


async def _stage(connection: asyncpg.Connection, table: str, rows: list[Row]) -> None:
    await connection.copy_records_to_table(f"staged_{table}", columns=COLUMNS[table], records=rows)
