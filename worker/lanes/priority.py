"""Interactive first: lanes of the bulk topic give way to those of the commands topic (DESIGN 2).

Broker and Postgres know no priorities, so bulk lanes give time: while interactive commands come, one bulk lane works at
a time, on few commands, and if it can in a gap. It waits no longer than ``GAP_SECONDS`` for a gap, so that under any
load bulk goes on: ``FEW`` commands in the time of a batch and a gap.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Any, Final

from worker.resilience.backoff import wait_unless

LATELY_SECONDS: Final = 5.0
"""Seconds after an interactive command for which bulk gives way: the next one may come at any moment."""
FEW: Final = 100
"""The most commands of a bulk batch meanwhile. A batch under way cannot be put aside, so it must not take long."""
GAP_SECONDS: Final = 0.05
"""Seconds that a bulk batch waits for a moment in which no interactive one is in hand."""
TURN_SECONDS: Final = 2.0
"""Seconds after which the next bulk lane has its turn, whatever this one waits for: one must not stop them all."""

Turn = Callable[[asyncio.Event], AbstractAsyncContextManager[int]]
"""A block in which a lane, given its drain, may work, and on how many commands: none once it is drained."""


class Priority:
    """The turns of all lanes of a worker. ``most`` is the size of a batch when no lane gives way."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._last = -LATELY_SECONDS
        self._in_hand = 0
        self._gap = asyncio.Event()
        self._gap.set()
        self._alone = asyncio.Lock()

    @property
    def giving_way(self) -> bool:
        """True if interactive commands are in hand, or were lately."""
        return self._in_hand > 0 or self._clock() - self._last < LATELY_SECONDS

    @asynccontextmanager
    async def first(self, _: asyncio.Event) -> AsyncIterator[int]:
        """Give an interactive lane its turn: at once."""
        self._in_hand += 1
        self._gap.clear()
        try:
            yield self._most
        finally:
            self._in_hand -= 1
            self._last = self._clock()
            if not self._in_hand:
                self._gap.set()

    @asynccontextmanager
    async def behind(self, drain: asyncio.Event) -> AsyncIterator[int]:
        """Give a bulk lane its turn: at once if no interactive lane goes first, else one lane after another."""
        with ExitStack() as held:
            if self.giving_way:
                turn = asyncio.ensure_future(self._alone.acquire())
                held.callback(self._pass_on, turn)
                if not await wait_unless(turn, drain):
                    yield 0
                    return
                held.callback(asyncio.get_running_loop().call_later(TURN_SECONDS, held.close).cancel)
                await self._wait_for_gap(drain)
            if self.giving_way:
                few = min(FEW, self._most)
            else:
                few = self._most
                held.close()  # the lanes behind this one need not wait any longer
            yield 0 if drain.is_set() else few

    def _pass_on(self, turn: "asyncio.Future[Any]") -> None:
        """Let the next lane in, after a turn that was taken or one that a drain or a cancellation prevented."""
        if not turn.cancel():
            self._alone.release()

    async def _wait_for_gap(self, drain: asyncio.Event) -> None:
        gap = asyncio.ensure_future(self._gap.wait())
        try:
            async with asyncio.timeout(GAP_SECONDS):
                await wait_unless(gap, drain)
        except TimeoutError:
            pass
        finally:
            gap.cancel()
