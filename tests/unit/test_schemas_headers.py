"""Header values: times, traces and content types."""

from typing import Any

import pytest
from pydantic import ValidationError

from effective_contract.headers import CommandHeaders, is_json_content, is_time, is_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01t00:00:00z",
        "2026-12-31T23:59:60Z",
        "2024-02-29T12:00:00.000000000001+14:00",
        "2026-01-01T00:00:00-00:00",
    ],
)
def test_a_time_of_rfc_3339_is_a_time(text: str) -> None:
    assert is_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00Z\n",
        "2023-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "٢٠٢٦-01-01T00:00:00Z",
        "20260101T000000Z",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    assert not is_time(text)


@pytest.mark.parametrize(
    "text",
    [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-ff", f"cc-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-and-more"],
)
def test_a_trace_of_this_version_or_a_later_one_is_continued(text: str) -> None:
    assert is_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"01-{TRACE}-{'0' * 16}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01-{'x' * 255}",
    ],
)
def test_anything_else_is_no_trace(text: str) -> None:
    assert not is_traceparent(text)


@pytest.mark.parametrize(
    "text",
    ["application/json", "APPLICATION/JSON", "application/json;charset=utf-8", 'application/json ; charset="UTF-8"'],
)
def test_json_in_utf_8_is_taken(text: str) -> None:
    assert is_json_content(text)


@pytest.mark.parametrize(
    "text", ["", "text/json", "application/json; charset=utf-16", "application/json; v=1", "application/jsonx", "*/*"]
)
def test_any_other_content_is_not(text: str) -> None:
    assert not is_json_content(text)


def test_the_headers_of_a_command_are_all_optional_and_unknown_ones_ignored() -> None:
    assert CommandHeaders.model_validate({}) == CommandHeaders.model_validate({"x-request": "1"})


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_id": "1"},
        {"ce_specversion": "0.3"},
        {"ce_type": "something.else"},
        {"ce_time": "now"},
        {"content-type": "text/xml"},
        {"correlation_id": b"c" * 1025},
        {"kafka_correlationId": b"c" * 1025},
        {"traceparent": "none"},
        {"ce_subject": "\0"},
    ],
)
def test_a_wrong_header_of_a_command_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CommandHeaders.model_validate(headers)
