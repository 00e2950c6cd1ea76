"""The scope of one reconciliation: its settings, logs, offsets and lanes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiokafka import TopicPartition

from worker.journey.digests import CommandNames
from worker.kafka.reader import OffsetRange
from worker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything that is fixed before the first message is compared."""

    settings: Settings
    cluster: str
    names: CommandNames
    """The names of commands in transitions, by which results are matched: an erased record has no other name."""
    spans: Mapping[str, list[OffsetRange]]
    """The parts of the worker's topics that are left, by the topics' names."""
    committed: Mapping[TopicPartition, int]
    lanes: Mapping[TopicPartition, int]
    """The ids of the lanes by the partitions that they read."""
    clock: Callable[[], datetime]

    def kept_since(self) -> datetime:
        """Return the time before which records may be retired; it moves on during the comparison."""
        return self.clock() - timedelta(days=self.settings.record_retention_days)
