"""The workers of the consumer group, as far as Kafka tells, asked for now and then while somebody looks."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from worker.errors import KAFKA_ERRORS, in_words
from worker.kafka.client import client_options
from worker.operations.lanes import Member, group_members
from worker.settings import Settings

ASK_SECONDS: Final = 15.0
DEADLINE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Known:
    """The member that has each partition, or the reason why nothing is known of the group."""

    members: Mapping[TopicPartition, Member]
    fault: str = ""


class Group:
    """The members of the group. An answer holds for ``ASK_SECONDS``."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._settings, self._clock = settings, clock
        self._known = Known({}, "not asked yet")
        self._asked: float | None = None

    async def known(self) -> Known:
        """Return what is known, and ask again if that is old. It never waits longer than ``DEADLINE_SECONDS``."""
        if self._asked is None or self._clock() - self._asked > ASK_SECONDS:
            self._known = await self._ask()
            self._asked = self._clock()
        return self._known

    async def _ask(self) -> Known:
        # Not the client of commands, which keeps the log to itself: the lanes' clients write to it meanwhile.
        admin = AIOKafkaAdminClient(**client_options(self._settings.kafka))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await admin.start()
                return Known(await group_members(admin, self._settings.kafka.group_id))
        except (KafkaConnectionError, OSError, TimeoutError):
            return Known({}, "kafka does not answer")
        except KAFKA_ERRORS as error:
            return Known({}, f"kafka: {in_words(error)}")
        finally:
            await admin.close()
