"""Waiting for something that need not happen."""

from collections.abc import Awaitable, Callable

from worker.demo.servers.processes import until


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
    """Wait until it holds, for so long at most. True if it came to that."""
    try:
        await until(holds, seconds)
    except TimeoutError:
        return False
    return True
