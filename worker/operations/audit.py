"""Verify the history: every lane's hash chain, every access token's state, the topic, and anchors (CONTRACT 6).

Workers may go on meanwhile: everything in Postgres is read in pages, in the order of the chains, and no page needs the
same moment as another. A chain proves itself; only its end and its lane's head must be of one moment, and of an access
token its state and its history. So ten million transitions take no more memory than ten, and no snapshot stays open.
"""

import hashlib
import hmac
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import asyncpg
import msgspec
import orjson

from effective_contract.transition import event_hash
from worker.errors import WorkerError
from worker.journey.apply import Chain
from worker.journey.model import lane_name
from worker.kafka.reader import Browser, Span
from worker.postgres.pages import by_token, pages
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.values import rfc3339

MOST_NAMED: Final = 1_000
"""Of each kind. The rest is counted."""
_CHUNK: Final = 1_000
"""Rows that are held at once."""
_FIRST: Final = Chain(0, bytes(32))
_TOLD: Final = (
    "organisation",
    "access_token_id",
    "version",
    "from_state",
    "to_state",
    "occurred_at",
    "user_id",
    "unit_id",
    "command_id",
    "cause",
    "sequence",
)
UNPUBLISHED: Final = timedelta(minutes=10)
"""How long a transition may wait to be published."""
LARGEST_BATCH: Final = 10_000
"""The most commands that a batch may be set to have (CONTRACT 9)."""
_UNNOTICED: Final = timedelta(minutes=1)
"""A record is retired by a clock that is read a little later than the one that the audit goes by."""
_LOWEST_LANE: Final = -(2**31)
_LARGEST_SEQUENCE: Final = 2**63 - 1


class Kind(StrEnum):
    """What can be found wrong."""

    CHANGED = "a transition that does not hash to its hash"
    UNLINKED = "a transition that is not linked to the one before"
    MISSING = "transitions that are missing"
    HEAD = "a chain that does not end at its lane's head"
    NO_LANE = "transitions of a lane that is gone"
    LATE = "a transition that is earlier than the one before"
    CAUSE = "a transition of a kind that is not its lane's"
    UNRECORDED = "a transition without the record of its command"
    GONE = "an access token that is gone"
    SIGNED = "an access token that another is said to have changed than did"
    HISTORY = "an access token's history that is not whole"
    STATE = "an access token that is not as its history left it"
    ANCHOR = "a chain that does not hold what was anchored"
    NO_EVENT = "transitions that were not published"
    OTHER_EVENT = "an event that differs from the transition"
    UNKNOWN_EVENT = "an event without a transition"


@dataclass(frozen=True, slots=True)
class Finding:
    """``where`` names the place, ``what`` what was expected there."""

    kind: Kind
    where: str
    what: str


@dataclass(slots=True)
class Audit:
    """What was looked at, and everything that is wrong with it (of each kind the first thousand)."""

    lanes: int = 0
    transitions: int = 0
    events: int | None = None
    """``None`` if the topic was left out."""
    anchored: int | None = None
    """Chain heads of the anchor that were found again; ``None`` without one."""
    unpublished: int = 0
    """Transitions of batches whose publication was not seen and may still be under way."""
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.counts

    def found(self, kind: Kind, where: str, what: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_NAMED:
            self.findings.append(Finding(kind, where, what))


OnProgress = Callable[[int, int], None]


# --- anchors ----------------------------------------------------------------------------------------------------------


class AnchorError(WorkerError):
    """The text is no anchor, or is not as it was printed."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a chain ended. ``hash`` is lower-case hex."""

    lane: str
    sequence: int
    hash: str


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All chain heads at one moment, with a digest of them: kept elsewhere, it tells later what was there."""

    taken_at: str
    heads: tuple[Head, ...]
    digest: str
    """Lower-case hex SHA-256 of the compact JSON of ``taken_at`` and ``heads``."""
    format: int
    signature: str | None = None
    """Lower-case hex HMAC-SHA256 of the digest as it stands, under a key that no worker has."""


async def take_anchor(connection: asyncpg.Connection, *, now: datetime, key: bytes | None = None) -> Anchor:
    """The heads of all chains that have begun, signed with ``key`` if there is one.

    Raises ``AnchorError`` if a chain does not end at its lane's head.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = [row for row in await _lanes(connection) if row["chain_sequence"]]
        lanes, numbers = [row["id"] for row in rows], [row["chain_sequence"] for row in rows]
        ends = {row["lane"]: row["hash"] for row in await connection.fetch(statement("audit/facts"), lanes, numbers)}
    for row in rows:
        if ends.get(row["id"]) != row["chain_hash"]:
            raise AnchorError(f"the head of lane {_name(row)} is not in its chain: see audit verify")
    heads = tuple(Head(_name(row), row["chain_sequence"], row["chain_hash"].hex()) for row in rows)
    digest = _digest(rfc3339(now), heads)
    return Anchor(rfc3339(now), heads, digest, 1, None if key is None else _signature(key, digest))


def read_anchor(text: bytes, *, key: bytes | None = None) -> Anchor:
    """What :func:`take_anchor` gave, from its JSON; with a ``key`` it must be signed with it.

    Raises ``AnchorError``.
    """
    try:
        anchor = msgspec.json.decode(text, type=Anchor)
    except msgspec.MsgspecError as error:
        raise AnchorError(f"this is no anchor: {error}") from None
    if anchor.format != 1:
        raise AnchorError(f"the anchor is of format {anchor.format}, and only 1 is known")
    if _digest(anchor.taken_at, anchor.heads) != anchor.digest:
        raise AnchorError("the anchor's digest is not that of its heads: it was changed")
    if key is not None and anchor.signature is None:
        raise AnchorError("the anchor is not signed: it may be anybody's")
    if key is not None and not hmac.compare_digest(anchor.signature or "", _signature(key, anchor.digest)):
        raise AnchorError("the anchor was not signed with this key")
    return anchor


def _signature(key: bytes, digest: str) -> str:
    return hmac.new(key, digest.encode(), "sha256").hexdigest()


def _digest(taken_at: str, heads: Sequence[Head]) -> str:
    return hashlib.sha256(msgspec.json.encode([taken_at, heads])).hexdigest()


# --- the audit --------------------------------------------------------------------------------------------------------


async def verify(
    connection: asyncpg.Connection,
    *,
    topic: tuple[Browser, str] | None = None,
    anchor: Anchor | None = None,
    kept: timedelta = timedelta(days=30),
    batch: int = LARGEST_BATCH,
    on_progress: OnProgress = lambda _done, _total: None,
) -> Audit:
    """Look at everything. ``topic``: who reads the transitions topic, and its name; without, it is left out.

    ``kept`` is how long workers keep the record of a command, ``batch`` how many commands a batch may have.
    ``on_progress`` gets how many transitions and events of how many were read. Raises ``DependencyAway``.
    """
    lanes = {row["id"]: row for row in await _lanes(connection, batch)}
    work = Work(connection, lanes, _anchored(anchor), max(timedelta(0), kept - _UNNOTICED), on_progress)
    work.total = sum(row["chain_sequence"] for row in lanes.values())
    await work.chains()
    await work.states()
    if topic is not None:
        await work.published(*topic)
    work.report.lanes = len(lanes)
    return work.report


async def _lanes(connection: asyncpg.Connection, batch: int = 0) -> list[Row]:
    rows: list[Row] = await connection.fetch(statement("audit/lanes"), batch, UNPUBLISHED)
    return rows


def _anchored(anchor: Anchor | None) -> dict[str, Head] | None:
    return None if anchor is None else {head.lane: head for head in anchor.heads}


@dataclass(slots=True)
class Work:
    """One audit under way."""

    connection: asyncpg.Connection
    lanes: Mapping[int, Row]
    anchored: dict[str, Head] | None
    kept: timedelta
    on_progress: OnProgress
    report: Audit = field(default_factory=Audit)
    done: int = 0
    total: int = 0
    moment: float = 0.0
    """Of the transition that was looked at last, in seconds since the epoch."""

    # --- chains -------------------------------------------------------------------------------------------------------

    async def chains(self) -> None:
        """Every chain from its first transition to its lane's head."""
        unseen = dict(self.lanes)
        last, name, chain = None, "", _FIRST
        if self.anchored is not None:
            self.report.anchored = 0
        async for row in self._transitions():
            if last is None or row["lane"] != last["lane"]:
                self._end(last, name, chain)
                unseen.pop(row["lane"], None)
                name, chain = self._unknown(row["lane"]) if row["cluster"] is None else _name(row), _FIRST
            chain, last = self._link(name, chain, row), row
        self._end(last, name, chain)
        for row in unseen.values():
            self._end(row, _name(row), _FIRST)
        for head in (self.anchored or {}).values():
            what = f"sequence {head.sequence} with hash {head.hash} was anchored, and is not there"
            self.report.found(Kind.ANCHOR, f"lane {head.lane}", what)

    def _link(self, name: str, chain: Chain, row: Row) -> Chain:
        """Look at one transition, and go on from it as it stands: what comes after it is judged for itself."""
        sequence, found = row["sequence"], row["hash"]
        where = f"lane {name} sequence {sequence}"
        if sequence != chain.sequence + 1:
            self.report.found(Kind.MISSING, f"lane {name}", f"sequence {_range(chain.sequence + 1, sequence - 1)}")
        elif row["previous_hash"] != chain.hash:
            what = f"previous_hash should be {chain.hash.hex()}, and is {row['previous_hash'].hex()}"
            self.report.found(Kind.UNLINKED, where, what)
        due = _hash(row, name)
        if due != found:
            whose = f"version {row['version']} of the access token {row['access_token_id']} of {row['organisation']}"
            self.report.found(Kind.CHANGED, where, f"{whose}: should hash to {found.hex()}, and hashes to {due.hex()}")
        self._judge(where, row, is_first=chain.sequence == 0)
        if self.anchored is not None:
            head = self.anchored.get(name)
            if head is not None and head.sequence == sequence and head.hash == found.hex():
                del self.anchored[name]
                self.report.anchored = (self.report.anchored or 0) + 1
        self.report.transitions += 1
        return Chain(sequence, found)

    def _judge(self, where: str, row: Row, *, is_first: bool) -> None:
        """Look at what a transition says beside its place in the chain."""
        is_import = row["cause"] == "IMPORT"
        if row["cluster"] is not None and is_import != (row["cluster"] == ""):
            self.report.found(Kind.CAUSE, where, f"its cause is {row['cause']}")
        if not (is_first or is_import) and row["moment"] < self.moment:
            self.report.found(Kind.LATE, where, f"occurred at {row['occurred_at']}")
        if row["is_unrecorded"]:
            self.report.found(Kind.UNRECORDED, where, f"of the command {row['command_id']}")
        self.moment = row["moment"]

    def _end(self, row: Row | None, name: str, chain: Chain) -> None:
        """Compare the end of a chain with the head of its lane, by a row that was read in the moment of that end."""
        if row is None or row["chain_sequence"] is None:
            return
        head = Chain(row["chain_sequence"], row["chain_hash"])
        if head != chain:
            what = f"its head is sequence {head.sequence}, {head.hash.hex()}; the last transition is "
            last = f"sequence {chain.sequence}, {chain.hash.hex()}" if chain.sequence else "none"
            self.report.found(Kind.HEAD, f"lane {name}", what + last)

    def _unknown(self, lane: int) -> str:
        self.report.found(
            Kind.NO_LANE, f"lane with the id {lane}", "its row is gone: its name, and so no hash, is known"
        )
        return f"(id {lane})"

    # --- states -------------------------------------------------------------------------------------------------------

    async def states(self) -> None:
        """Every access token against its history."""
        async for row in by_token(self.connection, statement("audit/states")):
            where = f"access token {row['id']} of {row['organisation']}"
            if row["is_gap"]:
                self.report.found(Kind.HISTORY, where, "its versions do not count 1, 2, 3 …")
            if row["is_elsewhere"]:
                self.report.found(Kind.HISTORY, where, "a transition does not begin where the one before has ended")
            now, told = _state(row["life_cycle_state"], row["version"]), _state(row["told_state"], row["told_version"])
            if row["is_gone"]:
                self.report.found(Kind.GONE, where, f"its last transition: {told}")
            elif now != told and (row["told_version"] is not None or row["life_cycle_state"] == "EFFECTIVE"):
                self.report.found(Kind.STATE, where, f"is {now}; its last transition: {told}")
            if row["is_of_others"]:
                self.report.found(Kind.SIGNED, where, "its updated_* are not those of its last transition")

    # --- what was published -------------------------------------------------------------------------------------------

    async def published(self, kafka: Browser, topic: str) -> None:
        """Every event against its transition, and against the events every transition that was there at the beginning.

        The lanes are looked up after the ends of the topic: whatever was published below is of one of them.
        """
        spans = (await kafka.spans(topic)).get(topic, [])
        self.report.events = 0
        self.total += sum(span.end - span.begin for span in spans)
        kafka.open(spans)
        ids = {_name(row): row["id"] for row in await _lanes(self.connection)}
        seen: dict[int, Numbers] = {lane: Numbers() for lane in ids.values()}
        for span in spans:
            events: list[tuple[str, dict[str, Any]]] = []
            async for record in kafka.read(span):
                events += self._event(record)
                self._progressed()
                if len(events) >= _CHUNK:
                    await self._compare(events, ids, seen)
                    events = []
            await self._compare(events, ids, seen)
        self._unpublished(spans, seen)

    def _event(self, record: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        where = f"{record.topic}/{record.partition} offset {record.offset}"
        self.report.events = (self.report.events or 0) + 1
        try:
            event = orjson.loads(record.value or b"")
            if (type(event["lane"]), type(event["sequence"]), type(event["hash"])) != (str, int, str):
                raise TypeError
            whole = event_hash(event) == event["hash"]
            key = f"{event['organisation']}:{event['access_token_id']}".encode()
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.report.found(Kind.OTHER_EVENT, where, "is no transition event")
            return
        if record.key != key:
            self.report.found(Kind.OTHER_EVENT, where, "its key is not that of its access token")
        if whole:
            yield where, event
        else:
            self.report.found(Kind.OTHER_EVENT, where, "its hash is not that of its members")

    async def _compare(
        self,
        events: Sequence[tuple[str, dict[str, Any]]],
        ids: Mapping[str, int],
        seen: Mapping[int, "Numbers"],
    ) -> None:
        """Postgres commits first: whatever is published stands there."""
        known = [(ids.get(event["lane"], 0), event["sequence"]) for _, event in events]
        possible = [(lane, number) for lane, number in known if 0 < number <= _LARGEST_SEQUENCE]
        lanes, numbers = [lane for lane, _ in possible], [number for _, number in possible]
        rows = await self.connection.fetch(statement("audit/facts"), lanes, numbers)
        hashes = {(row["lane"], row["sequence"]): row["hash"].hex() for row in rows}
        for (where, event), key in zip(events, known, strict=True):
            due = hashes.get(key)
            if due is None:
                what = f"{where}: there is no sequence {event['sequence']}"
                self.report.found(Kind.UNKNOWN_EVENT, f"lane {event['lane']}", what)
            elif due != event["hash"]:
                what = f"its hash is {event['hash']}, the transition's {due}"
                self.report.found(Kind.OTHER_EVENT, f"{where}, lane {event['lane']} sequence {event['sequence']}", what)
            if key in hashes:
                seen[key[0]].add(key[1])

    def _unpublished(self, spans: Sequence[Span], seen: Mapping[int, "Numbers"]) -> None:
        is_cut = any(span.begin for span in spans)
        for lane, row in self.lanes.items():
            last, certain = row["chain_sequence"], row["chain_sequence"] - row["unpublished"]
            for first, end in seen[lane].missing(last):
                if first > certain:
                    self.report.unpublished += end - first + 1
                    continue
                self.report.unpublished += max(0, end - certain)
                more = ", or were removed with the beginning of the topic" if is_cut and first == 1 else ""
                what = f"sequence {_range(first, min(end, certain))} have no event{more}"
                self.report.found(Kind.NO_EVENT, f"lane {_name(row)}", what)

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _transitions(self) -> AsyncIterator[Row]:
        query = statement("audit/transitions")
        begin = (_LOWEST_LANE, 0)
        async for page in pages(self.connection, query, begin, lambda row: (row["lane"], row["sequence"]), self.kept):
            for row in page:
                yield row
            self._progressed(len(page))

    def _progressed(self, count: int = 1) -> None:
        before, self.done = self.done, self.done + count
        if before // 1000 != self.done // 1000:
            self.on_progress(self.done, self.total)


class Numbers:
    """Numbers from 1 on that were seen, as runs: they come nearly in order."""

    def __init__(self) -> None:
        self._runs: list[list[int]] = []

    def add(self, number: int) -> None:
        place = bisect_right(self._runs, number, key=lambda run: run[0])
        before = self._runs[place - 1] if place else None
        after = self._runs[place] if place < len(self._runs) else None
        if before is not None and number <= before[1]:
            return
        joins_before = before is not None and before[1] + 1 == number
        if after is not None and number + 1 == after[0]:
            after[0] = number
            if before is not None and joins_before:
                after[0] = before[0]
                del self._runs[place - 1]
        elif before is not None and joins_before:
            before[1] = number
        else:
            self._runs.insert(place, [number, number])

    def missing(self, last: int) -> Iterator[tuple[int, int]]:
        """The runs of numbers up to ``last`` that were not seen: first and last of each."""
        due = 1
        for first, end in self._runs:
            if first > last:
                break
            if due < first:
                yield due, first - 1
            due = end + 1
        if due <= last:
            yield due, last


def _name(lane: Row) -> str:
    return lane_name(lane["cluster"], lane["consumer_group"], lane["topic"], lane["partition"])


def _hash(row: Row, lane: str) -> bytes:
    """What a transition should hash to (CONTRACT 6), whatever was made of its columns."""
    members = {name: row[name] for name in _TOLD} | {"lane": lane, "previous_hash": row["previous_hash"].hex()}
    return hashlib.sha256(msgspec.json.encode(members, order="sorted")).digest()


def _state(state: str | None, version: int | None) -> str:
    return "none" if state is None else f"{state}, version {version}"


def _range(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"
