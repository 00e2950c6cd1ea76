"""The fuse: too many failures in a row are no longer the fault of single commands (DESIGN 3).

Something that breaks every command, such as an unintended trigger or constraint, would otherwise send the whole topic
to the dead letters, each with an answer that cannot be taken back.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

LAST: Final = 100
"""The number of latest commands that the fuse counts."""
FAILURES: Final = 20
"""This many failures among them, and at least half, blow the fuse."""
TRIAL_SECONDS: Final = 30.0
"""Seconds after which a blown fuse lets one command through, to see if the trouble is over."""


class Fuse:
    """The fuse that all lanes of a worker share. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=LAST)
        self._trial_at = 0.0

    @property
    def blown(self) -> bool:
        failures = sum(self._failed)
        return failures >= FAILURES and 2 * failures >= len(self._failed)

    def passed(self, commands: int) -> None:
        """Note that this many commands were decided, whatever their status."""
        self._failed.extend([False] * min(commands, LAST))

    def failed(self) -> None:
        """Note that a command ended in ``INTERNAL_ERROR``."""
        was_blown = self.blown
        self._failed.append(True)
        if self.blown and not was_blown:
            self._trial_at = self._clock() + TRIAL_SECONDS

    def lets_through(self) -> bool:
        """True if one more command may fail now. A blown fuse allows one every ``TRIAL_SECONDS``."""
        if not self.blown:
            return True
        now = self._clock()
        if now < self._trial_at:
            return False
        self._trial_at = now + TRIAL_SECONDS
        return True
