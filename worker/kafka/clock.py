"""The broker's verdict on the timestamps that this machine's clock puts on records (DESIGN 2, *Out of the group*)."""

from collections.abc import Callable
from typing import Final

from worker.errors import ClockRefused

SET_SECONDS: Final = 60.0
"""Seconds by which a clock that was set has moved at least. Drift is never that large."""
TRY_AGAIN_SECONDS: Final = 120.0
"""Seconds after which a refusal proves nothing: a broker's clock or a topic's setting may be wrong, and all workers may
be out of the group. Longer than a lane waits for its next try."""


class ClockRefusal:
    """The last refusal of the clock, which holds until the clock is set, a record is taken, or the refusal is old."""

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        """``wall`` is the clock in doubt and counts from the epoch; ``clock`` is monotonic (both in seconds)."""
        self._wall = wall
        self._clock = clock
        self._refusal: tuple[float, float] | None = None

    def refused(self) -> None:
        """Note that one of the worker's own topics has refused the clock's present time."""
        self._refusal = self._clock(), self._ahead()

    def taken(self) -> None:
        """Note that records with the clock's time were taken."""
        self._refusal = None

    async def look(self) -> None:
        """Check the clock, like a dependency. Raises ``ClockRefused`` while the last refusal holds."""
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
