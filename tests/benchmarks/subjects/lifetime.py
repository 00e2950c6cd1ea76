"""The life of a subject: until it fails, or is told to end."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


async def until_terminated(*works: Coroutine[Any, Any, None]) -> None:
    """Run all of it until SIGTERM. Raises the errors of its parts."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.ensure_future(work) for work in works]
    ending = asyncio.ensure_future(stop.wait())
    done, left = await asyncio.wait({*tasks, ending}, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for task in done:
        task.result()
