"""The group's lanes as operators see them, and the ways out for one that does not start (DESIGN 2).

A way out is an order in the lane's row. It takes the lane from the worker that has it; that worker starts the lane
again, and obeys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import for_code

from worker.errors import DependencyUnavailable, LaneBlocked, OperatorError
from worker.kafka.reader import OffsetRange, topic_reader
from worker.kafka.topics import admin_client, cluster_id
from worker.lanes.losses import Loss, losses, unacknowledged
from worker.lanes.start import Start, where_to_start
from worker.postgres.connect import owner_connection
from worker.postgres.pool import Connection, Row
from worker.postgres.sql import statement
from worker.settings import Settings


class CannotMend(OperatorError):
    """The lane needs no mending, or not in this way, or it has moved meanwhile. Nothing was changed."""


class NoSuchLane(CannotMend):
    """There is no partition of that number, and no row for one."""


class State(StrEnum):
    """The states of a lane, as far as Kafka and Postgres show them."""

    NEW = "new"
    """No worker has ever started it."""
    DONE = "done"
    """Everything in the log is answered."""
    BEHIND = "behind"
    """The log holds commands to decide or to answer."""
    BLOCKED = "blocked"
    """It does not start: an operator must choose a way out."""
    ORDERED = "ordered"
    """A way out was chosen, and no worker has taken it yet."""
    GONE = "gone"
    """There is a row, but no such partition any more."""


class Way(StrEnum):
    """The ways out for a lane that does not start."""

    REDO = "redo"
    SKIP = "skip"
    FROM_START = "from-start"
    FROM_END = "from-end"


@dataclass(frozen=True, slots=True)
class Member:
    """The worker to which the group has assigned the partition."""

    id: str
    host: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A lane's row: its last batch has the offsets from ``first`` up to, but without, ``following``.

    Both are ``None`` before the first batch. ``transitions`` is the number that the lane has made.
    """

    row: int
    owner: UUID
    owned_since: datetime
    first: int | None
    following: int | None
    ordered: int | None
    transitions: int
    blocked: str | None = None
    """The reason not to start, if a worker stored one: the log is not the one that the lane has decided on."""
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class Lane:
    """One partition: the offsets in its log, the group's committed offset, and the lane's row."""

    source: TopicPartition
    log: OffsetRange | None
    committed: int | None
    decided: Decided | None
    member: Member | None

    @property
    def losses(self) -> tuple[Loss, ...]:
        """All known losses, acknowledged or not."""
        return () if self.decided is None else self.decided.losses

    @property
    def unseen(self) -> tuple[Loss, ...]:
        """The losses that are not acknowledged yet."""
        return unacknowledged(self.losses)

    @property
    def start(self) -> Start | LaneBlocked | None:
        """The position at which it starts, or the reason why it does not; ``None`` if there is no such partition."""
        log, row = self.log, self.decided
        if log is None:
            return None
        if row is None:  # the worker that starts it will report how it takes the group's offset
            return Start(max(self.committed or 0, log.begin))
        committed = self.committed if row.ordered is None else row.ordered
        try:
            return where_to_start(committed, row.first, row.following, log.begin, log.end)
        except LaneBlocked as blocked:
            return blocked

    @property
    def state(self) -> State:
        """The state; see :class:`State`."""
        if self.log is None:
            return State.GONE
        if self.why_blocked:
            return State.BLOCKED
        if self.decided is None or self.decided.following is None:
            return State.NEW
        if self.decided.ordered is not None:
            return State.ORDERED
        return State.BEHIND if self.behind else State.DONE

    @property
    def why_blocked(self) -> str:
        """The reason why it does not start; empty if it does."""
        if self.decided is not None and self.decided.blocked is not None:
            return self.decided.blocked
        start = self.start
        return start.reason if isinstance(start, LaneBlocked) else ""

    @property
    def behind(self) -> int:
        """The number of offsets left to read, transaction markers of senders included; 0 if it does not start."""
        start = self.start
        if self.log is None or self.why_blocked or not isinstance(start, Start):
            return 0
        return max(0, self.log.end - start.position)


@dataclass(frozen=True, slots=True)
class Remedy:
    """One way out of a blocked lane: the new values of its row, the offset to commit, and the effect in words."""

    way: Way
    instead_of: Decided
    first: int
    following: int
    ordered: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Mending:
    """The blocked lanes, each with its ways out, or with the chosen one."""

    lanes: tuple[tuple[Lane, tuple[Remedy, ...]], ...]
    done: bool


async def lanes(settings: Settings) -> tuple[Lane, ...]:
    """Return the lanes of all partitions of the commands topics, and of rows for partitions that are gone, in order.

    Changes nothing. Raises ``DependencyUnavailable``.
    """
    topics = settings.topics.read
    async with topic_reader(settings) as kafka:
        async with admin_client(settings) as admin:
            cluster = await cluster_id(admin)
            members = await group_members(admin, settings.kafka.group_id)
        sources = [span.source for spans in (await kafka.spans(*topics)).values() for span in spans]
        # In this order: a running lane commits in Postgres first, so Kafka's offsets are never ahead of the rows.
        committed = await committed_offsets(settings, sources)
        async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
            rows = await connection.fetch(statement("lanes/of_group"), cluster, settings.kafka.group_id, list(topics))
            lost = await losses(connection, [row["id"] for row in rows])
        logs = {span.source: span for spans in (await kafka.spans(*topics)).values() for span in spans}
    decided = {TopicPartition(row["topic"], row["partition"]): _decided(row, lost) for row in rows}
    return tuple(
        Lane(source, logs.get(source), committed.get(source), decided.get(source), members.get(source))
        for source in sorted(logs.keys() | decided.keys(), key=lambda each: (topics.index(each.topic), each.partition))
    )


async def committed_offsets(settings: Settings, sources: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the group's committed offset of each partition that has one. Raises ``DependencyUnavailable``."""
    if not sources:
        return {}
    async with admin_client(settings) as admin:
        found = await admin.list_consumer_group_offsets(settings.kafka.group_id, partitions=list(sources))
    if found.keys() < set(sources):
        raise DependencyUnavailable("kafka", f"the offsets of the group {settings.kafka.group_id} are not told")
    return {source: each.offset for source, each in found.items() if each.offset >= 0}


def remedies(lane: Lane) -> tuple[Remedy, ...]:
    """Return the ways out of a blocked lane; none for one that starts."""
    row, log, committed = lane.decided, lane.log, lane.committed
    if row is None or log is None or not lane.why_blocked:
        return ()
    if row.following is None:
        return _of_an_unknown_past(row, log, committed or 0)
    if log.end < row.following or row.blocked is not None:
        anew = f"the topic was created again: decide all that is in it, from offset {log.begin} on"
        cut = (
            f"the log was cut: go on with what comes, from offset {log.end} on; what is in it now is not decided again"
        )
        return (
            Remedy(Way.FROM_START, row, log.begin, log.end, log.begin, anew),
            Remedy(Way.FROM_END, row, log.end, log.end, log.end, cut),
        )
    again = (
        f"decide the commands from offset {max(row.following, log.begin)} on (again): what Postgres has lost is made"
        f" good, and who was answered then is answered again"
    )
    redo = Remedy(Way.REDO, row, row.following, row.following, row.following, again)
    if committed is None or committed > log.end:
        return (redo,)
    over = (
        f"go on from offset {committed}: the commands from {row.following} to {committed - 1} are not decided, whatever"
        f" their senders were told"
    )
    return (redo, Remedy(Way.SKIP, row, committed, committed, None, over))


def _of_an_unknown_past(row: Decided, log: OffsetRange, committed: int) -> tuple[Remedy, ...]:
    begin = log.begin
    anew = (
        f"decide all that is in the log, from offset {begin} on: access tokens that are effective stay so, and every"
        f" command is answered (again)"
    )
    over = f"go on from offset {committed}: what stands before it was decided by somebody else, or is not decided"
    return (
        Remedy(Way.SKIP, row, committed, committed, None, over),
        Remedy(Way.FROM_START, row, begin, begin, begin, anew),
    )


async def mend(
    settings: Settings,
    places: Sequence[TopicPartition],
    way: Way | None,
    *,
    carry_out: bool,
    now: datetime,
    owner: UUID,
) -> Mending:
    """Find the ways out of the lanes at ``places`` (of every blocked lane if empty), and ``carry_out`` one.

    A worker that has the lane obeys at its next start, half a minute later at most; otherwise the next one that gets
    it. ``owner`` is a fresh random id. Needs the owner's connection.

    Raises ``CannotMend``, and then nothing was changed; ``DependencyUnavailable``.
    """
    found = {lane.source: lane for lane in await lanes(settings)}
    blocked = tuple(lane for lane in found.values() if lane.state is State.BLOCKED)
    chosen = tuple(_blocked(found, place) for place in places) or blocked
    if way is None:
        return Mending(tuple((lane, remedies(lane)) for lane in chosen), done=False)
    planned = tuple((lane, _by(way, lane)) for lane in chosen)
    if carry_out:
        await _order(settings, planned, now, owner)
    return Mending(tuple((lane, (remedy,)) for lane, remedy in planned), done=carry_out)


async def show(settings: Settings, place: TopicPartition) -> Lane:
    """Return the lane of one partition. Raises ``NoSuchLane`` and ``DependencyUnavailable``."""
    return _of({lane.source: lane for lane in await lanes(settings)}, place)


async def acknowledge(
    settings: Settings, places: Sequence[TopicPartition], *, carry_out: bool, now: datetime
) -> tuple[Lane, ...]:
    """Find the lanes at ``places`` (all lanes if empty) with unacknowledged losses; ``carry_out`` acknowledges these.

    Returns the lanes as they were found. A worker learns of it within seconds. Needs the owner's connection. Raises
    ``NoSuchLane`` and ``DependencyUnavailable``.
    """
    found = {lane.source: lane for lane in await lanes(settings)}
    chosen = [_of(found, place) for place in places] or list(found.values())
    lost = tuple(lane for lane in chosen if lane.unseen)
    if carry_out and lost:
        rows = [lane.decided.row for lane in lost if lane.decided is not None]
        latest = max(loss.noticed_at for lane in lost for loss in lane.unseen)
        async with owner_connection(settings.postgres.owner.get_secret_value()) as connection:
            await connection.execute(statement("lanes/acknowledge"), rows, now, latest)
    return lost


def name(source: TopicPartition) -> str:
    """Return a lane's name for people, and for ``lanes mend``."""
    return f"{source.topic}/{source.partition}"


def _blocked(found: Mapping[TopicPartition, Lane], place: TopicPartition) -> Lane:
    lane = _of(found, place)
    if lane.state is not State.BLOCKED:
        raise CannotMend(f"{name(place)} is {lane.state}: nothing keeps it from starting")
    return lane


def _of(found: Mapping[TopicPartition, Lane], place: TopicPartition) -> Lane:
    lane = found.get(place)
    if lane is None:
        raise NoSuchLane(f"there is no partition {name(place)}")
    return lane


def _by(way: Way, lane: Lane) -> Remedy:
    ways = {remedy.way: remedy for remedy in remedies(lane)}
    if way not in ways:
        raise CannotMend(f"{way} is no way out for {name(lane.source)}, but {' or '.join(ways)}: {lane.why_blocked}")
    return ways[way]


async def _order(settings: Settings, planned: Sequence[tuple[Lane, Remedy]], now: datetime, owner: UUID) -> None:
    async with (
        owner_connection(settings.postgres.owner.get_secret_value()) as connection,
        connection.transaction(),
    ):
        for lane, remedy in planned:
            seen, new = remedy.instead_of, (owner, now, remedy.first, remedy.following, remedy.ordered)
            old = (seen.first, seen.following, seen.ordered)
            if await connection.fetchval(statement("lanes/mend"), seen.row, *new, *old) is None:
                raise CannotMend(f"{name(lane.source)} has moved meanwhile: look again. Nothing was changed")


def _decided(row: Row, lost: Mapping[int, tuple[Loss, ...]]) -> Decided:
    return Decided(
        row=row["id"],
        owner=row["owner"],
        owned_since=row["owned_since"],
        first=row["first_offset"],
        following=row["next_offset"],
        ordered=row["ordered_offset"],
        transitions=row["chain_sequence"],
        blocked=row["blocked"],
        losses=lost.get(row["id"], ()),
    )


async def other_groups(connection: Connection, settings: Settings) -> list[str]:
    """Return the groups that have decided commands here, if the one of the settings has decided none.

    A worker of a new group answers every command in the log again.
    """
    rows = await connection.fetch(statement("lanes/other_groups"), settings.kafka.group_id, list(settings.topics.read))
    return [row["name"] for row in rows]


async def group_members(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, Member]:
    """Return the member that has each partition; none while the group rebalances."""
    [answer] = await admin.describe_consumer_groups([group])
    [described] = answer.to_object()["groups"]
    if described["error_code"]:
        raise for_code(described["error_code"])(f"while the group {group} was asked for")
    return {
        source: Member(member["member_id"], member["client_host"].lstrip("/"))
        for member in described["members"]
        if member["member_assignment"]
        for source in _assigned(member)
    }


def _assigned(member: Mapping[str, Any]) -> list[TopicPartition]:
    assignment: Any = ConsumerProtocolMemberAssignment.decode(member["member_assignment"])
    return list(assignment.partitions())
