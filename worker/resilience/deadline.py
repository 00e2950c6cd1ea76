"""End the process when told to, within a deadline, whatever the event loop is doing."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

log = structlog.get_logger(__name__)


def hold_signals() -> None:
    """Keep the signals for ``ends_within``. Call this before any thread is started, which would take them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def ends_within(seconds: float, stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` when told to end, and end the process with exit code 1 if the block takes ``seconds`` more.

    A thread waits for the signals (``hold_signals``), because a handler would wait for the event loop. The protocol is
    made for a worker that dies without a drain (DESIGN 2).
    """
    loop, ended = asyncio.get_running_loop(), threading.Event()

    def wait() -> None:
        signal.sigwait(SIGNALS)
        loop.call_soon_threadsafe(stop.set)
        if not ended.wait(seconds):
            log.error("not_drained", seconds=seconds)
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
