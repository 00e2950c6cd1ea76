"""Answers that went elsewhere: to the shared results topic, although the command names a topic of the sender's own.

A worker that does not allow the reply topic answers there, and so does one that cannot write to it (CONTRACT, Command).
"""

import asyncio
import logging

from aiokafka import errors as kafka

from effective_contract.client.transport import Reading

_FAULTS = (kafka.KafkaError, OSError)

log = logging.getLogger(__name__)


class Elsewhere:
    """A reader of the results topic, while it is not sure that answers come on the topic of the sender's own.

    Once one has come there, nothing more is read: the results topic has the answers to all senders.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._is_needed = True
        self.is_readable = True
        """False once the topic could not be read: then a refusal there cannot be seen."""

    async def watch(self) -> None:
        """Read from where the topic ends now, if that is needed. To be called before a command is sent."""
        if not self._is_needed or not self.is_readable:
            return
        async with self._opening:
            if self._task is not None:
                return
            await self._ended()
            try:
                await self._reading.open()
            except _FAULTS as error:
                self._cannot(error)
                return
            self._task = asyncio.create_task(self._reading.run(), name="answers elsewhere")
            self._task.add_done_callback(self._has_ended)

    def rest(self) -> None:
        """Stop reading: an answer came where the sender wants it."""
        self._is_needed = False
        if self._task is not None:
            self._task.cancel()
            self._ending.add(self._task)
            self._task = None

    def doubt(self) -> None:
        """Read again from the next command on: an answer has not come."""
        self._is_needed = True

    async def close(self) -> None:
        """Stop reading for good. Safe to call twice."""
        self.rest()
        await self._ended()
        await self._reading.close()

    async def _ended(self) -> None:
        if self._ending:
            await asyncio.wait(self._ending)

    def _has_ended(self, task: "asyncio.Task[None]") -> None:
        self._ending.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._cannot(error)

    def _cannot(self, error: BaseException) -> None:
        self.is_readable = False
        log.warning("answers in the results topic cannot be seen: %s", type(error).__name__)
