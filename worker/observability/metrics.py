"""The worker's metrics: those of ``vocabulary``, counted as told and read when asked for."""

import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from itertools import accumulate
from math import inf
from platform import python_version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from effective_contract.codes import StatusCode
from worker.observability import vocabulary as v
from worker.observability.health import Health
from worker.observability.vocabulary import Metric

Timed = tuple[float, tuple[str, str] | None]
"""The seconds that a command took, and the ids of its sender's trace and span if those are kept."""


def gauge_family(metric: Metric, labelled: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    """Return a gauge with one sample for each series, as a collector gives it."""
    family = GaugeMetricFamily(metric.full_name, metric.help, labels=metric.labels)
    for series, value in labelled.items():
        family.add_metric(series, value)
    return family


class _HealthCollector(Collector):
    """The gauges that are read from :class:`Health` at each scrape."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[GaugeMetricFamily]:
        health, away = self._health, self._health.dependencies_away()
        states: list[str] = [lane.state for lane in health.lanes().values()]
        yield gauge_family(v.LANES, {(state,): states.count(state) for (state,) in v.LANES.series})
        yield gauge_family(v.DEPENDENCY_AWAY, {(name,): name in away for (name,) in v.DEPENDENCY_AWAY.series})
        yield gauge_family(v.BULK_GIVES_WAY, {(): health.giving_way()})
        yield gauge_family(v.UNACKNOWLEDGED_LOSSES, {(): health.losses()})
        yield gauge_family(v.OUT_OF_GROUP, {(): health.is_out_of_group})
        if (ahead := health.clock_ahead) is not None:
            yield gauge_family(v.CLOCK_AHEAD, {(): ahead})


class Durations(Collector):
    """A histogram that takes all commands of a batch at once: one call for each would cost more than the rest of it."""

    def __init__(self, metric: Metric, wall: Callable[[], float]) -> None:
        self._metric = metric
        self._wall = wall
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    @property
    def ends(self) -> tuple[float, ...]:
        """The upper ends of the buckets, without the last one, which has none."""
        return self._metric.buckets

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of durations in each bucket so far."""
        return tuple(self._counts)

    def observe(self, batch: Iterable[Timed]) -> None:
        """Count durations. The last trace of each bucket becomes its exemplar."""
        buckets, counts, traces = self._metric.buckets, self._counts, dict[int, tuple[tuple[str, str], float]]()
        for seconds, trace in batch:
            place = bisect_left(buckets, seconds)
            counts[place] += 1
            self._sum += seconds
            if trace is not None:
                traces[place] = trace, seconds
        now = self._wall()
        for place, ((trace_id, span_id), seconds) in traces.items():
            self._exemplars[place] = Exemplar({"trace_id": trace_id, "span_id": span_id}, seconds, now)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        ends = map(floatToGoString, (*self._metric.buckets, inf))
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for place, (end, total) in enumerate(zip(ends, accumulate(self._counts), strict=True)):
            exemplar = self._exemplars.get(place)
            buckets.append((end, total) if exemplar is None else (end, total, exemplar))
        family = HistogramMetricFamily(self._metric.full_name, self._metric.help)
        family.add_metric((), buckets, self._sum)
        yield family


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self, health: Health | None = None, *, wall: Callable[[], float] = time.time) -> None:
        """``wall`` counts from the epoch, in seconds."""
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        if health is not None:
            self.show(_HealthCollector(health))
        self._gauge(v.BUILD_INFO).labels(version("effective-worker"), python_version()).set(1)
        self._answers = self._counter(v.ANSWERS)
        self._dry_runs = self._counter(v.DRY_RUNS)
        self.answer_seconds = Durations(v.ANSWER_SECONDS, wall)
        self.show(self.answer_seconds)
        self._read = self._counter(v.COMMANDS_READ)
        self._commands = self._histogram(v.BATCH_COMMANDS)
        self._deciding = self._histogram(v.DECIDE_SECONDS)
        self._publishing = self._histogram(v.PUBLISH_SECONDS)
        self._transitions = self._counter(v.TRANSITIONS)
        self._dead_letters = self._counter(v.DEAD_LETTERS)
        self._left_out = self._counter(v.DEAD_LETTERS_LEFT_OUT)
        self._restarts = self._counter(v.LANE_RESTARTS)
        self._replacements = self._counter(v.PRODUCERS_REPLACED)
        self._waits = self._counter(v.WAITS)
        self._set_back = self._counter(v.OFFSETS_SET_BACK)
        self._missing = self._counter(v.OFFSETS_MISSING)
        self._lost = self._counter(v.COMMANDS_LOST)
        self._failed = self._counter(v.ATTEMPTS_FAILED)
        self._limited = self._counter(v.ATTEMPTS_LIMITED)
        self._unseen = self._counter(v.ATTEMPTS_REFUSED)
        self._retired = self._counter(v.RECORDS_RETIRED)

    def _counter(self, metric: Metric) -> Counter:
        made = Counter(metric.full_name, metric.help, metric.labels, registry=self.registry)
        for series in metric.series:
            made.labels(*series)
        return made

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.full_name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.full_name, metric.help, buckets=metric.buckets, registry=self.registry)

    def show(self, collector: Collector) -> None:
        """Show the metrics of another collector, too."""
        self.registry.register(collector)

    def read_from(self, metric: Metric, value: Callable[[], float]) -> None:
        """Show a gauge whose ``value`` is asked for each time."""
        self._gauge(metric).set_function(value)

    def read(self, commands: int) -> None:
        """Count commands taken from the log."""
        self._read.inc(commands)

    def answered(self, code: str, replayed: bool, count: int = 1) -> None:
        self._answers.labels(code, "true" if replayed else "false").inc(count)

    def answers(self) -> Counts[str]:
        """Return the number of answers by status code, without dry runs."""
        counted = Counts[str]()
        for family in self._answers.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    counted[sample.labels["code"]] += int(sample.value)
        return counted

    def took(self, commands: Iterable[Timed]) -> None:
        """Count the seconds that commands took until they were answered."""
        self.answer_seconds.observe(commands)

    def rehearsed(self, code: str, count: int = 1) -> None:
        """Count dry runs, apart from answers: they have no effect."""
        self._dry_runs.labels(code).inc(count)

    def batch(self, commands: int, decide_seconds: float, publish_seconds: float) -> None:
        self._commands.observe(commands)
        self._deciding.observe(decide_seconds)
        self._publishing.observe(publish_seconds)

    def published(self, transitions: int, dead_letters: Mapping[StatusCode, int]) -> None:
        """Count the events of a batch, and its dead letters by the status code of their commands' answers."""
        self._transitions.inc(transitions)
        for code, count in dead_letters.items():
            self._dead_letters.labels(code.value).inc(count)

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
        """Return all metrics in the Prometheus text format, without exemplars."""
        return generate_latest(self.registry)

    def answer(self, accepted: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, which a header ``Accept`` chooses: OpenMetrics has exemplars."""
        encode, content_type = choose_encoder(accepted)
        return encode(self.registry), content_type
