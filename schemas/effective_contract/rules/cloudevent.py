"""A command that is a whole CloudEvent (structured mode, CONTRACT, Command)."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from effective_contract import headers as h
from effective_contract.rules.body import parse
from effective_contract.rules.faults import Fault, invalid, kind_of, malformed
from effective_contract.rules.headers import Header

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
"""The attributes that are read, and their headers in binary mode."""
_TRACE: Final = frozenset((h.TRACEPARENT, h.TRACESTATE))


def headers_of(event: Mapping[str, Any], headers: Iterable[Header]) -> tuple[list[Header], Fault | None]:
    """Return the headers that the attributes of an event count as, beside the message's own, and the first fault.

    By the rules of CloudEvents, headers of the same names are copies of the attributes, so they are ignored. Only the
    message's own trace, if it has one, comes first: it is nearer than the trace that the event was made in.
    """
    own = list(headers)
    traced = any(name == h.TRACEPARENT and value for name, value in own)
    names = {attribute: name for attribute, name in _ATTRIBUTES.items() if not (traced and name in _TRACE)}
    given = {attribute: event[attribute] for attribute in names if event.get(attribute) not in (None, "")}
    read = [header for header in own if header[0] not in names.values()]
    read += [(names[attribute], text.encode()) for attribute, text in given.items() if type(text) is str]
    wrong = next((attribute for attribute, value in given.items() if type(value) is not str), None)
    if wrong is None:
        return read, None
    return read, invalid(f"the attribute {wrong} must be a string, not {kind_of(given[wrong])}", wrong)


def data_of(event: Mapping[str, Any], max_bytes: int) -> dict[str, Any] | Fault:
    """Return the data of an event: the body of its command."""
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
