"""The broker's opinion of the moments that this machine's clock puts on records (DESIGN 2, *Out of the group*)."""

from collections.abc import Callable
from typing import Final

from worker.errors import ClockRefused

SET_SECONDS: Final = 60.0
"""A clock that has moved by more than this has been set; no drift is mistaken for it."""
TRY_AGAIN_SECONDS: Final = 120.0
"""After so long a refusal proves nothing: it may be a broker's clock that is wrong, or a setting of a topic's, and all
workers may be out. Longer than a lane waits for its next try."""


class Stamps:
    """Holds the last refusal against the clock until it is set, something is taken, or the refusal is old."""

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        """``wall`` is the clock in doubt and counts from the epoch, ``clock`` is monotonic (seconds)."""
        self._wall = wall
        self._clock = clock
        self._refusal: tuple[float, float] | None = None

    def refused(self) -> None:
        """Note that a topic of ours has refused what the clock says now."""
        self._refusal = self._clock(), self._ahead()

    def taken(self) -> None:
        """Note that records with what the clock says were taken."""
        self._refusal = None

    async def look(self) -> None:
        """Raises ``ClockRefused`` while the refusal holds, as a dependency does that does not answer."""
        if self._refusal is None:
            return
        since, ahead = self._refusal
        is_set = abs(self._ahead() - ahead) > SET_SECONDS
        if is_set or self._clock() - since > TRY_AGAIN_SECONDS:
            self._refusal = None
        else:
            raise ClockRefused

    def _ahead(self) -> float:
        return self._wall() - self._clock()
