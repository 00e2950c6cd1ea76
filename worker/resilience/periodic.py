"""Do something again and again until told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.resilience.backoff import pause


async def every(seconds: float, step: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Take ``step`` now, and again ``seconds`` after each has ended, until ``stop`` is set. Raises what it raises."""
    while not stop.is_set():
        await step()
        await pause(seconds, stop)
