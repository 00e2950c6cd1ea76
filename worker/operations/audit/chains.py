"""Follow the hash chain of every lane from its first transition to its head (CONTRACT, Transition event)."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec

from effective_contract.transition import TransitionEvent
from worker.journey.apply import Chain
from worker.operations.audit.anchors import Anchor, Head
from worker.operations.audit.lanes import name_of, sequences
from worker.operations.audit.report import Audit, Kind
from worker.operations.findings import Origin, Progress, moment_at, version_place
from worker.postgres.pages import pages
from worker.postgres.pool import Row
from worker.postgres.sql import statement

_FIRST: Final = Chain(0, bytes(32))
_AS_STORED: Final = tuple(TransitionEvent.model_fields.keys() - {"lane", "previous_hash", "hash"})
"""The members of an event that its row has exactly as they are hashed."""
MOST_COMPARED: Final = 1_000
"""The most changed transitions that are compared with their events, member by member."""
_LOWEST_LANE: Final = -(2**31)


async def verify_chains(
    connection: asyncpg.Connection,
    lanes: Mapping[int, Row],
    report: Audit,
    progress: Progress,
    *,
    anchor: Anchor | None,
    kept: timedelta,
) -> None:
    """Report every transition and every head that does not fit, and every anchored head that is missing.

    ``lanes`` are the rows of all lanes by their ids. ``kept`` is the time for which the record of a command is kept.
    """
    anchored = {} if anchor is None else {head.lane: head for head in anchor.heads}
    awaited, empty = dict(anchored), dict(lanes)
    chain: _LaneChain | None = None
    async for row in _transitions(connection, kept, progress):
        if chain is None or row["lane"] != chain.last["lane"]:
            if chain is not None:
                chain.compare_with_head()
            empty.pop(row["lane"], None)
            chain = _LaneChain(_known_name(row, report), row, report, awaited)
            report.covers(moment_at(row["moment"]))
        chain.follow(row)
    if chain is not None:
        chain.compare_with_head()
    for lane in empty.values():
        _LaneChain(name_of(lane), lane, report, awaited).compare_with_head()
    for head in awaited.values():
        what = f"sequence {head.sequence} with hash {head.hash} was anchored, and is not there"
        report.found(Kind.ANCHOR, f"lane {head.lane}", what)
    if anchor is not None:
        report.anchored = len(anchored) - len(awaited)


async def _transitions(connection: asyncpg.Connection, kept: timedelta, progress: Progress) -> AsyncIterator[Row]:
    query, begin = statement("audit/transitions"), (_LOWEST_LANE, 0)
    async for page in pages(connection, query, begin, lambda row: (row["lane"], row["sequence"]), kept):
        for row in page:
            yield row
        progress.advance(len(page))


@dataclass(slots=True)
class _LaneChain:
    """The chain of one lane, as far as it has been followed."""

    name: str
    last: Row
    """The row read last. It has the lane's head as it was when that row was read."""
    report: Audit
    awaited: dict[str, Head]
    """The anchored heads that are still to be found, by the names of their lanes."""
    end: Chain = _FIRST
    moment: float = 0.0
    """The time of the last transition followed, in seconds since the epoch."""

    def follow(self, row: Row) -> None:
        """Check one transition, and go on from it as it is stored: the next one is judged on its own."""
        where = f"lane {self.name} sequence {row['sequence']}"
        self._compare_link(where, row)
        self._compare_hash(where, row)
        self._judge(where, row)
        self.end, self.last, self.moment = Chain(row["sequence"], row["hash"]), row, row["moment"]
        head = self.awaited.get(self.name)
        if head is not None and head.sequence == row["sequence"] and head.hash == row["hash"].hex():
            del self.awaited[self.name]
        self.report.transitions += 1

    def compare_with_head(self) -> None:
        """Compare the end of the chain with its lane's head, unless the lane is gone."""
        if self.end.sequence:
            self.report.covers(moment_at(self.moment))
        if self.last["chain_sequence"] is None:
            return
        head = Chain(self.last["chain_sequence"], self.last["chain_hash"])
        if head != self.end:
            what = f"its head is sequence {head.sequence}, {head.hash.hex()}; the last transition is "
            last = f"sequence {self.end.sequence}, {self.end.hash.hex()}" if self.end.sequence else "none"
            self.report.found(Kind.HEAD, f"lane {self.name}", what + last)

    def _compare_link(self, where: str, row: Row) -> None:
        due = self.end.sequence + 1
        if row["sequence"] != due:
            self.report.found(Kind.MISSING, f"lane {self.name}", sequences(due, row["sequence"] - 1))
        elif row["previous_hash"] != self.end.hash:
            what = f"previous_hash should be {self.end.hash.hex()}, and is {row['previous_hash'].hex()}"
            self.report.found(Kind.UNLINKED, where, what, *self._origins(row))

    def _compare_hash(self, where: str, row: Row) -> None:
        stored, computed = row["hash"], _hash(row, self.name)
        if computed != stored:
            whose = version_place(row["organisation"], row["access_token_id"], row["version"])
            what = f"{whose}: should hash to {stored.hex()}, and hashes to {computed.hex()}"
            self.report.found(Kind.CHANGED, where, what, _origin(row))
            if len(self.report.changed) < MOST_COMPARED:
                self.report.changed[row["lane"], row["sequence"]] = _members(row, self.name)

    def _judge(self, where: str, row: Row) -> None:
        """Check the members of a transition that do not link it to the chain."""
        is_first, is_import = self.end.sequence == 0, row["cause"] == "IMPORT"
        if row["cluster"] is not None and is_import != (row["cluster"] == ""):
            self.report.found(Kind.CAUSE, where, f"its cause is {row['cause']}", _origin(row))
        if not (is_first or is_import) and row["moment"] < self.moment:
            self.report.found(Kind.LATE, where, f"occurred at {row['occurred_at']}", *self._origins(row))
        if row["is_unrecorded"]:
            self.report.found(Kind.UNRECORDED, where, f"of the command {row['command_id']}", _origin(row))

    def _origins(self, row: Row) -> tuple[Origin, ...]:
        """Return the origins of a transition and of the one before: where two do not fit, either may be the forged one.

        Without one before, ``last`` is the row itself.
        """
        return _origin(row), _origin(self.last)


def _origin(row: Row) -> Origin:
    return Origin(row["organisation"], moment_at(row["moment"]))


def _known_name(row: Row, report: Audit) -> str:
    """Return the name of a transition's lane; if the lane is gone, a text that no chain was hashed with."""
    if row["cluster"] is not None:
        return name_of(row)
    report.found(Kind.NO_LANE, f"lane with the id {row['lane']}", "its row is gone: its name, and so no hash, is known")
    return f"(id {row['lane']})"


def _hash(row: Row, lane: str) -> bytes:
    """Hash a transition as its event is hashed (CONTRACT, Transition event), from its columns as they are now."""
    return hashlib.sha256(msgspec.json.encode(_members(row, lane), order="sorted")).digest()


def _members(row: Row, lane: str) -> dict[str, Any]:
    """Return the members of a transition's event, without its hash, from its columns as they are now."""
    return {name: row[name] for name in _AS_STORED} | {"lane": lane, "previous_hash": row["previous_hash"].hex()}
