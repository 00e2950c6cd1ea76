"""Plan a replay: the commands that it would send, and for every other dead letter the reason. Changes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

import asyncpg

from effective_contract.codes import StatusCode
from worker.journey.model import command_key, request_digest, senders_id
from worker.kafka.reader import TopicReader, topic_reader
from worker.kafka.topics import admin_client, cluster_id
from worker.operations.dead_letters.letters import Chosen, Letter, OnProgress, Place, Source, letters
from worker.operations.dead_letters.renewed import MASKED, NotRenewed, PassCodeGone, Renewed, renewed
from worker.operations.login_source import LoginToken
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import rfc3339

CHUNK: Final = 500
"""Dead letters whose answers are fetched together."""
_OF_THE_LOGIN: Final = frozenset({StatusCode.INVALID_TOKEN, StatusCode.EXPIRED_TOKEN, StatusCode.ACCESS_DENIED})
"""Refusals of the login, not of the request: another login token may get another answer."""


class Why(StrEnum):
    """The reasons not to send a dead letter again."""

    NO_LETTER = "no dead letter of a worker"
    OTHER_GROUP = "of another consumer group"
    NO_TOPIC = "from a topic or partition that takes no commands now"
    CUT = "cut off: the broker would not take it whole"
    REFUSED = "would be refused as it is"
    ONLY_ITS_SENDER = "its pass code is masked: only its sender can send it again"
    OTHER_ORGANISATION = "of another organisation than the login token"
    APPLIED = "its command was applied since"
    ANSWERED = "its command was refused since, for good"
    OLDER = "a later dead letter of the same command is there"
    LATER = "left for later by the limit"


class State(StrEnum):
    """The states of a chosen dead letter."""

    LEFT_OUT = "left out"
    PLANNED = "to be sent"
    UNCONFIRMED = "handed over, not confirmed"
    UNANSWERED = "sent, not answered yet"
    APPLIED = "applied"
    REPLAYED = "answered OK as before"
    REFUSED = "refused"
    FAILED = "failed again"


@dataclass(frozen=True, slots=True)
class Item:
    """One chosen dead letter: the plan for it, and its outcome."""

    place: Place
    code: str
    source: Source | None
    command_id: str = ""
    """The id under which it is decided when it is sent; empty while the organisation is not known."""
    why: Why | None = None
    """The reason to leave it out."""
    detail: str = ""
    handed: bool = False
    """True if it was handed to the Kafka client."""
    sent: Source | None = None
    """Its position in the topic of commands, as the broker has confirmed it."""
    status: str = ""
    """The status of its answer; empty until there is one."""
    message: str = ""
    replayed: bool = False
    dead_letter: Place | None = None
    """The position of its new dead letter, if it failed again."""

    @property
    def state(self) -> State:
        if self.why is not None:
            return State.LEFT_OUT
        if self.status == StatusCode.OK:
            return State.REPLAYED if self.replayed else State.APPLIED
        if self.status:
            return State.FAILED if self.status == StatusCode.INTERNAL_ERROR else State.REFUSED
        if self.sent is not None:
            return State.UNANSWERED
        return State.UNCONFIRMED if self.handed else State.PLANNED


@dataclass(slots=True)
class Replay:
    """Every chosen dead letter by its position. It is up to date whenever the work ends.

    An item takes some 1.2 kB while it is planned (a hundred thousand: 120 MiB); the contents of the dead letters are
    not kept.
    """

    items: dict[Place, Item] = field(default_factory=dict)
    carried_out: bool = False
    stopped: str = ""
    """The reason why it ended before everything was sent and answered."""

    def put(self, item: Item) -> None:
        self.items[item.place] = item

    def counts(self) -> Counter[State]:
        return Counter(item.state for item in self.items.values())

    def left_out(self) -> Counter[Why]:
        return Counter(item.why for item in self.items.values() if item.why is not None)

    def refused(self) -> Counter[str]:
        """Count the refused by status."""
        return Counter(item.status for item in self.items.values() if item.state is State.REFUSED)

    def of(self, state: State) -> list[Item]:
        return [item for item in self.items.values() if item.state is state]


@dataclass(frozen=True, slots=True)
class Readers:
    """The readers of commands: the group, and the partitions of each topic that it reads."""

    cluster: str
    group: str
    partitions: Mapping[str, frozenset[int]]
    max_command_bytes: int


def judge(letter: Letter, readers: Readers, login: LoginToken | None) -> Renewed | tuple[Why, str]:
    """Return the command to send, or the reason for none, as far as it follows from the dead letter alone."""
    source = letter.source
    if source is None:
        return Why.NO_LETTER, ""
    if letter.group != readers.group:
        return Why.OTHER_GROUP, letter.group
    if source.partition not in readers.partitions.get(source.topic, frozenset()):
        return Why.NO_TOPIC, f"{source.topic}/{source.partition}"
    if letter.truncated:
        return Why.CUT, ""
    if login is not None and letter.organisation not in (None, login.organisation):
        return Why.OTHER_ORGANISATION, letter.organisation or ""
    token = MASKED if login is None else login.text
    try:
        return renewed(letter, source, readers.cluster, login_token=token, max_bytes=readers.max_command_bytes)
    except PassCodeGone:
        return Why.ONLY_ITS_SENDER, ""
    except NotRenewed as fault:
        return Why.REFUSED, str(fault)


async def plan(
    settings: Settings,
    chosen: Chosen,
    *,
    login: LoginToken | None = None,
    limit: int | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
) -> Replay:
    """Decide for each chosen dead letter if it would be sent. ``limit`` is the most that would be.

    Without a login token, a command whose organisation is not known cannot be checked for an answer since. Raises
    ``NoTopic`` and ``DependencyUnavailable``.
    """
    async with (
        topic_reader(settings) as kafka,
        owner_connection(settings.postgres.dsn.get_secret_value()) as connection,
    ):
        planner = _Planner(await readers_of(settings, kafka), connection, login)
        waiting: list[_Prospect] = []
        async for letter in letters(kafka, settings, chosen, on_progress=on_progress):
            waiting.append(planner.prospect(letter))
            if len(waiting) == CHUNK:
                await planner.look_up(waiting)
                waiting = []
        await planner.look_up(waiting)
    found = planner.replay
    for item in found.of(State.PLANNED)[limit:] if limit is not None else ():
        found.put(replace(item, why=Why.LATER))
    return found


async def readers_of(settings: Settings, kafka: TopicReader) -> Readers:
    """Return the group and the partitions that commands can be sent to now."""
    async with admin_client(settings) as admin:
        cluster = await cluster_id(admin)
    spans = await kafka.spans(*settings.topics.read)
    partitions = {name: frozenset(span.source.partition for span in found) for name, found in spans.items()}
    return Readers(cluster, settings.kafka.group_id, partitions, settings.max_command_bytes)


async def outcomes(connection: asyncpg.Connection, readers: Readers, places: Sequence[Source]) -> dict[Source, Row]:
    """Return the decisions on the commands read at these positions, as far as they are still recorded."""
    rows = await connection.fetch(
        statement("dead_letters/outcomes"),
        readers.cluster,
        readers.group,
        [place.topic for place in places],
        [place.partition for place in places],
        [place.offset for place in places],
        [place.timestamp for place in places],
    )
    return {places[row["number"] - 1]: row for row in rows}


@dataclass(frozen=True, slots=True)
class _Prospect:
    """The part of a dead letter that is kept while others are read.

    ``digest`` is that of the command's request, ``identity`` that of the command.
    """

    item: Item
    failed_at: datetime
    digest: bytes = b""
    identity: bytes = b""


@dataclass(slots=True)
class _Planner:
    readers: Readers
    connection: asyncpg.Connection
    login: LoginToken | None
    replay: Replay = field(default_factory=Replay)
    newest: dict[bytes, tuple[datetime, Place]] = field(default_factory=dict)

    def prospect(self, letter: Letter) -> _Prospect:
        item, again = Item(letter.place, letter.code, letter.source), judge(letter, self.readers, self.login)
        if isinstance(again, tuple):
            return _Prospect(replace(item, why=again[0], detail=again[1]), letter.failed_at)
        detail, organisation = "", letter.organisation
        if organisation is None:
            detail = "whose command it is was never verified"
            organisation = None if self.login is None else self.login.organisation
        if organisation is not None:
            # It is sent with this login, so the login's account is the command's from then on.
            account = None if self.login is None else self.login.account
            item = replace(item, command_id=senders_id(organisation, account, again.envelope) or "")
        command = again.command
        kind = "code" if command.identifier is None else "identifier"
        named_by = command.authentication_code or command.identifier or ""
        digest = request_digest(again.envelope.method, kind, named_by, command.fields)
        named = f"{letter.organisation}\0{senders_id('', None, again.envelope)}\0".encode()
        return _Prospect(replace(item, detail=detail), letter.failed_at, digest, sha256(named + digest).digest()[:16])

    async def look_up(self, prospects: Sequence[_Prospect]) -> None:
        """Compare prospects with the record of commands, and put them into the plan."""
        sendable = [each.item for each in prospects if each.item.why is None and each.item.command_id]
        ids = list({item.command_id for item in sendable})
        answers: dict[str, list[Row]] = {each: [] for each in ids}
        for row in await self.connection.fetch(statement("dead_letters/answers"), ids, list(map(command_key, ids))):
            answers[row["command_id"]].append(row)
        recorded = await outcomes(self.connection, self.readers, [item.source for item in sendable if item.source])
        for each in prospects:
            item = each.item
            if item.why is None and item.command_id:
                rows = answers[item.command_id]
                item = known(item, each.failed_at, each.digest, rows, recorded=item.source in recorded)
            self._put(item, each)

    def _put(self, item: Item, prospect: _Prospect) -> None:
        """Put an item into the plan. Only a command's newest dead letter is sent: a replay would double the others."""
        self.replay.put(item)
        if item.why is not None:
            return
        mine = (prospect.failed_at, item.place)
        newest = self.newest.setdefault(prospect.identity, mine)
        older, newer = sorted((mine, newest))
        if older != newer:
            self.newest[prospect.identity] = newer
            left = self.replay.items[older[1]]
            self.replay.put(replace(left, why=Why.OLDER, detail=str(newer[1])))


def known(item: Item, failed_at: datetime, digest: bytes, answers: Sequence[Row], *, recorded: bool) -> Item:
    """Return an item after comparing it with the answers under its command's id.

    An applied command binds its id, no matter when and for what request. ``recorded`` says that the failure itself
    still has its record.
    """
    for row in answers:
        if row["status"] == StatusCode.OK and row["digest"] == digest:
            return replace(item, why=Why.APPLIED, detail=f"at {rfc3339(row['decided_at'])}")
        if row["status"] == StatusCode.OK:
            return replace(item, why=Why.ANSWERED, detail="its id was applied for another request")
    for row in answers:
        if row["decided_at"] > failed_at and row["status"] not in {StatusCode.INTERNAL_ERROR, *_OF_THE_LOGIN}:
            return replace(item, why=Why.ANSWERED, detail=f"{row['status']} at {rfc3339(row['decided_at'])}")
    if recorded:
        return item
    unknown = "its record is gone, so whether it was answered since is not known"
    return replace(item, detail="; ".join(filter(None, (item.detail, unknown))))
