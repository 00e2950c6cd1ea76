"""Stand-ins for the parts of the Kafka client that the worker looks into."""

from collections.abc import Set
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition


def consumer_of(coordinator: Any) -> AIOKafkaConsumer:
    """Return a consumer that has nothing but its side of the group."""
    return cast(AIOKafkaConsumer, SimpleNamespace(_coordinator=coordinator))


def subscription(assigned: Set[TopicPartition], position: int | None) -> SimpleNamespace:
    """Return a consumer's subscription: its assignment, and its position in each of these partitions."""
    state = SimpleNamespace(has_valid_position=position is not None, position=position)
    assignment = SimpleNamespace(state_value=lambda _: state)
    return SimpleNamespace(
        is_assigned=lambda source: source in assigned, subscription=SimpleNamespace(assignment=assignment)
    )
