"""The scope of one reconciliation: the settings, logs, offsets and lanes that it goes by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiokafka import TopicPartition

from worker.journey.digests import CommandNames
from worker.kafka.reader import Span
from worker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything that is settled before the first message is compared."""

    settings: Settings
    cluster: str
    names: CommandNames
    """The names by which facts know commands, and results are matched: an erased record has no other."""
    spans: Mapping[str, list[Span]]
    """What is left of the worker's topics, by their names."""
    committed: Mapping[TopicPartition, int]
    lanes: Mapping[TopicPartition, int]
    """The rows of the lanes by what they read."""
    clock: Callable[[], datetime]

    @property
    def size(self) -> int:
        """The number of offsets in all topics."""
        return sum(span.end - span.begin for spans in self.spans.values() for span in spans)

    def kept_since(self) -> datetime:
        """The moment before which anything may be retired, also while all this is read."""
        return self.clock() - timedelta(days=self.settings.record_retention_days)
