"""Patience: tells workers that stand still from workers that are only slower than the harness can wait."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

CATCH_UP_SECONDS: Final = 240.0
STANDING_SECONDS: Final = 120.0
"""Seconds without progress after which a partition stands still, with everything healed.

No wait of a lane lasts longer than some ten seconds, and the pause between two attempts is shorter.
"""
LOOK_SECONDS: Final = 0.2
LONGEST_LOOK_SECONDS: Final = 5.0
"""A longer pause between two looks is the machine's fault, and no partition's."""
BEAT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class CatchUp:
    """The result. Everything came to its end if both are empty."""

    standing: Mapping[str, int]
    """Records left in the partitions that make no progress."""
    slow: Mapping[str, int]
    """Records left at the end of the patience, if every partition makes progress."""

    @property
    def done(self) -> bool:
        return not self.standing and not self.slow


def follow(
    left: Callable[[], Mapping[str, int]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> CatchUp:
    """Wait until nothing is left. ``left`` counts the rest of each partition that is not at its end."""
    began = looked = clock()
    before: Mapping[str, int] = {}
    still: dict[str, float] = {}
    while now := left():
        moment = clock()
        passed, looked = min(moment - looked, LONGEST_LOOK_SECONDS), moment
        still = {
            place: still.get(place, 0.0) + passed if before.get(place) == count else 0.0 for place, count in now.items()
        }
        standing = {place: now[place] for place, seconds in still.items() if seconds >= STANDING_SECONDS}
        if standing:
            return CatchUp(standing, {})
        if looked - began > CATCH_UP_SECONDS:
            return CatchUp({}, now)
        before = now
        sleep(LOOK_SECONDS)
    return CatchUp({}, {})


class Metronome(threading.Thread):
    """A thread that wants to wake ten times a second, and notes how late it was: the delay of the machine."""

    def __init__(self) -> None:
        super().__init__(name="metronome", daemon=True)
        self.latest = 0.0
        """Delay in seconds."""
        self._halt = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt.set()
        self.join()

    def run(self) -> None:
        before = time.monotonic()
        while not self._halt.wait(BEAT_SECONDS):
            now = time.monotonic()
            self.latest = max(self.latest, now - before - BEAT_SECONDS)
            before = now
