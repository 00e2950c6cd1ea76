"""What the worker lets be seen of itself: logs, metrics, health. No secret passes through here."""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import structlog
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from structlog.typing import EventDict, Processor

from worker.errors import DependencyAway

# --- logs -------------------------------------------------------------------------------------------------------------

_SECRET_KEYS: Final = re.compile(r"token|pass_?code|dsn|secret|password|authorization|verification_code", re.IGNORECASE)
# An id or a count of access tokens is no secret.
_OPEN_KEYS: Final = re.compile(r"access_tokens?(_id)?|tokens", re.IGNORECASE)
_IN_TEXT: Final = (
    # A DSN's password.
    (re.compile(r"(\w+://[^:@/\s]*):[^@\s]*@"), r"\1:***@"),
    # A login token.
    (re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*"), "***"),
    # What Postgres quotes of a row.
    (re.compile(r"DETAIL:.*"), "DETAIL: ***"),
)

REPEAT_SECONDS: Final = 5.0
"""How long a line of the Kafka client is not repeated."""


def configure_logging(level: str = "info", format: str | None = None) -> None:  # noqa: A002 - named like its setting
    """Send every log line to stderr, structlog's and the libraries' alike.

    ``format`` is ``"json"`` or ``"console"``; unset, it is JSON when stderr is not a terminal.
    """
    as_json = format == "json" or (format is None and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    last: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
        )
    )
    handler.addFilter(_NotAgain())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # An access log line per probe says nothing, and the client repeats at INFO what our own lines say.
    for noisy in ("aiohttp.access", "aiokafka"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _NotAgain(logging.Filter):
    """Lets the Kafka client repeat a line once in a while: without its broker it does so a thousand times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        now, line = self._clock(), (record.name, record.lineno)
        if now - self._said.get(line, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._said[line] = now
        return True


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: hides the values of keys that sound like secrets, and what looks like one in a text."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:
    if _SECRET_KEYS.search(key) and not _OPEN_KEYS.fullmatch(key):
        return "***"
    if isinstance(value, str):
        for pattern, replacement in _IN_TEXT:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", item) for item in value]
    return value


# --- health -----------------------------------------------------------------------------------------------------------

LaneState = Literal["starting", "working", "waiting", "blocked", "paused", "draining"]
LANE_STATES: Final[tuple[LaneState, ...]] = ("starting", "working", "waiting", "blocked", "paused", "draining")
STALLED_SECONDS: Final = 90.0
"""Longer than the longest back-off (30 s) and any single deadline: a turn of a loop that takes more is stuck."""

_UNFIT: Final = frozenset(LANE_STATES) - {"working"}
"""Nobody works on a partition whose lane is in one of these states, whatever it will be a moment later."""


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """``since`` is a reading of the clock that :class:`Health` was given."""

    state: LaneState
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Away:
    """A dependency that cannot work now, or be worked with; ``state`` says which, as a part of a sentence."""

    reason: str
    since: float
    state: str = "is away"


class Health:
    """What the worker knows of its own state. ``clock`` is monotonic, ``wall`` counts from the epoch (seconds).

    Where there is a ``bulk_topic``, ``giving_way`` says whether its lanes give way now.
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
        """Note the state of a partition's lane; the same state again keeps its ``since``."""
        former = self._lanes.get(source)
        since = former.since if former is not None and former.state == state else self._clock()
        self._lanes[source] = LaneHealth(state, reason, since)

    def lane_gone(self, source: TopicPartition) -> None:
        """Forget the partition, and what its lane has missed."""
        self._lanes.pop(source, None)
        self._lost.pop(source, None)
        self.misses_only(source, None)

    def misses_only(self, source: TopicPartition, dependency: str | None) -> None:
        """Note that a partition's lane has ended, and for what (``None``: for no dependency).

        What nobody misses any more is back: whoever had noted it will not take it back.
        """
        for each, missed_by in list(self._missed_by.items()):
            if each != dependency:
                missed_by.discard(source)
            if not missed_by:
                self.back(each)

    def lost(self, source: TopicPartition, losses: Sequence[str]) -> None:
        """Note what a partition's log has lost before it was answered, and nobody has acknowledged yet."""
        self._lost[source] = losses

    def losses(self) -> int:
        """The number of losses that nobody has acknowledged."""
        return sum(map(len, self._lost.values()))

    def lanes(self) -> Mapping[TopicPartition, LaneHealth]:
        return dict(self._lanes)

    def away(self, missing: DependencyAway, source: TopicPartition | None = None) -> None:
        """Note that a dependency cannot work now; the first such note since it was back gives the ``since``.

        ``source`` is the partition whose lane misses it, and ``None`` for somebody who will take it back in any case.
        """
        former = self._away.get(missing.dependency)
        since = self._clock() if former is None else former.since
        self._away[missing.dependency] = Away(missing.reason, since, missing.state)
        self._missed_by.setdefault(missing.dependency, set()).add(source)

    def back(self, dependency: str) -> None:
        """Note that ``dependency`` works again, and wake whoever waits for it."""
        self._missed_by.pop(dependency, None)
        if self._away.pop(dependency, None) is not None and (returned := self._returned.pop(dependency, None)):
            returned.set()

    def returned(self, dependency: str) -> asyncio.Event:
        """Set as soon as anybody notes that ``dependency`` is back. To be asked for anew before every wait."""
        return self._returned.setdefault(dependency, asyncio.Event())

    def dependencies_away(self) -> Mapping[str, Away]:
        return dict(self._away)

    def assigned(self, known: bool) -> None:
        """Note whether the group has told this worker its partitions (there may be none for it)."""
        self._assigned = known

    def out_of_group(self, reason: str | None) -> None:
        """Note that the worker has left the group, and why; ``None``: that it takes part in it."""
        self._out = None if reason is None else Away(reason, self._clock())

    def progress(self) -> None:
        """Called by every turn of a loop, also by one that finds nothing to do."""
        self._progressed = self._clock()

    def stuck(self, reason: str) -> None:
        """Note that only a new process helps."""
        self._stuck = reason

    def stood(self, seconds: float, session_seconds: float) -> None:
        """Note that the event loop has just stood for longer than a session, by work of its own."""
        reason = f"the event loop stood for {seconds:.0f} s, longer than a session ({session_seconds:g} s)"
        self._stood = Away(reason, self._clock())

    def clocks(self, ahead: float, *, agree: bool) -> None:
        """Note by how many seconds the worker's clock is ahead of Postgres's, and whether that is near enough."""
        self._ahead, self._clocks_agree = ahead, agree

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process makes progress or has nothing to do, and the document that says so (CONTRACT 10)."""
        silent = self._clock() - self._progressed
        if self._stuck is not None:
            return False, {"live": False, "reason": self._stuck, "since": self._moment(self._progressed)}
        if self._stood is not None and self._clock() - self._stood.since <= STALLED_SECONDS:
            return False, {"live": False, "reason": self._stood.reason, "since": self._moment(self._stood.since)}
        if silent > STALLED_SECONDS:
            reason = f"no progress for {silent:.0f} s"
            return False, {"live": False, "reason": reason, "since": self._moment(self._progressed)}
        return True, {"live": True, "reason": "making progress, or nothing to do"}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the partitions are worked on and both dependencies reachable, and the document that says so."""
        reasons = [f"{name} {away.state}: {away.reason}" for name, away in sorted(self._away.items())]
        if self._out is not None:
            reasons.append(f"out of the consumer group: {self._out.reason}")
        elif not self._assigned:
            reasons.append("the consumer group has not assigned partitions yet")
        lanes = {self._name(source): lane for source, lane in sorted(self._lanes.items(), key=self._order)}
        for name, lane in lanes.items():
            # What a lane waits for has been said if a dependency is away; else it was lost, and is to start again.
            if lane.state in _UNFIT and not (lane.state == "waiting" and self._away):
                reasons.append(f"partition {name} is {lane.state}" + (f": {lane.reason}" if lane.reason else ""))
        document = {
            "ready": not reasons,
            "reason": "; ".join([*(reasons or ["partitions assigned, database and broker reachable"]), *self._aside()]),
            "dependencies_away": {
                name: {"reason": away.reason, "since": self._moment(away.since)}
                for name, away in sorted(self._away.items())
            },
            "lanes": {
                name: {"state": lane.state, "reason": lane.reason, "since": self._moment(lane.since)}
                for name, lane in lanes.items()
            },
        }
        if self._ahead is not None:
            document["clock_ahead_of_postgres_seconds"] = round(self._ahead, 1)
        if self._out is not None:
            document["out_of_group"] = {"reason": self._out.reason, "since": self._moment(self._out.since)}
        if self._bulk_topic is not None:
            document["bulk_gives_way"] = self.giving_way()
        return not reasons, document

    def _aside(self) -> list[str]:
        """Faults that make no worker unready: its partitions are worked on."""
        said = [
            f"partition {self._name(source)} has lost commands before they were answered, at {', '.join(losses)}:"
            " see effective-worker lanes show, and acknowledge it"
            for source, losses in sorted(self._lost.items())
            if losses
        ]
        if not self._clocks_agree and self._ahead is not None:
            how = f"{abs(self._ahead):.0f} s {'ahead of' if self._ahead > 0 else 'behind'} that of Postgres"
            said.append(f"records of commands are not retired: the worker's clock is {how}")
        return said

    def _name(self, source: TopicPartition) -> str:
        """The number of a partition; in the bulk topic, with the topic before it."""
        return f"{source.topic}/{source.partition}" if source.topic == self._bulk_topic else str(source.partition)

    def _order(self, lane: tuple[TopicPartition, LaneHealth]) -> tuple[bool, TopicPartition]:
        return lane[0].topic == self._bulk_topic, lane[0]

    def _moment(self, reading: float) -> str:
        moment = datetime.fromtimestamp(self._wall() - (self._clock() - reading), UTC)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


# --- metrics ----------------------------------------------------------------------------------------------------------

_PREFIX: Final = "effective_worker_"
_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)


class _HealthCollector(Collector):
    """The gauges that are read off :class:`Health` when somebody asks."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[GaugeMetricFamily]:
        lanes = GaugeMetricFamily(f"{_PREFIX}lanes", "Lanes of this worker by state", labels=["state"])
        states = [lane.state for lane in self._health.lanes().values()]
        for state in LANE_STATES:
            lanes.add_metric([state], states.count(state))
        away = GaugeMetricFamily(f"{_PREFIX}dependency_away", "1 while it cannot be worked with", labels=["dependency"])
        for dependency in ("kafka", "postgres", "descriptors", "clock"):
            away.add_metric([dependency], dependency in self._health.dependencies_away())
        way = GaugeMetricFamily(f"{_PREFIX}bulk_gives_way", "1 while bulk lanes give way to interactive commands")
        way.add_metric([], self._health.giving_way())
        lost = GaugeMetricFamily(
            f"{_PREFIX}unacknowledged_losses", "Ranges of commands that were removed unanswered, to be acknowledged"
        )
        lost.add_metric([], self._health.losses())
        return lanes, away, way, lost


class Metrics:
    """The worker's counters, in a registry of their own; the names are a part of the contract with dashboards."""

    def __init__(self, health: Health | None = None) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        if health is not None:
            registry.register(_HealthCollector(health))

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, help_, labels, registry=registry)

        def histogram(name: str, help_: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(_PREFIX + name, help_, buckets=buckets, registry=registry)

        self._answers = counter("answers_total", "Results published, by status code", "code", "replayed")
        self._dry_runs = counter("dry_runs_total", "Results of dry runs published, by status code", "code")
        self._commands = histogram("batch_commands", "Commands per batch", _SIZES)
        self._deciding = histogram("decide_seconds", "From a batch's first statement to its Postgres commit", _SECONDS)
        self._publishing = histogram("publish_seconds", "The Kafka transaction of a batch", _SECONDS)
        self._transitions = counter("transitions_total", "Transition events published")
        self._dead_letters = counter("dead_letters_total", "Dead letters published")
        self._left_out = counter("dead_letters_left_out_total", "Dead letters that could not be written")
        self._restarts = counter("lane_restarts_total", "Lanes restarted", "reason")
        self._replacements = counter("producers_replaced_total", "Producers replaced")
        self._waits = counter("waits_total", "Times a dependency that was away was waited for", "dependency")
        self._set_back = counter("offsets_set_back_total", "Lanes started below the offsets they had settled")
        self._missing = counter(
            "offsets_missing_total", "Lanes started without an offset of the group, though it had one"
        )
        self._lost = counter("commands_lost_total", "Offsets whose commands were removed before they were answered")
        self._failed = counter("attempts_failed_total", "Codes and pass codes that were wrong", "kind")
        self._limited = counter("attempts_limited_total", "Times that the next attempt was made to wait", "kind")
        self._unseen = counter("attempts_refused_total", "Attempts that were refused unseen, since they had to wait")
        self._retired = counter("records_retired_total", "Records of commands removed for their age")

    def show(self, collector: Collector) -> None:
        """Show what somebody else keeps, too."""
        self._registry.register(collector)

    def answered(self, code: str, replayed: bool, count: int = 1) -> None:
        self._answers.labels(code, "true" if replayed else "false").inc(count)

    def rehearsed(self, code: str, count: int = 1) -> None:
        """Dry runs are no answers that anything came of, and are counted apart."""
        self._dry_runs.labels(code).inc(count)

    def batch(self, commands: int, decide_seconds: float, publish_seconds: float) -> None:
        self._commands.observe(commands)
        self._deciding.observe(decide_seconds)
        self._publishing.observe(publish_seconds)

    def published(self, transitions: int, dead_letters: int) -> None:
        self._transitions.inc(transitions)
        self._dead_letters.inc(dead_letters)

    def dead_letters_left_out(self, count: int) -> None:
        self._left_out.inc(count)

    def lane_restarted(self, reason: str) -> None:
        """``reason`` becomes a label: the class of what happened, from a small fixed set."""
        self._restarts.labels(reason).inc()

    def producer_replaced(self) -> None:
        self._replacements.inc()

    def waited(self, dependency: str) -> None:
        self._waits.labels(dependency).inc()

    def offsets_set_back(self) -> None:
        self._set_back.inc()

    def offsets_missing(self) -> None:
        self._missing.inc()

    def commands_lost(self, count: int) -> None:
        self._lost.inc(count)

    def attempts_failed(self, kind: str, count: int) -> None:
        """``kind`` becomes a label, of ``worker.guard.Kind``."""
        self._failed.labels(kind).inc(count)

    def attempts_limited(self, kind: str) -> None:
        self._limited.labels(kind).inc()

    def attempts_refused(self, count: int) -> None:
        self._unseen.inc(count)

    def records_retired(self, count: int) -> None:
        self._retired.inc(count)

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)
