"""Publish a decided batch and commit its offset exactly once, whatever goes wrong (DESIGN 2).

If the outcome of a try is unknown, a new producer settles it, and the committed offset tells it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from worker.errors import (
    ClockRefused,
    DependencyUnavailable,
    Fenced,
    LaneLost,
    MessageTooLarge,
    OutcomeUnknown,
    StampsRefused,
    Unfit,
)
from worker.journey.messages import Letters, Message, is_dead_lettered, messages
from worker.journey.model import Answered
from worker.lanes.context import LaneRun
from worker.lanes.partition import Partition
from worker.lanes.publisher import Publisher
from worker.lanes.row import LaneRow
from worker.lanes.status import Status
from worker.resilience.backoff import run_unless

TRIES: Final = 3
"""Tries of a publication as it is, and then with its dead letters cut, before they are left out once."""
MASKED_BYTES: Final = 16 * 1024
"""The most bytes that are searched for secrets on the event loop."""


def letters_of(attempts: int) -> Letters:
    """Choose how to write the dead letters after this many attempts that may have failed because of them.

    A request may stay unanswered because of its size. Without dead letters these are no longer to blame: if the broker
    does not answer then either, it is away, and they are tried whole again.
    """
    step = attempts % (2 * TRIES + 1)
    return Letters.NONE if step == 2 * TRIES else Letters.CUT if step >= TRIES else Letters.WHOLE


class Publication:
    """The publishing half of a lane. It knows the group's offset and the offset that the batch in hand begins at."""

    def __init__(self, run: LaneRun, publisher: Publisher, row: LaneRow, partition: Partition, status: Status) -> None:
        self._context = run.context
        self._log = run.log
        self._drain = run.drain
        self._publisher = publisher
        self._row = row
        self._partition = partition
        self._status = status
        self.committed: int | None = None
        """The group's offset."""
        self.position = 0
        """The offset up to which everything is published."""
        self.left_out: set[int] = set()
        """The offsets of commands of the batch in hand whose dead letters could not be written."""

    async def open(self) -> None:
        """Fence older producers of the lane, and settle their open transactions. Raises ``DependencyUnavailable``."""
        await self._publisher.open()

    async def read_committed(self) -> int | None:
        """Read the group's offset, which is settled once the producer is open."""
        return await self._partition.committed()

    async def confirm_membership(self) -> None:
        """Wait until the group has confirmed this worker within a session. Raises ``LaneLost`` at a drain.

        After a long pause another worker may own the partition, and opening a producer would fence it.
        """
        if not await run_unless(self._context.confirmed(), self._drain):
            raise LaneLost("kafka: the group has gone on without this worker")

    async def publish(self, answered: Sequence[Answered]) -> None:
        """Publish a decided batch and the offset behind it."""
        self.left_out = set()
        await self._in_parts(answered, answered[-1].decoded.delivery.coordinates.offset + 1)

    async def pass_by(self, offset: int) -> None:
        """Commit an offset that no command precedes, as the publication of an empty batch."""
        await self._until_published((), offset)

    async def order(self, events: Sequence[Message], offset: int) -> None:
        """Publish events and commit an ordered offset, then settle that with another producer.

        Until then, a reader of the group's offset would find the former one. Raises ``LaneLost``,
        ``DependencyUnavailable``.
        """
        try:
            await self._publisher.publish(events, offset)
        except Fenced as fenced:
            raise LaneLost(f"kafka: {fenced.reason}") from fenced
        except OutcomeUnknown as unknown:
            raise self._missing(unknown) from unknown
        self._note_stamps(events)
        await self.open()

    async def _in_parts(self, answered: Sequence[Answered], next_offset: int) -> None:
        """Publish; if the broker refuses an answer for good, publish in halves until that one stands alone."""
        try:
            await self._until_published(answered, next_offset)
        except MessageTooLarge as refusal:
            if len(answered) == 1:
                await self._shortened(answered, next_offset, refusal)
                return
            middle = len(answered) // 2
            boundary = answered[middle].decoded.delivery.coordinates.offset
            await self._in_parts(answered[:middle], boundary)
            await self._in_parts(answered[middle:], next_offset)

    async def _shortened(self, alone: Sequence[Answered], next_offset: int, refusal: MessageTooLarge) -> None:
        """Publish a lone answer that is too large, shortened: to its sender's topic if that takes it at all."""
        self._log.warning("answer_shortened", offset=self.position, reason=refusal.reason)
        try:
            await self._until_published(alone, next_offset, whole=False)
        except MessageTooLarge:
            if alone[0].decoded.envelope.reply is None:
                raise
            await self._until_published(alone, next_offset, whole=False, redirected=False)

    async def _until_published(
        self, answered: Sequence[Answered], next_offset: int, *, whole: bool = True, redirected: bool = True
    ) -> None:
        """Publish exactly once, however many tries that takes.

        Raises ``MessageTooLarge`` when nothing was published and the producer is ready for another try.
        """
        has_letters, attempts = any(map(is_dead_lettered, answered)), 0
        while True:
            letters = letters_of(attempts) if has_letters else Letters.WHOLE
            written = await self._messages(answered, whole=whole, redirected=redirected, letters=letters)
            try:
                await self._publisher.publish(written, next_offset)
            except Fenced as fenced:
                raise LaneLost(f"kafka: {fenced.reason}") from fenced
            except OutcomeUnknown as unknown:
                if await self._settled(unknown, next_offset):
                    break
                if isinstance(unknown, MessageTooLarge):
                    raise
                await self._avoid(answered, unknown)
                if not isinstance(unknown, StampsRefused):  # the size of a letter is not to blame for the clock
                    attempts += 1
            else:
                break
        if letters is Letters.NONE:
            self._leave_out(answered)
        self._note_stamps(written)
        self.committed = self.position = next_offset
        self._status.recovered()

    async def _messages(
        self, answered: Sequence[Answered], *, whole: bool, redirected: bool, letters: Letters
    ) -> list[Message]:
        replies, outgoing = self._context.replies, self._context.outgoing
        there = [
            (reply := each.decoded.envelope.reply) is not None and redirected and replies.reachable(reply)
            for each in answered
        ]

        def write() -> list[Message]:
            return [
                message
                for each, is_there in zip(answered, there, strict=True)
                for message in messages(each, outgoing, whole=whole, redirected=is_there, letters=letters)
            ]

        masked = sum(len(each.decoded.delivery.value or b"") for each in answered if is_dead_lettered(each))
        # A search for secrets takes up to a millisecond for every 600 bytes: the other lanes go on meanwhile.
        return await asyncio.to_thread(write) if masked > MASKED_BYTES else write()

    async def _settled(self, unknown: OutcomeUnknown, next_offset: int) -> bool:
        """True if the transaction was committed after all. Raises ``LaneLost`` if the offset is anywhere else."""
        self._log.info("producer_replaced", reason=unknown.reason)
        self._context.metrics.producer_replaced()
        if not isinstance(unknown, MessageTooLarge):
            missing = self._missing(unknown)
            # One failure is common, and is not waited for. Several in a row are not, and setting a clock takes time.
            if self._status.has_failed or isinstance(missing, Unfit):
                if self._drain.is_set():
                    raise missing  # no wait would space out the tries; the batch is the next owner's
                await self._status.wait_out(missing)
            else:
                self._status.fail_once(missing)
        committed = await self._reopened()
        if committed not in (self.committed, next_offset):
            raise LaneLost(f"kafka: the committed offset is {committed}, neither {self.committed} nor {next_offset}")
        return committed == next_offset

    async def _reopened(self) -> int | None:
        """Open a new producer, then read the committed offset: in this order it can no longer move.

        Without the check of the owner before, a worker that does not hear of its successor would fence it again and
        again. Without the check after, a worker that slept in between would publish what its successor has answered or
        given up.
        """
        while True:
            try:
                await self.confirm_membership()
                await self._row.require_owned()
                await self.open()
                await self._row.require_owned()
                return await self.read_committed()
            except DependencyUnavailable as away:
                if self._drain.is_set():
                    raise
                await self._status.wait_out(away)

    async def _avoid(self, answered: Sequence[Answered], failure: OutcomeUnknown) -> None:
        """Make answers go to the results topic where a sender's own topic takes none: it must not stop the lane."""
        replies = {reply for each in answered if (reply := each.decoded.envelope.reply) is not None}
        if replies:
            await self._context.replies.failed(replies, failure.to_blame)

    def _leave_out(self, answered: Sequence[Answered]) -> None:
        left_out = [each.decoded.delivery.coordinates.offset for each in answered if is_dead_lettered(each)]
        self._log.error("dead_letters_left_out", offsets=left_out)
        self._context.metrics.dead_letters_left_out(len(left_out))
        self.left_out.update(left_out)

    def _missing(self, unknown: OutcomeUnknown) -> DependencyUnavailable:
        """Return the dependency that a publication needed and did not have."""
        if isinstance(unknown, StampsRefused):
            self._context.clock_refusal.refused()
            return ClockRefused()
        return DependencyUnavailable("kafka", unknown.reason)

    def _note_stamps(self, written: Sequence[Message]) -> None:
        """Note that the worker's own topics take the clock's time. A sender's topic has settings of its own."""
        if any(message.partition is None for message in written):
            self._context.clock_refusal.taken()
