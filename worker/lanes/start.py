"""The start of a lane (DESIGN 2): own the row, fence the older producer, read the offset, and compare all three.

A lane that cannot tell its position is blocked until an operator decides; nothing is guessed.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from worker.errors import LaneBlocked, LaneContradicted, LaneLost
from worker.journey.messages import Message, transition_message
from worker.kafka.topic_watch import are_different
from worker.lanes.context import LaneRun
from worker.lanes.losses import removed
from worker.lanes.partition import DRAINED, IDLE_SECONDS, Partition
from worker.lanes.publication import Publication
from worker.lanes.row import LaneRow
from worker.lanes.status import Status
from worker.pipeline import Lease
from worker.postgres.sql import statement
from worker.resilience.backoff import pause

BEHIND_SECONDS: Final = 10.0
"""Seconds for which a log may end before the last offset decided: a new leader knows its end a moment late."""

_WAYS_OUT: Final = "The ways out: effective-worker lanes mend"


@dataclass(frozen=True, slots=True)
class Start:
    """The offset at which a lane begins to read.

    ``set_back``: an operator asks for answers again that were already given. ``lost``: offsets before it that were
    removed from the log, and whose commands, if there were any, have no answer.
    """

    position: int
    set_back: bool = False
    lost: range = range(0)


def where_to_start(
    committed: int | None, first_offset: int | None, next_offset: int | None, log_start: int, log_end: int
) -> Start:
    """Compare the committed offset with the lane's row (``first_offset``, ``next_offset``) and with the log (DESIGN 2).

    Raises ``LaneBlocked`` if going on could lose or repeat a command; its text names the numbers and the ways out.
    """
    if next_offset is None or first_offset is None:
        if committed:
            raise LaneContradicted(
                f"the group has committed offset {committed}, but nothing is known of what was decided: Postgres was"
                f" put back to before the first start, or is another database, or another program has read for the"
                f" group. {_WAYS_OUT}"
            )
        return Start(log_start)
    if log_end < next_offset:
        raise LaneContradicted(
            f"the log ends at offset {log_end}, but commands up to {next_offset} were decided: the topic was cut or"
            f" re-created. {_WAYS_OUT}"
        )
    if committed is None:
        return Start(max(first_offset, log_start), lost=removed(committed, first_offset, log_start))
    if committed > next_offset:
        raise LaneBlocked(
            f"the committed offset is {committed}, but commands were decided up to {next_offset} only: Postgres has"
            f" lost commits, or the offset was set forward by hand. {_WAYS_OUT}"
        )
    lost = removed(committed, first_offset, log_start)
    return Start(max(committed, log_start), set_back=committed < first_offset, lost=lost)


def require_same_topic(known: UUID | None, found: UUID | None) -> None:
    """Compare the id of the topic that a lane has decided on with that of the present one, as far as both are known.

    Raises ``LaneContradicted``.
    """
    if are_different(known, found):
        raise LaneContradicted(
            f"the topic was deleted and created again: its id was {known}, and is {found}. {_WAYS_OUT}"
        )


def require_same_record(offset: int, timestamp: int, found: int | None) -> None:
    """Compare the last record decided with the one at its offset now (its timestamp; ``None`` for no record).

    Raises ``LaneContradicted``.
    """
    if found != timestamp:
        there = "no record" if found is None else f"one of {found}"
        raise LaneContradicted(
            f"the last command that was decided stood at offset {offset} and was of {timestamp} (milliseconds); now"
            f" there is {there}: the log was cut, or the topic was created again. {_WAYS_OUT}"
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A lane that is ready to read its first batch."""

    lease: Lease
    topic_id: UUID | None
    is_settled: bool
    """True if the row says that everything decided is published."""


class Starter:
    """The steps of one start."""

    def __init__(
        self, run: LaneRun, row: LaneRow, partition: Partition, publication: Publication, status: Status
    ) -> None:
        self._context = run.context
        self._lane = run.lane
        self._log = run.log
        self._drain = run.drain
        self._row = row
        self._partition = partition
        self._publication = publication
        self._status = status

    async def start(self) -> Started:
        """Take the steps in order, and leave the partition at the offset to begin at.

        An offset that an operator has ordered is committed before the group's offset is read. Raises ``LaneBlocked``,
        ``LaneLost`` and ``DependencyUnavailable``.
        """
        self._status.say("starting")
        await self._publication.confirm_membership()
        row = await self._row.take()
        if row["blocked"] is not None:
            raise LaneBlocked(row["blocked"])
        topic_id = await self._context.topics.id_of(self._lane.source.topic)
        await self._publication.open()
        if row["ordered_offset"] is not None:
            await self._carry_out(row["ordered_offset"])
        self._publication.committed = await self._publication.read_committed()
        start = await self._decide_where(row, topic_id)
        if topic_id not in {None, row["topic_id"]}:
            await self._row.write(statement("lanes/know_topic"), topic_id)
        is_settled = row["first_offset"] == row["next_offset"]
        self._report_what_is_odd(row, start, is_settled=is_settled)
        next_offset = await self._open_row(row["next_offset"], start)
        await self._partition.seek(start.position)
        self._publication.position = start.position
        self._context.backlog.in_hand(self._lane.source, None)  # the commands that a lost lane left are read again
        self._log.info(
            "lane_started", position=start.position, committed=self._publication.committed, next_offset=next_offset
        )
        return Started(Lease(self._row.id, self._lane.name, self._row.owner, next_offset), topic_id, is_settled)

    async def _decide_where(self, row: Any, topic_id: UUID | None) -> Start:
        """Compare the row, the log and the group's offset. If they contradict each other, write that into the row."""
        try:
            return await self._where_to_start(row, topic_id)
        except LaneContradicted as changed:
            await self._row.block(changed.reason)
            self._log.error("lane_blocked", reason=changed.reason)
            raise
        except LaneBlocked:
            await self._row.require_owned()
            raise

    async def _where_to_start(self, row: Any, topic_id: UUID | None) -> Start:
        if row["next_offset"]:  # otherwise nothing was decided that another topic could contradict
            require_same_topic(row["topic_id"], topic_id)
        log_start, log_end = await self._settled_ends(row["next_offset"])
        committed = self._publication.committed
        start = where_to_start(committed, row["first_offset"], row["next_offset"], log_start, log_end)
        last = row["last_offset"]
        # A record that retention has removed proves nothing any more.
        if last is not None and log_start <= last < log_end:
            require_same_record(last, row["last_timestamp"], await self._partition.timestamp_at(last))
        return start

    async def _settled_ends(self, next_offset: int | None) -> tuple[int, int]:
        """Ask for the ends of the log; for a while, ask again if it ends too early."""
        log_start, log_end = await self._partition.ends()
        loop = asyncio.get_running_loop()
        until = loop.time() + BEHIND_SECONDS
        while next_offset is not None and log_end < next_offset and loop.time() < until:
            if self._drain.is_set():
                raise LaneLost(DRAINED)  # too early to say that the log was cut
            self._status.say(
                "waiting", f"the log ends at offset {log_end}, and commands up to {next_offset} were decided"
            )
            await pause(IDLE_SECONDS, self._drain)
            log_start, log_end = await self._partition.ends()
        return log_start, log_end

    def _report_what_is_odd(self, row: Any, start: Start, *, is_settled: bool) -> None:
        committed, metrics = self._publication.committed, self._context.metrics
        if committed is None and not is_settled:
            metrics.offsets_missing()
            self._log.warning("offsets_missing", first_offset=row["first_offset"], next_offset=row["next_offset"])
        if start.set_back:
            metrics.offsets_set_back()
            self._log.warning("offsets_set_back", committed=committed, first_offset=row["first_offset"])

    async def _open_row(self, next_offset: int | None, start: Start) -> int:
        """Write down the beginning of a first start and the losses of the log; return the offset to decide from."""
        if next_offset is None:
            next_offset = start.position
            await self._row.write(statement("lanes/open"), next_offset)
        if start.lost:
            next_offset = await self._lose(start.lost, next_offset)
        return next_offset

    async def _lose(self, lost: range, next_offset: int) -> int:
        """Write down the loss, let the group go on behind it, and return the offset to decide from then.

        Whatever stops it, the loss is written down once: the lane's row goes on behind it in the same moment.
        """
        decided = min(next_offset, lost.stop)
        await self._row.write(statement("lanes/lose_commands"), lost.start, lost.stop, decided, self._row.now())
        self._context.metrics.commands_lost(len(lost))
        self._log.error("commands_lost", first=lost.start, last=lost.stop - 1, decided_up_to=decided)
        await self._carry_out(lost.stop)
        self._publication.committed = lost.stop
        return max(next_offset, lost.stop)

    async def _carry_out(self, ordered: int) -> None:
        """Commit the offset that an operator has ordered (``worker.operations.lanes``), and only then forget the order.

        The owner is checked first: after a pause before InitProducerId there may be a successor that has obeyed and
        gone on. From here on no lane decides before the order is forgotten, so that carrying it out again changes
        nothing.
        """
        await self._row.require_owned()
        events = await self._events_of_the_lost(ordered)
        await self._publication.order(events, ordered)
        await self._row.write(statement("lanes/order_done"))
        self._log.warning("offset_ordered", position=ordered, events=len(events))

    async def _events_of_the_lost(self, ordered: int) -> list[Message]:
        """Write the events of transitions whose commands are gone from the log: a fact is published all the same.

        Writes none if the group's offset says that they were published: it is committed with them.
        """
        unsettled = [loss for loss in await self._row.losses() if not loss.settled]
        outcomes = await self._row.outcomes_of(unsettled) if unsettled else []
        transitions = [outcome.transition for outcome in outcomes if outcome.transition is not None]
        if not transitions or await self._publication.read_committed() == ordered:
            return []
        return [transition_message(transition, self._context.outgoing) for transition in transitions]
