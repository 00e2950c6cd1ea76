"""The first states of imported access tokens as events: written with their rows, published afterwards.

Imports have a lane of their own. Its row counts events where others count offsets: up to ``first_offset`` they are
published, up to ``next_offset`` written. So whatever stops an import or a publication, the next one goes on from there.
The announced position is marked in Kafka as well, so that a restored older database is recognised.

See CONTRACT, Transition event.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
from aiokafka import TopicPartition
from msgspec.structs import replace

from effective_contract.states import LifeCycleState
from worker.errors import KAFKA_ERRORS, DependencyUnavailable, LaneBlocked, OperatorError, WorkerError, from_kafka
from worker.journey.apply import Chain, sealed, write_transitions
from worker.journey.messages import OutgoingTopics, transition_message
from worker.journey.model import IMPORT_LANE, Transition
from worker.kafka.client import client_options
from worker.kafka.topics import admin_client
from worker.lanes.publisher import WatchedProducer, send, started
from worker.operations.imports.mark import Mark, MarkForbidden, group_of, read_mark, write_mark
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import Value, counted

PAGE: Final = 1000
_KEYED: Final = 0
"""The partition count of an import's own lane: it has none, so events go by their keys."""


class NoLane(OperatorError):
    """The row of the lane of imports was deleted, and with it the head of its chain: ``audit verify`` says more."""


class NoTopic(OperatorError):
    """The topic of transition events does not exist."""


class ImportLane(Value, frozen=True):
    """The lane of imports, locked: its id, and the head of its chain."""

    id: int
    chain: Chain


@dataclass(frozen=True, slots=True)
class Announced:
    """The numbers of events published now and still waiting, and the reason for the wait (``None`` if none waits).

    ``unmarked`` is the reason why an older database could not be ruled out; ``None`` if it was.
    """

    published: int
    waiting: int
    reason: str | None = None
    unmarked: str | None = None


@dataclass(frozen=True, slots=True)
class Overtaken:
    """The database is older than the mark of imports: it lacks the event there, or has a different one.

    ``written`` is the last sequence of the lane of imports in this database.
    """

    mark: Mark
    written: int

    def __str__(self) -> str:
        known = (
            f"knows of {counted(self.written, 'event')} of theirs only"
            if self.written < self.mark.sequence
            else f"has another event there, of {self.written}"
        )
        return f"imports have announced up to sequence {self.mark.sequence}, and this database {known}"


# --- written ----------------------------------------------------------------------------------------------------------


async def hold_import_lane(connection: asyncpg.Connection) -> ImportLane:
    """Lock the lane of imports until the transaction ends. Raises ``NoLane``."""
    row = await connection.fetchrow(statement("imports/hold_lane"))
    if row is None:
        raise NoLane("the row of the lane of imports is gone")
    return ImportLane(row["id"], Chain(row["chain_sequence"], row["chain_hash"]))


async def write_first_states(
    connection: asyncpg.Connection, lane: ImportLane, made: Sequence[Row], now: datetime
) -> None:
    """Write the events of the access tokens that this transaction created, in their order."""
    if not made:
        return
    transitions, chain = [], lane.chain
    for row in made:
        transition = _first_state(row, now, chain.sequence + 1, chain.hash)
        transitions.append(transition)
        chain = Chain(transition.sequence, transition.hash)
    await write_transitions(connection, transitions, lane.id)
    await connection.execute(statement("imports/move_lane"), lane.id, chain.sequence, chain.hash)


def _first_state(row: Row, now: datetime, sequence: int, previous_hash: bytes) -> Transition:
    return sealed(
        Transition(
            organisation=row["organisation"],
            token=row["id"],
            version=row["version"],
            from_state=None,
            to_state=LifeCycleState(row["life_cycle_state"]),
            occurred_at=now,
            user=None,
            unit=None,
            command_id=None,
            cause="IMPORT",
            lane=IMPORT_LANE,
            sequence=sequence,
            previous_hash=previous_hash,
        )
    )


def _stored(row: Row) -> Transition:
    """Return the event with its stored hash, so that a row that was tampered with does not look valid."""
    transition = _first_state(row, row["occurred_at"], row["sequence"], row["previous_hash"])
    return replace(transition, hash=row["hash"])


# --- compared ---------------------------------------------------------------------------------------------------------


async def overtaken(connection: asyncpg.Connection, settings: Settings) -> Overtaken | None:
    """Compare the database with the mark; ``None`` if they agree or there is no mark.

    Raises ``MarkForbidden``, ``DependencyUnavailable`` for Kafka.
    """
    mark = await read_mark(settings)
    if mark is None or await connection.fetchval(statement("imports/link"), mark.sequence) == mark.hash:
        return None
    row = await connection.fetchrow(statement("imports/lane"))
    return Overtaken(mark, 0 if row is None else row["written"])


async def require_not_overtaken(connection: asyncpg.Connection, settings: Settings) -> None:
    """Raise ``LaneBlocked`` if sequences would be announced again for other events; else as :func:`overtaken`."""
    found = await overtaken(connection, settings)
    if found is not None:
        raise LaneBlocked(
            f"{found} ({settings.topics.transitions}, group {group_of(settings)}): it was put back to an older state,"
            f" or is another one, and the same numbers would be announced twice. The ways out: put the right database"
            f" in its place, and import again; or let imports go on behind what was announced: effective-worker import"
            f" --mend"
        )


async def _mark_all(connection: asyncpg.Connection, settings: Settings) -> int:
    """Mark everything written as announced, and return its sequence. Runs one at a time, so the mark only grows."""
    async with connection.transaction():
        lane = await hold_import_lane(connection)
        await write_mark(settings, Mark(lane.chain.sequence, lane.chain.hash))
    return lane.chain.sequence


async def mend(settings: Settings, *, carry_out: bool) -> Overtaken | None:
    """Check if imports are blocked, ``None`` if they are not; with ``carry_out`` let them go on after the mark.

    The events that this database has up to the mark are not announced. The row comes first: if this stops before the
    mark is set, imports stay blocked, and this runs again. Raises ``MarkForbidden``, ``DependencyUnavailable``.
    """
    async with owner_connection(settings.postgres.owner.get_secret_value()) as connection:
        found = await overtaken(connection, settings)
        if found is None or not carry_out:
            return found
        await connection.execute(statement("imports/open_lane"))
        async with connection.transaction():
            lane = await hold_import_lane(connection)
            await connection.execute(statement("imports/mend_lane"), lane.id, found.mark.sequence, found.mark.hash)
        await _mark_all(connection, settings)
        return found


# --- published --------------------------------------------------------------------------------------------------------


async def announce(settings: Settings) -> Announced:
    """Publish the events of this import and earlier ones that are not published yet, at least once each.

    If the broker cannot be reached or has no such topic, they wait, and the report gives the reason. Raises
    ``LaneBlocked`` if the database is older than the mark, ``DependencyUnavailable`` for Postgres.
    """
    async with owner_connection(settings.postgres.owner.get_secret_value()) as connection:
        row = await connection.fetchrow(statement("imports/lane"))
        if row is None or row["published"] == row["written"]:
            return Announced(0, 0)
        position, done = row["published"], 0
        try:
            producer = await _producer(settings)
            try:
                end, unmarked = await _claim(connection, settings, row["written"])
                while page := await connection.fetch(statement("imports/events"), row["id"], position, end, PAGE):
                    await _publish(producer, settings, page)
                    position = page[-1]["sequence"]
                    await connection.execute(statement("imports/announced"), row["id"], position)
                    done += len(page)
            finally:
                await producer.drop()
        except _Waits as waits:
            return Announced(done, row["written"] - position, str(waits.__cause__))
        return Announced(done, 0, unmarked=unmarked)


async def _claim(connection: asyncpg.Connection, settings: Settings, written: int) -> tuple[int, str | None]:
    """Mark the events before they are announced: whatever stops it then, no other database uses their numbers.

    Returns the last sequence to announce; if the mark is forbidden, that is ``written``, with the reason. Raises
    ``LaneBlocked``.
    """
    try:
        await require_not_overtaken(connection, settings)
        return await _mark_all(connection, settings), None
    except MarkForbidden as forbidden:
        return written, str(forbidden)
    except DependencyUnavailable as away:
        raise _Waits from away


class _Waits(Exception):
    """The broker does not take the events now; the cause says why."""


async def _producer(settings: Settings) -> WatchedProducer:
    topic = settings.topics.transitions
    try:
        async with admin_client(settings) as admin:
            # All topics are listed: a request for one by its name may create it.
            if topic not in {each["topic"] for each in await admin.describe_topics()}:
                raise NoTopic(f"there is no topic {topic}; create it with: effective-worker topics apply")
        options = {**client_options(settings.kafka), "enable_idempotence": True}
        return await started(options, settings.kafka.request_timeout_ms / 1000)
    except WorkerError as error:
        raise _Waits from error


async def _publish(watched: WatchedProducer, settings: Settings, page: Sequence[Row]) -> None:
    topics = settings.topics
    outgoing = OutgoingTopics(
        topics.results, topics.transitions, topics.dead_letters, settings.kafka.group_id, IMPORT_LANE
    )
    messages = [transition_message(_stored(row), outgoing) for row in page]
    try:
        async with asyncio.timeout(2 * settings.kafka.request_timeout_ms / 1000):
            sent = await send(watched.producer, messages, TopicPartition(topics.transitions, 0), _KEYED)
            await asyncio.gather(*sent)
    except KAFKA_ERRORS as error:
        raise _Waits from from_kafka(error)
