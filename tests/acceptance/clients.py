"""Kafka as an outsider uses it: through confluent-kafka, which shares no code with the worker's client."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import uuid4

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tests.support import waiting
from tests.support.pace import patience

T = TypeVar("T")

TooLate = waiting.TooLate
SECONDS: Final = waiting.SECONDS

Headers = Sequence[tuple[str, bytes]]

ANY_PARTITION: Final = -1

# The client would write to stderr that a broker which a test stopped is away.
_QUIET: Final[Mapping[str, Any]] = {"log_level": 0}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to send. ``partition`` ``None`` leaves the choice to the client, by key."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read. ``timestamp`` is in milliseconds; ``headers`` keep their order and their repetitions."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int

    def header(self, name: str) -> bytes | None:
        """Return the header's value, ``None`` if there is none. Raises ``AssertionError`` if it is there twice."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"the header {name} is there {len(values)} times"
        return values[0] if values else None


def send(bootstrap: str, topic: str, records: Iterable[Outgoing | bytes]) -> list[tuple[int, int]]:
    """Send in order, wait until the broker has them all, and return partition and offset of each."""
    sent: dict[int, tuple[int, int]] = {}
    faults: list[str] = []

    def told(place: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                faults.append(str(error))
            sent[place] = (message.partition() or 0, message.offset() or 0)

        return delivered

    settings = {"enable.idempotence": True, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
    producer = Producer({"bootstrap.servers": bootstrap, **settings, **_QUIET})
    for place, record in enumerate(records):
        outgoing = Outgoing(record) if isinstance(record, bytes) else record
        producer.produce(
            topic,
            outgoing.value,
            outgoing.key,
            ANY_PARTITION if outgoing.partition is None else outgoing.partition,
            on_delivery=told(place),
            headers=list(outgoing.headers),
        )
        producer.poll(0)
    left = producer.flush(patience(SECONDS))
    assert not faults, faults[0]
    assert not left, (
        f"{patience(SECONDS):.0f} s went by before the broker took {topic}: {left} of {len(sent) + left} left"
    )
    return [sent[place] for place in sorted(sent)]


def transactional(bootstrap: str, name: str) -> Producer:
    """Return a producer that sends in transactions of this id."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
    producer.init_transactions(patience(SECONDS))
    return producer


def read_committed(
    bootstrap: str, topic: str, *, until: int, seconds: float = SECONDS, settle: float = 0.0
) -> list[Record]:
    """Read the topic from its beginning, as a ``read_committed`` reader, until ``until`` records came.

    ``settle`` goes on for so many seconds, to see if more come than were expected. Raises ``TooLate`` if fewer come in
    ``seconds``. Sorted by partition and offset.
    """
    with _Reader(bootstrap, topic) as reader:
        ceiling = waiting.Ceiling(seconds)
        records = reader.take(until, ceiling)
        if len(records) < until:
            seen = f"{len(records)} of {until}, the log ends at {reader.ends()}, the last one is {records[-1:]}"
            raise ceiling.too_late(f"{until} records of {topic} came", seen)
        if settle:
            records += reader.take(None, waiting.Ceiling(settle))
    return sorted(records, key=lambda record: (record.partition, record.offset))


def read_to_end(bootstrap: str, topic: str, *, seconds: float = SECONDS) -> list[Record]:
    """Return everything that a ``read_committed`` reader can see now, up to each partition's last stable offset.

    An open transaction ends the stable part: wait with ``wait_settled`` for one that may be open. Raises ``TooLate`` if
    the end is not reached in ``seconds``. Sorted by partition and offset.
    """
    records = stream_to_end(bootstrap, topic, seconds=seconds)
    return sorted(records, key=lambda record: (record.partition, record.offset))


def stream_to_end(bootstrap: str, topic: str, *, seconds: float = SECONDS, only: int | None = None) -> Iterator[Record]:
    """Yield the same one by one as they come, in order within each partition: for a topic too large to hold.

    ``only`` is the number of a partition, if not all are wanted.
    """
    with _Reader(bootstrap, topic, only=only) as reader:
        yield from reader.take_all(waiting.Ceiling(seconds))


def wait_settled(bootstrap: str, topic: str, *, seconds: float = SECONDS) -> None:
    """Wait until no transaction is open in the topic: the stable part ends with the log. Raises ``TooLate``."""
    with _Reader(bootstrap, topic) as stable, _Reader(bootstrap, topic, "read_uncommitted") as whole:
        waiting.wait_until(
            lambda: {"stable": stable.ends(), "written": whole.ends()},
            lambda ends: ends["stable"] == ends["written"],
            what=f"no transaction was open in {topic}",
            seconds=seconds,
        )


def log_ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset behind the last record of each partition, committed or not."""
    with _Reader(bootstrap, topic, "read_uncommitted") as reader:
        return reader.ends()


def consumed_offsets(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the group's committed offset of each partition that has one."""
    # An admin client asked for this ends the process when the coordinator has moved (librdkafka 2.16, its issue 5315).
    # A reader of committed records is told stable offsets only: not the ones that an open transaction may take back.
    member = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed", **_QUIET}
    )
    try:
        partitions = member.list_topics(topic, timeout=patience(SECONDS)).topics[topic].partitions
        asked = [TopicPartition(topic, number) for number in partitions]
        answered = asked_again(lambda: member.committed(asked, timeout=patience(SECONDS))) if asked else []
    finally:
        member.close()
    return {place.partition: place.offset for place in answered if place.error is None and place.offset >= 0}


_PASSING: Final = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
"""Errors of a broker while a partition's leader or a group's coordinator moves, as it may at any time."""


def asked_again(question: Callable[[], T]) -> T:
    """Return the answer, retrying while a leader or a coordinator moves. Raises ``KafkaException`` for all else."""
    ceiling = waiting.Ceiling()
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or not ceiling.left:
                raise
            time.sleep(0.1)


def wait_consumed(
    bootstrap: str, group: str, topic: str, *, seconds: float = SECONDS, at_least: Mapping[int, int] | None = None
) -> None:
    """Wait until the group has committed up to ``at_least``, by default the end of the log. Raises ``TooLate``."""

    def look() -> dict[int, tuple[int, int]]:
        wanted = at_least if at_least is not None else log_ends(bootstrap, topic)
        committed = consumed_offsets(bootstrap, group, topic)
        return {place: (committed.get(place, 0), end) for place, end in wanted.items()}

    waiting.wait_until(
        look,
        lambda places: all(committed >= end for committed, end in places.values()),
        what=f"{group} had consumed {topic} (partition: committed, wanted)",
        seconds=seconds,
    )


class _Reader:
    """A reader of every partition of a topic, or ``only`` of one, from the beginning, in no group."""

    def __init__(
        self, bootstrap: str, topic: str, isolation: str = "read_committed", *, only: int | None = None
    ) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"reader-{uuid4().hex}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                **_QUIET,
            }
        )
        known = self._consumer.list_topics(topic, timeout=patience(SECONDS)).topics[topic]
        assert known.error is None, f"{topic}: {known.error}"
        self._partitions = sorted(known.partitions) if only is None else [only]

    def __enter__(self) -> "_Reader":
        self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in self._partitions])
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def take(self, most: int | None, ceiling: waiting.Ceiling) -> list[Record]:
        records: list[Record] = []
        while (most is None or len(records) < most) and (left := ceiling.left):
            records += [as_record(message) for message in self._consumer.consume(500, min(left, 0.1))]
        return records

    def take_all(self, ceiling: waiting.Ceiling) -> Iterator[Record]:
        ends = self.ends()
        while not self._has_reached(ends):
            if not ceiling.left:
                seen = f"{self._positions()}, the ends are {ends}"
                raise ceiling.too_late(f"the end of {self._topic} was reached", seen)
            for record in map(as_record, self._consumer.consume(500, 0.1)):
                if record.offset < ends[record.partition]:
                    yield record

    def ends(self) -> dict[int, int]:
        """Return the end of each partition for this reader's isolation: the last stable offset, or the log's end."""
        return {number: self._end(TopicPartition(self._topic, number)) for number in self._partitions}

    def _end(self, place: TopicPartition) -> int:
        return int(asked_again(lambda: self._consumer.get_watermark_offsets(place, timeout=patience(SECONDS)))[1])

    def _has_reached(self, ends: Mapping[int, int]) -> bool:
        # The position moves over the markers of transactions too, which are no records.
        begun = {
            n: int(self._consumer.get_watermark_offsets(TopicPartition(self._topic, n), cached=True)[0]) for n in ends
        }
        positions = self._positions()
        return all(end <= max(positions[number], begun[number], 0) for number, end in ends.items())

    def _positions(self) -> dict[int, int]:
        asked = [TopicPartition(self._topic, number) for number in self._partitions]
        return {place.partition: place.offset for place in self._consumer.position(asked)}


def as_record(message: Message) -> Record:
    """Convert a message that is no error."""
    error = message.error()
    assert error is None, str(error)
    kind, timestamp = message.timestamp()
    assert kind != TIMESTAMP_NOT_AVAILABLE
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Record(
        topic=message.topic() or "",
        partition=partition,
        offset=offset,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, _bytes(value)) for name, value in _pairs(message.headers())),
        timestamp=timestamp,
    )


def _pairs(headers: object) -> list[tuple[str, str | bytes | None]]:
    return headers if isinstance(headers, list) else []


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
