"""The circuit breaker: too many failures in a row are no longer the fault of single commands (DESIGN 3).

Something that breaks every command, such as an unintended trigger or constraint, would otherwise send the whole topic
to the dead letters, each with an answer that cannot be taken back.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

LAST: Final = 100
"""The number of latest commands that count."""
FAILURES: Final = 20
"""This many failures among them, and at least half, open it."""
TRIAL_SECONDS: Final = 30.0
"""Seconds after which an open breaker allows one command, to see if the trouble is over."""


class CircuitBreaker:
    """The breaker that all lanes of a worker share. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=LAST)
        self._trial_at = 0.0

    @property
    def is_open(self) -> bool:
        failures = sum(self._failed)
        return failures >= FAILURES and 2 * failures >= len(self._failed)

    def passed(self, commands: int) -> None:
        """Note that this many commands were decided, whatever their status."""
        self._failed.extend([False] * min(commands, LAST))

    def failed(self) -> None:
        """Note that a command ended in ``INTERNAL_ERROR``."""
        was_open = self.is_open
        self._failed.append(True)
        if self.is_open and not was_open:
            self._trial_at = self._clock() + TRIAL_SECONDS

    def allow_trial(self) -> bool:
        """True if one more command may fail now. An open breaker allows one every ``TRIAL_SECONDS``."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._trial_at:
            return False
        self._trial_at = now + TRIAL_SECONDS
        return True
