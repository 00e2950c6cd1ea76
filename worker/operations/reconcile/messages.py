"""Both sides of a comparison: a message that Postgres says must be published, and one in a topic."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from worker.operations.findings import Origin
from worker.settings import TopicSettings


class Ledger(StrEnum):
    """The kinds of messages, each of which is compared separately."""

    RESULTS = "results"
    DEAD_LETTERS = "dead letters"
    EVENTS = "events"

    def topic(self, topics: TopicSettings) -> str:
        """Return the topic of its messages."""
        return {
            Ledger.RESULTS: topics.results,
            Ledger.DEAD_LETTERS: topics.dead_letters,
            Ledger.EVENTS: topics.transitions,
        }[self]


@dataclass(frozen=True, slots=True)
class Expected:
    """A message that should be in its topic. ``says`` is compared; ``where`` names the reason to expect it.

    A message that is not ``certain`` may be missing; one that went ``elsewhere`` is not searched for.
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
    organisation: str | None = None

    @property
    def origin(self) -> Origin:
        return Origin(self.organisation, self.moment)


@dataclass(frozen=True, slots=True)
class Observed:
    """A message in its topic, at ``where``."""

    ledger: Ledger
    key: Hashable
    moment: datetime
    says: tuple[Any, ...]
    where: str
    called: str = ""
    """The command id in the message, if the key has another name for it."""
    organisation: str | None = None

    @property
    def origin(self) -> Origin:
        return Origin(self.organisation or organisation_in(self.called), self.moment)


def organisation_in(command_id: str) -> str | None:
    """Return the organisation that a command id names (CONTRACT, Command); ``None`` if it names none."""
    kind, _, rest = command_id.partition(":")
    return unquote(rest.partition(":")[0]) or None if kind in {"ce", "req"} else None
