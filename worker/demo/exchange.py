"""Send commands and collect their answers, as any sender would: by correlation id, read committed."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from worker.demo.commands import Attempt
from worker.errors import OperatorError
from worker.kafka.client import client_options
from worker.settings import Settings
from worker.values import counted

ANSWER_SECONDS: Final = 60.0


class Unanswered(OperatorError):
    """The worker did not answer in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A result as its sender sees it."""

    value: dict[str, Any]
    replayed: bool

    @property
    def code(self) -> str:
        return str(self.value["status"]["code"])


async def ask(settings: Settings, attempts: Sequence[Attempt]) -> list[Reply]:
    """Send the attempts, and return the replies in their order. Raises ``Unanswered``."""
    options = client_options(settings.kafka)
    producer = AIOKafkaProducer(**options)
    consumer = AIOKafkaConsumer(settings.topics.results, **options, isolation_level="read_committed")
    await producer.start()
    try:
        await consumer.start()
        try:
            await consumer.seek_to_end()
            # aiokafka fetches the position lazily: it must be known before the first answer can come.
            for source in consumer.assignment():
                await consumer.position(source)
            run = os.urandom(4).hex()
            correlations = [f"{run}-{number}".encode() for number in range(len(attempts))]
            for correlation, attempt in zip(correlations, attempts, strict=True):
                headers = [*attempt.headers, ("correlation_id", correlation)]
                await producer.send_and_wait(settings.topics.commands, attempt.value, key=b"demo", headers=headers)
            replies = await _gathered(consumer, set(correlations))
        finally:
            await consumer.stop()
    finally:
        await producer.stop()
    return [replies[correlation] for correlation in correlations]


async def _gathered(consumer: AIOKafkaConsumer, waiting: set[bytes]) -> dict[bytes, Reply]:
    replies: dict[bytes, Reply] = {}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while waiting:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        headers = dict(record.headers)
                        correlation = headers.get("correlation_id", b"")
                        if correlation in waiting:
                            waiting.discard(correlation)
                            replies[correlation] = Reply(json.loads(record.value), headers["replayed"] == b"true")
    except TimeoutError:
        unanswered = counted(len(waiting), "unanswered command")
        raise Unanswered(f"{unanswered} after {ANSWER_SECONDS:.0f} s") from None
    return replies
