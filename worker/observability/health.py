"""Health: the state of every lane and dependency, and the documents of /livez and /readyz (CONTRACT, Admin port)."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from aiokafka import TopicPartition

from worker.errors import DependencyUnavailable
from worker.values import utc_text

LaneState = Literal["starting", "working", "waiting", "blocked", "paused", "draining"]
STALLED_SECONDS: Final = 90.0
"""Longer than the longest back-off (30 s) and any single deadline: a loop whose turn takes more is stuck."""

_UNFIT: Final = frozenset(get_args(LaneState)) - {"working"}
"""The states in which no lane works on its partition, even if it will a moment later."""


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """The state of a lane. ``since`` is a reading of the clock that :class:`Health` was given."""

    state: LaneState
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Away:
    """A dependency that cannot work or be worked with; ``state`` says which, as a part of a sentence."""

    reason: str
    since: float
    state: str = "is away"


class Health:
    """The worker's knowledge of its own state. ``clock`` is monotonic, ``wall`` counts from the epoch (seconds).

    If there is a ``bulk_topic``, ``giving_way`` tells if its lanes give way now.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall: Callable[[], float] = time.time,
        bulk_topic: str | None = None,
        giving_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._bulk_topic = bulk_topic
        self.giving_way = giving_way
        self._lanes: dict[TopicPartition, LaneHealth] = {}
        self._last: dict[TopicPartition, LaneHealth] = {}
        """The last state of each lane but ``starting``: a start in vain ends none."""
        self._lost: dict[TopicPartition, Sequence[str]] = {}
        self._away: dict[str, Away] = {}
        self._missed_by: dict[str, set[TopicPartition | None]] = {}
        self._returned: dict[str, asyncio.Event] = {}
        self._assigned = False
        self._progressed = clock()
        self._stuck: str | None = None
        self._stood: Away | None = None
        self._ahead: float | None = None
        self._clocks_agree = True
        self._out: Away | None = None

    def lane(self, source: TopicPartition, state: LaneState, reason: str = "") -> None:
        """Note the state of a partition's lane; the same state again, or after a start in vain, keeps its ``since``."""
        former = (self._lanes if state == "starting" else self._last).get(source)
        since = former.since if former is not None and former.state == state else self._clock()
        self._lanes[source] = now = LaneHealth(state, reason, since)
        if state != "starting":
            self._last[source] = now

    def lane_gone(self, source: TopicPartition) -> None:
        """Forget the partition, its losses, and the dependency that its lane missed."""
        self._lanes.pop(source, None)
        self._last.pop(source, None)
        self._lost.pop(source, None)
        self.misses_only(source, None)

    def misses_only(self, source: TopicPartition, dependency: str | None) -> None:
        """Note that a partition's lane has ended, and for which dependency (``None``: for none).

        A dependency that no lane misses any more is back: the lane that noted it as missing cannot note its return.
        """
        for each, missed_by in list(self._missed_by.items()):
            if each != dependency:
                missed_by.discard(source)
            if not missed_by:
                self.back(each)

    def lost(self, source: TopicPartition, losses: Sequence[str]) -> None:
        """Note the losses of a partition's log that no operator has acknowledged yet."""
        self._lost[source] = losses

    def losses(self) -> int:
        """Return the number of losses that no operator has acknowledged."""
        return sum(map(len, self._lost.values()))

    def losses_of(self, source: TopicPartition) -> Sequence[str]:
        """Return the losses of one partition that no operator has acknowledged."""
        return self._lost.get(source, ())

    def lanes(self) -> Mapping[TopicPartition, LaneHealth]:
        return dict(self._lanes)

    def away(self, missing: DependencyUnavailable, source: TopicPartition | None = None) -> None:
        """Note that a dependency cannot work now. ``since`` stays that of the first such note since it was back.

        ``source`` is the partition whose lane misses it, or ``None`` for a caller that will note its return in any
        case.
        """
        former = self._away.get(missing.dependency)
        since = self._clock() if former is None else former.since
        self._away[missing.dependency] = Away(missing.told, since, missing.state)
        self._missed_by.setdefault(missing.dependency, set()).add(source)

    def back(self, dependency: str) -> None:
        """Note that ``dependency`` works again, and wake every lane that waits for it."""
        self._missed_by.pop(dependency, None)
        if self._away.pop(dependency, None) is not None and (returned := self._returned.pop(dependency, None)):
            returned.set()

    def returned(self, dependency: str) -> asyncio.Event:
        """Return an event that is set once ``dependency`` is noted as back. Ask for it again before every wait."""
        return self._returned.setdefault(dependency, asyncio.Event())

    def dependencies_away(self) -> Mapping[str, Away]:
        return dict(self._away)

    def assigned(self, known: bool) -> None:
        """Note if the group has told this worker its partitions (there may be none for it)."""
        self._assigned = known

    def out_of_group(self, reason: str | None) -> None:
        """Note that the worker has left the group, and why; ``None``: that it takes part in it."""
        self._out = None if reason is None else Away(reason, self._clock())

    @property
    def is_out_of_group(self) -> bool:
        """True while the worker has left the group."""
        return self._out is not None

    def progress(self) -> None:
        """Note progress. Every turn of a loop calls this, also one that finds nothing to do."""
        self._progressed = self._clock()

    def stuck(self, reason: str) -> None:
        """Note that only a new process helps."""
        self._stuck = reason

    def stood(self, seconds: float, session_seconds: float) -> None:
        """Note that the event loop has just stood still for longer than a session, because of its own work."""
        reason = f"the event loop stood for {seconds:.0f} s, longer than a session ({session_seconds:g} s)"
        self._stood = Away(reason, self._clock())

    def clocks(self, ahead: float, *, agree: bool) -> None:
        """Note by how many seconds the worker's clock is ahead of Postgres's, and if that is close enough."""
        self._ahead, self._clocks_agree = ahead, agree

    @property
    def clock_ahead(self) -> float | None:
        """Seconds by which the worker's clock was ahead of Postgres's; ``None`` before the first look."""
        return self._ahead

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Return True if the process makes progress or has nothing to do, with the document of /livez.

        See CONTRACT, Admin port.
        """
        silent = self._clock() - self._progressed
        if self._stuck is not None:
            return False, {"live": False, "reason": self._stuck, "since": self.moment(self._progressed)}
        if self._stood is not None and self._clock() - self._stood.since <= STALLED_SECONDS:
            return False, {"live": False, "reason": self._stood.reason, "since": self.moment(self._stood.since)}
        if silent > STALLED_SECONDS:
            reason = f"no progress for {silent:.0f} s"
            return False, {"live": False, "reason": reason, "since": self.moment(self._progressed)}
        return True, {"live": True, "reason": "making progress, or nothing to do"}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return True if all partitions are worked on and both dependencies answer, with the document of /readyz."""
        reasons = self.reasons()
        document = {
            "ready": not reasons,
            "reason": "; ".join([*(reasons or ["partitions assigned, database and broker reachable"]), *self.aside()]),
            "dependencies_away": {
                name: {"reason": away.reason, "since": self.moment(away.since)}
                for name, away in sorted(self._away.items())
            },
            "lanes": {
                self.name(source): {"state": lane.state, "reason": lane.reason, "since": self.moment(lane.since)}
                for source, lane in sorted(self._lanes.items(), key=self._order)
            },
        }
        if self._ahead is not None:
            document["clock_ahead_of_postgres_seconds"] = round(self._ahead, 1)
        if self._out is not None:
            document["out_of_group"] = {"reason": self._out.reason, "since": self.moment(self._out.since)}
        if self._bulk_topic is not None:
            document["bulk_gives_way"] = self.giving_way()
        return not reasons, document

    def reasons(self) -> list[str]:
        """Return the reasons not to be ready, none if it is."""
        reasons = [f"{name} {away.state}: {away.reason}" for name, away in sorted(self._away.items())]
        if self._out is not None:
            reasons.append(f"out of the consumer group: {self._out.reason}")
        elif not self._assigned:
            reasons.append("the consumer group has not assigned partitions yet")
        for source, lane in sorted(self._lanes.items(), key=self._order):
            # A dependency that is away has been named as the reason to wait. Without one the lane was lost, and will
            # start again.
            if lane.state in _UNFIT and not (lane.state == "waiting" and self._away):
                name = self.name(source)
                reasons.append(f"partition {name} is {lane.state}" + (f": {lane.reason}" if lane.reason else ""))
        return reasons

    def aside(self) -> list[str]:
        """Return faults that do not make the worker unready: its partitions are worked on."""
        said = [
            f"partition {self.name(source)} has lost commands before they were answered, at {', '.join(losses)}:"
            " see effective-worker lanes show, and acknowledge it"
            for source, losses in sorted(self._lost.items())
            if losses
        ]
        if not self._clocks_agree and self._ahead is not None:
            how = f"{abs(self._ahead):.0f} s {'ahead of' if self._ahead > 0 else 'behind'} that of Postgres"
            said.append(f"records of commands are not retired: the worker's clock is {how}")
        return said

    def name(self, source: TopicPartition) -> str:
        """Return the number of a partition; in the bulk topic, with the topic before it. Commands take either."""
        return f"{source.topic}/{source.partition}" if source.topic == self._bulk_topic else str(source.partition)

    def _order(self, lane: tuple[TopicPartition, LaneHealth]) -> tuple[bool, TopicPartition]:
        return lane[0].topic == self._bulk_topic, lane[0]

    def moment(self, reading: float) -> str:
        """Return the time of a reading of the clock, in UTC."""
        return utc_text(self._wall() - (self._clock() - reading))
