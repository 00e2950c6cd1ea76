"""Read the parts of a Kafka message, and of a command's record, that a comparison needs."""

from datetime import UTC, datetime
from typing import Any

from effective_contract.headers import KAFKA_REPLY_TOPIC, REPLY_TO
from worker.kafka.reader import header
from worker.operations.findings import Origin, record_place
from worker.postgres.pool import Row


def place_of(record: Any) -> str:
    """Return the name of the message in findings."""
    return record_place(record.topic, record.partition, record.offset)


def at(milliseconds: int) -> datetime:
    """Return a Kafka timestamp as a datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_of(record: Any, told: str) -> datetime:
    """Return the time that a message tells, or the message's own timestamp if that text is not a time."""
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        moment = at(record.timestamp)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def origin_of(record: Row) -> Origin:
    """Return the origin of a command, from its record."""
    return Origin(record["organisation"], record["decided_at"])


def is_redirected(command: Any) -> bool:
    """Return True if the sender of a command named a topic for its answer."""
    return bool(header(command, REPLY_TO) or header(command, KAFKA_REPLY_TOPIC))
