"""Metrics: the vocabulary and its page, what is there from the start, durations with exemplars, and OTLP."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from deploy import make_metrics_page
from effective_contract.codes import StatusCode
from tests.support.waiting import in_time, until
from worker.journey.attempt_limits import Kind
from worker.journey.messages import DEAD_LETTERED
from worker.observability import vocabulary as v
from worker.observability.health import Health
from worker.observability.metrics import Durations, Metrics
from worker.observability.otlp import sends
from worker.observability.otlp_metrics import metrics_data, send_metrics
from worker.observability.tracing import sampled_trace

OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
KEPT: Final = sampled_trace(f"00-{TRACE}-00f067aa0ba902b7-01")


def lines_of(metrics: Metrics) -> list[str]:
    return metrics.text().decode().splitlines()


# --- vocabulary -------------------------------------------------------------------------------------------------------


def test_the_page_of_metrics_is_that_of_the_vocabulary() -> None:
    assert make_metrics_page.PAGE.read_text() == make_metrics_page.page(), "run: python -m deploy.make_metrics_page"


def test_a_name_is_there_once_and_says_what_it_is() -> None:
    names = [each.name for each in v.VOCABULARY]
    assert len(names) == len({*names}) > 30
    for each in v.VOCABULARY:
        assert each.name.endswith("_total") == (each.kind == "counter"), each.name
        assert bool(each.buckets) == (each.kind == "histogram"), each.name
        assert all(len(series) == len(each.labels) for series in each.series), each.name


def test_values_of_labels_are_those_of_the_code() -> None:
    assert {code for (code,) in v.DEAD_LETTERS.series} == {code.value for code in DEAD_LETTERED}
    assert {code for code, _ in v.ANSWERS.series} == {code.value for code in StatusCode}
    assert {*v.ATTEMPT_KINDS} == {kind.value for kind in Kind}


def test_a_worker_shows_its_series_from_the_start_at_zero() -> None:
    lines = lines_of(Metrics(Health()))
    for each in v.VOCABULARY:
        if each.kind != "counter":
            continue
        for series in each.series or ([()] if not each.labels else []):
            labels = ",".join(f'{label}="{value}"' for label, value in zip(each.labels, series, strict=True))
            assert f"{each.full_name}{f'{{{labels}}}' if labels else ''} 0.0" in lines


def test_what_is_built_is_told() -> None:
    (line,) = [line for line in lines_of(Metrics()) if line.startswith("effective_worker_build_info")]
    assert 'version="' in line
    assert line.endswith(" 1.0")


def test_the_clock_is_told_once_it_was_looked_at() -> None:
    health = Health()
    metrics = Metrics(health)
    assert not any("clock_ahead" in line for line in lines_of(metrics))
    health.clocks(-2.5, agree=True)
    assert "effective_worker_clock_ahead_of_postgres_seconds -2.5" in lines_of(metrics)


def test_a_gauge_is_asked_for_each_time() -> None:
    metrics, waiting = Metrics(), [3]
    metrics.read_from(v.PASS_CODES_WAITING, lambda: waiting[0])
    assert "effective_worker_pass_codes_waiting 3.0" in lines_of(metrics)
    waiting[0] = 4
    assert "effective_worker_pass_codes_waiting 4.0" in lines_of(metrics)


# --- durations --------------------------------------------------------------------------------------------------------


def test_durations_are_counted_in_their_buckets() -> None:
    metrics = Metrics()
    metrics.took([(0.01, None), (0.02, None), (7.0, None), (5000.0, None)])
    lines = lines_of(metrics)
    for end, count in (("0.01", 1), ("0.015", 1), ("0.02", 2), ("5.0", 2), ("8.0", 3), ("3600.0", 3), ("+Inf", 4)):
        assert f'effective_worker_answer_seconds_bucket{{le="{end}"}} {count}.0' in lines
    assert "effective_worker_answer_seconds_count 4.0" in lines
    assert "effective_worker_answer_seconds_sum 5007.03" in lines


def test_a_bucket_has_the_last_kept_trace_as_its_exemplar() -> None:
    metrics = Metrics(wall=lambda: 1234.5)
    metrics.took([(0.35, ("a" * 32, "b" * 16)), (0.4, KEPT), (0.45, None), (20.0, None)])
    text, content_type = metrics.answer(OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text")
    buckets = {
        sample.labels["le"]: sample.exemplar
        for family in text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == "effective_worker_answer_seconds_bucket"
    }
    exemplar = buckets["0.5"]
    assert exemplar is not None
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE, "span_id": "00f067aa0ba902b7"}, 0.4)
    assert float(exemplar.timestamp) == 1234.5
    assert [end for end, other in buckets.items() if other is not None] == ["0.5"]


def test_an_older_scrape_gets_text_without_exemplars() -> None:
    metrics = Metrics()
    metrics.took([(0.4, KEPT)])
    text, content_type = metrics.answer("text/plain")
    assert content_type.startswith("text/plain")
    assert TRACE not in text.decode()


@pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{TRACE}-00f067aa0ba902b7-00"])
def test_a_trace_that_nobody_keeps_is_no_exemplar(traceparent: str | None) -> None:
    assert sampled_trace(traceparent) is None


# --- OTLP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_variables_of_opentelemetry_say_what_is_sent(environ: dict[str, str], sent: bool) -> None:
    assert sends("metrics", environ) is sent


def test_every_sample_has_a_point_in_otlp() -> None:
    metrics = Metrics(Health())
    metrics.answered("OK", replayed=False, count=7)
    metrics.took([(0.4, KEPT), (99.0, None)])
    sent = {
        metric.name: metric
        for resource in metrics_data(metrics.registry, 1, 2).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    asked = [each for each in v.VOCABULARY if any(line.startswith(each.full_name) for line in lines_of(metrics))]
    assert {each.full_name for each in asked} <= sent.keys()
    (ok,) = [
        point.value
        for point in sent["effective_worker_answers_total"].data.data_points
        if isinstance(point, NumberDataPoint) and point.attributes == {"code": "OK", "replayed": "false"}
    ]
    assert ok == 7.0
    (took,) = sent["effective_worker_answer_seconds"].data.data_points
    assert isinstance(took, HistogramDataPoint)
    assert (took.count, took.sum) == (2, 99.4)
    assert [*took.explicit_bounds] == [*v.ANSWER_SECONDS.buckets]
    counted = dict(zip((*took.explicit_bounds, math.inf), took.bucket_counts, strict=True))
    assert {end: count for end, count in counted.items() if count} == {0.5: 1, 300.0: 1}
    assert [f"{exemplar.trace_id:032x}" for exemplar in took.exemplars] == [TRACE]


class Collector:
    """An OTLP collector of our own: it keeps what it takes, and can refuse."""

    def __init__(self) -> None:
        self.taken: list[ExportMetricsServiceRequest] = []
        self.refuses = False
        self.asked = 0

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.refuses:
            return web.Response(status=400)
        self.taken.append(ExportMetricsServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    collector = Collector()
    application = web.Application()
    application.router.add_post("/v1/metrics", collector.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
    yield collector
    await runner.cleanup()


async def test_metrics_are_sent_now_and_then_and_once_more_at_the_end(collector: Collector) -> None:
    metrics, stop = Metrics(), asyncio.Event()
    sending = asyncio.create_task(
        send_metrics(metrics.registry, {"OTEL_METRIC_EXPORT_INTERVAL": "20"}, lambda: 1000.0, stop)
    )
    await until(lambda: len(collector.taken) >= 2, what="two exports came")
    metrics.answered("OK", replayed=False, count=3)
    stop.set()
    await in_time(sending, "the last export was sent")
    last = collector.taken[-1].resource_metrics[0]
    assert {each.key: each.value.string_value for each in last.resource.attributes}[
        "service.name"
    ] == "effective-worker"
    (answers,) = [each for each in last.scope_metrics[0].metrics if each.name == "effective_worker_answers_total"]
    assert max(point.as_double for point in answers.sum.data_points) == 3.0
    assert answers.sum.is_monotonic


async def test_a_collector_that_takes_nothing_is_told_of_once(collector: Collector) -> None:
    collector.refuses, stop = True, asyncio.Event()
    with capture_logs() as log:
        sending = asyncio.create_task(
            send_metrics(Metrics().registry, {"OTEL_METRIC_EXPORT_INTERVAL": "10"}, lambda: 1000.0, stop)
        )
        await until(lambda: collector.asked >= 3, what="three exports came")
        collector.refuses = False
        await until(lambda: bool(collector.taken), what="an export was taken")
        stop.set()
        await in_time(sending, "the last export was sent")
    assert [line["event"] for line in log] == ["metrics_not_exported", "metrics_exported_again"]


def test_durations_of_nothing_are_zero() -> None:
    registry = CollectorRegistry()
    registry.register(Durations(v.ANSWER_SECONDS, lambda: 0.0))
    (point,) = metrics_data(registry, 1, 2).resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert (point.count, {*point.bucket_counts}) == (0, {0})
