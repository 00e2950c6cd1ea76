"""Work that goes on in the background of the main work, for as long as that lasts. No failure of it goes unseen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from worker.errors import WorkerError

log = structlog.get_logger(__name__)


class BackgroundFailed(WorkerError):
    """Background work met an unforeseen error: only a new process is whole again."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"the worker's {name} has failed ({type(error).__name__}): its log says where")


def retrieve(future: "asyncio.Future[Any]") -> None:
    """Retrieve a failure that no longer matters, so that asyncio does not report it as never retrieved."""
    if not future.cancelled():
        future.exception()


@asynccontextmanager
async def beside(name: str, work: Awaitable[None], stop: asyncio.Event) -> AsyncIterator[None]:
    """Do ``work`` in the background of the block. The end of the block sets ``stop``, which must end the work as well.

    If it fails, ``stop`` is set at once and the log tells why. Raises ``BackgroundFailed`` when the block has ended.
    """
    task = asyncio.create_task(_watched(name, work, stop), name=name)
    try:
        yield
    finally:
        stop.set()
        await task


async def _watched(name: str, work: Awaitable[None], stop: asyncio.Event) -> None:
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:  # a library's future may have been cancelled under it
        log.exception("background_failed", name=name)
        stop.set()
        raise BackgroundFailed(name, error) from error
