"""Both sides of a comparison: a message that Postgres says must be published, and one that stands in a topic."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from worker.settings import TopicSettings


class Ledger(StrEnum):
    """The kinds of messages that are compared, each kind by itself."""

    RESULTS = "results"
    DEAD_LETTERS = "dead letters"
    EVENTS = "events"

    def topic(self, topics: TopicSettings) -> str:
        """The topic in which its messages stand."""
        return {
            Ledger.RESULTS: topics.results,
            Ledger.DEAD_LETTERS: topics.dead_letters,
            Ledger.EVENTS: topics.transitions,
        }[self]


@dataclass(frozen=True, slots=True)
class Expected:
    """A message that should be in its topic. ``says`` is compared; ``where`` names what it is expected for.

    A message that is not ``certain`` may be missing; one that went ``elsewhere`` is not looked for there.
    """

    ledger: Ledger
    key: Hashable
    moment: datetime
    says: tuple[Any, ...]
    where: str
    source: tuple[str, int]
    """The topic and partition of the command."""
    certain: bool
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """A message in its topic, and ``where`` it stands there."""

    ledger: Ledger
    key: Hashable
    moment: datetime
    says: tuple[Any, ...]
    where: str
    called: str = ""
    """The command id that it names, where the key has another name for it."""
