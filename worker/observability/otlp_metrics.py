"""Send the metrics by OTLP: the same names, labels and values as in Prometheus, cumulative.

Needs the extra ``otel``.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from worker.resilience.periodic import every

INTERVAL_MS: Final = 60_000
"""The time between two exports, as OpenTelemetry has it, unless ``OTEL_METRIC_EXPORT_INTERVAL`` says otherwise."""
LAST_SECONDS: Final = 2.0
"""The time for the last export of a worker that ends."""

Send = Callable[[MetricsData], MetricExportResult]

log = structlog.get_logger(__name__)


async def send_metrics(
    registry: CollectorRegistry, environ: Mapping[str, str], wall: Callable[[], float], stop: asyncio.Event
) -> None:
    """Export every metric now and then until ``stop``, and once more then. A collector that is away is told of once."""
    exporter = OTLPMetricExporter()
    export = _Export(registry, exporter.export, wall)
    seconds = _interval(environ) / 1000
    try:
        await every(seconds, export.run, stop)
        async with asyncio.timeout(LAST_SECONDS):
            await export.run()
    except TimeoutError:
        log.warning("metrics_not_exported", reason="the worker ends")
    finally:
        await asyncio.to_thread(partial(exporter.shutdown, timeout_millis=0))


def _interval(environ: Mapping[str, str]) -> int:
    text = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return int(text) if text.isdecimal() and int(text) > 0 else INTERVAL_MS


class _Export:
    """One export after another. The log has the first of several failures in a row, and the recovery."""

    def __init__(self, registry: CollectorRegistry, send: Send, wall: Callable[[], float]) -> None:
        self._registry, self._send, self._wall = registry, send, wall
        self._began = _nanoseconds(wall())
        self._failed = False

    async def run(self) -> None:
        # Read on the event loop, whose objects the gauges ask; sent in a thread, since a collector may be slow.
        data = metrics_data(self._registry, self._began, _nanoseconds(self._wall()))
        failed = await asyncio.to_thread(self._send, data) is not MetricExportResult.SUCCESS
        if failed and not self._failed:
            log.warning("metrics_not_exported", reason="the collector does not take them")
        if self._failed and not failed:
            log.info("metrics_exported_again")
        self._failed = failed


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def metrics_data(registry: CollectorRegistry, began: int, now: int) -> MetricsData:
    """Return all metrics of a registry as OpenTelemetry has them; ``began`` and ``now`` in nanoseconds of the epoch."""
    metrics = [metric for family in registry.collect() if (metric := _metric(family, began, now)) is not None]
    scope = ScopeMetrics(InstrumentationScope("effective-worker"), metrics, "")
    resource = Resource.create({"service.name": "effective-worker"})
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, began: int, now: int) -> Metric | None:
    unit = "s" if family.name.endswith("_seconds") else ""
    if family.type == "counter":
        name = f"{family.name}_total"
        points = [_number(sample, began, now) for sample in family.samples if sample.name == name]
        return Metric(name, family.documentation, unit, Sum(points, AggregationTemporality.CUMULATIVE, True))
    if family.type == "gauge":
        return Metric(
            family.name, family.documentation, unit, Gauge([_number(sample, began, now) for sample in family.samples])
        )
    if family.type == "histogram":
        histogram = Histogram([*_histograms(family, began, now)], AggregationTemporality.CUMULATIVE)
        return Metric(family.name, family.documentation, unit, histogram)
    return None


def _number(sample: Sample, began: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(sample.labels, began, now, float(sample.value))


def _histograms(family: Family, began: int, now: int) -> Iterator[HistogramDataPoint]:
    """Return the one point of a histogram: none of ours has labels."""
    buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
    totals = [int(sample.value) for sample in buckets]
    yield HistogramDataPoint(
        attributes={},
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=totals[-1],
        sum=next(sample.value for sample in family.samples if sample.name.endswith("_sum")),
        bucket_counts=[total - before for before, total in zip([0, *totals], totals, strict=False)],
        explicit_bounds=[end for sample in buckets if (end := float(sample.labels["le"])) != inf],
        min=None,  # type: ignore[arg-type] # optional in the protocol, and not known
        max=None,  # type: ignore[arg-type] # likewise
        exemplars=[*_exemplars(buckets)],
    )


def _exemplars(buckets: list[Sample]) -> Iterator[Exemplar]:
    for sample in buckets:
        if (exemplar := sample.exemplar) is not None:
            labels = exemplar.labels
            yield Exemplar(
                {},
                exemplar.value,
                _nanoseconds(float(exemplar.timestamp or 0)),
                span_id=int(labels["span_id"], 16),
                trace_id=int(labels["trace_id"], 16),
            )
