"""The state of a lane in health and in the log, and its waits for missing dependencies."""

from worker.errors import BreakerOpen, DependencyUnavailable
from worker.lanes.context import LaneRun
from worker.observability.descriptors import really
from worker.observability.health import LaneState
from worker.resilience.backoff import Backoff


class Status:
    """The reported state of a lane. It also spaces out the lane's tries until one succeeds."""

    def __init__(self, run: LaneRun) -> None:
        self._context = run.context
        self._source = run.lane.source
        self._log = run.log
        self._drain = run.drain
        self._backoff = Backoff()
        self._missed: set[str] = set()

    def say(self, state: LaneState, reason: str = "") -> None:
        """Show ``state`` in health."""
        self._context.health.lane(self._source, state, reason)

    @property
    def has_failed(self) -> bool:
        """True if something has failed since the last success."""
        return bool(self._backoff.attempts)

    def fail_once(self, missing: DependencyUnavailable) -> None:
        """Count a failure that is not waited for."""
        self._backoff.attempts = 1
        self._missed.add(missing.dependency)

    async def wait_out(self, missing: DependencyUnavailable) -> None:
        """Report a missing dependency, and wait before the next try, or until health notes that it is back."""
        away = really(missing)
        self._missed.add(away.dependency)
        self._context.health.progress()
        self._context.health.away(away, self._source)
        self._context.metrics.waited(away.dependency)
        self.say("waiting", str(away))
        self._log.warning(away.event, dependency=away.dependency, reason=away.reason)
        await self._backoff.wait(self._drain, self._context.health.returned(away.dependency))

    async def wait_paused(self, opened: BreakerOpen, offset: int) -> None:
        """Report that too many commands in a row have failed, now at ``offset``, and wait before the next try."""
        self._context.health.progress()
        self.say("paused", str(opened))
        self._log.error("fuse_blown", offset=offset)
        await self._backoff.wait(self._drain)

    def recovered(self) -> None:
        """Note a success: missing dependencies are back, and the next wait is short."""
        if self._backoff.attempts:
            self._backoff.reset()
            while self._missed:
                self._context.health.back(self._missed.pop())
            self.say("working")
