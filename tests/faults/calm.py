"""Quiet for judgements: a promise is judged while no other fault is at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.faults.within import within

OTHERS_SECONDS: Final = 100.0
"""Seconds that exceed any fault which asks for no quiet itself."""
CALM_SECONDS: Final = 60.0
"""Seconds that exceed any wait of a worker or a person after a fault, back-off included."""


class Calm:
    """Counts the faults at work, and those of them that only wait to see a promise kept."""

    def __init__(self) -> None:
        self._at_work = 0
        self._asking = 0
        self._over = asyncio.Event()
        self._over.set()

    async def over(self) -> None:
        """Wait until there is no request for quiet."""
        while self._asking:
            await self._over.wait()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Mark a fault as at work, which does not begin during a request for quiet."""
        await self.over()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[bool]:
        """Hold other faults back. True if all but those that ask too came to their end within ``OTHERS_SECONDS``.

        A time that is long enough for one fault is too short for a row of them, and rows have no end: so the others
        wait.
        """
        self._asking += 1
        self._over.clear()
        try:
            yield await self._comes()
        finally:
            self._asking -= 1
            if not self._asking:
                self._over.set()

    async def _comes(self) -> bool:
        async def has_come() -> bool:
            return self._at_work <= self._asking

        return await within(OTHERS_SECONDS, has_come)
