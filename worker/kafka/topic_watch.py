"""Watch the topics that commands are read from: whether they are there, and still the same (DESIGN 2)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from worker.errors import DependencyAway
from worker.observability.health import Health
from worker.resilience.periodic import every

LOOK_SECONDS: Final = 5.0

Look = Callable[[Sequence[str]], Awaitable[Mapping[str, UUID | None]]]


class TopicWatch:
    """Knows the id of every topic as it was last told. A broker without ids tells ``None``: then all are the same."""

    def __init__(self, look: Look, topics: Sequence[str], health: Health) -> None:
        """``look`` raises ``DependencyAway``, and leaves out what is not there."""
        self._look = look
        self._topics = topics
        self._health = health
        self._ids: dict[str, UUID | None] = {}
        self._is_missed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds until ``stop``."""
        await every(LOOK_SECONDS, self.look, stop)

    async def look(self) -> None:
        """Ask for all of them. A topic that is not there makes Kafka away for us, however well its brokers are."""
        try:
            found = await self._look(self._topics)
        except DependencyAway:
            return  # the probe says so
        self._ids |= found
        missing = [topic for topic in self._topics if topic not in found]
        if missing:
            self._health.away(DependencyAway("kafka", _gone(missing)))
        elif self._is_missed:
            self._health.back("kafka")
        self._is_missed = bool(missing)

    async def id_of(self, topic: str) -> UUID | None:
        """The id that the topic has now. Raises ``DependencyAway`` if it cannot be told, or the topic is not there."""
        found = await self._look([topic])
        if topic not in found:
            raise DependencyAway("kafka", _gone([topic]))
        self._ids[topic] = found[topic]
        return found[topic]

    def is_another(self, topic: str, known: UUID | None) -> bool:
        """Tell if the topic was made anew since it had the id ``known``, as far as has been heard."""
        return are_different(known, self._ids.get(topic))


def are_different(one: UUID | None, other: UUID | None) -> bool:
    """Tell if these are the ids of two topics, as far as both are known."""
    return one is not None and other is not None and one != other


def _gone(topics: Sequence[str]) -> str:
    return f"not there, or not to be seen: topic {', '.join(topics)}"
