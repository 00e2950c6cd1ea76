"""Rate, latency and lag of the last quarter of an hour, a sample every five seconds."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from worker.observability.metrics import Durations
from worker.resilience.periodic import every

SAMPLE_SECONDS: Final = 5.0
SAMPLES: Final = 180


@dataclass(frozen=True, slots=True)
class Sample:
    """Five seconds: when they ended (seconds since the epoch), answers per second, seconds to the answer, and the lag.

    ``middle`` and ``slowest`` are the median and the 99th percentile, ``None`` without an answer.
    """

    at: float
    rate: float
    middle: float | None
    slowest: float | None
    lag: int


class History:
    """The samples, from the oldest to the newest."""

    def __init__(
        self, durations: Durations, lag: Callable[[], int], *, wall: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """``wall`` counts from the epoch, ``clock`` is monotonic (both in seconds)."""
        self._durations, self._lag, self._wall, self._clock = durations, lag, wall, clock
        self._before = durations.counts
        self._taken_at = clock()
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)

    async def run(self, stop: asyncio.Event) -> None:
        """Take samples until ``stop``."""
        await every(SAMPLE_SECONDS, self._take, stop)

    async def _take(self) -> None:
        self.take()

    def take(self) -> None:
        """Take a sample of the time since the last one."""
        now, counts = self._clock(), self._durations.counts
        passed = now - self._taken_at
        if passed <= 0:
            return
        fresh = [count - before for count, before in zip(counts, self._before, strict=True)]
        ends = self._durations.ends
        middle, slowest = quantile(ends, fresh, 0.5), quantile(ends, fresh, 0.99)
        self._samples.append(Sample(self._wall(), sum(fresh) / passed, middle, slowest, self._lag()))
        self._before, self._taken_at = counts, now

    def samples(self) -> Sequence[Sample]:
        return tuple(self._samples)


def quantile(ends: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return the value below which this ``share`` lies, taken as even within a bucket; ``None`` if nothing was counted.

    There is one count more than ``ends``: of the values beyond them all, of which nothing but the last end is known.
    """
    wanted, below = sum(counts) * share, 0
    if not wanted:
        return None
    for (start, end), count in zip(pairwise((0.0, *ends)), counts, strict=False):
        if below + count >= wanted:
            return start + (end - start) * (wanted - below) / count
        below += count
    return ends[-1]
