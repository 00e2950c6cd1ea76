"""A real worker sends its metrics and its spans by OTLP to a collector of the test's own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.clients import Outgoing
from tests.acceptance.scene import Scene, body
from tests.acceptance.worker_process import WorkerProcess

pytestmark = pytest.mark.real_kafka

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collected:
    """The metrics and spans that were exported so far."""

    def __init__(self) -> None:
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.traces: list[ExportTraceServiceRequest] = []

    def last(self, name: str) -> Any:
        """Return the last export of a metric, ``None`` before the first one."""
        found = [
            metric
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return found[-1] if found else None

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collector() -> Iterator[tuple[str, Collected]]:
    """Yield the address of a collector on a free port, and what it collects."""
    collected = Collected()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/metrics":
                collected.metrics.append(ExportMetricsServiceRequest.FromString(said))
            else:
                collected.traces.append(ExportTraceServiceRequest.FromString(said))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the parameter's name in the base class
            """Say nothing: the test's own output is enough."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", collected
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_metrics_and_spans_come_to_the_collector_the_last_of_them_at_the_end(scene: Scene) -> None:
    traceparent = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
    [code] = scene.new_tokens(1)
    with collector() as (address, collected):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_METRIC_EXPORT_INTERVAL": "600000"}
        with WorkerProcess(scene.settings | environment, scene.directory) as worker:
            worker.wait(lambda: collected.last("effective_worker_build_info"), "has sent its first metrics")
            scene.send(Outgoing(body(code), b"a", [traceparent], 0), body("unknown"))
            scene.results(2)
            assert worker.terminate() == 0

    points = collected.last("effective_worker_answers_total").sum.data_points
    answers = {point.attributes[0].value.string_value: point.as_double for point in points if point.as_double}
    assert answers == {"OK": 1.0, "ACCESS_TOKEN_NOT_FOUND": 1.0}
    [took] = collected.last("effective_worker_answer_seconds").histogram.data_points
    assert took.count == 2
    assert [exemplar.trace_id.hex() for exemplar in took.exemplars] == [TRACE]
    assert TRACE in {span.trace_id.hex() for span in collected.spans()}
