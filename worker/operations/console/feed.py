"""The same event for every viewer: made once, every two seconds, and only while there are viewers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from worker.observability.http import TooManyViewers
from worker.resilience.background import retrieve

SECONDS: Final = 2.0
MOST_VIEWERS: Final = 20


class Feed:
    """The events, as bytes, for all that follow. A slow viewer misses those that it has no time for."""

    def __init__(self, make: Callable[[], Awaitable[bytes]]) -> None:
        self._make = make
        self._viewers = 0
        self._making: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._latest: bytes | None = None

    @property
    def viewers(self) -> int:
        return self._viewers

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Yield the latest event, and every one from then on. Raises ``TooManyViewers``, and what making one raises."""
        if self._viewers >= MOST_VIEWERS:
            raise TooManyViewers
        self._viewers += 1
        try:
            if self._making is None:
                self._next = asyncio.get_running_loop().create_future()
                self._making = asyncio.create_task(self._go_on(), name="console")
            if self._latest is not None:
                yield self._latest
            while self._next is not None:
                yield await asyncio.shield(self._next)
        finally:
            self._viewers -= 1
            if not self._viewers:
                await self._end()

    async def _go_on(self) -> None:
        while True:
            due = self._next
            assert due is not None, "it was made before this task"
            try:
                event = await self._make()
            except Exception as error:  # noqa: BLE001 - every viewer raises it
                self._next, self._making, self._latest = None, None, None
                due.set_exception(error)
                retrieve(due)
                return
            self._next, self._latest = asyncio.get_running_loop().create_future(), event
            due.set_result(event)
            await asyncio.sleep(SECONDS)

    async def _end(self) -> None:
        making, self._making, self._next, self._latest = self._making, None, None, None
        if making is not None:
            making.cancel()
            with suppress(asyncio.CancelledError):
                await making
