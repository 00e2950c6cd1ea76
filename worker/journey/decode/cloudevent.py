"""A command that is a whole CloudEvent (structured mode, CONTRACT, Command)."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from effective_contract import headers as h
from effective_contract.methods import Methods
from worker.journey.decode.body import parse
from worker.journey.decode.headers import Headers, read_headers
from worker.journey.model import Refused
from worker.journey.refusals import invalid, kind_of, malformed
from worker.kafka.delivery import Delivery

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "specversion": h.CE_SPEC_VERSION,
    "id": h.CE_ID,
    "source": h.CE_SOURCE,
    "type": h.CE_TYPE,
    "time": h.CE_TIME,
    "subject": h.CE_SUBJECT,
    "datacontenttype": h.CONTENT_TYPE,
    "traceparent": h.TRACEPARENT,
    "tracestate": h.TRACESTATE,
}
"""The attributes that the worker reads, and their headers in binary mode."""
_TRACE: Final = frozenset((h.TRACEPARENT, h.TRACESTATE))


def read_event(
    delivery: Delivery, read: Headers, max_bytes: int, methods: Methods
) -> tuple[Headers, dict[str, Any] | Refused]:
    """Read a CloudEvent in structured mode: its attributes count as the headers of their names, its data as the body.

    By the rules of CloudEvents, headers of the same names are copies of the attributes, so they are ignored. Only the
    message's own trace, if it has one, comes first: it is nearer than the trace that the event was made in.
    """
    event = parse(delivery.value, max_bytes)
    if isinstance(event, Refused):
        return read, event
    traced = any(name == h.TRACEPARENT and value for name, value in delivery.headers)
    names = {attribute: name for attribute, name in _ATTRIBUTES.items() if not (traced and name in _TRACE)}
    given = {attribute: event[attribute] for attribute in names if event.get(attribute) not in (None, "")}
    headers = [header for header in delivery.headers if header[0] not in names.values()]
    headers += [(names[attribute], text.encode()) for attribute, text in given.items() if type(text) is str]
    read = read_headers(headers, methods)
    wrong = next((attribute for attribute, value in given.items() if type(value) is not str), None)
    if wrong is not None:
        fault = invalid(f"the attribute {wrong} must be a string, not {kind_of(given[wrong])}")
        read = replace(read, fault=fault)
    return read, _data(event, max_bytes)


def _data(event: Mapping[str, Any], max_bytes: int) -> dict[str, Any] | Refused:
    data, encoded = event.get("data"), event.get("data_base64")
    if encoded is None:
        return data if type(data) is dict else malformed(f"data must be an object, not {kind_of(data)}")
    if data is not None:
        return malformed("data and data_base64 are both given")
    if type(encoded) is not str:
        return malformed(f"data_base64 must be a string, not {kind_of(encoded)}")
    try:
        return parse(b64decode(encoded, validate=True), max_bytes)
    except ValueError:
        return malformed("data_base64 is not base64")
