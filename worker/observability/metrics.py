"""Counters, gauges and histograms in the Prometheus format. Their names are a part of the contract with dashboards."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.observability.health import LANE_STATES, Health

_PREFIX: Final = "effective_worker_"
_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)


class _HealthCollector(Collector):
    """The gauges that are read from :class:`Health` at each scrape."""

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
        """Show the metrics of another collector, too."""
        self._registry.register(collector)

    def answered(self, code: str, replayed: bool, count: int = 1) -> None:
        self._answers.labels(code, "true" if replayed else "false").inc(count)

    def rehearsed(self, code: str, count: int = 1) -> None:
        """Count dry runs, apart from answers: they have no effect."""
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
        """Count a restart. ``reason`` becomes a label: the class of the error, from a small fixed set."""
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
        """Count failed attempts. ``kind`` becomes a label; it is one of ``worker.journey.attempt_limits.Kind``."""
        self._failed.labels(kind).inc(count)

    def attempts_limited(self, kind: str) -> None:
        self._limited.labels(kind).inc()

    def attempts_refused(self, count: int) -> None:
        self._unseen.inc(count)

    def records_retired(self, count: int) -> None:
        self._retired.inc(count)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
