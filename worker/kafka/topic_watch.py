"""Watch the topics that commands are read from: that they exist, and are still the same (DESIGN 2)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from worker.errors import DependencyUnavailable
from worker.observability.health import Health
from worker.resilience.periodic import every

LOOK_SECONDS: Final = 5.0

Look = Callable[[Sequence[str]], Awaitable[Mapping[str, UUID | None]]]


class TopicWatch:
    """The ids of all topics as they were last told. A broker without ids tells ``None``: then all are the same."""

    def __init__(self, look: Look, topics: Sequence[str], health: Health) -> None:
        """``look`` raises ``DependencyUnavailable``, and leaves out topics that do not exist."""
        self._look = look
        self._topics = topics
        self._health = health
        self._ids: dict[str, UUID | None] = {}
        self._is_missed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look topics up every few seconds until ``stop``."""
        await every(LOOK_SECONDS, self.look, stop)

    async def look(self) -> None:
        """Look up all topics. A missing one counts as Kafka being away, however well its brokers are."""
        try:
            found = await self._look(self._topics)
        except DependencyUnavailable:
            return  # the probe says so
        self._ids |= found
        missing = [topic for topic in self._topics if topic not in found]
        if missing:
            self._health.away(DependencyUnavailable("kafka", _gone(missing)))
        elif self._is_missed:
            self._health.back("kafka")
        self._is_missed = bool(missing)

    async def id_of(self, topic: str) -> UUID | None:
        """Return the topic's id now.

        Raises ``DependencyUnavailable`` if it cannot be told, or the topic does not exist.
        """
        found = await self._look([topic])
        if topic not in found:
            raise DependencyUnavailable("kafka", _gone([topic]))
        self._ids[topic] = found[topic]
        return found[topic]

    def is_another(self, topic: str, known: UUID | None) -> bool:
        """True if the topic is known to have been created again since it had the id ``known``."""
        return are_different(known, self._ids.get(topic))


def are_different(one: UUID | None, other: UUID | None) -> bool:
    """True if these are known to be the ids of two topics."""
    return one is not None and other is not None and one != other


def _gone(topics: Sequence[str]) -> str:
    return f"not there, or not to be seen: topic {', '.join(topics)}"
