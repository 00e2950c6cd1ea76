"""A lane: one partition, one owner, one batch at a time (DESIGN 2).

Postgres commits first, Kafka second. If anything fails between the two, the offset has not moved: the batch is taken
again, and the record of commands answers it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from opentelemetry.trace import Span

from effective_contract.codes import StatusCode
from worker.errors import DEPENDENCIES, BreakerOpen, DependencyUnavailable, LaneLost
from worker.journey.messages import is_dead_lettered
from worker.journey.model import Answered
from worker.kafka.delivery import Delivery
from worker.lanes.context import LaneRun
from worker.lanes.losses import unacknowledged
from worker.lanes.partition import Partition
from worker.lanes.priority import Turn
from worker.lanes.publication import Publication
from worker.lanes.publisher import Publisher
from worker.lanes.row import LaneRow
from worker.lanes.start import Starter
from worker.lanes.status import Status
from worker.observability.recent import MOST_RECENT, Refusal
from worker.observability.tracing import batch_span, command_span, exported, link, sampled_trace, step_span
from worker.pipeline import Lease
from worker.postgres.sql import statement

QUIET_READS: Final = 10
"""Empty reads after which a lane is idle, and has time for work that answers no sender."""
ROW_SECONDS: Final = 15.0
"""Seconds after which an idle lane checks that it still owns its row: an operator may have ordered otherwise."""
LOSSES_SECONDS: Final = 5.0
"""Seconds after which the lane checks again if an operator has acknowledged its losses."""


class Lane:
    """One life of a lane: until it is drained, loses its partition, or no longer knows its position."""

    def __init__(self, run: LaneRun, publisher: Publisher, owner: UUID, turn: Turn) -> None:
        """``owner`` is a fresh random id: once it is in the row, older owners' transactions fail.

        ``turn`` says when the lane may work, and on how many commands; see ``Priority``.
        """
        self._context = run.context
        self._source = run.lane.source
        self._group = run.lane.group
        self._drain = run.drain
        self._log = run.log
        self._publisher = publisher
        self._turn = turn
        self._status = Status(run)
        self._row = LaneRow(run, owner)
        self._partition = Partition(run)
        self._publication = Publication(run, publisher, self._row, self._partition, self._status)
        self._starter = Starter(run, self._row, self._partition, self._publication, self._status)
        self._topic_id: UUID | None = None
        self._is_settled = True
        self._has_lost = False
        self._losses_seen = 0.0
        self._row_seen = time.monotonic()
        self._quiet = 0

    async def run(self) -> None:
        """Start, then take batch after batch until told to drain; the batch in hand is finished.

        Raises ``LaneLost``, ``LaneBlocked`` and ``DependencyUnavailable``: then a new lane must start at the first
        step.
        """
        drain = self._drain
        try:
            lease = await self._start()
            for dependency in DEPENDENCIES:
                self._context.health.back(dependency)
            while not drain.is_set():
                if self._context.topics.is_another(self._source.topic, self._topic_id):
                    raise LaneLost("kafka: the topic was deleted and created again")
                if self._has_lost and time.monotonic() - self._losses_seen > LOSSES_SECONDS:
                    await self._show_losses()
                taken = await self._take()
                lease = await (self._work_off(lease, taken) if taken else self._rest(lease))
                # Not earlier: a lane that fails on what it reads would show as working after each start.
                if not drain.is_set():
                    self._status.say("working")
            await self._settle(lease)
        finally:
            if drain.is_set():
                self._context.backlog.in_hand(self._source, None)
            await self._publisher.close()

    async def _start(self) -> Lease:
        started = await self._starter.start()
        self._topic_id, self._is_settled = started.topic_id, started.is_settled
        await self._show_losses()
        return started.lease

    # --- a batch ------------------------------------------------------------------------------------------------------

    async def _take(self) -> list[Delivery]:
        """Take the records that are there, up to ``max_batch``; one at a time while commands keep failing."""
        self._context.health.progress()
        taken = await self._partition.take(1 if self._context.breaker.is_open else self._context.max_batch)
        self._context.metrics.read(len(taken))
        return taken

    async def _work_off(self, lease: Lease, taken: Sequence[Delivery]) -> Lease:
        """Handle the commands taken, in as many batches as the lane's turns make of them. A drain drops the rest."""
        self._quiet = 0
        backlog = self._context.backlog
        while taken and not self._drain.is_set():
            backlog.in_hand(self._source, taken[0].coordinates, len(taken))
            done = 0
            async with self._turn(self._drain) as most:
                if most:
                    lease, done = await self._handle(lease, taken[:most])
            taken = taken[done:]
        backlog.in_hand(self._source, None)
        return lease

    async def _handle(self, lease: Lease, batch: Sequence[Delivery]) -> tuple[Lease, int]:
        """Decide and commit in Postgres, then publish and commit in Kafka. Returns the number of commands handled."""
        clock, metrics = self._context.clock, self._context.metrics
        with batch_span(self._source.topic, self._source.partition, self._group, len(batch)) as span:
            began = clock()
            with step_span("decide"):
                answered, lease = await self._decide(lease, batch)
            link(span, (each.decoded.envelope.traceparent for each in answered))
            decided = clock()
            if answered:
                with step_span("publish"):
                    await self._publication.publish(answered)
                self._is_settled = False
                published = clock()
                metrics.batch(len(answered), decided - began, published - decided)
                self._count(answered, published)
                if exported(span):
                    _export(span, answered, began)
        return lease, len(answered)

    async def _decide(self, lease: Lease, batch: Sequence[Delivery]) -> tuple[list[Answered], Lease]:
        """Decide, waiting while Postgres is away. A drain ends the wait: the batch is dropped as if never taken."""
        first_offset = self._publication.position
        while not self._drain.is_set():
            try:
                answered, lease = await self._context.pipeline.run(lease, batch, first_offset)
            except DependencyUnavailable as away:
                await self._status.wait_out(away)
            except BreakerOpen as opened:
                await self._status.wait_paused(opened, first_offset)
            else:
                self._status.recovered()
                return answered, lease
        return [], lease

    def _count(self, answered: Sequence[Answered], published: float) -> None:
        metrics, left_out = self._context.metrics, self._publication.left_out
        metrics.took(
            (
                max(0.0, published - each.decoded.delivery.coordinates.timestamp / 1000),
                sampled_trace(each.decoded.envelope.traceparent),
            )
            for each in answered
        )
        said = Counter((each.decoded.envelope.dry_run, each.answer.code, each.answer.replayed) for each in answered)
        for (is_dry_run, code, replayed), count in said.items():
            if is_dry_run:
                metrics.rehearsed(code, count)
            else:
                metrics.answered(code, replayed, count)
        letters = Counter(
            each.answer.code
            for each in answered
            if is_dead_lettered(each) and each.decoded.delivery.coordinates.offset not in left_out
        )
        metrics.published(sum(each.transition is not None for each in answered), letters)
        refused = [each for each in answered if each.answer.code is not StatusCode.OK]
        self._context.recent.note(_refusal(each, published) for each in refused[-MOST_RECENT:])

    # --- quiet times --------------------------------------------------------------------------------------------------

    async def _rest(self, lease: Lease) -> Lease:
        """Once it is quiet, commit past offsets without a command: the markers behind a transaction of a sender.

        Otherwise the group would lag by them forever, and a scaler by lag would never come to rest. The client's
        position is behind them: it moves with the records of a read, and over offsets without records. All that was
        read is published, and no read is under way. The rest is the protocol of a batch, of no commands.
        """
        if self._drain.is_set():
            return lease
        await self._settle(lease)
        self._quiet += 1
        if self._quiet < QUIET_READS:
            return lease
        self._quiet = 0
        await self._check_owner()
        position = self._partition.position
        if position is None or position <= (self._publication.committed or 0):
            return lease
        try:
            lease = await self._context.pipeline.pass_by(lease, self._publication.position, position)
        except DependencyUnavailable as away:
            await self._status.wait_out(away)
        else:
            self._status.recovered()
            await self._publication.pass_by(position)
            self._is_settled = False
        return lease

    async def _settle(self, lease: Lease) -> None:
        """Write down, once in each quiet time, that nothing is left to publish; the group's offset may be forgotten.

        If the database is away, the lane tries again at the next quiet moment, and does not wait for it at a drain.
        """
        if self._is_settled or self._publication.committed != lease.next_offset:
            return
        try:
            await self._row.write(statement("lanes/settle"), lease.next_offset)
        except DependencyUnavailable as away:
            self._log.warning("lane_not_settled", reason=away.reason)
        else:
            self._is_settled = True

    async def _check_owner(self) -> None:
        """Raise ``LaneLost`` if an idle lane has a newer owner, which it would meet only at its next command."""
        if time.monotonic() - self._row_seen < ROW_SECONDS:
            return
        self._row_seen = time.monotonic()
        with suppress(DependencyUnavailable):  # the probe says so
            await self._row.require_owned()

    async def _show_losses(self) -> None:
        """Show in health the losses of the lane that are not acknowledged yet, as far as Postgres can be asked."""
        self._losses_seen = time.monotonic()
        try:
            found = await self._row.losses()
        except DependencyUnavailable:  # the next batch says so
            self._has_lost = True  # perhaps: so that it asks again
            return
        unseen = [str(loss) for loss in unacknowledged(found)]
        self._has_lost = bool(unseen)
        self._context.health.lost(self._source, unseen)


def _refusal(each: Answered, at: float) -> Refusal:
    where, answer = each.decoded.delivery.coordinates, each.answer
    return Refusal(
        at, where.topic, where.partition, where.offset, answer.command_id, answer.code.value, is_dead_lettered(each)
    )


def _export(batch: Span, answered: Sequence[Answered], began: float) -> None:
    """Export a span for each command in its sender's trace. It holds only what logs may hold: ids and codes."""
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
        name = each.decoded.envelope.method.done
        command_span(batch, name, traceparent, where.command_id.encode(), began=began, attributes=attributes)
