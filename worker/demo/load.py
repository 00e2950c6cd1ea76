"""A load of commands, each for its own access token, and the worker's performance under it."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from worker.demo.commands import documented
from worker.errors import OperatorError
from worker.kafka.client import client_options
from worker.kafka.internals import cluster_metadata
from worker.postgres.sql import statement
from worker.settings import Settings

STALLED_SECONDS: Final = 60.0

OnProgress = Callable[[int], None]


class LoadStalled(OperatorError):
    """No answer came for a minute."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The measured load. ``seconds`` are those between the first answer and the last, by their Kafka timestamps."""

    commands: int
    seconds: float
    after_the_first: int
    """Answers later than the first timestamp: the number that took ``seconds``."""
    statuses: dict[str, int]
    duplicates: int

    @property
    def rate(self) -> float:
        """Commands per second."""
        return self.after_the_first / self.seconds if self.seconds else float(self.after_the_first)


async def make_tokens(owner_dsn: str, run: str, count: int) -> None:
    """Create the access tokens ``{run}-1`` … of ORG1, which can be set effective."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute(statement("demo/tokens"), run, count)
        await connection.execute("ANALYZE access_token")
    finally:
        await connection.close()


async def send_backlog(settings: Settings, login: str, run: str, count: int, on_progress: OnProgress) -> None:
    """Send one command per access token, with the golden command's fields, spread over all partitions."""
    producer = AIOKafkaProducer(**client_options(settings.kafka), max_batch_size=512 * 1024, linger_ms=5)
    await producer.start()
    try:
        golden = documented("command.json") | {"token": login}
        for begin in range(1, count + 1, 2000):
            numbers = range(begin, min(begin + 2000, count + 1))
            sent = [await _send(producer, settings.topics.commands, golden, f"{run}-{number}") for number in numbers]
            await asyncio.gather(*sent)
            on_progress(numbers[-1])
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, golden: dict[str, Any], code: str) -> Any:
    body = golden | {"access_token_identifier": {"authentication_code": code}}
    return await producer.send(topic, json.dumps(body).encode(), key=code.encode())


class Answers:
    """A reader of the results topic from its end at ``open``. Until the report it only asks for the topic's end."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = AIOKafkaConsumer(**client_options(settings.kafka), isolation_level="read_committed")
        self._topic = settings.topics.results
        self._start: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        await self._consumer.start()
        partitions = await cluster_metadata(self._consumer)
        sources = [TopicPartition(self._topic, number) for number in partitions.partitions_for_topic(self._topic) or ()]
        self._start = await self._consumer.end_offsets(sources)

    async def close(self) -> None:
        await self._consumer.stop()

    async def arrived(self, count: int, on_progress: OnProgress) -> None:
        """Wait for ``count`` answers without reading them, which would cost the worker CPU. Raises ``LoadStalled``."""
        seen, loop = -1, asyncio.get_running_loop()
        moved = loop.time()
        while seen < count:
            ends = await self._consumer.end_offsets(list(self._start))
            now = sum(ends.values()) - sum(self._start.values())
            if now > seen:
                seen, moved = now, loop.time()
                on_progress(min(seen, count))
            elif loop.time() - moved > STALLED_SECONDS:
                raise LoadStalled(f"no answer for {STALLED_SECONDS:.0f} s, {count - seen} of {count} are missing")
            await asyncio.sleep(0.2)

    async def report(self, count: int) -> LoadReport:
        """Read all answers and count."""
        self._consumer.assign(list(self._start))
        for source, offset in self._start.items():
            self._consumer.seek(source, offset)
        ends = await self._consumer.end_offsets(list(self._start))
        ids: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        moments: list[int] = []
        while any([await self._consumer.position(source) < end for source, end in ends.items()]):
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                _count(records, ids, statuses, moments)
        first, last = min(moments), max(moments)
        return LoadReport(
            commands=count,
            seconds=(last - first) / 1000,
            after_the_first=sum(moment > first for moment in moments),
            statuses=dict(statuses),
            duplicates=sum(ids.values()) - len(ids),
        )


def _count(records: Sequence[Any], ids: Counter[str], statuses: Counter[str], moments: list[int]) -> None:
    for record in records:
        headers = dict(record.headers)
        ids[headers["command_id"].decode()] += 1
        statuses[headers["status_code"].decode()] += 1
        moments.append(record.timestamp)
