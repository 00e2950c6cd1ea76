"""Remove a customer's personal data from everything we hold, and say what of it Kafka still holds.

What stays is what history needs and what says nothing of a person by itself: ids, numbers of access tokens, states,
transitions. No transition holds personal data (CONTRACT 6), so every chain still verifies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from schemas import headers as h
from schemas.access_token import AccountOwner
from worker.attempts import digest, key_of
from worker.browse import Browser, Span, browser, header
from worker.database import Row
from worker.decode import texts_of
from worker.errors import WorkerError
from worker.migrate import owner_connection
from worker.settings import Settings
from worker.sql import statement
from worker.topics import admin_client, topic_configs

_SHORTEST_NEEDLE: Final = 6
"""A shorter id (`"1"`) stands in messages that have nothing to do with it."""

OnProgress = Callable[[int, int], None]
Place = tuple[int, int, int]
"""A record of a command: its lane, offset and timestamp."""


class UnknownContact(WorkerError):
    """There is no such contact."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a partition still holds of the customer: ``records`` of them, the last one below ``up_to``."""

    topic: str
    partition: int
    records: int
    up_to: int
    """Deleting the records below this offset deletes them all, and what others have among them."""
    others: int
    """Offsets below ``up_to`` that are left in the log and hold something else."""
    gone_by: datetime | None
    """When the topic's retention has removed them; ``None`` if it never does."""
    unread_by: tuple[str, ...]
    """Groups that have not read so far."""
    readers: tuple[str, ...]
    """Groups that have read in this partition at all."""
    deleted: bool = False

    @property
    def deletable(self) -> bool:
        """Whether somebody reads there, and everybody who does has read so far."""
        return bool(self.readers) and not self.unread_by


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure removes, or has removed if ``done``: rows by table, and records by partition."""

    organisation: str
    contact: str
    done: bool
    rows: Mapping[str, int]
    mentions: tuple[Mentions, ...]
    topics: str
    """Whether the topics were looked at, or why not."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """What belongs to a contact, and by what a message about it is known. Not shown: it is what is to be erased."""

    accounts: Sequence[str]
    participants: Sequence[str]
    tokens: Sequence[str]
    decided: Mapping[int, int]
    """Up to where each lane had decided before its records were looked through."""
    records: Mapping[Place, str]
    """The command ids of the records, by where they stand."""
    needles: frozenset[str]
    digests: Sequence[bytes]
    """Keyed digests of the codes and identifiers, by which attempts are known."""
    attempts: int


async def erase(
    settings: Settings,
    organisation: str,
    contact: str,
    *,
    carry_out: bool,
    delete_records: bool = False,
    on_progress: OnProgress = lambda _done, _total: None,
) -> Erasure:
    """Find what is held of a contact and, to ``carry_out``, remove it. Safe to run again.

    ``delete_records`` removes it from Kafka, too, where everybody who reads there has read so far. Needs the owner's
    connection. Raises ``UnknownContact`` and ``DependencyAway``; a broker that is away is only noted.
    """
    async with owner_connection(settings.postgres.owner.get_secret_value()) as connection:
        scope = await _scope(connection, organisation, contact, key_of(settings))
        rows = _planned(scope)
        if carry_out:
            async with connection.transaction():
                scope = await _locked(connection, organisation, scope)
                rows = await _erased(connection, organisation, contact, scope)
            await connection.execute(statement("erase_vacuum"))
    mentions, topics = await _in_topics(settings, scope, delete=carry_out and delete_records, on_progress=on_progress)
    return Erasure(organisation, contact, carry_out, rows, mentions, topics)


def _planned(scope: _Scope) -> dict[str, int]:
    return {
        "contact": 1,
        "accounts_receivable": len(scope.accounts),
        "rewards_participant": len(scope.participants),
        "access_token": len(scope.tokens),
        "command_record": len(scope.records),
        "attempt": scope.attempts,
    }


async def _scope(connection: asyncpg.Connection, organisation: str, contact: str, key: bytes) -> _Scope:
    """Find all that belongs to the contact. Looks through whole tables, and locks nothing.

    ``key`` is that of the digests of what was tried.
    """
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM contact WHERE organisation = $1 AND id = $2)", organisation, contact
    ):
        raise UnknownContact(f"the organisation {organisation} has no contact {contact}")
    owned = await connection.fetch(statement("erase_accounts"), organisation, contact)
    accounts = list(dict.fromkeys(row["account"] for row in owned))
    participants = [row["participant"] for row in owned if row["participant"] is not None]
    tokens = await connection.fetch(statement("erase_tokens"), organisation, accounts, participants)
    ids = [row["id"] for row in tokens]
    decided = {row["id"]: row["next_offset"] for row in await connection.fetch(statement("erase_lanes"))}
    digests = [
        digest(key, what, organisation, row[column])
        for row in tokens
        for what, column in (("identifier", "identifier"), ("code", "authentication_code"))
        if row[column] is not None
    ]
    records = await connection.fetch(statement("erase_records"), organisation, ids, digests)
    texts = (contact, *accounts, *participants, *(text for row in tokens for text in row.values()))
    return _Scope(
        accounts,
        participants,
        ids,
        decided,
        _by_place(records),
        frozenset(text for text in texts if text is not None and len(text) >= _SHORTEST_NEEDLE),
        digests,
        await connection.fetchval(
            "SELECT count(*) FROM attempt WHERE organisation = $1 AND identifier = ANY ($2)", organisation, digests
        ),
    )


async def _locked(connection: asyncpg.Connection, organisation: str, scope: _Scope) -> _Scope:
    """The same with its access tokens locked, and with what was decided upon them while they were not.

    No lane waits for more than that: what is in whole tables was found before.
    """
    owned = (scope.tokens, scope.accounts, scope.participants)
    rows = await connection.fetch(statement("erase_lock_tokens"), organisation, *owned)
    tokens = [row["id"] for row in rows]
    lanes, offsets = list(scope.decided), list(scope.decided.values())
    newer = await connection.fetch(
        statement("erase_newer_records"), organisation, tokens, lanes, offsets, scope.digests
    )
    return replace(scope, tokens=tokens, records={**scope.records, **_by_place(newer)})


def _by_place(records: Sequence[Row]) -> dict[Place, str]:
    return {(row["lane"], row["record_offset"], row["record_timestamp"]): row["command_id"] for row in records}


async def _erased(connection: asyncpg.Connection, organisation: str, contact: str, scope: _Scope) -> dict[str, int]:
    """Remove it, and count the rows.

    Locks as a batch does: access tokens first, then the record of commands, then attempts.
    """
    places = [list(part) for part in zip(*scope.records, strict=True)] or [[], [], []]
    nothing = orjson.dumps(dict.fromkeys(AccountOwner.model_fields) | {"id": contact}).decode()
    done = {
        "access_token": await connection.execute(statement("erase_from_tokens"), organisation, scope.tokens),
        "command_record": await connection.execute(
            statement("erase_from_records"), *places, scope.tokens, scope.digests
        ),
        "rewards_participant": await connection.execute(
            statement("erase_from_participants"), organisation, scope.participants
        ),
        "accounts_receivable": await connection.execute(statement("erase_from_accounts"), organisation, scope.accounts),
        "contact": await connection.execute(statement("erase_from_contact"), organisation, contact, nothing),
        "attempt": await connection.execute(statement("erase_attempts"), organisation, scope.digests),
    }
    return {table: int(said.rpartition(" ")[2]) for table, said in done.items()}


# --- in the topics ----------------------------------------------------------------------------------------------------


async def _in_topics(
    settings: Settings, scope: _Scope, *, delete: bool, on_progress: OnProgress
) -> tuple[tuple[Mentions, ...], str]:
    names = (*settings.topics.read, settings.topics.results, settings.topics.dead_letters)
    try:
        async with browser(settings) as kafka, admin_client(settings) as admin:
            spans = [span for found in (await kafka.spans(*names)).values() for span in found]
            found = await _mentions(kafka, admin, spans, scope, on_progress)
            if delete:
                found = await _deleted(admin, found)
    except WorkerError as error:
        return (), f"not looked at: {error}"
    return tuple(found), "looked at"


async def _mentions(
    kafka: Browser, admin: AIOKafkaAdminClient, spans: Sequence[Span], scope: _Scope, on_progress: OnProgress
) -> list[Mentions]:
    commands = frozenset(scope.records.values())
    kept = await topic_configs(admin, list(dict.fromkeys(span.source.topic for span in spans)))
    positions = await _positions(admin)
    kafka.open(spans)
    total, done, found = sum(span.end - span.begin for span in spans), 0, []
    for span in spans:
        count, last, stamped = 0, span.begin, 0
        async for record in kafka.read(span):
            done += 1
            if done % 1000 == 0:
                on_progress(done, total)
            if _mentioned(record, commands, scope.needles):
                count, last, stamped = count + 1, record.offset + 1, max(stamped, record.timestamp)
        if count:
            milliseconds = int(kept.get(span.source.topic, {}).get("retention.ms", "-1"))
            moment = datetime.fromtimestamp(stamped / 1000, UTC) + timedelta(milliseconds=milliseconds)
            there = {group: offsets[span.source] for group, offsets in positions.items() if span.source in offsets}
            found.append(
                Mentions(
                    span.source.topic,
                    span.source.partition,
                    count,
                    last,
                    last - span.begin - count,
                    moment if milliseconds >= 0 else None,
                    tuple(sorted(group for group, offset in there.items() if offset < last)),
                    tuple(sorted(there)),
                )
            )
    return found


async def _positions(admin: AIOKafkaAdminClient) -> dict[str, dict[TopicPartition, int]]:
    """Where every group stands."""
    groups = [group for group, *_ in await admin.list_consumer_groups()]
    return {
        group: {source: each.offset for source, each in (await admin.list_consumer_group_offsets(group)).items()}
        for group in groups
    }


async def _deleted(admin: AIOKafkaAdminClient, found: Sequence[Mentions]) -> list[Mentions]:
    wanted = {
        TopicPartition(each.topic, each.partition): RecordsToDelete(each.up_to) for each in found if each.deletable
    }
    if wanted:
        await admin.delete_records(wanted)
    return [replace(each, deleted=each.deletable) for each in found]


def _mentioned(record: Any, commands: frozenset[str], needles: frozenset[str]) -> bool:
    if header(record, h.COMMAND_ID) in commands:
        return True
    key = (record.key or b"").decode(errors="replace")
    if any(needle in key for needle in needles):
        return True
    value = record.value or b""
    try:
        whole = orjson.loads(value)
    except orjson.JSONDecodeError:
        text = value.decode(errors="replace")
        return any(needle in text for needle in needles)
    return any(text in needles for text in texts_of(whole))
