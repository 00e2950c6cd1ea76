"""Remove a customer's personal data from everything we hold, and report the part that Kafka still holds.

The data that history needs and that alone says nothing of a person stays: ids, numbers of access tokens, states,
transitions. No transition holds personal data (CONTRACT, Transition event), so every chain still verifies.

The topics are searched first: the data that identifies a customer's messages is among the data to erase.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
import orjson

from effective_contract.access_token import AccountOwner
from worker.errors import DependencyUnavailable, OperatorError
from worker.journey.digests import CommandNames, attempt_keys, command_names, digest
from worker.journey.model import command_key
from worker.kafka.delivery import Coordinates
from worker.operations.erasure.mentions import SHORTEST_NEEDLE, Mentions, OnProgress, Sought, Topics, Where, in_kafka
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import Value, percent_encoded

Place = tuple[int, int, int]
"""The record of a command, by its lane, offset and timestamp."""

_PAPERS: Final = (
    "id_number",
    "passport_number",
    "social_security_number",
    "vat_registration_number",
    "registration_number",
)


class UnknownContact(OperatorError):
    """The organisation has no such contact."""


class NotErased(OperatorError):
    """The topics cannot be searched, and without that nothing may be erased."""


class NotLookedAtAgain(OperatorError):
    """Everything is erased, but the topics could not be searched again for commands decided meanwhile."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The data that an erasure removes, or has removed if ``done``: rows by table, and messages by partition."""

    organisation: str
    contact: str
    done: bool
    erased_before: datetime | None
    """The time at which the contact was last erased, in UTC."""
    rows: Mapping[str, int]
    mentions: tuple[Mentions, ...]

    @property
    def is_already_done(self) -> bool:
        """True if nothing was left to erase, except perhaps in topics."""
        return self.erased_before is not None and not any(self.rows.values())


class _Lane(Value, frozen=True):
    cluster: str
    topic: str
    partition: int
    decided: int
    """The end of the lane's decided offsets before its records were searched."""


class _Record(Value, frozen=True):
    """The record of a command, under the id ``command_id`` that its sender chose."""

    hidden = frozenset({"command_id"})

    command_id: str
    is_held: bool
    """True if it still holds data."""
    speaks: bool
    """True if the command mentions the customer, whatever access token it is for."""


@dataclass(frozen=True, slots=True, repr=False)
class _Scope:
    """Everything that belongs to a contact, and the marks of a message about it. ``repr`` shows none of it."""

    accounts: Sequence[str]
    participants: Sequence[str]
    tokens: Sequence[str]
    held: Mapping[str, int]
    """The number of rows in each table that still hold data."""
    lanes: Mapping[int, _Lane]
    records: Mapping[Place, _Record]
    needles: frozenset[str]
    digests: Sequence[bytes]
    """Keyed digests of the codes and identifiers, under which attempts are stored."""

    @property
    def patterns(self) -> list[str]:
        """Patterns of command ids that contain an id, number or credential of the customer."""
        long = sorted(needle for needle in self.needles if len(needle) >= SHORTEST_NEEDLE)
        return [f"%{_like(percent_encoded(needle))}%" for needle in long]


async def erase(
    settings: Settings,
    organisation: str,
    contact: str,
    *,
    carry_out: bool,
    delete_records: bool = False,
    on_progress: OnProgress = lambda _done, _total: None,
    looking_into: Callable[[Settings], AbstractAsyncContextManager[Topics]] = in_kafka,
) -> Erasure:
    """Find all that is held of a contact and, to ``carry_out``, remove it. Safe to run again.

    ``delete_records`` removes it from Kafka, too, where every group that reads has read far enough. Needs the owner's
    connection. Raises ``UnknownContact``, ``NoDigestKey`` and ``DependencyUnavailable``; ``NotErased`` if the topics
    cannot be searched, ``NotLookedAtAgain`` if they cannot be after everything was erased.
    """
    keys, names = attempt_keys(settings), command_names(settings)
    async with owner_connection(settings.postgres.owner.get_secret_value()) as connection:
        work = _Work(connection, organisation, contact, names, on_progress)
        scope = await work.scope(keys)
        try:
            async with looking_into(settings) as topics:
                return await _carried_out(work, scope, topics, carry_out=carry_out, delete_records=delete_records)
        except DependencyUnavailable as away:
            if away.dependency == "kafka" and not work.is_erased:
                raise NotErased(f"nothing was erased, since topics must be searched first: {away}") from away
            if away.dependency == "kafka":
                raise NotLookedAtAgain(
                    "all is erased, but the topics must be searched again for what was decided meanwhile, so run this"
                    f" again: {away}"
                ) from away
            raise


async def _carried_out(
    work: "_Work", scope: _Scope, topics: Topics, *, carry_out: bool, delete_records: bool
) -> Erasure:
    former = await work.former()
    scope, found = await work.search(topics, scope)
    rows = _planned(scope)
    kept = [] if former is None else msgspec.json.decode(former["places"], type=list[Mentions])
    mentions = await topics.still([*kept, *found])
    if carry_out:
        scope, rows = await work.erase(scope, mentions)
        scope, found = await work.search(topics, scope)
        await work.erase_late(scope)
        mentions = await topics.still([*kept, *found])
        if delete_records:
            mentions = await topics.delete(mentions)
        await work.keep([each for each in mentions if not each.deleted], is_new=False)
    before = None if former is None else former["erased_at"]
    return Erasure(work.organisation, work.contact, carry_out, before, rows, tuple(mentions))


def _planned(scope: _Scope) -> dict[str, int]:
    return dict(scope.held) | {"command_record": sum(each.is_held for each in scope.records.values())}


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


@dataclass(slots=True)
class _Work:
    """One erasure under way."""

    connection: asyncpg.Connection
    organisation: str
    contact: str
    names: CommandNames
    on_progress: OnProgress
    is_erased: bool = False

    # --- found --------------------------------------------------------------------------------------------------------

    async def scope(self, keys: Sequence[bytes]) -> _Scope:
        """Find everything that belongs to the contact. Scans whole tables, and locks nothing.

        ``keys`` are those of the digests of attempts.
        """
        fetch, organisation = self.connection.fetch, self.organisation
        owner = await self.connection.fetchrow(
            statement("erasure/contact"), organisation, self.contact, _nothing(self.contact)
        )
        if owner is None:
            raise UnknownContact(f"the organisation {organisation} has no contact {self.contact}")
        owned = await fetch(statement("erasure/accounts"), organisation, self.contact)
        accounts = {row["account"]: row for row in owned}
        participants = {row["participant"]: row for row in owned if row["participant"] is not None}
        tokens = await fetch(statement("erasure/tokens"), organisation, list(accounts), list(participants))
        digests = [
            digest(key, what, organisation, row[column])
            for row in tokens
            for what, column in (("identifier", "identifier"), ("code", "authentication_code"))
            if row[column] is not None
            for key in keys
        ]
        scope = _Scope(
            accounts=list(accounts),
            participants=list(participants),
            tokens=[row["id"] for row in tokens],
            held={
                "contact": int(owner["is_held"]),
                "accounts_receivable": sum((row["number"], row["name"]) != (None, None) for row in accounts.values()),
                "rewards_participant": sum(row["participant_number"] is not None for row in participants.values()),
                "access_token": sum(row["is_held"] for row in tokens),
                "attempt": await self.connection.fetchval(statement("erasure/count_attempts"), organisation, digests),
            },
            lanes=await self._lanes(),
            records={},
            needles=_needles(self.contact, owner, owned, tokens),
            digests=digests,
        )
        rows = await fetch(statement("erasure/records"), organisation, scope.tokens, digests, scope.patterns)
        return replace(scope, records=_by_place(rows))

    async def _lanes(self) -> dict[int, _Lane]:
        return {
            row["id"]: _Lane(row["cluster"], row["topic"], row["partition"], row["next_offset"])
            for row in await self.connection.fetch(statement("erasure/lanes"))
        }

    async def former(self) -> Row | None:
        """Return the previous erasure of the contact."""
        return await self.connection.fetchrow(statement("erasure/before"), self.organisation, self.contact)

    async def search(self, topics: Topics, scope: _Scope) -> tuple[_Scope, list[Mentions]]:
        """Search the topics. A command found there identifies its record, and so its answers."""
        found = await topics.commands(self._sought(topics.cluster, scope), self.on_progress)
        lanes = {(lane.cluster, lane.topic, lane.partition): each for each, lane in scope.lanes.items()}
        places = [
            (lane, offset, timestamp)
            for topic, partition, offset, timestamp in found
            if (lane := lanes.get((topics.cluster, topic, partition))) is not None
        ]
        rows = await self.connection.fetch(statement("erasure/records_at"), *_columns(places, 3), self.organisation)
        scope = replace(scope, records={**_by_place(rows), **scope.records})
        return scope, await topics.answers(self._sought(topics.cluster, scope, found), self.on_progress)

    def _sought(self, cluster: str, scope: _Scope, found: Sequence[Where] = ()) -> Sought:
        places = set(found)
        for lane, offset, timestamp in scope.records:
            at = scope.lanes.get(lane)
            if at is not None and at.cluster == cluster:
                places.add((at.topic, at.partition, offset, timestamp))
        commands = {self.names.of(record.command_id) for record in scope.records.values()}
        commands |= {Coordinates(cluster, *place).command_id for place in places}
        needles = frozenset(needle.casefold() for needle in scope.needles)
        return Sought(frozenset(places), frozenset(commands), self.names, needles)

    # --- erased -------------------------------------------------------------------------------------------------------

    async def erase(self, scope: _Scope, mentions: Sequence[Mentions]) -> tuple[_Scope, dict[str, int]]:
        """Remove the data, count the rows, and store in the same transaction what the topics hold.

        Returns the scope as it was in the end, none of whose records holds data any more.
        """
        async with self.connection.transaction():
            scope = await self._locked(scope)
            rows = await self._erased(scope)
            await self.keep(mentions, is_new=any(rows.values()))
        self.is_erased = True
        await self.connection.execute(statement("erasure/vacuum"))
        erased = {place: _Record(record.command_id, False, record.speaks) for place, record in scope.records.items()}
        return replace(scope, records=erased), rows

    async def _locked(self, scope: _Scope) -> _Scope:
        """Return the scope with its access tokens locked, and with the records decided before the lock.

        No lane waits for longer than that takes: the scans of whole tables are done before.
        """
        owned = (scope.tokens, scope.accounts, scope.participants)
        rows = await self.connection.fetch(statement("erasure/lock_tokens"), self.organisation, *owned)
        tokens = [row["id"] for row in rows]
        decided = [lane.decided for lane in scope.lanes.values()]
        newer = await self.connection.fetch(
            statement("erasure/newer_records"),
            self.organisation,
            tokens,
            list(scope.lanes),
            decided,
            scope.digests,
            scope.patterns,
        )
        return replace(
            scope,
            tokens=tokens,
            lanes={**scope.lanes, **await self._lanes()},
            records={**_by_place(newer), **scope.records},
        )

    async def _erased(self, scope: _Scope) -> dict[str, int]:
        """Remove the data, and count the rows.

        Locks in the order of a batch: access tokens first, then the record of commands, then attempts.
        """
        organisation, contact = self.organisation, self.contact
        execute = self.connection.execute
        done = {
            "access_token": await execute(statement("erasure/from_tokens"), organisation, scope.tokens),
            "command_record": await self._erase_records(scope),
            "rewards_participant": await execute(
                statement("erasure/from_participants"), organisation, scope.participants
            ),
            "accounts_receivable": await execute(statement("erasure/from_accounts"), organisation, scope.accounts),
            "contact": await execute(statement("erasure/from_contact"), organisation, contact, _nothing(contact)),
            "attempt": await execute(statement("erasure/attempts"), organisation, scope.digests),
        }
        return {table: int(said.rpartition(" ")[2]) for table, said in done.items()}

    async def _erase_records(self, scope: _Scope) -> str:
        """Rename each record to an id that no sender chose: its name in events, or its coordinates if that is taken."""
        held = {place: record for place, record in scope.records.items() if record.is_held}
        named = {place: self.names.of(record.command_id) for place, record in held.items()}
        keys = {name: command_key(name) for name in named.values()}
        bound = await self.connection.fetch(statement("erasure/bound"), list(keys.values()), self.organisation)
        taken = {row["command_key"].hex for row in bound}
        for place, name in named.items():
            lane = scope.lanes[place[0]]
            if keys[name] in taken and name != held[place].command_id:
                named[place] = Coordinates(lane.cluster, lane.topic, lane.partition, *place[1:]).command_id
        names = list(named.values())
        said: str = await self.connection.execute(
            statement("erasure/from_records"),
            *_columns(list(held), 3),
            names,
            list(map(command_key, names)),
            [record.speaks for record in held.values()],
            scope.tokens,
            scope.digests,
        )
        return said

    async def erase_late(self, scope: _Scope) -> None:
        """Erase the records that were decided during the erasure: only the topics show that they are the customer's."""
        late = {place: record for place, record in scope.records.items() if record.is_held and record.speaks}
        if late:
            await self._erase_records(replace(scope, records=late))

    async def keep(self, mentions: Sequence[Mentions], *, is_new: bool) -> None:
        """Store the positions of the data left in topics: after the erasure nothing else tells them."""
        places = msgspec.json.encode(mentions).decode()
        await self.connection.execute(statement("erasure/kept"), self.organisation, self.contact, places, is_new)


def _nothing(contact: str) -> str:
    """Return the empty body of an erased contact."""
    return orjson.dumps(dict.fromkeys(AccountOwner.model_fields) | {"id": contact}).decode()


def _needles(contact: str, owner: Row, owned: Sequence[Row], tokens: Sequence[Row]) -> frozenset[str]:
    """Return the texts that identify the customer. Short ids are left out; short codes count only as a whole text."""
    credentials = [row[column] for row in tokens for column in ("authentication_code", "identifier")]
    others = [contact, *(owner[paper] for paper in _PAPERS)]
    others += [row[column] for row in owned for column in ("account", "number", "participant", "participant_number")]
    others += [row[column] for row in tokens for column in ("id", "number", "card_masked_number")]
    long = {text for text in others if text is not None and len(text) >= SHORTEST_NEEDLE}
    return frozenset(long | {text for text in credentials if text is not None})


def _by_place(rows: Sequence[Row]) -> dict[Place, _Record]:
    return {
        (row["lane"], row["record_offset"], row["record_timestamp"]): _Record(
            row["command_id"], row["is_held"], row["speaks"]
        )
        for row in rows
    }


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    return [[row[column] for row in rows] for column in range(width)]
