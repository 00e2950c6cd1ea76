"""What was asked, and what was seen: the two books that the checker compares."""

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
"""The header by which commands are numbered: the worker returns it with the answer."""


class Delivery(StrEnum):
    """What the workers were told to promise (``WORKER_DELIVERY``)."""

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
    """Everything that was sent, by number, and the state that it began with."""

    commands: list[Command] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    """The codes of the access tokens that exist."""
    effective: frozenset[str] = frozenset()
    """Those of them that were effective from the beginning."""
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
    """One record of the command topic. ``timestamp`` (milliseconds) tells two apart that stood at one offset."""

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
    """Whether it says that it is of one."""


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the transition topic. ``event_id`` is its ``ce_id``."""

    partition: int
    offset: int
    event_id: str
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Which record of the command topic was put aside."""

    partition: int
    offset: int
    code: str
    timestamp: int = 0

    @property
    def place(self) -> Coordinates:
        return self.partition, self.offset, self.timestamp


@dataclass(slots=True)
class Evidence:
    """What Kafka and Postgres hold when everything has come to rest."""

    sent: Sequence[Sent] = ()
    """Those of a partition in their order; also what is not in the log any more."""
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
    """Of the command topic, of the partitions that hold anything."""
    removed: Sequence[Sent] = ()
    """Those of ``sent`` that were removed from the log before the group had read them."""
    written_down: Sequence[tuple[int, range]] = ()
    """The offsets that workers wrote down as lost, with their partition."""
    untold: Sequence[str] = ()
    """Troubles that needed a person, and were told to nobody, or after a person had seen to it."""
    during: Mapping[str, Sequence[Seen]] = field(default_factory=dict)
    """By topic, what the reader saw that ran during the faults."""
    after: Mapping[str, Sequence[Seen]] = field(default_factory=dict)
    """By topic, what one sees that runs now."""
    refused_as_too_large: int = 0
    """How often a harness's lie said that an answer is too large: so many may have gone out without their data."""
    unsettled: Sequence[str] = ()
    """The topics in which a transaction is still open."""
    disturbed: Sequence[str] = ()
    """The lanes that were thrown back to their start while nothing hurt anyone."""
    left: Sequence[str] = ()
    """What the workers left behind that they should not have, or held too much of: sessions, tasks, sockets."""
    unkept: Sequence[str] = ()
    """Things that faults saw of workers that did otherwise, in their trouble, than they should."""
    failed: Sequence[str] = ()
    """The lanes that ended with an error of the worker's own."""
    unreadable: Sequence[str] = ()
    """What was published and is not what a reader may expect."""
    stalled: Sequence[str] = ()
    """The partitions of commands that did not come on at all while nothing hurt anyone."""
    refused: Sequence[str] = ()
    """What became of the load that the ledger does not know."""
    misread: Sequence[str] = ()
    """What befell the reader that ran during the faults."""
    fallen: Sequence[str] = ()
    """The servers that ended although the schedule did not end them."""
    bungled: Sequence[str] = ()
    """What the harness did to the stage and could not bring to its end."""
    slow: Sequence[str] = ()
    """What came on, and was not done when patience was at its end."""
    still_seconds: float = 0.0
    """The longest that the machine did not let the harness go on, when it looked at how the workers rest."""


def seen(record: Record) -> Seen:
    """A record without its weight."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (
        record.key,
        record.value,
        *(text for name, value in record.headers for text in (name.encode(), value)),
    ):
        digest.update(b"-" if part is None else b"%d:%b" % (len(part), part))
    return Seen(record.partition, record.offset, digest.digest())


def number_of(record: Record) -> int:
    """The number of the command, or -1 where there is none that could be read."""
    text = record.header(NUMBER)
    return int(text) if text is not None and text.isdigit() else -1


def sent(record: Record) -> Sent:
    return Sent(record.partition, record.offset, number_of(record), record.timestamp)


def result(record: Record) -> Result:
    """Body and headers must say the same; a result in which they do not has the status ``CONTRADICTS_ITSELF``."""
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
    """Raises ``KeyError`` for one without the members by which events are told apart."""
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
