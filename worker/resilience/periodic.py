"""Repeat a step until told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.resilience.backoff import pause


async def every(seconds: float, step: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Run ``step`` now, and again ``seconds`` after each end of it, until ``stop`` is set. Raises what it raises."""
    while not stop.is_set():
        await step()
        await pause(seconds, stop)
