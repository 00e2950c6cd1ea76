"""Probe the dependencies even when there is no work, so that readiness is true of an idle worker as well."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from worker.errors import DependencyUnavailable
from worker.observability.descriptors import really
from worker.observability.health import Health
from worker.resilience.periodic import every

INTERVAL_SECONDS: Final = 3.0

Look = Callable[[], Awaitable[None]]


class Probe:
    """The probe of each dependency, every few seconds.

    As a rule, only a lane notes the return of a dependency that it has noted as missing.
    """

    def __init__(
        self,
        looks: Mapping[str, Look],
        health: Health,
        clock: Callable[[], float] = time.monotonic,
        *,
        decisive: Collection[str] = (),
    ) -> None:
        """``looks`` are named for their dependency, and raise ``DependencyUnavailable`` if it does not answer.

        Success of one that is ``decisive`` also takes back the notes of lanes: it knows all that they do.
        """
        self._looks = looks
        self._health = health
        self._decisive = decisive
        self._clock = clock
        self._since: dict[str, float] = {}
        self._missed: dict[str, str] = {}  # the dependency noted by each look, which may be another one than its own

    def silent(self, dependency: str) -> float:
        """Return the seconds for which no look has had an answer; 0 if the last one had."""
        since = self._since.get(dependency)
        return 0.0 if since is None else self._clock() - since

    async def run(self, stop: asyncio.Event) -> None:
        """Probe until ``stop``."""
        await every(INTERVAL_SECONDS, self.look, stop)

    async def look(self) -> None:
        """Ask every dependency once, and note any change."""
        for dependency, ask in self._looks.items():
            began = self._clock()
            try:
                await ask()
            except DependencyUnavailable as error:
                away = really(error)
                self._since.setdefault(dependency, began)
                self._take_back(dependency, unless=away.dependency)
                self._missed[dependency] = away.dependency
                self._health.away(away)
            else:
                self._since.pop(dependency, None)
                self._take_back(dependency)
                if dependency in self._decisive:
                    self._health.back(dependency)

    def _take_back(self, look: str, *, unless: str | None = None) -> None:
        missed = self._missed.get(look)
        if missed is not None and missed != unless:
            del self._missed[look]
            self._health.back(missed)
