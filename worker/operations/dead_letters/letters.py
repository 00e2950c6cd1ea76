"""Read dead letters from their topic, and choose among them."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from worker.errors import OperatorError
from worker.kafka.delivery import Header
from worker.kafka.reader import OffsetRange, TopicReader
from worker.settings import Settings

_COUNT: Final = re.compile(r"\d{1,18}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"-?\d{1,15}", re.ASCII)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_CLOCKS: Final = timedelta(minutes=1)
"""The most by which the clocks of workers and brokers may differ."""

OnProgress = Callable[[int, int], None]


class NoTopic(OperatorError):
    """The topic of dead letters does not exist."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The position of a dead letter in its topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Source:
    """The position at which a command was read. ``timestamp`` is Kafka's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} offset {self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of the topic of dead letters, and the values of its ``dl_`` headers."""

    place: Place
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(repr=False)
    code: str
    reason: str
    source: Source | None
    """The position at which the command was read; ``None`` if the headers do not tell: then no worker has written this.
    """
    group: str
    worker: str
    attempts: int
    failed_at: datetime
    """In UTC; the epoch if it is not given."""
    organisation: str | None
    """The organisation of the command's login, if its signature was good."""
    truncated: bool

    @property
    def command_headers(self) -> tuple[Header, ...]:
        """The headers of the command itself."""
        return tuple((name, value or b"") for name, value in self.headers if not name.startswith("dl_"))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A filter of dead letters: those that match all of it. An empty or ``None`` member matches everything.

    ``since`` and ``until`` are about the time at which the command was given up; ``partitions`` and ``at`` are about
    the topic of dead letters; ``reason`` matches any part of the reason, in any case.
    """

    codes: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    partitions: frozenset[int] = frozenset()
    reason: str = ""
    source_topic: str | None = None
    organisation: str | None = None
    at: frozenset[Place] = frozenset()

    def takes(self, letter: Letter) -> bool:
        source = letter.source
        return (
            (not self.codes or letter.code in self.codes)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and (not self.partitions or letter.place.partition in self.partitions)
            and self.reason.casefold() in letter.reason.casefold()
            and (self.source_topic is None or (source is not None and source.topic == self.source_topic))
            and (self.organisation is None or letter.organisation == self.organisation)
            and (not self.at or letter.place in self.at)
        )


def letter_of(record: Any) -> Letter:
    """Read a message of the topic. Raises nothing, whatever the message holds."""
    said = {
        name: value.decode(errors="replace")
        for name, value in record.headers
        if name.startswith("dl_") and value is not None
    }
    failed_at = _moment(said.get("dl_failed_at", ""))
    attempts = said.get("dl_attempts", "")
    return Letter(
        place=Place(record.partition, record.offset),
        key=record.key,
        value=record.value,
        headers=tuple((name, value) for name, value in record.headers),
        code=said.get("dl_code", ""),
        reason=said.get("dl_reason", ""),
        source=None if failed_at is None else _source(said),
        group=said.get("dl_consumer_group", ""),
        worker=said.get("dl_worker", ""),
        attempts=int(attempts) if _COUNT.fullmatch(attempts) else 0,
        failed_at=failed_at or _EPOCH,
        organisation=said.get("dl_organisation"),
        truncated="dl_truncated" in said,
    )


def _source(said: dict[str, str]) -> Source | None:
    topic, partition, offset = (said.get(f"dl_{name}", "") for name in ("topic", "partition", "offset"))
    timestamp = said.get("dl_timestamp", "")
    if not (topic and _COUNT.fullmatch(partition) and _COUNT.fullmatch(offset) and _TIMESTAMP.fullmatch(timestamp)):
        return None
    return Source(topic, int(partition), int(offset), int(timestamp))


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):  # the first and the last day of all time do not exist in every time zone
        return None


async def letters(
    kafka: TopicReader,
    settings: Settings,
    chosen: Chosen,
    *,
    on_progress: OnProgress = lambda _done, _total: None,
) -> AsyncIterator[Letter]:
    """Yield the chosen dead letters, partition after partition, up to the ends of the topic when this began.

    None is kept. ``on_progress`` gets the number of offsets passed, and their total. Raises ``NoTopic`` and
    ``DependencyUnavailable``.
    """
    spans = await _spans(kafka, settings.topics.dead_letters, chosen)
    kafka.open(spans)
    total, before = sum(span.end - span.begin for span in spans), 0
    for span in spans:
        async for record in kafka.read(span):
            on_progress(before + record.offset - span.begin, total)
            letter = letter_of(record)
            if chosen.takes(letter):
                yield letter
        before += span.end - span.begin


async def _spans(kafka: TopicReader, topic: str, chosen: Chosen) -> list[OffsetRange]:
    """Return the parts of the topic that may hold a chosen dead letter."""
    spans = (await kafka.spans(topic)).get(topic)
    if spans is None:
        raise NoTopic(f"there is no topic {topic}; create it with: effective-worker topics apply")
    if chosen.partitions:
        spans = [span for span in spans if span.source.partition in chosen.partitions]
    if chosen.at:
        offsets = {
            span: [each.offset for each in chosen.at if each.partition == span.source.partition] for span in spans
        }
        spans = [span.since(min(found)).until(max(found) + 1) for span, found in offsets.items() if found]
    if chosen.since is not None:
        spans = await kafka.since(spans, max(0, int((chosen.since - _CLOCKS).timestamp() * 1000)))
    return [span for span in spans if span.begin < span.end]
