"""The partition that a lane reads: its records, its ends, and the group's offset.

No wait is longer than its deadline, and a drain cuts every read short.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from aiokafka.errors import OffsetOutOfRangeError

from worker.errors import KAFKA_ERRORS, DependencyUnavailable, LaneLost
from worker.kafka.delivery import Coordinates, Delivery
from worker.kafka.internals import position_of
from worker.lanes.context import LaneRun
from worker.resilience.background import retrieve
from worker.resilience.backoff import wait_unless

IDLE_SECONDS: Final = 0.5
"""The time for which one read waits for records: a lane that is told to drain ends within this."""
BROKER_SECONDS: Final = 15.0
"""The deadline of a request to the broker that is not part of a publication."""
DRAINED: Final = "told to drain"

T = TypeVar("T")


class Partition:
    """One partition, read through the consumer that all lanes of a worker share."""

    def __init__(self, run: LaneRun) -> None:
        self._context = run.context
        self._consumer = run.context.consumer
        self._cluster = run.lane.cluster
        self._source = run.lane.source
        self._drain = run.drain

    async def take(self, most: int) -> list[Delivery]:
        """Read from the position on, from none to ``most`` records: nothing waits for a batch to fill.

        Raises ``LaneLost`` if the position is no longer in the log, and ``DependencyUnavailable``.
        """
        return [_delivery(self._cluster, record) for record in await self._read(most)]

    async def seek(self, offset: int) -> None:
        """Read from ``offset`` next.

        A read that a drain cut short goes on, and would take this lane's records: it ends before the seek.
        """
        under_way = self._context.reads.get(self._source)
        if under_way is not None:
            await wait_unless(under_way, self._drain)
        self._consumer.seek(self._source, offset)

    @property
    def position(self) -> int | None:
        """The offset that is read next, behind markers of transactions; ``None`` if it is not known."""
        return position_of(self._consumer, self._source)

    async def timestamp_at(self, offset: int) -> int | None:
        """Read the timestamp of the record at an offset below the end of the log; ``None`` if there is no record.

        Raises ``LaneLost`` at a drain, and ``DependencyUnavailable``.
        """
        await self.seek(offset)
        loop = asyncio.get_running_loop()
        until = loop.time() + BROKER_SECONDS
        while not self._drain.is_set():
            records = await self._read(1)
            if records:
                first = records[0]
                return int(first.timestamp) if first.offset == offset else None
            if loop.time() > until:
                what = f"the record at offset {offset} cannot be read: a transaction may be open before it"
                raise DependencyUnavailable("kafka", what)
        raise LaneLost(DRAINED)

    async def committed(self) -> int | None:
        """Ask for the group's offset. It is final only after InitProducerId, which settles all that could move it."""
        return await _answered(self._consumer.committed(self._source), "the committed offset")

    async def ends(self) -> tuple[int, int]:
        """Ask for the first offset of the log, and for the one behind its last record."""
        starts = await _answered(self._consumer.beginning_offsets([self._source]), "the start of the log")
        ends = await _answered(self._consumer.end_offsets([self._source]), "the end of the log")
        return starts[self._source], ends[self._source]

    async def _read(self, most: int) -> list[Any]:
        reading = asyncio.ensure_future(
            self._consumer.getmany(self._source, timeout_ms=int(IDLE_SECONDS * 1000), max_records=most)
        )
        self._context.reads[self._source] = reading
        # Never cancelled: that would switch the client's poll watch off for good. The read ends by itself.
        reading.add_done_callback(self._forget)
        if not await wait_unless(reading, self._drain):
            return []
        try:
            records: list[Any] = reading.result().get(self._source, [])
        except OffsetOutOfRangeError as error:
            raise LaneLost(f"kafka: what was to be read next is no longer in the log: {error}") from error
        except KAFKA_ERRORS as error:
            raise DependencyUnavailable("kafka", f"{type(error).__name__} while reading: {error}") from error
        return records

    def _forget(self, reading: "asyncio.Future[Any]") -> None:
        """Let go of a read that has ended. If its lane is gone, its error no longer matters."""
        if self._context.reads.get(self._source) is reading:
            del self._context.reads[self._source]
        retrieve(reading)


def _delivery(cluster: str, record: Any) -> Delivery:
    return Delivery(
        Coordinates(cluster, record.topic, record.partition, record.offset, record.timestamp),
        record.key,
        record.value,
        tuple(record.headers),
        stamped_by_broker=record.timestamp_type == 1,
        cut=record.checksum,  # nothing else is there (``worker.kafka.record_batches``)
    )


async def _answered(question: Awaitable[T], what: str) -> T:
    """Wait for an answer of the broker until its deadline: aiokafka by itself would ask forever (DESIGN 6)."""
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            return await question
    except KAFKA_ERRORS as error:
        raise DependencyUnavailable("kafka", f"{type(error).__name__} while asking for {what}: {error}") from error
