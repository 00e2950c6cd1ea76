"""The report of a reconciliation: how much it compared, and every difference."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from aiokafka import TopicPartition

from worker.operations.findings import Report


class Kind(StrEnum):
    """The kinds of difference. Their names are the codes of CONTRACT, Findings."""

    NO_RECORD = "a command without a record"
    NO_COMMAND = "a record without a command"
    NO_RESULT = "a command without a result"
    TWO_RESULTS = "a second result"
    UNASKED_RESULT = "a result without a command"
    OTHER_RESULT = "a result that differs from the record"
    NO_TRANSITION = "an applied command without a transition"
    NO_APPLIED = "a transition without an applied command"
    NO_EVENT = "a transition without an event"
    TWO_EVENTS = "a second event"
    UNKNOWN_EVENT = "an event without a transition"
    OTHER_EVENT = "an event that differs from the transition"
    OTHER_STATE = "an access token that differs from its last transition"
    NO_DEAD_LETTER = "a command without its dead letter"
    SPARE_DEAD_LETTER = "a dead letter without a reason"
    OTHER_DEAD_LETTER = "a dead letter that differs from the record"
    RECORDED = "a dry run that was recorded"
    NO_DRY_RUN = "a dry run's result without a dry run"
    LANE = "a lane that differs from the committed offset"
    LOST = "commands that were removed unanswered"


@dataclass(slots=True)
class Reconciliation(Report[Kind]):
    """The numbers of a reconciliation, including those of messages that could not be compared, and the differences."""

    most_named: ClassVar[int] = 10_000

    commands: int = 0
    results: int = 0
    transitions: int = 0
    dead_letters: int = 0
    dry_runs: int = 0
    """Commands that only need a result."""
    redirected: int = 0
    """Answers that went to a topic of the sender's choice, and were not searched for there."""
    retired: int = 0
    """Commands, results and dead letters whose record is older than the retention."""
    not_comparable: int = 0
    """Records and transitions whose messages have been removed from their topic."""
    repeated: int = 0
    """Messages that came twice, as at-least-once delivery allows."""
    others: int = 0
    """Messages of other groups, and events of imports."""
    compared: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    """By topic and partition: the first offset of the commands that could be compared, and the offset after the last.
    """

    @property
    def clean(self) -> bool:
        return self.verdict is True
