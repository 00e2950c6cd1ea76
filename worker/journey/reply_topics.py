"""The topics that senders want their answers in, instead of the results topic (CONTRACT, Command, ``reply_to``).

Knowledge of topics has an age, and is looked up for a whole batch at once, before its Postgres transaction. A sender's
topic may be gone by the time the worker writes to it: then its answers go to the results topic.
"""

import fnmatch
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import Final, TypeVar

import structlog
from msgspec.structs import replace

from effective_contract.codes import StatusCode
from worker.errors import DependencyUnavailable
from worker.journey.model import Command, Decoded, Refused, ReplyTo
from worker.kafka.client import keyed
from worker.kafka.delivery import Delivery

KNOWN_SECONDS: Final = 60.0
MISSING_SECONDS: Final = 5.0
"""Seconds for which a missing topic is not looked up again: it may be created at any moment."""
AVOIDED_SECONDS: Final = 300.0
"""Seconds for which a topic that could not be written to is avoided: a try may cost a transaction's deadline."""
MOST_TOPICS: Final = 4096
"""The most topics remembered. The allow-list comes first, but senders may name anything that it lets pass."""

T = TypeVar("T")
Look = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]

log = structlog.get_logger(__name__)


async def _nowhere(_: Sequence[str]) -> Mapping[str, int]:
    return {}


class Replies:
    """The judge of the topics that senders name for their answers, shared by all lanes of a worker.

    It remembers which topics to avoid.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        own: Collection[str] = (),
        look: Look = _nowhere,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``allowed`` are shell-style patterns; ``own`` are the worker's own topics, which no sender may name.

        ``look`` returns the number of partitions of each of these topics that exists. It may raise
        ``DependencyUnavailable``.
        """
        # Without a pattern nothing may match, but the empty expression matches everything.
        self._allowed = re.compile("|".join(map(fnmatch.translate, allowed)) or "(?!)")
        self._own = frozenset(own)
        self._look = look
        self._clock = clock
        # The number of partitions of each topic, 0 if it does not exist, and the moment at which that was learned.
        self._counts: dict[str, tuple[int, float]] = {}
        self._avoided: dict[str, float] = {}

    async def judged(self, batch: Sequence[Decoded]) -> Sequence[Decoded]:
        """Return the batch with every reply topic resolved to a partition, or removed and its command refused.

        Asks the broker at most once, and not at all if no new topic is named. Raises ``DependencyUnavailable``.
        """
        named = [item.envelope.reply for item in batch if item.envelope.reply is not None]
        if not named:
            return batch
        counts = await self._counted(_highest(reply for reply in named if self._may_name(reply.topic)))
        return [item if item.envelope.reply is None else self._judge(item, counts) for item in batch]

    def reachable(self, reply: ReplyTo) -> bool:
        """True unless the topic is avoided now."""
        until = self._avoided.get(reply.topic)
        return until is None or until <= self._clock()

    async def failed(self, replies: Collection[ReplyTo], to_blame: Collection[str]) -> None:
        """Note that a publication to these topics failed. Avoids the topics ``to_blame``, and those that are gone."""
        named = _highest(replies)
        avoided = named.keys() & set(to_blame)
        for topic in named:
            self._counts.pop(topic, None)
        try:
            counts = await self._counted(named)
        except DependencyUnavailable as away:
            log.info("reply_topics_not_looked_up", reason=away.reason)
        else:
            avoided |= {topic for topic, partition in named.items() if partition >= counts[topic]}
        for topic in avoided:
            log.warning("reply_topic_avoided", topic=topic, seconds=AVOIDED_SECONDS)
            _remember(self._avoided, topic, self._clock() + AVOIDED_SECONDS)

    def _may_name(self, topic: str) -> bool:
        return topic not in self._own and self._allowed.match(topic) is not None

    def _judge(self, item: Decoded, counts: Mapping[str, int]) -> Decoded:
        reply = item.envelope.reply
        assert reply is not None
        fault = self._fault(reply, counts)
        if fault is None:
            partition = reply.partition
            if partition is None:
                partition = _by_key(item.delivery, counts[reply.topic])
            envelope = replace(item.envelope, reply=replace(reply, partition=partition))
            return Decoded(item.delivery, envelope, item.request)
        # A fault of the body comes first, and another header's fault is as good as this one.
        right = isinstance(item.request, Command)
        request = Refused(StatusCode.INVALID_PARAMETER, fault) if right else item.request
        return Decoded(item.delivery, replace(item.envelope, reply=None), request)

    def _fault(self, reply: ReplyTo, counts: Mapping[str, int]) -> str | None:
        if reply.topic in self._own:
            return f"the header {reply.header} names one of the worker's own topics"
        if not self._may_name(reply.topic):
            return f"the header {reply.header} names a topic to which no answers may be sent"
        count = counts.get(reply.topic, 0)
        if not count:
            return f"the header {reply.header} names a topic that does not exist"
        if reply.partition is not None and reply.partition >= count:
            return f"the topic of {reply.header} has {count} partitions, and none with the number {reply.partition}"
        return None

    async def _counted(self, named: Mapping[str, int]) -> dict[str, int]:
        """Return the number of partitions of each topic, 0 if it does not exist.

        ``named`` has the highest partition named of each.
        """
        now = self._clock()
        counts: dict[str, int] = {}
        old: list[str] = []
        for topic, partition in named.items():
            count, learned = self._counts.get(topic, (-1, now))
            if count >= 0:
                counts[topic] = count
            # A missing partition may be created at any moment, like a topic.
            if count < 0 or now - learned >= (KNOWN_SECONDS if partition < count else MISSING_SECONDS):
                old.append(topic)
        if not old:
            return counts
        try:
            found = await self._look(old)
        except DependencyUnavailable:
            # Old counts serve better than waiting, if there is one for every topic.
            if counts.keys() == named.keys():
                return counts
            raise
        for topic in old:
            counts[topic] = found.get(topic, 0)
            _remember(self._counts, topic, (counts[topic], now))
        return counts


def _highest(replies: Iterable[ReplyTo]) -> dict[str, int]:
    """Return the topics named, each with the highest partition named of it."""
    named: dict[str, int] = {}
    for reply in replies:
        named[reply.topic] = max(reply.partition or 0, named.get(reply.topic, 0))
    return named


def _by_key(delivery: Delivery, count: int) -> int:
    """Return the partition that any Kafka producer would choose by the command's key; without a key, by the lane's."""
    if delivery.key is None:
        return delivery.coordinates.partition % count
    return keyed(delivery.key, count)


def _remember(known: dict[str, T], topic: str, what: T) -> None:
    """Note it as the newest entry; the oldest makes room."""
    known.pop(topic, None)
    known[topic] = what
    if len(known) > MOST_TOPICS:
        del known[next(iter(known))]
