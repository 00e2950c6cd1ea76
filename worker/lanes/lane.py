"""A lane: one partition, one owner, one batch at a time (DESIGN 2).

Postgres commits first, Kafka second. Whatever happens between the two, the offset has not moved, so the batch is taken
again and the record of commands answers it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from opentelemetry.trace import Span

from worker.errors import (
    DEPENDENCIES,
    KAFKA_ERRORS,
    AnswerRefused,
    ClockRefused,
    DependencyAway,
    Fenced,
    FuseBlown,
    LaneBlocked,
    LaneContradicted,
    LaneLost,
    StampsRefused,
    Unfit,
    Unpublished,
)
from worker.journey.messages import Letters, Message, Post, is_dead_lettered, messages, transition_message
from worker.journey.model import Answered, Outcome, lane_name
from worker.journey.recall import recall_by_coordinates
from worker.journey.reply_topics import Replies
from worker.kafka.backlog import Backlog
from worker.kafka.clock import Stamps
from worker.kafka.delivery import Coordinates, Delivery
from worker.kafka.internals import position_of
from worker.kafka.topic_watch import TopicWatch, are_different
from worker.lanes.losses import Loss, losses, removed, unacknowledged
from worker.lanes.priority import Courtesy, Turn
from worker.lanes.publisher import Place, Publisher
from worker.observability.descriptors import really
from worker.observability.health import Health, LaneState
from worker.observability.metrics import Metrics
from worker.observability.tracing import batch_span, command_span, exported, link, step_span
from worker.pipeline import Hold, Pipeline
from worker.postgres.pool import Connection, Database
from worker.postgres.sql import statement
from worker.resilience.backoff import Patience, carried_out, done_before, pause
from worker.resilience.circuit_breaker import Fuse

IDLE_SECONDS: Final = 0.5
"""How long one look for new records waits: a lane that is told to drain ends within this."""
QUIET_LOOKS: Final = 10
"""After so many looks in vain a lane is idle, and has time for what brings nobody an answer."""
ROW_SECONDS: Final = 15.0
"""After so long an idle lane asks whether it is still its own: a person may have ordered it otherwise."""
LOSSES_SECONDS: Final = 5.0
"""After so long it is asked again whether a person has acknowledged what the lane has lost."""
BROKER_SECONDS: Final = 15.0
"""The deadline of a request to the broker that is not part of a publication."""
BEHIND_SECONDS: Final = 10.0
"""The time for which a log may end before what was decided: a new leader knows its end a moment late."""
TRIES: Final = 3
"""Tries of a publication as it is, and then with its dead letters cut, before they are left out once."""
MASKED_BYTES: Final = 16 * 1024
"""Of values that are searched for secrets at once, on the event loop."""
DRAINED: Final = "told to drain"

_WAYS_OUT: Final = "The ways out: effective-worker lanes mend"

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Site:
    """The lane's place in the world: cluster, partition, group."""

    cluster: str
    place: Place

    @property
    def name(self) -> str:
        """The lane's name in transition events (CONTRACT 6)."""
        return lane_name(self.cluster, self.place.group, *self.place.source)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every lane of a worker shares."""

    database: Database
    consumer: AIOKafkaConsumer
    pipeline: Pipeline
    fuse: Fuse
    post: Post
    metrics: Metrics
    health: Health
    clock: Callable[[], float]
    max_batch: int
    courtesy: Courtesy
    topics: TopicWatch
    backlog: Backlog
    stamps: Stamps
    confirmed: Callable[[], Awaitable[None]]
    """Returns once the group has confirmed, within a session, that the worker is a member; see ``Membership``."""
    replies: Replies = field(default_factory=Replies)
    looks: dict[TopicPartition, "asyncio.Future[Any]"] = field(default_factory=dict)
    """The look for records on each partition, until it ends: it may outlive its lane."""


@dataclass(frozen=True, slots=True)
class Start:
    """The place where a lane begins to read.

    ``set_back``: somebody asks for answers again that were already given. ``lost``: offsets before it that were removed
    from the log, and whose commands, if they held any, nobody was answered.
    """

    position: int
    set_back: bool = False
    lost: range = range(0)


def where_to_start(
    committed: int | None, first: int | None, following: int | None, log_start: int, log_end: int
) -> Start:
    """Compare the committed offset with the lane's row (``first_offset``, ``next_offset``) and with the log (DESIGN 2).

    Raises ``LaneBlocked`` where going on could lose or repeat a command; its text names the numbers and the ways out.
    """
    if following is None or first is None:
        if committed:
            raise LaneContradicted(
                f"the group has committed offset {committed}, but nothing is known of what was decided: Postgres was"
                f" put back to before the first start, or is another database, or another program has read for the"
                f" group. {_WAYS_OUT}"
            )
        return Start(log_start)
    if log_end < following:
        raise LaneContradicted(
            f"the log ends at offset {log_end}, but commands up to {following} were decided: the topic was cut or"
            f" re-created. {_WAYS_OUT}"
        )
    if committed is None:
        return Start(max(first, log_start), lost=removed(committed, first, log_start))
    if committed > following:
        raise LaneBlocked(
            f"the committed offset is {committed}, but commands were decided up to {following} only: Postgres has lost"
            f" commits, or the offset was set forward by hand. {_WAYS_OUT}"
        )
    lost = removed(committed, first, log_start)
    return Start(max(committed, log_start), set_back=committed < first, lost=lost)


def require_same_topic(known: UUID | None, found: UUID | None) -> None:
    """Compare the id of the topic that a lane has decided on with that of the present one, as far as both are known.

    Raises ``LaneContradicted``.
    """
    if are_different(known, found):
        raise LaneContradicted(f"the topic was deleted and made anew: its id was {known}, and is {found}. {_WAYS_OUT}")


def require_same_record(offset: int, timestamp: int, found: int | None) -> None:
    """Compare the last record that was decided with the one that stands there (its timestamp; ``None`` for no record).

    Raises ``LaneContradicted``.
    """
    if found != timestamp:
        there = "no record" if found is None else f"one of {found}"
        raise LaneContradicted(
            f"the last command that was decided stood at offset {offset} and was of {timestamp} (milliseconds); now"
            f" there is {there}: the log was cut, or the topic made anew. {_WAYS_OUT}"
        )


def letters_of(attempts: int) -> Letters:
    """The way to write the dead letters of a publication, after so many attempts that may have failed by them.

    What is never heard of again may be so because of its size; left out, they are no longer to blame, and if the broker
    says nothing then either, it is away, and they are tried as they are again.
    """
    step = attempts % (2 * TRIES + 1)
    return Letters.NONE if step == 2 * TRIES else Letters.CUT if step >= TRIES else Letters.WHOLE


class Lane:
    """Runs until it is drained, loses its partition, or finds that it no longer knows where it stands."""

    def __init__(self, site: Site, tools: Tools, publisher: Publisher, owner: UUID, turn: Turn) -> None:
        """``owner`` is a fresh random id: from the moment it stands in the row, older owners' transactions fail.

        ``turn`` says when the lane may work, and on how many commands; see ``Courtesy``.
        """
        self._site = site
        self._tools = tools
        self._publisher = publisher
        self._owner = owner
        self._turn = turn
        self._source = site.place.source
        self._row = 0
        self._committed: int | None = None
        self._position = 0
        self._left_out = 0
        self._is_settled = True
        self._topic_id: UUID | None = None
        self._has_lost = False
        self._losses_seen = 0.0
        self._row_seen = time.monotonic()
        self._quiet = 0
        self._drain = asyncio.Event()
        self._patience = Patience()
        self._missed: set[str] = set()
        self._log = log.bind(topic=self._source.topic, partition=self._source.partition)

    async def run(self, drain: asyncio.Event) -> None:
        """Start, then take batch after batch until ``drain`` is set; the batch in hand is finished.

        Raises ``LaneLost``, ``LaneBlocked`` and ``DependencyAway``: then a new lane must start at the first step.
        """
        self._drain = drain
        try:
            hold = await self._start()
            for dependency in DEPENDENCIES:
                self._tools.health.back(dependency)
            while not drain.is_set():
                if self._tools.topics.is_another(self._source.topic, self._topic_id):
                    raise LaneLost("kafka: the topic was deleted and made anew")
                if self._has_lost and time.monotonic() - self._losses_seen > LOSSES_SECONDS:
                    await self._see_losses()
                taken = await self._take()
                hold = await (self._work_off(hold, taken) if taken else self._rest(hold))
                # Not before: a lane that fails at what it reads would be working at each of its starts.
                if not drain.is_set():
                    self._say("working")
            await self._settle(hold)
        finally:
            if drain.is_set():
                self._tools.backlog.in_hand(self._source, None)
            await self._publisher.close()

    # --- start --------------------------------------------------------------------------------------------------------

    async def _start(self) -> Hold:
        """The three steps of DESIGN 2, in this order: own the row, fence the older producer, read the offset.

        Where an operator has ordered an offset, it is committed before it is read.
        """
        self._say("starting")
        await self._confirmed()
        row = await self._own()
        self._row = row["id"]
        if row["blocked"] is not None:
            raise LaneBlocked(row["blocked"])
        self._topic_id = await self._tools.topics.id_of(self._source.topic)
        await self._publisher.open()
        if row["ordered_offset"] is not None:
            await self._carry_out(row["ordered_offset"])
        self._committed = await self._read_committed()
        try:
            start = await self._where_to_start(row)
        except LaneContradicted as changed:
            await self._block(changed.reason)
            raise
        except LaneBlocked:
            await self._require_owned()
            raise
        if self._topic_id not in {None, row["topic_id"]}:
            await self._note(statement("lanes/know_topic"), self._topic_id)
        self._is_settled = row["first_offset"] == row["next_offset"]
        self._say_what_is_odd(row, start)
        following = row["next_offset"]
        if following is None:
            following = start.position
            await self._note(statement("lanes/open"), following)
        if start.lost:
            following = await self._lose(start.lost, following)
        await self._see_losses()
        self._position = start.position
        await self._outlast_the_last_look()
        self._tools.consumer.seek(self._source, start.position)
        self._tools.backlog.in_hand(self._source, None)  # what a lost lane has left is read again
        self._log.info("lane_started", position=start.position, committed=self._committed, next_offset=following)
        return Hold(self._row, self._site.name, self._owner, following)

    def _say_what_is_odd(self, row: Any, start: Start) -> None:
        if self._committed is None and not self._is_settled:
            self._tools.metrics.offsets_missing()
            self._log.warning("offsets_missing", first_offset=row["first_offset"], next_offset=row["next_offset"])
        if start.set_back:
            self._tools.metrics.offsets_set_back()
            self._log.warning("offsets_set_back", committed=self._committed, first_offset=row["first_offset"])

    async def _where_to_start(self, row: Any) -> Start:
        """Compare what the row says with the group's offset and with the log. Raises ``LaneBlocked``."""
        if row["next_offset"]:  # or nothing was decided that another topic could contradict
            require_same_topic(row["topic_id"], self._topic_id)
        log_start, log_end = await self._settled_ends(row["next_offset"])
        start = where_to_start(self._committed, row["first_offset"], row["next_offset"], log_start, log_end)
        last = row["last_offset"]
        # What retention has removed says nothing any more.
        if last is not None and log_start <= last < log_end:
            require_same_record(last, row["last_timestamp"], await self._timestamp_at(last))
        return start

    async def _settled_ends(self, following: int | None) -> tuple[int, int]:
        """The beginning and the end of the log; a log that ends too early is looked at again for a while."""
        log_start, log_end = await self._ends()
        until = time.monotonic() + BEHIND_SECONDS
        while following is not None and log_end < following and time.monotonic() < until:
            if self._drain.is_set():
                raise LaneLost(DRAINED)  # too early to say that the log was cut
            self._say("waiting", f"the log ends at offset {log_end}, and commands up to {following} were decided")
            await pause(IDLE_SECONDS, self._drain)
            log_start, log_end = await self._ends()
        return log_start, log_end

    async def _timestamp_at(self, offset: int) -> int | None:
        """The timestamp of the record at an offset below the end of the log; ``None`` if there is no record."""
        await self._outlast_the_last_look()
        self._tools.consumer.seek(self._source, offset)
        until = time.monotonic() + BROKER_SECONDS
        while not self._drain.is_set():
            records = await self._look(1)
            if records:
                first = records[0]
                return int(first.timestamp) if first.offset == offset else None
            if time.monotonic() > until:
                what = f"the record at offset {offset} cannot be read: a transaction may be open before it"
                raise DependencyAway("kafka", what)
        raise LaneLost(DRAINED)

    async def _block(self, reason: str) -> None:
        """Write it down. Raises ``LaneLost`` if the lane has a newer owner: what is known of it is outdated."""
        await self._note(statement("lanes/block"), reason, datetime.fromtimestamp(self._tools.clock(), UTC))
        self._log.error("lane_blocked", reason=reason)

    async def _note(self, change: str, *what: Any) -> None:
        """Write something into the lane's row. Raises ``LaneLost`` if it has a newer owner."""
        async with self._tools.database.connection() as connection:
            if await connection.fetchval(change, self._row, self._owner, *what) is None:
                raise LaneLost("postgres: another worker has taken the lane")

    async def _lose(self, lost: range, following: int) -> int:
        """Write down what is lost, let the group go on behind it, and return the offset up to which is decided then.

        Whatever stops it, it is written down once: the lane's row goes on behind it in the same moment.
        """
        now = datetime.fromtimestamp(self._tools.clock(), UTC)
        decided = min(following, lost.stop)
        await self._note(statement("lanes/lose_commands"), lost.start, lost.stop, decided, now)
        self._tools.metrics.commands_lost(len(lost))
        self._log.error("commands_lost", first=lost.start, last=lost.stop - 1, decided_up_to=decided)
        await self._carry_out(lost.stop)
        self._committed = lost.stop
        return max(following, lost.stop)

    async def _see_losses(self) -> None:
        """Let health show what the lane has lost and nobody has acknowledged yet, as far as Postgres can be asked."""
        self._losses_seen = time.monotonic()
        try:
            async with self._tools.database.connection() as connection:
                found = await self._losses(connection)
        except DependencyAway:  # who decides says so
            self._has_lost = True  # perhaps: it is to be asked again
            return
        unseen = [str(loss) for loss in unacknowledged(found)]
        self._has_lost = bool(unseen)
        self._tools.health.lost(self._source, unseen)

    async def _carry_out(self, ordered: int) -> None:
        """Commit the offset that an operator has ordered (``worker.operations.lanes``), and forget the order only then.

        The owner is asked for first: who slept before InitProducerId may have a successor that has obeyed and gone on.
        From here on nobody decides before the order is forgotten, so that to do it again changes nothing. Another
        producer settles the commit before: until then, whoever looks from outside would find the former offset.
        """
        await self._require_owned()
        events = await self._events_of_the_lost(ordered)
        try:
            await self._publisher.publish(events, ordered)
        except Fenced as fenced:
            raise LaneLost(f"kafka: {fenced.reason}") from fenced
        except Unpublished as unknown:
            raise self._missing(unknown) from unknown
        self._taken(events)
        await self._publisher.open()
        await self._note(statement("lanes/order_done"))
        self._log.warning("offset_ordered", position=ordered, events=len(events))

    async def _events_of_the_lost(self, ordered: int) -> list[Message]:
        """The events of transitions whose commands are gone from the log: nobody is answered, but a fact is a fact.

        None, if the group's offset says that they were published: it is committed with them.
        """
        async with self._tools.database.connection() as connection:
            unsettled = [loss for loss in await self._losses(connection) if not loss.settled]
            facts = [
                fact
                for loss in unsettled
                if loss.begin < loss.decided
                for outcome in (await self._recalled(connection, loss)).values()
                if (fact := outcome.fact) is not None
            ]
        if not facts or await self._read_committed() == ordered:
            return []
        return [transition_message(fact, self._tools.post) for fact in facts]

    async def _losses(self, connection: Connection) -> Sequence[Loss]:
        return (await losses(connection, [self._row])).get(self._row, ())

    async def _recalled(self, connection: Connection, loss: Loss) -> Mapping[tuple[int, int], Outcome]:
        return await recall_by_coordinates(connection, self._row, self._site.name, loss.begin, loss.decided - 1)

    async def _outlast_the_last_look(self) -> None:
        """A look that a drain cut short goes on, and would take this lane's records: it ends before the seek."""
        look = self._tools.looks.get(self._source)
        if look is not None:
            await done_before(look, self._drain)

    async def _own(self) -> Any:
        async with self._tools.database.connection() as connection:
            return await connection.fetchrow(
                statement("lanes/take"),
                self._site.cluster,
                self._site.place.group,
                *self._source,
                self._owner,
                datetime.fromtimestamp(self._tools.clock(), UTC),
            )

    async def _require_owned(self) -> None:
        """Ask Postgres. Raises ``LaneLost`` if the lane has a newer owner: what is known of its offsets is outdated."""
        async with self._tools.database.connection() as connection:
            owned = await connection.fetchval(statement("lanes/owned"), self._row, self._owner)
        self._tools.health.back("postgres")
        if owned is None:
            raise LaneLost("postgres: another worker has taken the lane")

    async def _read_committed(self) -> int | None:
        """The group's offset. Only to be trusted after InitProducerId, which settles what could still move it."""
        return await _asked(self._tools.consumer.committed(self._source), "the committed offset")

    async def _ends(self) -> tuple[int, int]:
        consumer = self._tools.consumer
        starts = await _asked(consumer.beginning_offsets([self._source]), "the start of the log")
        ends = await _asked(consumer.end_offsets([self._source]), "the end of the log")
        return starts[self._source], ends[self._source]

    # --- work ---------------------------------------------------------------------------------------------------------

    async def _take(self) -> list[Delivery]:
        """What is there, from one command to ``max_batch``: nothing waits for a batch to fill."""
        self._tools.health.progress()
        most = 1 if self._tools.fuse.blown else self._tools.max_batch
        return [_delivery(self._site.cluster, record) for record in await self._look(most)]

    async def _look(self, most: int) -> list[Any]:
        """Up to so many records from the position on; none if there are none for a while, or at a drain."""
        look = asyncio.ensure_future(
            self._tools.consumer.getmany(self._source, timeout_ms=int(IDLE_SECONDS * 1000), max_records=most)
        )
        self._tools.looks[self._source] = look
        # Never cancelled: that would switch the client's poll watch off for ever. It runs out by itself.
        look.add_done_callback(self._looked)
        if not await done_before(look, self._drain):
            return []
        try:
            records: list[Any] = look.result().get(self._source, [])
        except OffsetOutOfRangeError as error:
            raise LaneLost(f"kafka: what was to be read next is no longer in the log: {error}") from error
        except KAFKA_ERRORS as error:
            raise DependencyAway("kafka", f"{type(error).__name__} while reading: {error}") from error
        return records

    async def _settle(self, hold: Hold) -> None:
        """Write down, once in each quiet time, that nothing is left to publish; the group's offset may be forgotten.

        A database that is away is asked again at the next quiet moment, and at a drain not waited for.
        """
        if self._is_settled or self._committed != hold.next_offset:
            return
        try:
            await self._note(statement("lanes/settle"), hold.next_offset)
        except DependencyAway as away:
            self._log.warning("lane_not_settled", reason=away.reason)
        else:
            self._is_settled = True

    def _looked(self, look: "asyncio.Future[Any]") -> None:
        """Let go of a look that has ended; what it failed of is no longer of interest if its lane has gone."""
        if self._tools.looks.get(self._source) is look:
            del self._tools.looks[self._source]
        if not look.cancelled():
            look.exception()

    async def _work_off(self, hold: Hold, taken: Sequence[Delivery]) -> Hold:
        """Handle what was taken, in as many batches as the lane's turns make of it. A drain drops the rest."""
        self._quiet = 0
        while taken and not self._drain.is_set():
            self._tools.backlog.in_hand(self._source, taken[0].coordinates)
            done = 0
            async with self._turn(self._drain) as most:
                if most:
                    hold, done = await self._handle(hold, taken[:most])
            taken = taken[done:]
        self._tools.backlog.in_hand(self._source, None)
        return hold

    async def _rest(self, hold: Hold) -> Hold:
        """Once it is quiet, commit past what holds no command: the markers behind a transaction of a sender's.

        The group would lag by them for ever, and who scales by its lag would never come to rest. The client's position
        is behind them: it moves with what a look gives, and over what holds nothing that could be given. All that it
        gave is published, and no look is under way. The rest is the protocol of a batch, of no commands.
        """
        if self._drain.is_set():
            return hold
        await self._settle(hold)
        self._quiet += 1
        if self._quiet < QUIET_LOOKS:
            return hold
        self._quiet = 0
        await self._look_at_the_row()
        position = position_of(self._tools.consumer, self._source)
        if position is None or position <= (self._committed or 0):
            return hold
        try:
            hold = await self._tools.pipeline.pass_by(hold, self._position, position)
        except DependencyAway as away:
            await self._wait_out(away)
        else:
            self._over()
            await self._until_published((), position)
        return hold

    async def _look_at_the_row(self) -> None:
        """Raises ``LaneLost`` if an idle lane has a newer owner, whom it would meet at its next command only."""
        if time.monotonic() - self._row_seen < ROW_SECONDS:
            return
        self._row_seen = time.monotonic()
        with suppress(DependencyAway):  # the probe says so
            await self._require_owned()

    async def _handle(self, hold: Hold, batch: Sequence[Delivery]) -> tuple[Hold, int]:
        """Decide and commit in Postgres, then publish and commit in Kafka: the batch, or the first so many of it."""
        with batch_span(self._source.topic, self._source.partition, self._site.place.group, len(batch)) as span:
            began = self._tools.clock()
            with step_span("decide"):
                answered, hold = await self._decide(hold, batch)
            link(span, (each.decoded.envelope.traceparent for each in answered))
            decided = self._tools.clock()
            if answered:
                with step_span("publish"):
                    await self._publish(answered, answered[-1].decoded.delivery.coordinates.offset + 1)
                self._tools.metrics.batch(len(answered), decided - began, self._tools.clock() - decided)
                self._count(answered)
                if exported(span):
                    _export(span, answered, began)
        return hold, len(answered)

    async def _decide(self, hold: Hold, batch: Sequence[Delivery]) -> tuple[list[Answered], Hold]:
        """Wait out a Postgres that is away; a drain ends the wait, and the batch is dropped as if never taken."""
        while not self._drain.is_set():
            try:
                answered, hold = await self._tools.pipeline.run(hold, batch, self._position)
            except DependencyAway as away:
                await self._wait_out(away)
            except FuseBlown as blown:
                await self._pause(blown)
            else:
                self._over()
                return answered, hold
        return [], hold

    async def _pause(self, blown: FuseBlown) -> None:
        self._tools.health.progress()
        self._say("paused", str(blown))
        self._log.error("fuse_blown", offset=self._position)
        await self._patience.wait(self._drain)

    async def _publish(self, answered: Sequence[Answered], following: int) -> None:
        """Publish a decided batch; if the broker refuses an answer for good, in halves until it stands alone."""
        try:
            await self._until_published(answered, following)
        except AnswerRefused as refusal:
            if len(answered) == 1:
                await self._publish_shortened(answered, following, refusal)
                return
            middle = len(answered) // 2
            boundary = answered[middle].decoded.delivery.coordinates.offset
            await self._publish(answered[:middle], boundary)
            await self._publish(answered[middle:], following)

    async def _publish_shortened(self, alone: Sequence[Answered], following: int, refusal: AnswerRefused) -> None:
        """Publish a lone answer that is too large, where its sender waits if that topic takes it at all."""
        self._log.warning("answer_shortened", offset=self._position, reason=refusal.reason)
        try:
            await self._until_published(alone, following, whole=False)
        except AnswerRefused:
            if alone[0].decoded.envelope.reply is None:
                raise
            await self._until_published(alone, following, whole=False, redirected=False)

    async def _messages(
        self, answered: Sequence[Answered], *, whole: bool, redirected: bool, letters: Letters
    ) -> list[Message]:
        tools = self._tools
        there = [
            (reply := each.decoded.envelope.reply) is not None and redirected and tools.replies.reachable(reply)
            for each in answered
        ]

        def write() -> list[Message]:
            return [
                message
                for each, is_there in zip(answered, there, strict=True)
                for message in messages(each, tools.post, whole=whole, redirected=is_there, letters=letters)
            ]

        masked = sum(len(each.decoded.delivery.value or b"") for each in answered if is_dead_lettered(each))
        # To look for secrets takes up to a millisecond for every 600 bytes: the other lanes go on meanwhile.
        return await asyncio.to_thread(write) if masked > MASKED_BYTES else write()

    async def _until_published(
        self, answered: Sequence[Answered], following: int, *, whole: bool = True, redirected: bool = True
    ) -> None:
        """Publish once. Where the outcome is unknown, a new producer settles it and the committed offset tells it.

        Raises ``AnswerRefused`` when nothing was published and the producer stands ready for another try.
        """
        has_letters, attempts = any(map(is_dead_lettered, answered)), 0
        while True:
            letters = letters_of(attempts) if has_letters else Letters.WHOLE
            written = await self._messages(answered, whole=whole, redirected=redirected, letters=letters)
            try:
                await self._publisher.publish(written, following)
            except Fenced as fenced:
                raise LaneLost(f"kafka: {fenced.reason}") from fenced
            except Unpublished as unknown:
                if await self._settled(unknown, following):
                    break
                if isinstance(unknown, AnswerRefused):
                    raise
                await self._avoid(answered, unknown)
                if not isinstance(unknown, StampsRefused):  # no letter's size is to blame for the clock
                    attempts += 1
            else:
                break
        if letters is Letters.NONE:
            self._leave_out(answered)
        self._taken(written)
        self._is_settled = False
        self._committed = self._position = following
        self._over()

    def _taken(self, written: Sequence[Message]) -> None:
        """Count what a topic of ours takes for the clock; what a sender's takes is its owner's to set."""
        if any(message.partition is None for message in written):
            self._tools.stamps.taken()

    def _leave_out(self, answered: Sequence[Answered]) -> None:
        left_out = [each.decoded.delivery.coordinates.offset for each in answered if is_dead_lettered(each)]
        self._log.error("dead_letters_left_out", offsets=left_out)
        self._tools.metrics.dead_letters_left_out(len(left_out))
        self._left_out += len(left_out)

    async def _avoid(self, answered: Sequence[Answered], failure: Unpublished) -> None:
        """Somebody else's topic must not stop the lane: what it does not take goes to the results topic."""
        replies = {reply for each in answered if (reply := each.decoded.envelope.reply) is not None}
        if replies:
            await self._tools.replies.failed(replies, failure.to_blame)

    async def _settled(self, unknown: Unpublished, following: int) -> bool:
        """Whether the transaction was committed after all. Raises ``LaneLost`` if the offset is anywhere else."""
        self._log.info("producer_replaced", reason=unknown.reason)
        self._tools.metrics.producer_replaced()
        if not isinstance(unknown, AnswerRefused):
            missing = self._missing(unknown)
            # One failure is common, and not waited for; a row of them is not, and a clock is not set in a moment.
            if self._patience.tried or isinstance(missing, Unfit):
                if self._drain.is_set():
                    raise missing  # nobody would space out the tries; the batch is the next owner's
                await self._wait_out(missing)
            else:
                self._patience.tried = 1
                self._missed.add(missing.dependency)
        committed = await self._reopened()
        if committed not in (self._committed, following):
            raise LaneLost(f"kafka: the committed offset is {committed}, neither {self._committed} nor {following}")
        return committed == following

    def _missing(self, unknown: Unpublished) -> DependencyAway:
        """Name what a publication needs and had not."""
        if isinstance(unknown, StampsRefused):
            self._tools.stamps.refused()
            return ClockRefused()
        return DependencyAway("kafka", unknown.reason)

    async def _reopened(self) -> int | None:
        """Open a new producer, then read the committed offset: in this order it can no longer move.

        Without the question for the owner before, a worker that hears nothing of its successor would fence it again and
        again; without the one after, who slept in between would publish what its successor has answered, or given up.
        """
        while True:
            try:
                await self._confirmed()
                await self._require_owned()
                await self._publisher.open()
                await self._require_owned()
                return await self._read_committed()
            except DependencyAway as away:
                if self._drain.is_set():
                    raise
                await self._wait_out(away)

    async def _confirmed(self) -> None:
        """Who has slept may have a successor, and would fence it. Raises ``LaneLost`` if told to drain meanwhile."""
        if not await carried_out(self._tools.confirmed(), self._drain):
            raise LaneLost("kafka: the group has gone on without this worker")

    # --- report -------------------------------------------------------------------------------------------------------

    async def _wait_out(self, missing: DependencyAway) -> None:
        away = really(missing)
        self._missed.add(away.dependency)
        self._tools.health.progress()
        self._tools.health.away(away, self._source)
        self._tools.metrics.waited(away.dependency)
        self._say("waiting", str(away))
        self._log.warning(away.event, dependency=away.dependency, reason=away.reason)
        await self._patience.wait(self._drain, self._tools.health.returned(away.dependency))

    def _over(self) -> None:
        if self._patience.tried:
            self._patience.reset()
            while self._missed:
                self._tools.health.back(self._missed.pop())
            self._say("working")

    def _say(self, state: LaneState, reason: str = "") -> None:
        self._tools.health.lane(self._source, state, reason)

    def _count(self, answered: Sequence[Answered]) -> None:
        metrics = self._tools.metrics
        said = Counter((each.decoded.envelope.dry_run, each.answer.code, each.answer.replayed) for each in answered)
        for (is_dry_run, code, replayed), count in said.items():
            if is_dry_run:
                metrics.rehearsed(code, count)
            else:
                metrics.answered(code, replayed, count)
        letters = sum(map(is_dead_lettered, answered)) - self._left_out
        metrics.published(sum(each.fact is not None for each in answered), letters)
        self._left_out = 0


def _export(batch: Span, answered: Sequence[Answered], began: float) -> None:
    """A span for each command in its sender's trace. Holds what logs may hold: ids and codes."""
    for each in answered:
        where, traceparent = each.decoded.delivery.coordinates, each.decoded.envelope.traceparent
        if traceparent is None:
            continue
        attributes = {
            "messaging.destination.name": where.topic,
            "messaging.destination.partition.id": str(where.partition),
            "messaging.kafka.offset": str(where.offset),
            "command_id": each.answer.command_id,
            "status_code": each.answer.code.value,
        }
        if each.decoded.envelope.dry_run:
            attributes["dry_run"] = "true"
        command_span(batch, traceparent, where.command_id.encode(), began=began, attributes=attributes)


def _delivery(cluster: str, record: Any) -> Delivery:
    return Delivery(
        Coordinates(cluster, record.topic, record.partition, record.offset, record.timestamp),
        record.key,
        record.value,
        tuple(record.headers),
        stamped_by_broker=record.timestamp_type == 1,
        cut=record.checksum,  # nothing else stands there (``worker.kafka.record_batches``)
    )


async def _asked(question: Awaitable[T], what: str) -> T:
    """An answer of the broker within its deadline: aiokafka by itself would ask for ever (DESIGN 6)."""
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            return await question
    except KAFKA_ERRORS as error:
        raise DependencyAway("kafka", f"{type(error).__name__} while asking for {what}: {error}") from error
