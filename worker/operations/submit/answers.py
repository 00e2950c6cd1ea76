"""Read the answers to one run's commands from the journal's positions on, whatever happens to the broker meanwhile."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from effective_contract import headers as h
from worker.errors import KAFKA_ERRORS, OperatorError, kafka_away
from worker.kafka.internals import close_connections, has_fetcher_ended, know_topic
from worker.resilience.background import retrieve

POLL_MS: Final = 200
MOST_RECORDS: Final = 2000
"""The most answers of one read, which are in memory at once."""
FETCH: Final[Mapping[str, int]] = {
    # Fewer, larger fetches: the answers to a bulk are not urgent, and every fetch costs both sides.
    "fetch_min_bytes": 512 * 1024,
    "fetch_max_wait_ms": 100,
    "max_partition_fetch_bytes": 1024 * 1024,
    "fetch_max_bytes": 4 * 1024 * 1024,
    # The time for which a new partition of the reply topic may go unnoticed.
    "metadata_max_age_ms": 30_000,
}
BACKOFF_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 1.0
_FORBIDDEN: Final = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)
_OK: Final = b"OK"
_TRUE: Final = b"true"


class AnswersUnreadable(OperatorError):
    """The broker refuses to let us read the reply topic."""


class Answer(NamedTuple):
    """One answer to one sending. ``message`` is empty for ``OK``."""

    session: int
    serial: int
    partition: int
    """The partition of the command."""
    line: int
    code: str
    replayed: bool
    dry_run: bool
    message: str


def correlation(run: bytes, session: int, serial: int, partition: int, line: int) -> bytes:
    """Return the correlation id by which a sending recognises its answer."""
    return b"%b:%d:%d:%d:%d" % (run, session, serial, partition, line)


class Answers:
    """A reader of the answers in one topic to one run."""

    def __init__(self, topic: str, options: Mapping[str, Any], run: str, positions: Mapping[int, int]) -> None:
        """``options`` are the consumer's connection settings; ``positions`` the offset to start from in each partition.

        Without positions each partition is read from its present end.
        """
        self.topic = topic
        self._options = options
        self._run = run
        self._positions = {TopicPartition(topic, number): offset for number, offset in positions.items()}
        self._consumer: AIOKafkaConsumer | None = None

    async def open(self) -> dict[int, int]:
        """Connect. Returns the position of each partition. Raises ``DependencyUnavailable``."""
        try:
            consumer = self._consumer = await self._started()
            if not self._positions:
                self._positions = dict(await consumer.end_offsets(list(self._partitions(consumer))))
            self._assign(consumer)
        except KAFKA_ERRORS as error:
            await self.close()
            raise kafka_away(error) from error
        return self.positions()

    def positions(self) -> dict[int, int]:
        """Return the offset at which the next read begins in each partition."""
        return {place.partition: offset for place, offset in self._positions.items()}

    async def read(self) -> list[Answer]:
        """Return the next answers, in order within each partition; none if none came in a while or no broker answers.

        Raises ``AnswersUnreadable``. Must not be cancelled: the client does not recover from that.
        """
        try:
            consumer = self._consumer
            if consumer is None:
                consumer = self._consumer = await self._started()
                self._assign(consumer)
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=MOST_RECORDS)
            if has_fetcher_ended(consumer):
                raise kafka.KafkaError("the client's fetcher has ended")
            if not self._partitions(consumer) <= self._positions.keys():
                self._assign(consumer)
        except _FORBIDDEN as error:
            raise AnswersUnreadable(f"the broker does not let us read {self.topic}: allow READ on it") from error
        except KAFKA_ERRORS:
            await self.close()
            await asyncio.sleep(BACKOFF_SECONDS)
            return []
        found = []
        for place, records in batches.items():
            found += [answer for answer in map(self._answer, records) if answer is not None]
            self._positions[place] = records[-1].offset + 1
        return found

    async def close(self) -> None:
        """Close the connections, even those of a consumer that is broken. Safe twice, and before ``open``."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        for end in (consumer.stop, partial(close_connections, consumer)):
            ending = asyncio.create_task(end())
            ending.add_done_callback(retrieve)
            await asyncio.wait({ending}, timeout=CLOSE_SECONDS)
            ending.cancel()

    def _answer(self, record: Any) -> Answer | None:
        headers = dict(record.headers)
        try:
            run, session, serial, partition, line = (headers.get(h.CORRELATION_ID) or b"").decode().split(":")
            if run != self._run:
                return None
            sending = int(session), int(serial), int(partition), int(line)
        except ValueError:
            return None
        code = headers.get(h.STATUS_CODE) or b""
        message = "" if code == _OK else _message(record.value)
        replayed, dry = headers.get(h.REPLAYED) == _TRUE, headers.get(h.DRY_RUN) == _TRUE
        return Answer(*sending, code.decode(), replayed, dry, message)

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Assign all partitions, each at its position. A partition added since the start is read from its beginning."""
        for place in self._partitions(consumer):
            self._positions.setdefault(place, 0)
        consumer.assign(list(self._positions))
        for place, offset in self._positions.items():
            consumer.seek(place, offset)

    def _partitions(self, consumer: AIOKafkaConsumer) -> set[TopicPartition]:
        return {TopicPartition(self.topic, number) for number in consumer.partitions_for_topic(self.topic) or ()}

    async def _started(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._options,
            **FETCH,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            # If a position is gone, the topic was recreated or cut. The rest of it may hold an answer.
            auto_offset_reset="earliest",
        )
        try:
            await consumer.start()
            await know_topic(consumer, self.topic)
        except BaseException:
            self._consumer = consumer
            await self.close()
            raise
        return consumer


def _message(value: bytes | None) -> str:
    try:
        return str(orjson.loads(value or b"")["status"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
