"""The trace of a sender continues in its answer, and a batch is a span."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from worker.observability.tracing import (
    MOST_LINKS,
    batch_span,
    command_span,
    continued,
    exported,
    id_generator,
    link,
    step_span,
    transaction_span,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_an_answer_keeps_trace_and_flags_and_gets_a_span_of_its_own() -> None:
    answer = continued(SENT, b"command 1")
    assert answer is not None
    version, trace_id, span, flags = answer.split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert span != "00f067aa0ba902b7"
    assert int(span, 16)


def test_the_same_seed_gives_the_same_span_and_another_seed_another() -> None:
    assert continued(SENT, b"1") == continued(SENT, b"1") != continued(SENT, b"2")


def test_no_trace_stays_none() -> None:
    assert continued(None, b"1") is None


def test_a_later_version_may_say_more_than_we_know() -> None:
    assert continued(f"cc-{TRACE}-00f067aa0ba902b7-01-more", b"1") is not None


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        SENT.upper(),
        f"{SENT}-more",
        f"{SENT}\n",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_context_is_not_continued(traceparent: str) -> None:
    assert continued(traceparent, b"1") is None


def test_without_an_exporter_there_is_nobody_to_see_a_span() -> None:
    assert not exported(trace.NoOpTracerProvider().get_tracer("none").start_span("none"))


# --- spans ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    """Return the spans that the SDK exports.

    A provider can be set once per process, so all tests of this module share it.
    """
    exporter = InMemorySpanExporter()
    provider = TracerProvider(id_generator=id_generator())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_a_batch_is_a_span_linked_to_its_senders_traces(spans: InMemorySpanExporter) -> None:
    spans.clear()
    with batch_span("commands", 3, "group", 2) as span:
        with step_span("decide"):
            pass
        link(span, [f"00-{'a' * 32}-{'b' * 16}-01", None, "no trace"])
    step, batch = spans.get_finished_spans()
    assert (step.name, step.parent and step.parent.span_id) == ("decide", batch.context.span_id)
    assert batch.attributes is not None
    assert batch.attributes["messaging.batch.message_count"] == 2
    assert [f"{each.context.trace_id:x}" for each in batch.links] == ["a" * 32]


def test_a_failed_batch_is_marked_without_quoting_the_failure(spans: InMemorySpanExporter) -> None:
    spans.clear()
    with pytest.raises(ValueError, match="canary"), batch_span("commands", 0, "group", 1), step_span("decide"):
        raise ValueError("canary")
    for span in spans.get_finished_spans():
        assert "canary" not in span.to_json()
    assert spans.get_finished_spans()[-1].status.status_code is StatusCode.ERROR


def test_a_span_holds_no_more_links_than_collectors_keep(spans: InMemorySpanExporter) -> None:
    spans.clear()
    with batch_span("commands", 0, "group", 500) as span:
        link(span, [f"00-{'a' * 32}-{'b' * 16}-01"] * 500)
    assert len(spans.get_finished_spans()[-1].links) == MOST_LINKS


def test_a_command_can_be_followed_from_its_sender_through_postgres_to_the_reader(spans: InMemorySpanExporter) -> None:
    spans.clear()
    with batch_span("commands", 0, "group", 1) as batch, step_span("decide"), transaction_span():
        pass
    assert exported(batch)
    command_span(batch, "set effective", SENT, b"command 1", began=1.0, attributes={"status_code": "OK"})

    by_name = {span.name: span for span in spans.get_finished_spans()}
    command, postgres = by_name["set effective"], by_name["postgres transaction"]
    assert command.parent is not None
    assert (f"{command.context.trace_id:x}", f"{command.parent.span_id:016x}") == (TRACE, "00f067aa0ba902b7")
    # The answer names this very span as the parent of the reader's.
    assert continued(SENT, b"command 1") == f"00-{TRACE}-{command.context.span_id:016x}-01"
    assert [each.context.span_id for each in command.links] == [batch.get_span_context().span_id]
    assert postgres.context.trace_id == batch.get_span_context().trace_id
    assert postgres.attributes is not None
    assert postgres.attributes["db.system.name"] == "postgresql"
    assert command.start_time == 1_000_000_000


def test_the_next_span_has_an_id_of_its_own_again(spans: InMemorySpanExporter) -> None:
    spans.clear()
    with batch_span("commands", 0, "group", 1) as batch:
        command_span(batch, "set effective", SENT, b"command 1", began=1.0, attributes={})
        with step_span("publish"):
            pass

    assert len({span.context.span_id for span in spans.get_finished_spans()}) == 3


@pytest.mark.parametrize("traceparent", [SENT.removesuffix("1") + "0", "no trace"])
def test_a_command_whose_trace_is_not_sampled_has_no_span(spans: InMemorySpanExporter, traceparent: str) -> None:
    spans.clear()
    with batch_span("commands", 0, "group", 1) as batch:
        command_span(batch, "set effective", traceparent, b"command 1", began=1.0, attributes={})

    assert [span.name for span in spans.get_finished_spans()] == ["process set effective"]
