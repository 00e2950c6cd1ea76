"""Traces: a sender's trace goes on into its answer (W3C Trace Context), and every batch is a span of its own.

Where spans are exported, each command is also a span in its sender's trace: the one that its answer names as parent. It
links to the batch that decided it, and so to the Postgres transaction.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from worker.observability.otlp import sends

MOST_LINKS: Final = 100
"""The most links of one span: as many as most collectors keep."""

_TRACER: Final = trace.get_tracer("effective-worker")

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def continued(traceparent: str | None, seed: bytes) -> str | None:
    """Return the ``traceparent`` of an answer: the sender's trace and flags, and a span of the worker's own.

    The span id follows from ``seed`` alone, so that an answer written again has the same one. ``None`` for ``None`` and
    for an invalid trace context.
    """
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if parts is None:
        return None
    version, trace, parent, flags, more = parts.groups()
    nothing = set(trace) == {"0"} or set(parent) == {"0"}
    # Only a later version may have more than these four parts, and "ff" is no version.
    if nothing or version == "ff" or (version == "00" and more is not None):
        return None
    return f"00-{trace}-{_span(seed)}-{flags}"


def sampled_trace(traceparent: str | None) -> tuple[str, str] | None:
    """Return the ids of the sender's trace and span if the sender says that they are kept, else ``None``."""
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    return (parts[2], parts[3]) if parts is not None and int(parts[4], 16) & TraceFlags.SAMPLED else None


def _span(seed: bytes) -> str:
    span = hashlib.sha256(seed).digest()[:8]
    return (span if any(span) else b"\x01" * 8).hex()


# --- our own spans ----------------------------------------------------------------------------------------------------


def configure_tracing() -> None:
    """Send spans by OTLP, if the extra ``otel`` is installed and ``OTEL_EXPORTER_OTLP_ENDPOINT`` names the endpoint.

    The other variables of the OpenTelemetry specification hold as well. Otherwise spans cost nothing and go nowhere.
    """
    if sends("traces", os.environ):
        trace.set_tracer_provider(_exporting())


def _exporting() -> trace.TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

    resource = Resource.create({"service.name": "effective-worker"})
    provider = TracerProvider(resource=resource, id_generator=id_generator())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


_chosen: ContextVar[int | None] = ContextVar("_chosen", default=None)


def id_generator() -> Any:
    """Return the SDK's id generator, but for the span of a command: its answer has the id already (``continued``)."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - an extra

    class ChosenIds(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return _chosen.get() or super().generate_span_id()

    return ChosenIds()


@contextmanager
def batch_span(topic: str, partition: int, group: str, commands: int) -> Iterator[Span]:
    """Open the span of a batch. An exception marks it as failed and is not recorded: its text may quote a row."""
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.consumer.group.name": group,
        "messaging.batch.message_count": commands,
    }
    with _TRACER.start_as_current_span(
        "process set effective",
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException:
            span.set_status(StatusCode.ERROR)
            raise


@contextmanager
def step_span(name: str, attributes: Mapping[str, str] | None = None) -> Iterator[None]:
    """Open the span of a part of the current batch."""
    with _TRACER.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ):
        yield


@contextmanager
def transaction_span() -> Iterator[None]:
    """Open the span of the batch's Postgres transaction."""
    with step_span("postgres transaction", {"db.system.name": "postgresql", "db.operation.name": "COMMIT"}):
        yield


def exported(span: Span) -> bool:
    """True if spans are exported. Otherwise nothing must be done for them."""
    return span.get_span_context().is_valid


def command_span(
    batch: Span, name: str, traceparent: str, seed: bytes, *, began: float, attributes: Mapping[str, str]
) -> None:
    """Export the span of one answered command, in its sender's trace; ``seed`` as for its answer.

    It lasted from ``began``, in seconds since the epoch, until now. If the sender's trace is not sampled, nor is this
    span.
    """
    sender, own = _context(traceparent), continued(traceparent, seed)
    if sender is None or own is None:
        return
    chosen = _chosen.set(int(own.split("-")[2], 16))
    try:
        span = _TRACER.start_span(
            name,
            trace.set_span_in_context(NonRecordingSpan(sender)),
            kind=SpanKind.CONSUMER,
            attributes={"messaging.system": "kafka", "messaging.operation.name": "process", **attributes},
            links=[Link(batch.get_span_context())],
            start_time=int(began * 1e9),
        )
    finally:
        _chosen.reset(chosen)
    span.end()


def _context(traceparent: str) -> SpanContext | None:
    parts = _TRACEPARENT.fullmatch(traceparent)
    if parts is None:
        return None
    _, trace_id, parent, flags, _ = parts.groups()
    return SpanContext(int(trace_id, 16), int(parent, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def link(span: Span, traceparents: Iterable[str | None]) -> None:
    """Link a batch to the traces of its senders, as many as a span can hold."""
    if not span.is_recording():
        return
    given = [traceparent for traceparent in traceparents if traceparent is not None]
    for traceparent in given[:MOST_LINKS]:
        sender = _context(traceparent)
        if sender is not None:
            span.add_link(sender)
