"""Membership of the consumer group: joining it, leaving it, and the moment of its last answer to a heartbeat."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener

from worker.errors import KAFKA_ERRORS, DependencyUnavailable
from worker.kafka.internals import intercept_heartbeats, leave_group, member_id_of

LEAVE_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class Membership:
    """The worker's membership of the group, and the moment at which the last heartbeat that succeeded was sent."""

    def __init__(self, consumer: AIOKafkaConsumer, session_seconds: float) -> None:
        self._sent = time.monotonic()
        self._heard = time.monotonic()
        self._session_seconds = session_seconds
        self._refusal = ""
        self._answered = asyncio.Event()
        self._consumer = consumer
        self.takes_part = False
        intercept_heartbeats(consumer, self._watching)

    @property
    def member_id(self) -> str:
        """The id by which Kafka and ``lanes list`` know this worker."""
        return member_id_of(self._consumer)

    def join(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        """Take part in the group, which tells ``listener`` the partitions when it has assigned them."""
        self._heard = time.monotonic()
        self._consumer.subscribe(topics, listener=listener)
        self.takes_part = True

    async def leave(self) -> None:
        """Give all partitions back at once, also those of a member with a ``group_instance_id``.

        aiokafka does not let such a member go before its session is over, but the broker lets any member leave by the
        id that it knows it by (DESIGN 6). If the broker does not hear it, the session runs out.
        """
        self.takes_part = False
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await leave_group(self._consumer)
        except KAFKA_ERRORS as error:
            log.warning("leave_unheard", reason=f"{type(error).__name__}: {error}")

    def _watching(self, heartbeat: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
        self._heartbeat = heartbeat
        return self._watched

    async def _watched(self) -> bool:
        sent = time.monotonic()
        try:
            good = await self._heartbeat()
        except KAFKA_ERRORS as error:
            # Raised further, it would end the client's heartbeats for good, and nothing would start them again (DESIGN
            # 6).
            self._refusal = f" ({error})"
            return False
        if good:
            self._sent, self._heard, self._refusal = sent, time.monotonic(), ""
            self._answered.set()
        return good

    async def look(self) -> None:
        """Check the group.

        Raises ``DependencyUnavailable`` if a member has had no good answer for longer than a session.
        """
        if not self.takes_part:
            return
        silent = time.monotonic() - self._heard
        if silent > self._session_seconds:
            raise DependencyUnavailable(
                "kafka", f"no heartbeat has been answered well for {silent:.0f} s{self._refusal}"
            )

    async def confirmed(self) -> None:
        """Return at once if a heartbeat of this session was answered well, otherwise as soon as another one is.

        After a pause of more than a session another worker may own the partition, and a new producer would fence it
        (DESIGN 2). Raises ``DependencyUnavailable`` if the group says nothing for a session's time.
        """
        now = time.monotonic()
        if now - self._sent <= self._session_seconds:
            return
        try:
            async with asyncio.timeout(self._session_seconds):
                await self.confirmed_after(now)
        except TimeoutError:
            raise DependencyUnavailable("kafka", f"no heartbeat was answered for {now - self._sent:.0f} s") from None

    async def confirmed_after(self, moment: float) -> None:
        """Wait until a heartbeat sent after ``moment`` was answered well: only then may a lost lane still be ours."""
        while self._sent <= moment:
            self._answered.clear()
            await self._answered.wait()
