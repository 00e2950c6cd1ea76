"""``effective-worker import`` in small steps, killed once it has come so far: at the worst moment, not by chance.

That is with a step written and not committed, or published and not recorded as such.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg

from worker import cli
from worker.operations.imports import load as importing
from worker.operations.imports import publish as announce
from worker.postgres.pool import Row

KILLED_AFTER: Final = "TESTS_KILLED_AFTER"
"""Names the environment variable for the number of lines read, or events published, before the kill."""
STEP: Final = 40


class Killing:
    """Keeps the progress of the process, and ends it in a step."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._far = 0
        self._load = importing._load
        self._committed = importing._committed
        self._publish = announce._publish

    async def load(self, connection: asyncpg.Connection, run: Any, chunk: Any) -> None:
        self._far = run.read
        await self._load(connection, run, chunk)

    async def commit(self, connection: asyncpg.Connection, write: Callable[[], Awaitable[None]]) -> None:
        async def write_in_vain() -> None:
            await write()
            os.kill(os.getpid(), signal.SIGKILL)

        await self._committed(connection, write_in_vain if self._far >= self._after else write)

    async def publish(self, watched: Any, settings: Any, page: Sequence[Row]) -> None:
        await self._publish(watched, settings, page)
        if self._far >= self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._far += len(page)


if __name__ == "__main__":
    importing.CHUNK = announce.PAGE = STEP  # type: ignore[misc]
    if KILLED_AFTER in os.environ:
        killing = Killing(int(os.environ[KILLED_AFTER]))
        importing._load, importing._committed, announce._publish = killing.load, killing.commit, killing.publish
    cli.main()
