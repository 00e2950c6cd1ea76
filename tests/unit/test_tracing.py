"""The trace of a sender goes on into its answer."""

import pytest

from worker.tracing import continued

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_an_answer_keeps_trace_and_flags_and_gets_a_span_of_its_own() -> None:
    answer = continued(SENT, b"command 1")
    assert answer is not None
    version, trace, span, flags = answer.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
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
