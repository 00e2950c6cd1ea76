"""The wait before the next try: jittered, growing to half a minute, without an end to the tries (DESIGN 3)."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable
from typing import Any, Final

SHORTEST: Final = 0.1
LONGEST: Final = 30.0


async def wait_unless(future: "asyncio.Future[Any]", cut_short: asyncio.Event) -> bool:
    """Wait for ``future``, but no longer than until ``cut_short`` is set. True if it is done; it is never cancelled."""
    cut = asyncio.ensure_future(cut_short.wait())
    try:
        await asyncio.wait({future, cut}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        cut.cancel()
    return future.done()


async def run_unless(work: Awaitable[None], cut_short: asyncio.Event) -> bool:
    """Do ``work``, but cancel it when ``cut_short`` is set. True if it was done; raises what it raised."""
    task = asyncio.ensure_future(work)
    try:
        if not await wait_unless(task, cut_short):
            return False
        await task
        return True
    finally:
        task.cancel()


async def pause(seconds: float, cut_short: asyncio.Event) -> None:
    """Let ``seconds`` go by, or less if ``cut_short`` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await cut_short.wait()


class Backoff:
    """The waits between tries: each is twice the one before, and they start over once a try has worked."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, guards no secret
        self.attempts = 0

    def reset(self) -> None:
        self.attempts = 0

    def next_wait(self) -> float:
        """Return the seconds to wait now: half to all of the current span, so that lanes do not march in step."""
        span = min(LONGEST, SHORTEST * 2.0 ** min(self.attempts, 20))
        self.attempts += 1
        return span * self._chance.uniform(0.5, 1.0)

    async def wait(self, *cut_short: asyncio.Event) -> None:
        """Wait as long as that, or until one of ``cut_short`` is set."""
        cuts = [asyncio.ensure_future(event.wait()) for event in cut_short]
        try:
            await asyncio.wait(cuts, timeout=self.next_wait(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for cut in cuts:
                cut.cancel()
