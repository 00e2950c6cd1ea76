"""The report of an audit: how much was read, and everything that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from worker.operations.findings import NOT_IN_DOCUMENT, Report


class Kind(StrEnum):
    """The kinds of finding. Their names are the codes of CONTRACT, Findings."""

    CHANGED = "a transition that does not hash to its hash"
    UNLINKED = "a transition that is not linked to the one before"
    MISSING = "transitions that are missing"
    HEAD = "a chain that does not end at its lane's head"
    NO_LANE = "transitions of a lane that is gone"
    LATE = "a transition that is earlier than the one before"
    CAUSE = "a transition of a kind that is not its lane's"
    UNRECORDED = "a transition without the record of its command"
    GONE = "an access token that is gone"
    SIGNED = "an access token that another is said to have changed than did"
    HISTORY = "an access token's history that is not whole"
    STATE = "an access token that is not as its history left it"
    ANCHOR = "a chain that does not hold what was anchored"
    NO_EVENT = "transitions that were not published"
    OTHER_EVENT = "an event that differs from the transition"
    UNKNOWN_EVENT = "an event without a transition"


@dataclass(slots=True)
class Audit(Report[Kind]):
    """The numbers of an audit, and its findings."""

    most_named: ClassVar[int] = 1_000

    lanes: int = 0
    transitions: int = 0
    events: int | None = None
    """``None`` if the topic was left out."""
    anchored: int | None = None
    """Chain heads of the anchor that were found again; ``None`` without one."""
    unpublished: int = 0
    """Transitions of batches that may still be on their way to the topic."""
    changed: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict, metadata=NOT_IN_DOCUMENT)
    """By lane id and sequence, the members of the first transitions that do not hash to their hash."""
    published_until: datetime | None = field(default=None, metadata=NOT_IN_DOCUMENT)
    """The time of the newest event; ``None`` if there is none."""

    @property
    def holds(self) -> bool:
        return self.verdict is True
