"""Notice an event loop that stood still: during that time it sends no heartbeat and answers no probe."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from worker.observability.health import Health
from worker.resilience.backoff import pause

BEAT_SECONDS: Final = 1.0
OWN_WORK: Final = 0.5
"""The share of a standstill that the process must have spent on a core. With less it was stopped or starved from
outside, and its own work is not to blame."""

log = structlog.get_logger(__name__)


class Pulse:
    """A beat once a second. One that is late by more than a session has also cost the group's membership."""

    def __init__(
        self,
        health: Health,
        session_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        """``clock`` is monotonic; ``spent`` is the CPU time of the process. Both in seconds."""
        self._health = health
        self._session_seconds = session_seconds
        self._clock = clock
        self._spent = spent
        self._last = clock(), spent()

    async def run(self, stop: asyncio.Event) -> None:
        """Beat until ``stop``."""
        self._last = self._clock(), self._spent()
        while not stop.is_set():
            await pause(BEAT_SECONDS, stop)
            self.beat()

    def beat(self) -> None:
        """Compare the time with that of the beat before."""
        (moment, spent), self._last = self._last, (self._clock(), self._spent())
        late = self._last[0] - moment - BEAT_SECONDS
        if late <= self._session_seconds:
            return
        if self._last[1] - spent < late * OWN_WORK:
            log.warning("process_stood", seconds=round(late, 1))
            return
        log.error("event_loop_stood", seconds=round(late, 1), session_seconds=self._session_seconds)
        self._health.stood(late, self._session_seconds)
