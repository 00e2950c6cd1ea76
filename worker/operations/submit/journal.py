"""The journal of a submission: a SQLite file beside the submitted one (DESIGN 7).

It holds no command, code, identifier or login token. A write survives the death of the process, but not that of the
machine: commands that a power failure removes from its end were sent under the same ids, and are read or sent again.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from worker.errors import OperatorError

VERSION: Final = "1"

# The dialect is SQLite's, and only this module uses these statements: they are no steps of the worker's journey.
_TABLES: Final = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE position (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE session (number INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL NOT NULL, how TEXT NOT NULL);
CREATE TABLE outcome (
    line INTEGER PRIMARY KEY, code TEXT NOT NULL, replayed INTEGER NOT NULL, sent INTEGER NOT NULL,
    latency INTEGER, message TEXT NOT NULL
);
"""
# OK is final; among refusals the last counts.
_OUTCOME: Final = """
INSERT INTO outcome (line, code, replayed, sent, latency, message) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (line) DO UPDATE SET code = excluded.code, replayed = excluded.replayed, sent = excluded.sent,
    latency = coalesce(excluded.latency, latency), message = excluded.message
WHERE outcome.code <> 'OK'
"""
_FACT: Final = "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_POSITION: Final = """
INSERT INTO position VALUES (?, ?) ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset
"""


class JournalError(OperatorError):
    """The journal cannot be used for this submission."""


class Outcome(NamedTuple):
    """The outcome of a line. ``sent`` is false if it was refused before it was sent; ``latency`` is in ms."""

    line: int
    code: str
    replayed: bool
    sent: bool
    latency: int | None
    message: str


class Session(NamedTuple):
    """One run of the command. ``how`` tells its end; ``killed`` if the process could not store one."""

    number: int
    began: float
    ended: float
    how: str


class Journal:
    """The memory of one submission. A write is a transaction; no other process may open it meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open it, or create an empty one that only its owner may read. Raises ``JournalError``."""
        self.path = path
        self._session = 0
        try:
            path.touch(mode=0o600)
            path.open("ab").close()  # for a better reason than SQLite's
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(_why(path, error)) from error
        try:
            self.facts: dict[str, str] = self._opened()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise JournalError(_why(path, error)) from error
        except JournalError:  # of a transaction
            self.close()
            raise
        if self.facts and self.facts.get("version") != VERSION:
            self.close()
            raise JournalError(f"{path} was written by another version of effective-worker")

    def _opened(self) -> dict[str, str]:
        """Lock the file, make its tables if they are not there, and return its facts."""
        # One process at a time: the lock ends with the process, however that ends.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA cache_size = -8192")
        with self._transaction():
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for table in _TABLES.split(";"):
                    self._db.execute(table)
        return dict(self._db.execute("SELECT name, value FROM fact"))

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._db.close()

    def begin(self, facts: Mapping[str, str], positions: Mapping[int, int]) -> None:
        """Store the facts of the submission, and the positions from which its answers are read."""
        with self._transaction():
            self._note({"version": VERSION, **facts})
            self._db.executemany(_POSITION, list(positions.items()))

    def open_session(self, now: float) -> int:
        """Start another session, and return its number. Numbers count from 1."""
        with self._transaction():
            self._db.execute("UPDATE session SET how = 'killed' WHERE how = 'running'")
            self._db.execute("INSERT INTO session SELECT count(*) + 1, ?, ?, 'running' FROM session", (now, now))
            (self._session,) = self._db.execute("SELECT max(number) FROM session").fetchone()
        return self._session

    def close_session(self, how: str, now: float) -> None:
        with self._transaction():
            self._db.execute(
                "UPDATE session SET ended = max(ended, ?), how = ? WHERE number = ?", (now, how, self._session)
            )

    def mark(self, line: int, refused: Sequence[Outcome]) -> None:
        """Allow everything up to this line to be sent, except the lines that were ``refused`` unsent."""
        with self._transaction():
            self._note({"mark": str(line)})
            self._db.executemany(_OUTCOME, _rows(refused))

    def answered(self, outcomes: Sequence[Outcome], positions: Mapping[int, int], now: float) -> None:
        """Store the outcomes of one read of the answers, and the positions of the next: all of it, or nothing."""
        with self._transaction():
            self._db.executemany(_OUTCOME, _rows(outcomes))
            self._db.executemany(_POSITION, list(positions.items()))
            if outcomes:
                self._db.execute("UPDATE session SET ended = ? WHERE number = ?", (now, self._session))

    def note(self, facts: Mapping[str, str]) -> None:
        """Store further facts, for example ``finished``: the time at which report and refusals were written."""
        with self._transaction():
            self._note(facts)

    def _note(self, facts: Mapping[str, str]) -> None:
        self._db.executemany(_FACT, list(facts.items()))
        self.facts |= facts

    # --- what it knows ------------------------------------------------------------------------------------------------

    @property
    def sent_up_to(self) -> int:
        """The last line that may have been sent."""
        return int(self.facts.get("mark", "0"))

    def positions(self) -> dict[int, int]:
        return dict(self._db.execute("SELECT partition, next_offset FROM position"))

    def settled(self) -> Iterator[int]:
        """Return the lines that have an outcome, in order. Reads lazily: no write may come in between."""
        return (line for (line,) in self._db.execute("SELECT line FROM outcome ORDER BY line"))

    def refusals(self) -> Iterator[Outcome]:
        """Return the outcomes that are not ``OK``, in the order of the lines. Reads lazily, too."""
        query = "SELECT line, code, replayed, sent, latency, message FROM outcome WHERE code <> 'OK' ORDER BY line"
        return (Outcome(*row) for row in self._db.execute(query))

    def counts(self) -> list[tuple[str, bool, bool, int]]:
        """Return the number of lines by code, replayed or not, sent or not."""
        query = "SELECT code, replayed, sent, count(*) FROM outcome GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        return [(code, bool(replayed), bool(sent), count) for code, replayed, sent, count in self._db.execute(query)]

    def latencies(self) -> list[tuple[int, int]]:
        """Return the measured latencies in ms, in order, each with its count."""
        query = "SELECT latency, count(*) FROM outcome WHERE latency IS NOT NULL GROUP BY 1 ORDER BY 1"
        return list(self._db.execute(query))

    def sessions(self) -> list[Session]:
        return [Session(*row) for row in self._db.execute("SELECT number, began, ended, how FROM session ORDER BY 1")]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing. Raises ``JournalError``, for example if the disk is full."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(_why(self.path, error)) from error


def _rows(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """Return plain tuples of plain values, which SQLite's driver binds in half the time."""
    return [
        (line, code, int(replayed), int(sent), latency, message)
        for line, code, replayed, sent, latency, message in outcomes
    ]


def _why(path: Path, error: sqlite3.Error | OSError) -> str:
    if isinstance(error, OSError):
        return f"the journal {path} cannot be written: {error.strerror}"
    if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return f"the journal {path} is in use: another submit works on this file"
    if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
        return f"{path} is no journal of a submission: give another with --journal"
    return f"the journal {path} cannot be used: {error}"
