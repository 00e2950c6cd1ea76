"""Read from a record of a log what a comparison needs of it."""

from datetime import UTC, datetime
from typing import Any

from effective_contract.headers import KAFKA_REPLY_TOPIC, REPLY_TO
from worker.kafka.reader import header
from worker.operations.findings import record_place


def place_of(record: Any) -> str:
    """The name of the record in findings."""
    return record_place(record.topic, record.partition, record.offset)


def at(milliseconds: int) -> datetime:
    """The moment of a record's timestamp."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_of(record: Any, told: str) -> datetime:
    """The moment that a message tells, or the record's own where that text is none."""
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        moment = at(record.timestamp)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_redirected(command: Any) -> bool:
    """Tell whether the sender of a command named a topic for its answer."""
    return bool(header(command, REPLY_TO) or header(command, KAFKA_REPLY_TOPIC))
