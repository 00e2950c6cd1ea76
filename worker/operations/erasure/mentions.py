"""Find a customer's messages in the topics, and delete them where that is safe.

See CONTRACT, Command line, ``contact erase``.
"""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import unquote

import orjson
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from effective_contract import headers as h
from worker.errors import DependencyUnavailable
from worker.journey.digests import CommandNames
from worker.kafka.reader import OffsetRange, TopicReader, header, topic_reader
from worker.kafka.topics import admin_client, cluster_id, topic_configs
from worker.settings import Settings

SHORTEST_NEEDLE: Final = 6
"""Characters. A shorter text occurs in unrelated messages too: it counts only if it is the whole of a text."""
_DEEPEST: Final = 4
"""The depth of nesting: a command in a text in an event in a text. Senders do not nest deeper by mistake."""

OnProgress = Callable[[int, int], None]
Where = tuple[str, int, int, int]
"""A command: topic, partition, offset and timestamp."""


@dataclass(frozen=True, slots=True, repr=False)
class Sought:
    """The marks of a message about a customer. Hidden in ``repr``: they are to be erased."""

    places: frozenset[Where]
    """The positions of the customer's commands."""
    commands: frozenset[str]
    """The names of the commands, including those made of their coordinates."""
    names: CommandNames
    needles: frozenset[str]
    """Ids, numbers and credentials, in lower case."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """The messages about the customer in a partition: ``records`` of them, the last one below ``up_to``."""

    topic: str
    partition: int
    records: int
    up_to: int
    """Deleting everything below this offset deletes them all, and the messages of others among them."""
    others: int
    """Offsets below ``up_to`` that are left in the log and are not about the customer."""
    gone_by: datetime | None
    """The time by which the topic's retention removes them; ``None`` if it never does."""
    unread_by: tuple[str, ...] = ()
    """Groups that have not read up to ``up_to``."""
    readers: tuple[str, ...] = ()
    """Groups that have a position in this partition at all."""
    deleted: bool = False

    @property
    def deletable(self) -> bool:
        """True if at least one group reads the partition, and every group that does has read up to ``up_to``."""
        return bool(self.readers) and not self.unread_by


class Topics(Protocol):
    """The topics that may hold messages about a customer. Raises ``DependencyUnavailable`` if one cannot be read."""

    cluster: str

    async def commands(self, sought: Sought, on_progress: OnProgress) -> list[Where]:
        """Find the customer's commands among those written since the last call, at first from the beginning."""
        ...

    async def answers(self, sought: Sought, on_progress: OnProgress) -> list[Mentions]:
        """Find the answers to commands in the same way, and return everything found so far, commands included."""
        ...

    async def still(self, found: Sequence[Mentions]) -> list[Mentions]:
        """Return earlier and present findings as they are now, one for each partition, without those that are gone."""
        ...

    async def delete(self, found: Sequence[Mentions]) -> list[Mentions]:
        """Delete the messages where every group that reads has read far enough."""
        ...


@asynccontextmanager
async def in_kafka(settings: Settings) -> AsyncIterator[Topics]:
    """Open the topics of a worker. Raises ``DependencyUnavailable``."""
    async with topic_reader(settings) as kafka, admin_client(settings) as admin:
        yield _InKafka(kafka, admin, settings, await cluster_id(admin))


class _InKafka:
    def __init__(self, kafka: TopicReader, admin: AIOKafkaAdminClient, settings: Settings, cluster: str) -> None:
        self.cluster = cluster
        self._kafka = kafka
        self._admin = admin
        self._of_commands = set(settings.topics.read)
        self._of_answers = (settings.topics.results, settings.topics.dead_letters)
        self._seen: dict[TopicPartition, int] = {}
        """The offset up to which each partition has been searched."""
        self._found: dict[TopicPartition, tuple[int, int, int]] = {}
        """By partition: how many messages were found, the offset after the last, and their latest timestamp."""

    async def commands(self, sought: Sought, on_progress: OnProgress) -> list[Where]:
        # Lanes may have read topics that these settings do not name. A topic that is gone holds nothing.
        elsewhere = {topic for topic, *_ in sought.places} - self._of_commands
        self._of_commands |= (await self._kafka.spans(*elsewhere)).keys()
        found = self._looked_at(sorted(self._of_commands), sought, on_progress)
        return [(each.topic, each.partition, each.offset, each.timestamp) async for each in found]

    async def answers(self, sought: Sought, on_progress: OnProgress) -> list[Mentions]:
        async for _ in self._looked_at(self._of_answers, sought, on_progress):
            pass
        kept = await topic_configs(self._admin, list(dict.fromkeys(source.topic for source in self._found)))
        return [
            Mentions(source.topic, source.partition, count, last, 0, _gone_by(kept.get(source.topic, {}), stamped))
            for source, (count, last, stamped) in self._found.items()
        ]

    async def _looked_at(self, names: Sequence[str], sought: Sought, on_progress: OnProgress) -> AsyncIterator[Any]:
        spans = [span.since(self._seen.get(span.source, 0)) for span in await self._spans(names)]
        self._kafka.open(spans)
        total, done = sum(span.end - span.begin for span in spans), 0
        for span in spans:
            async for record in self._kafka.read(span):
                done += 1
                if done % 1000 == 0:
                    on_progress(done, total)
                if is_mentioned(record, sought):
                    count, _, stamped = self._found.get(span.source, (0, 0, 0))
                    self._found[span.source] = count + 1, record.offset + 1, max(stamped, record.timestamp)
                    yield record
            self._seen[span.source] = span.end

    async def still(self, found: Sequence[Mentions]) -> list[Mentions]:
        begins = {span.source: span.begin for span in await self._spans((*self._of_commands, *self._of_answers))}
        positions = await _positions(self._admin)
        now = []
        for source, each in _merged(found).items():
            begin = begins.get(source)
            if begin is None or begin >= each.up_to:
                continue
            there = {group: offsets[source] for group, offsets in positions.items() if source in offsets}
            now.append(
                replace(
                    each,
                    others=max(0, each.up_to - begin - each.records),
                    unread_by=tuple(sorted(group for group, offset in there.items() if offset < each.up_to)),
                    readers=tuple(sorted(there)),
                )
            )
        return now

    async def delete(self, found: Sequence[Mentions]) -> list[Mentions]:
        wanted = {
            TopicPartition(each.topic, each.partition): RecordsToDelete(each.up_to) for each in found if each.deletable
        }
        if wanted:
            await self._admin.delete_records(wanted)
        return [replace(each, deleted=each.deletable) for each in found]

    async def _spans(self, names: Sequence[str]) -> list[OffsetRange]:
        found = await self._kafka.spans(*names)
        for name in names:
            if name not in found:
                raise DependencyUnavailable("kafka", f"there is no topic {name}, or it may not be read")
        return [span for name in names for span in found[name]]


def _gone_by(config: Mapping[str, str], stamped: int) -> datetime | None:
    milliseconds = int(config.get("retention.ms", "-1"))
    if milliseconds < 0:
        return None
    return datetime.fromtimestamp(stamped / 1000, UTC) + timedelta(milliseconds=milliseconds)


def _merged(found: Sequence[Mentions]) -> Mapping[TopicPartition, Mentions]:
    """Merge the findings of several searches into one for each partition."""
    merged: dict[TopicPartition, Mentions] = {}
    for each in found:
        source = TopicPartition(each.topic, each.partition)
        former = merged.get(source)
        if former is None:
            merged[source] = each
            continue
        ends = (former.gone_by, each.gone_by)
        merged[source] = replace(
            each,
            records=max(former.records, each.records),
            up_to=max(former.up_to, each.up_to),
            gone_by=None if None in ends else max(end for end in ends if end is not None),
        )
    return merged


async def _positions(admin: AIOKafkaAdminClient) -> dict[str, dict[TopicPartition, int]]:
    """Return the committed offsets of every group."""
    groups = [group for group, *_ in await admin.list_consumer_groups()]
    return {
        group: {source: each.offset for source, each in (await admin.list_consumer_group_offsets(group)).items()}
        for group in groups
    }


# --- one message ------------------------------------------------------------------------------------------------------


def is_mentioned(record: Any, sought: Sought) -> bool:
    """Return True if a message is a command of the customer's, answers one, or names the customer."""
    if (record.topic, record.partition, record.offset, record.timestamp) in sought.places:
        return True
    answered = header(record, h.COMMAND_ID)
    if answered and sought.names.of(answered) in sought.commands:
        return True
    if header(record, h.CE_SUBJECT) in sought.commands:
        return True
    if _buried(record) in sought.places:
        return True
    parts = [record.key, record.value, *(part for name, value in record.headers for part in (name.encode(), value))]
    return any(_names(text, sought.needles) for part in parts if part for text in texts_in(part))


def _buried(record: Any) -> Where | None:
    """Return the position of a dead letter's command; ``None`` if the message is no dead letter."""
    try:
        partition, offset, timestamp = (
            int(header(record, f"dl_{name}")) for name in ("partition", "offset", "timestamp")
        )
    except ValueError:
        return None
    return header(record, "dl_topic"), partition, offset, timestamp


def _names(text: str, needles: frozenset[str]) -> bool:
    text = text.casefold()
    return text in needles or any(needle in text for needle in needles if len(needle) >= SHORTEST_NEEDLE)


def texts_in(raw: bytes, depth: int = 0) -> Iterator[str]:
    """Yield every text that bytes may stand for: as text, percent-encoded, as JSON at any depth, as base64 in it.

    Names of members count, and so does text in UTF-16 and UTF-32.
    """
    text = raw.decode(json.detect_encoding(raw) if b"\0" in raw[:4] else "utf-8", "replace")
    yield text
    if depth == _DEEPEST:
        return
    if "%" in text and (plain := unquote(text)) != text:
        yield from texts_in(plain.encode(), depth + 1)
    if text.lstrip()[:1] in {"{", "[", '"'}:
        try:
            whole = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        yield from _texts_of(whole, depth + 1)


def _texts_of(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield from texts_in(value.encode(), depth)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_of(inner, depth)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts_in(name.encode(), depth)
            if name == "data_base64" and isinstance(inner, str):
                yield from _decoded(inner, depth)
            yield from _texts_of(inner, depth)


def _decoded(text: str, depth: int) -> Iterator[str]:
    try:
        yield from texts_in(b64decode(text), depth)
    except ValueError:
        return
