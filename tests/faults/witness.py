"""The two readers: one that reads during the faults, and one that gathers the evidence when all is at rest."""

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from tests.acceptance.clients import (
    Record,
    TooLate,
    as_record,
    consumed_offsets,
    log_ends,
    stream_to_end,
    wait_settled,
)
from tests.acceptance.scene import Scene, history
from tests.faults.ledger import Coordinates, Evidence, Seen, Sent, dead_letter, event, result, seen, sent
from tests.faults.past import Past

T = TypeVar("T")

READ_SECONDS: Final = 300.0
SETTLE_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 2.0
STOP_SECONDS: Final = 30.0
GRAIN_SECONDS: Final = 0.02
"""Seconds of precision of the arrival times."""


class Witness(threading.Thread):
    """A ``read_committed`` reader of several topics, from their beginning, that goes on through everything."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        super().__init__(name="witness", daemon=True)
        self.saw: dict[str, list[Seen]] = {topic: [] for topic in topics}
        self.fault: str | None = None
        self.arrivals: dict[tuple[str, int], list[float]] = defaultdict(list)
        """By topic and partition, the arrival times (monotonic seconds)."""
        self._known: set[tuple[str, int]] = set()
        self._looked = -LOOK_SECONDS
        self._ends: dict[tuple[str, int], int] | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"witness-{uuid4().hex}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        try:
            self._read_along()
        except Exception as error:  # noqa: BLE001 - a thread's error would go unseen
            self.fault = self.fault or f"{type(error).__name__}: {error}"

    def _read_along(self) -> None:
        while not self._has_ended():
            self._look()
            for message in self._consumer.consume(500, 0.1):
                error = message.error()
                if error is None:
                    self._take(message)
                elif not error.retriable():
                    self.fault = self.fault or str(error)
        self._consumer.close()

    def _look(self) -> None:
        """Take up partitions that were not there before."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        with suppress(KafkaException):  # no broker answers: next time
            topics = self._consumer.list_topics(timeout=5).topics
            there = {(name, number) for name in self.saw for number in topics[name].partitions}
            new = sorted(there - self._known)
            if new:
                self._consumer.incremental_assign([TopicPartition(*place, OFFSET_BEGINNING) for place in new])
                self._known |= there

    def _take(self, message: Any) -> None:
        record = as_record(message)
        self.saw[record.topic].append(seen(record))
        arrivals, now = self.arrivals[record.topic, record.partition], time.monotonic()
        if not arrivals or now - arrivals[-1] > GRAIN_SECONDS:
            arrivals.append(now)

    def _has_ended(self) -> bool:
        if self._ends is None or not self._ends.keys() <= self._known:
            return False
        asked = [TopicPartition(topic, number) for topic, number in self._ends]
        at = {(place.topic, place.partition): place.offset for place in self._consumer.position(asked)}
        return all(end <= max(at[place], 0) for place, end in self._ends.items())

    def finish(self, ends: Mapping[tuple[str, int], int], seconds: float = 60.0) -> None:
        """Read up to ``ends``, and stop. Not getting there is a fault of its own."""
        self._ends = dict(ends)
        self.join(seconds)
        if self.is_alive():
            self.abandon()
            self.fault = self.fault or f"it did not come to the end within {seconds:.0f} s"

    def abandon(self) -> None:
        """Read no more. Safe after ``finish``."""
        self._ends = {}
        if self.is_alive():
            self.join(STOP_SECONDS)

    def longest_silence(self, topic: str, since: float, until: float) -> float:
        """Return the longest seconds between two arrivals in one partition, of those that began in the span."""
        longest = 0.0
        for (name, _), arrivals in self.arrivals.items():
            if name == topic:
                began = range(bisect_left(arrivals, since), min(bisect_left(arrivals, until), len(arrivals) - 1))
                longest = max([longest, *(arrivals[n + 1] - arrivals[n] for n in began)])
        return longest


def gather(scene: Scene, witness: Witness, known: Sequence[str], sources: Sequence[str], past: Past) -> Evidence:
    """Return all that Kafka and Postgres hold, when nothing runs any more, and what they held in the ``past``.

    ``sources`` are the topics of commands.
    """
    bootstrap, topics = scene.kafka.bootstrap, scene.topics
    unsettled = []
    for topic in (*sources, topics.results, topics.transitions, topics.dead_letters):
        try:
            wait_settled(bootstrap, topic, seconds=SETTLE_SECONDS)
        except TooLate:
            unsettled.append(topic)
    evidence = Evidence(unsettled=unsettled)
    ends = {(topic, n): end for topic in witness.saw for n, end in log_ends(bootstrap, topic).items()}
    witness.finish(ends if not unsettled else {})
    evidence.during = witness.saw
    evidence.misread = [] if witness.fault is None else [witness.fault]
    _read(scene, evidence, sources)
    evidence.sent = list(dict.fromkeys([*past.sent, *evidence.sent]))
    evidence.removed, evidence.written_down, evidence.untold = past.removed, written_down(scene), past.untold
    evidence.history = history(scene)
    query = "SELECT authentication_code, life_cycle_state, version FROM access_token WHERE id = ANY ($1)"
    rows = scene.rows(query, list(known))
    evidence.recorded = recorded(scene)
    evidence.states = {row["authentication_code"]: (row["life_cycle_state"], row["version"]) for row in rows}
    evidence.committed, evidence.ends = {}, {}
    for topic in sources:  # a partition's number has commands in one of them only
        evidence.committed |= consumed_offsets(bootstrap, scene.group, topic)
        evidence.ends |= {n: end for n, end in log_ends(bootstrap, topic).items() if end}
    return evidence


def recorded(scene: Scene) -> set[Coordinates]:
    """Return every command that was recorded."""
    rows = scene.rows(
        "SELECT l.partition, r.record_offset, r.record_timestamp"
        " FROM command_record AS r JOIN lane AS l ON l.id = r.lane"
    )
    return {(row["partition"], row["record_offset"], row["record_timestamp"]) for row in rows}


def written_down(scene: Scene) -> list[tuple[int, range]]:
    """Return partition and offsets of every loss that a worker has noticed."""
    rows = scene.rows(
        "SELECT l.partition, c.begin_offset, c.end_offset FROM command_loss AS c JOIN lane AS l ON l.id = c.lane"
    )
    return [(row["partition"], range(row["begin_offset"], row["end_offset"])) for row in rows]


def _read(scene: Scene, evidence: Evidence, sources: Sequence[str]) -> None:
    bootstrap, topics = scene.kafka.bootstrap, scene.topics
    commands: list[Sent] = []
    for source in sources:
        commands += map(sent, stream_to_end(bootstrap, source, seconds=READ_SECONDS))
    evidence.sent = commands
    unreadable: list[str] = []
    after: dict[str, list[Seen]] = {}

    def published(topic: str, reading: Callable[[Record], T]) -> list[T]:
        noted: list[Seen] = []
        after[topic] = noted
        records = stream_to_end(bootstrap, topic, seconds=READ_SECONDS)
        return list(understood(_noting(records, noted), reading, unreadable))

    evidence.results = published(topics.results, result)
    evidence.events = published(topics.transitions, event)
    evidence.dead_letters = published(topics.dead_letters, dead_letter)
    evidence.after, evidence.unreadable = after, unreadable


def _noting(records: Iterable[Record], noted: list[Seen]) -> Iterator[Record]:
    for record in records:
        noted.append(seen(record))
        yield record


def understood(records: Iterable[Record], reading: Callable[[Record], T], unreadable: list[str]) -> Iterator[T]:
    """Yield each record as read. An unreadable one is the worker's fault, not the reader's, and is recorded."""
    for record in records:
        try:
            read = reading(record)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            place = f"{record.topic}-{record.partition}@{record.offset}"
            unreadable.append(f"{place}: {type(error).__name__}: {error}")
        else:
            yield read


def sessions(scene: Scene) -> list[str]:
    """Return the sessions that workers have in Postgres now, and their activity."""
    with suppress(OSError):
        rows = scene.rows(
            "SELECT state, count(*) FROM pg_stat_activity WHERE application_name = 'effective-worker' GROUP BY 1"
        )
        return [f"{row['count']} sessions {row['state']}" for row in rows]
    return []
