"""Explain a command: where it was read, what was decided and why, and where its answer went."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import unquote

import asyncpg

from effective_contract import headers as h
from effective_contract.access_token import field_names
from worker.errors import OperatorError, WorkerError
from worker.journey.digests import CommandNames, command_names
from worker.journey.messages import DEAD_LETTERED
from worker.journey.model import command_key
from worker.kafka.delivery import Coordinates, coordinates_of
from worker.kafka.reader import TopicReader, header, is_dry_run, topic_reader
from worker.kafka.topics import admin_client, cluster_id
from worker.operations.dead_letters.letters import letter_of
from worker.operations.history import Change, history
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import percent_encoded, rfc3339

_CLOCKS: Final = timedelta(minutes=1)
"""The most by which the clocks of workers and brokers may differ: the search for an answer starts this much earlier."""

_WHOLE_ID: Final = re.compile(r"ce:[^:]*(?::[^:]*){1,2}:[^:]+|req:[^:]*(?::[^:]*)?:[^:]+")
"""Whole ids. They are not searched for among the senders' own ids, which would scan the whole record of commands."""


_PLACE: Final = re.compile(r"(?:([^/:]+)/)?(\d{1,9})/(\d{1,18})")
"""``TOPIC/PARTITION/OFFSET``, or without the topic of commands."""
_MOST_NAMED: Final = 20


class AmbiguousId(OperatorError):
    """Several commands are known under a sender's own id, or at a position."""

    def __init__(self, given: str, ids: Sequence[str]) -> None:
        more = f", and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
        named = ", ".join(ids[:_MOST_NAMED])
        super().__init__(f"{len(ids)} commands are called {given}; name one of: {named}{more}")


class NothingThere(OperatorError):
    """No command is known of a position in Kafka."""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a message in Kafka. ``timestamp`` is in UTC."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """One delivery of the command: where it was read, the decision, and where the answer is."""

    cluster: str
    group: str
    read: Place
    organisation: str | None
    """The verified organisation of the sender; ``None`` if its login was not verified."""
    status: str
    message: str
    replayed: bool
    fields: tuple[str, ...]
    access_token: str | None
    version: int | None
    """The version that the access token reached by this very delivery."""
    decided_at: datetime
    refused_user: str | None = None
    """The id of a user refused for a wrong code or pass code."""
    tried_digest: str | None = None
    """The keyed digest of the code or identifier that this user named."""
    in_topic: bool | None = None
    """True if the command is still in its topic; ``None`` if the topic was not read."""
    results: tuple[Place, ...] = ()
    dead_letters: tuple[Place, ...] = ()
    reply_to: str | None = None
    """The topic that the sender wants the answer in, if the command is still there and names one."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The answer to the command as a dry run, and its position; nothing else is left of a dry run."""

    command_id: str
    answer: Place
    status: str
    replayed: bool


State = Literal["decided", "dry_run", "retired", "waiting", "unknown"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The story of one command. ``readings`` are all its deliveries, the first one first; ``change`` is their effect.

    ``state`` is ``retired`` if only the transition is left, or if the offset is known to be decided; ``note`` says so.
    ``dry_runs`` are searched for if nothing else is known. ``topics`` says if the topics were read, or why not.
    """

    command_id: str
    state: State
    note: str
    readings: tuple[Reading, ...]
    organisation: str | None
    access_token: str | None
    change: Change | None
    topics: str
    dry_runs: tuple[DryRun, ...] = ()


async def explain(settings: Settings, given: str, *, topics: bool = True) -> Explanation:
    """Explain a command by its id (CONTRACT, Command), by the sender's own part of it, or by a position in Kafka.

    The position is that of the command, of its answer or of its dead letter. Raises ``AmbiguousId`` if several are
    meant, ``NothingThere`` if nothing is known of a position, and ``DependencyUnavailable`` for Postgres. A broker that
    is away is only noted, unless the position cannot be told without it.
    """
    place = _PLACE.fullmatch(given)
    if place is not None:
        where = (place[1] or settings.topics.commands, int(place[2]), int(place[3]))
        return await _explained(settings, await _id_at(settings, where, topics=topics), topics=topics)
    explained = await _explained(settings, given, topics=topics)
    if explained.state != "unknown" or explained.topics != "searched" or coordinates_of(given) is not None:
        return explained
    # A command that was refused before its sender was verified is recorded under its position: only its answer has the
    # sender's own id.
    ids = await _answered_under(settings, given)
    if len(ids) > 1:
        raise AmbiguousId(given, ids)
    return await _explained(settings, ids[0], topics=topics) if ids else explained


async def _explained(settings: Settings, given: str, *, topics: bool) -> Explanation:
    dsn = settings.postgres.dsn.get_secret_value()
    async with owner_connection(dsn) as connection:
        names = command_names(settings)
        command_id = await _known_id(connection, given, names)
        rows = await connection.fetch(statement("explain/commands"), command_id, command_key(command_id))
        change = next((row for row in rows if row["version"] is not None), None)
        if change is None:
            called = (names.all_of(command_id), _organisation(command_id))
            change = await connection.fetchrow(statement("explain/transition"), *called)
        absence = None if rows else await _absent(connection, command_id, settings, names, changed=change is not None)
    owner, token = (None, None) if change is None else (change["organisation"], change["access_token_id"])
    whole = None if change is None else await history(dsn, change["access_token_id"], change["organisation"])
    readings, dry_runs, looked = tuple(map(_reading, rows)), None, "not searched"
    if topics and (readings or change is None):
        readings, dry_runs, looked = await _look_at_topics(settings, command_id, readings)
    if dry_runs or (dry_runs is not None and absence is not None and absence[0] == "retired"):
        absence = "dry_run", "a dry run: nothing came of it, and nothing is recorded of it"
    return Explanation(
        command_id,
        *(absence or ("decided", "")),
        readings,
        next((each.organisation for each in readings if each.organisation), owner),
        next((each.access_token for each in readings if each.access_token), token),
        None if whole is None or change is None else _of_version(whole.changes, change["version"]),
        looked,
        dry_runs or (),
    )


async def _look_at_topics(
    settings: Settings, command_id: str, readings: tuple[Reading, ...]
) -> tuple[tuple[Reading, ...], tuple[DryRun, ...] | None, str]:
    """Find a command's answers, or its dry runs if nothing is recorded; also say if the topics could be read."""
    try:
        async with topic_reader(settings) as kafka:
            if readings:
                return await _with_places(kafka, settings, command_id, readings), None, "searched"
            return readings, await _dry_runs(kafka, settings, command_id), "searched"
    except WorkerError as error:
        return readings, None, f"not searched: {error}"


async def _known_id(connection: asyncpg.Connection, given: str, names: CommandNames) -> str:
    """Return the whole id for an id, coordinates in the log, a sender's own id, or the command's name in an event."""
    at = coordinates_of(given)
    place = (None,) * 5 if at is None else (at.cluster, at.topic, at.partition, at.offset, at.timestamp)
    keys = [command_key(name) for name in names.all_of(given)]
    found = await connection.fetch(statement("explain/ids"), keys, *place, given)
    if not found and at is None and not _WHOLE_ID.fullmatch(given):
        found = await connection.fetch(statement("explain/bare_id"), percent_encoded(given))
    ids = [row["command_id"] for row in found]
    if at is None and given in ids:
        return given
    if len(ids) > 1:
        raise AmbiguousId(given, ids)
    return ids[0] if ids else given


async def _id_at(settings: Settings, where: tuple[str, int, int], *, topics: bool) -> str:
    """Return the id of the command at a position, or of the one whose answer or dead letter stands there."""
    ids = await _recorded_at(settings, where)
    if not ids and topics:
        async with topic_reader(settings) as kafka:
            record = await _at(kafka, *where)
        if record is not None and where[0] in settings.topics.read:  # headers there are a sender's
            async with admin_client(settings) as admin:
                return Coordinates(await cluster_id(admin), *where, record.timestamp).command_id
        if record is not None and where[0] == settings.topics.dead_letters:
            source = letter_of(record).source
            ids = (
                [] if source is None else await _recorded_at(settings, (source.topic, source.partition, source.offset))
            )
        elif record is not None and (answered := header(record, h.COMMAND_ID)):
            return answered
    named = "{}/{}/{}".format(*where)
    if len(ids) > 1:
        raise AmbiguousId(named, ids)
    if not ids:
        looked = "no command, answer or dead letter stands there now" if topics else "Kafka was not asked"
        raise NothingThere(f"nothing is recorded of {named}, and {looked}")
    return ids[0]


async def _recorded_at(settings: Settings, where: tuple[str, int, int]) -> list[str]:
    async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
        return [row["command_id"] for row in await connection.fetch(statement("explain/at"), *where)]


async def _answered_under(settings: Settings, given: str) -> list[str]:
    """Return the ids of the commands whose answers in the results topic have that id of the sender's own."""

    def answers_it(record: Any) -> bool:
        return header(record, h.CAUSATION_ID) == given and not is_dry_run(record)

    async with topic_reader(settings) as kafka:
        answers = [record async for record in _found(kafka, {settings.topics.results}, 0, answers_it, enough=-1)]
    return sorted({header(record, h.COMMAND_ID) for record in answers})


def _organisation(command_id: str) -> str | None:
    kind, *parts = command_id.split(":")
    return unquote(parts[0]) if kind in {"ce", "req"} and len(parts) > 1 else None


def _of_version(changes: Sequence[Change], version: int) -> Change | None:
    return next((each for each in changes if each.version == version), None)


async def _absent(
    connection: asyncpg.Connection, command_id: str, settings: Settings, names: CommandNames, *, changed: bool
) -> tuple[State, str]:
    """Return the state of a command that has no record, and the reason."""
    days = settings.record_retention_days
    retired = f"its record is older than the retention of {days} days and was removed"
    if changed:
        return "retired", f"{retired}; the transition remains"
    at = coordinates_of(command_id)
    if at is None:
        why = f"it was never read, or not under this id, or {retired}"
        if not names.keys:
            why += "; without WORKER_DIGEST_KEYS its transition cannot be found by it"
        return "unknown", f"nothing is recorded under this id: {why}"
    lanes = await connection.fetch(statement("explain/lanes"), at.cluster, at.topic, at.partition)
    for lane in lanes:
        if lane["next_offset"] is not None and at.offset < lane["next_offset"]:
            text = f"the group {lane['consumer_group']} has decided up to offset {lane['next_offset']}"
            return "retired", f"{text}: {retired}, or no command stands there with this timestamp"
    if lanes:
        return "waiting", "no worker has decided it yet"
    return "unknown", "no worker has ever read that partition"


def _reading(row: Row) -> Reading:
    place = Place(row["topic"], row["partition"], row["record_offset"], _moment(row["record_timestamp"]))
    return Reading(
        cluster=row["cluster"],
        group=row["consumer_group"],
        read=place,
        organisation=row["organisation"],
        status=row["status"],
        message=row["message"],
        replayed=row["replayed"],
        fields=field_names(row["fields"]),
        access_token=row["access_token_id"],
        version=row["version"],
        decided_at=row["decided_at"],
        refused_user=row["user_id"],
        tried_digest=None if row["user_id"] is None else row["digest"].hex(),
    )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# --- in the topics ----------------------------------------------------------------------------------------------------


async def _with_places(
    kafka: TopicReader, settings: Settings, command_id: str, readings: Sequence[Reading]
) -> tuple[Reading, ...]:
    read = [await _still_there(kafka, each) for each in readings]
    named = {settings.topics.results, *(each.reply_to for each in read if each.reply_to)}
    since = int((min(each.decided_at for each in read) - _CLOCKS).timestamp() * 1000)

    def answers_it(record: Any) -> bool:
        return header(record, h.COMMAND_ID) == command_id and not is_dry_run(record)

    answers = [record async for record in _found(kafka, named, since, answers_it, enough=len(read))]
    placed = []
    for each in read:
        moment = rfc3339(each.decided_at)
        results = tuple(_place(record) for record in answers if header(record, h.CE_TIME) == moment)
        placed.append(replace(each, results=results, dead_letters=await _buried(kafka, settings, each)))
    return tuple(placed)


async def _dry_runs(kafka: TopicReader, settings: Settings, command_id: str) -> tuple[DryRun, ...] | None:
    """Return the answers to a command's dry runs, also by its sender's own id; ``None`` if it was no dry run."""
    at, named, since, enough = coordinates_of(command_id), {settings.topics.results}, 0, -1
    if at is not None:
        command = await _at(kafka, at.topic, at.partition, at.offset)
        if command is None or command.timestamp != at.timestamp or not is_dry_run(command):
            return None
        named |= {to} if (to := _reply_to(command)) else set()
        since, enough = at.timestamp - int(_CLOCKS.total_seconds() * 1000), 1
    names = (h.COMMAND_ID, h.CAUSATION_ID) if at is None else (h.CE_SUBJECT,)

    def answers_it(record: Any) -> bool:
        return is_dry_run(record) and command_id in {header(record, name) for name in names}

    found = tuple([_dry_run(record) async for record in _found(kafka, named, since, answers_it, enough=enough)])
    return found if found or at is not None else None


def _dry_run(record: Any) -> DryRun:
    status, replayed = header(record, h.STATUS_CODE), header(record, h.REPLAYED) == h.TRUE
    return DryRun(header(record, h.COMMAND_ID), _place(record), status, replayed)


def _reply_to(command: Any) -> str | None:
    return header(command, h.REPLY_TO) or header(command, h.KAFKA_REPLY_TOPIC) or None


async def _still_there(kafka: TopicReader, reading: Reading) -> Reading:
    """Add the facts that only the command itself tells, if it is still in its topic."""
    where = reading.read
    command = await _at(kafka, where.topic, where.partition, where.offset)
    if command is None or _moment(command.timestamp) != where.timestamp:
        return replace(reading, in_topic=False)
    return replace(reading, in_topic=True, reply_to=_reply_to(command))


async def _at(kafka: TopicReader, topic: str, partition: int, offset: int) -> Any:
    """Return the message at an offset; ``None`` if there is none now."""
    for span in (await kafka.spans(topic)).get(topic, []):
        if span.source.partition == partition and span.begin <= offset < span.end:
            one = span.since(offset).until(offset + 1)
            kafka.open([one])
            async for record in kafka.read(one):
                return record
    return None


async def _found(
    kafka: TopicReader, topics: set[str], since: int, wanted: Callable[[Any], bool], *, enough: int
) -> AsyncIterator[Any]:
    """Yield the ``wanted`` messages of the topics written since ``since``, until there are ``enough``."""
    spans = [span for found in (await kafka.spans(*sorted(topics))).values() for span in found]
    spans = await kafka.since(spans, since)
    kafka.open(spans)
    for span in spans:
        async for record in kafka.read(span):
            if wanted(record):
                yield record
                enough -= 1
                if not enough:
                    return


async def _buried(kafka: TopicReader, settings: Settings, reading: Reading) -> tuple[Place, ...]:
    if reading.status not in DEAD_LETTERED:
        return ()
    since = int((reading.decided_at - _CLOCKS).timestamp() * 1000)
    where = (str(reading.read.offset), reading.read.topic, str(reading.read.partition), reading.group)
    names = ("dl_offset", "dl_topic", "dl_partition", "dl_consumer_group")

    def is_of_it(record: Any) -> bool:
        return tuple(header(record, name) for name in names) == where

    letters = _found(kafka, {settings.topics.dead_letters}, since, is_of_it, enough=-1)
    return tuple([_place(record) async for record in letters])


def _place(record: Any) -> Place:
    return Place(record.topic, record.partition, record.offset, _moment(record.timestamp))
