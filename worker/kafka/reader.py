"""Read parts of topics as a ``read_committed`` reader outside any group: commits nothing and disturbs no reader."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from effective_contract.headers import DRY_RUN, TRUE
from worker.errors import KAFKA_ERRORS, DependencyUnavailable, kafka_away
from worker.kafka.client import client_options
from worker.kafka.internals import cluster_metadata
from worker.kafka.remarks import Remarks, away, remarks
from worker.settings import Settings

STALLED_SECONDS: Final = 60.0
"""Seconds without progress after which a read fails.

Longer than a transaction may stay open by default: records behind it cannot be read before it ends.
"""
_LOOK_MS: Final = 500


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """A range of a partition: offsets from ``begin`` up to, and without, ``end``."""

    source: TopicPartition
    begin: int
    end: int

    def until(self, end: int) -> "OffsetRange":
        """Return the same range, ending at ``end`` at the latest."""
        return replace(self, end=max(self.begin, min(self.end, end)))

    def since(self, begin: int) -> "OffsetRange":
        """Return the same range, beginning at ``begin`` at the earliest."""
        return replace(self, begin=min(self.end, max(self.begin, begin)))


class TopicReader:
    """Two consumers: one reads committed records, one knows the ends of the logs, open transactions included."""

    def __init__(self, stable: AIOKafkaConsumer, whole: AIOKafkaConsumer) -> None:
        self._stable = stable
        self._whole = whole

    async def spans(self, *topics: str) -> dict[str, list[OffsetRange]]:
        """Return every partition of each topic, from the oldest record left to its end. Unknown topics are left out."""
        with _asked():
            cluster = await cluster_metadata(self._whole)
            known = {name: sorted(cluster.partitions_for_topic(name) or ()) for name in topics}
            sources = [TopicPartition(name, number) for name, numbers in known.items() for number in numbers]
            if not sources:
                return {}
            begins, ends = await self._whole.beginning_offsets(sources), await self._whole.end_offsets(sources)
        return {
            name: [OffsetRange(each, begins[each], ends[each]) for each in sources if each.topic == name]
            for name, numbers in known.items()
            if numbers
        }

    async def since(self, spans: Iterable[OffsetRange], milliseconds: int) -> list[OffsetRange]:
        """Return the spans without the records from before that moment of the epoch."""
        every = list(spans)
        if not every:
            return []
        with _asked():
            found = await self._whole.offsets_for_times({each.source: milliseconds for each in every})
        return [each.since(each.end if (at := found[each.source]) is None else at.offset) for each in every]

    def open(self, spans: Iterable[OffsetRange]) -> None:
        """Choose the spans that ``read`` will read, and give up all others."""
        chosen = list(spans)
        self._stable.assign([each.source for each in chosen])
        for each in chosen:
            self._stable.seek(each.source, each.begin)

    async def read(self, span: OffsetRange) -> AsyncIterator[Any]:
        """Yield the records of a span that was opened, in order. Several spans may be read at once.

        Raises ``DependencyUnavailable`` if nothing comes for a minute.
        """
        loop = asyncio.get_running_loop()
        moved, position = loop.time(), span.begin
        while position < span.end:
            with _asked():
                records = (await self._stable.getmany(span.source, timeout_ms=_LOOK_MS)).get(span.source, [])
            for record in records:
                if record.offset >= span.end:
                    return
                yield record
            with _asked():
                before, position = position, await self._stable.position(span.source)
            if position > before:
                moved = loop.time()
            elif loop.time() - moved > STALLED_SECONDS:
                what = f"{span.source.topic}/{span.source.partition} from offset {position} on"
                raise DependencyUnavailable("kafka", f"nothing can be read of {what}: a transaction may be open there")


@asynccontextmanager
async def topic_reader(settings: Settings) -> AsyncIterator[TopicReader]:
    """Yield a started reader. Errors of its clients come out as ``DependencyUnavailable``, others as they are."""
    options = client_options(settings.kafka) | {"auto_offset_reset": "earliest", "fetch_max_wait_ms": 100}
    stable = AIOKafkaConsumer(**options, isolation_level="read_committed")
    whole = AIOKafkaConsumer(**options)
    try:
        with remarks() as said, _asked(said):
            await whole.start()
            await stable.start()
        yield TopicReader(stable, whole)
    finally:
        await stable.stop()
        await whole.stop()


@contextmanager
def _asked(said: Remarks | None = None) -> Iterator[None]:
    """Map the errors of the client's work alone: an error of a file that the caller writes meanwhile is not Kafka's."""
    try:
        yield
    except KAFKA_ERRORS as error:
        raise kafka_away(error) if said is None else away(error, said) from error


def is_dry_run(record: Any) -> bool:
    """True if a command is a dry run, or a result that of one (CONTRACT, Command and Result)."""
    return [value for name, value in record.headers if name == DRY_RUN and value] == [TRUE.encode()]


def header(record: Any, name: str) -> str:
    """Return the text of a header, with any invalid UTF-8 replaced; empty if there is none."""
    values = [value for key, value in record.headers if key == name and value]
    return values[0].decode(errors="replace") if values else ""
