"""Commands sent and records seen: the two books that the checker compares."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tests.acceptance.clients import Record

SOURCE: Final = "/faults"
ORGANISATION: Final = "ORG1"
NUMBER: Final = "correlation_id"
"""The header with the number of a command: the worker returns it with the answer."""


class Delivery(StrEnum):
    """The promise that the workers were configured with (``WORKER_DELIVERY``)."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it was meant. ``number`` counts from 0."""

    number: int
    partition: int
    code: str
    """The authentication code that it names."""
    fields: str
    identity: str | None = None
    """The ``ce_id``."""
    flaw: str | None = None
    """The status that is due before any state is looked at; ``None`` for a command without a flaw."""
    dry_run: bool = False


@dataclass(slots=True)
class Ledger:
    """Everything that was sent, by number, and the initial state."""

    commands: list[Command] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    """The codes of the access tokens that exist."""
    effective: frozenset[str] = frozenset()
    """The codes that were effective from the beginning."""
    delivery: Delivery = Delivery.EXACTLY_ONCE

    def write(self, command: Command) -> None:
        assert command.number == len(self.commands)
        self.commands.append(command)


@dataclass(frozen=True, slots=True)
class Seen:
    """One record of a topic as a reader saw it, kept small. Equal if the records were."""

    partition: int
    offset: int
    digest: bytes


Coordinates = tuple[int, int, int]
"""Partition, offset and timestamp of a command: a log that begins again uses its offsets again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One record of the command topic. ``timestamp`` (milliseconds) tells two apart that had one offset."""

    partition: int
    offset: int
    number: int
    timestamp: int = 0

    @property
    def place(self) -> Coordinates:
        return self.partition, self.offset, self.timestamp


@dataclass(frozen=True, slots=True)
class Result:
    """One record of the result topic. ``event_id`` is its own ``ce_id``; ``data`` is kept of an ``OK`` only."""

    partition: int
    offset: int
    number: int
    status: str
    replayed: bool
    command_id: str
    event_id: str
    data: Mapping[str, Any] | None = None
    dry_run: bool = False
    """True if it is marked as one of a dry run."""


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the transition topic. ``event_id`` is its ``ce_id``."""

    partition: int
    offset: int
    event_id: str
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record of the command topic that was put aside."""

    partition: int
    offset: int
    code: str
    timestamp: int = 0

    @property
    def place(self) -> Coordinates:
        return self.partition, self.offset, self.timestamp


@dataclass(slots=True)
class Evidence:
    """The content of Kafka and Postgres after everything has come to rest."""

    sent: Sequence[Sent] = ()
    """Commands of a partition in their order, with those that are not in the log any more."""
    results: Sequence[Result] = ()
    events: Sequence[Event] = ()
    dead_letters: Sequence[DeadLetter] = ()
    history: Sequence[Mapping[str, Any]] = ()
    """The transition table, as events, by lane and sequence."""
    recorded: Collection[Coordinates] = ()
    """The commands that the record of commands knows."""
    states: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """State and version of each access token by its code."""
    committed: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)
    """Ends of the command topic, for the partitions that hold anything."""
    removed: Sequence[Sent] = ()
    """Those of ``sent`` that were removed from the log before the group had read them."""
    written_down: Sequence[tuple[int, range]] = ()
    """The offsets that workers recorded as lost, with their partition."""
    untold: Sequence[str] = ()
    """Troubles that needed a person, and were not reported, or only after a person had acted."""
    during: Mapping[str, Sequence[Seen]] = field(default_factory=dict)
    """By topic, the records seen by the reader that ran during the faults."""
    after: Mapping[str, Sequence[Seen]] = field(default_factory=dict)
    """By topic, the records seen by a reader now."""
    refused_as_too_large: int = 0
    """The number of times the harness said falsely that an answer is too large: so many may lack their data."""
    unsettled: Sequence[str] = ()
    """The topics in which a transaction is still open."""
    disturbed: Sequence[str] = ()
    """The lanes that were thrown back to their start while no fault was at work."""
    left: Sequence[str] = ()
    """Holdings that the workers should not have left behind, or held too many of: sessions, tasks, sockets."""
    unkept: Sequence[str] = ()
    """Reactions of workers to a fault that differ from the promised ones."""
    failed: Sequence[str] = ()
    """The lanes that ended with an error of the worker's own."""
    unreadable: Sequence[str] = ()
    """Published records that a reader may not expect."""
    stalled: Sequence[str] = ()
    """The partitions of commands that made no progress at all while no fault was at work."""
    refused: Sequence[str] = ()
    """Failures of the load that the ledger does not know."""
    misread: Sequence[str] = ()
    """Errors of the reader that ran during the faults."""
    fallen: Sequence[str] = ()
    """The servers that ended although the schedule did not end them."""
    bungled: Sequence[str] = ()
    """Actions on the stage that the harness could not finish."""
    slow: Sequence[str] = ()
    """Work that made progress, and was not done at the end of the patience."""
    still_seconds: float = 0.0
    """The longest halt of the harness by the machine, in seconds, while it watched the resting workers."""


def seen(record: Record) -> Seen:
    """Return a record without its weight."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (
        record.key,
        record.value,
        *(text for name, value in record.headers for text in (name.encode(), value)),
    ):
        digest.update(b"-" if part is None else b"%d:%b" % (len(part), part))
    return Seen(record.partition, record.offset, digest.digest())


def number_of(record: Record) -> int:
    """Return the number of the command, or -1 if there is none that can be read."""
    text = record.header(NUMBER)
    return int(text) if text is not None and text.isdigit() else -1


def sent(record: Record) -> Sent:
    return Sent(record.partition, record.offset, number_of(record), record.timestamp)


def result(record: Record) -> Result:
    """Return the result.

    Body and headers must say the same; a result in which they do not has the status ``CONTRADICTS_ITSELF``.
    """
    body = json.loads(record.value or b"{}")
    status = body["status"]["code"]
    code, replayed = record.header("status_code"), record.header("replayed")
    if code != status.encode() or replayed not in {b"true", b"false"}:
        status = "CONTRADICTS_ITSELF"
    return Result(
        record.partition,
        record.offset,
        number_of(record),
        status,
        replayed == b"true",
        (record.header("command_id") or b"").decode(),
        (record.header("ce_id") or b"").decode(),
        body["data"] if status == "OK" else None,
        record.header("dry_run") == b"true",
    )


def event(record: Record) -> Event:
    """Return the event. Raises ``KeyError`` for one without the members by which events are told apart."""
    members = json.loads(record.value or b"{}")
    for name in ("lane", "sequence", "access_token_id"):
        members[name]
    return Event(record.partition, record.offset, (record.header("ce_id") or b"").decode(), members)


def dead_letter(record: Record) -> DeadLetter:
    names = ("partition", "offset", "timestamp", "code")
    partition, offset, timestamp, code = (record.header(f"dl_{name}") or b"-1" for name in names)
    return DeadLetter(int(partition), int(offset), code.decode(), int(timestamp))


def by_partition(records: Sequence[Seen]) -> dict[int, list[Seen]]:
    grouped: dict[int, list[Seen]] = defaultdict(list)
    for record in records:
        grouped[record.partition].append(record)
    return dict(grouped)
