"""Read a command as a worker does: the request, or its first fault, and what the answer needs either way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effective_contract import headers as h
from effective_contract.command import asked_fields
from effective_contract.methods import METHODS
from effective_contract.rules.body import fault_of, parse, request_id_of
from effective_contract.rules.cloudevent import data_of, headers_of
from effective_contract.rules.faults import Fault
from effective_contract.rules.headers import CORRELATIONS, REPLIES, Header, first_fault, read_headers, structured_mode

MAX_BYTES = 65_536
"""The most bytes of a command, by default (CONTRACT, Command)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it came. ``fault`` is the first thing wrong with it by itself."""

    fault: Fault | None
    body: Mapping[str, Any] = field(repr=False)
    """Its members, if there is no fault."""
    texts: Mapping[str, str]
    """Its valid headers."""
    correlation: tuple[Header, ...]
    reply_topic: str | None
    request_id: str | None

    @property
    def dry_run(self) -> bool:
        return self.texts.get(h.DRY_RUN) == h.TRUE

    @property
    def name(self) -> tuple[str, str]:
        """The kind and the text by which it names an access token: its code, or its identifier."""
        named = self.body["access_token_identifier"]
        code = named.get("authentication_code")
        return ("code", code) if code else ("identifier", named["identifier"])

    @property
    def fields(self) -> int:
        return asked_fields(self.body.get("fields_set") or "")


def read(value: bytes | None, headers: Sequence[Header]) -> Request:
    """Read a record. Nothing that a sender wrote makes it raise."""
    given, right, wrong = read_headers(headers, METHODS.of_type)
    mode, fault = structured_mode(given, wrong), first_fault(given, wrong)
    body: dict[str, Any] | Fault = mode if isinstance(mode, Fault) else parse(value, MAX_BYTES)
    if mode is True and not isinstance(body, Fault):
        written, wrong_attribute = headers_of(body, headers)
        given, right, wrong = read_headers(written, METHODS.of_type)
        fault, body = wrong_attribute or first_fault(given, wrong), data_of(body, MAX_BYTES)
    if isinstance(body, Fault):
        fault, body = body, {}
    else:
        fault = fault_of(body) or fault
    texts = {name: text for name, text in right.items() if name not in wrong}
    named = texts.get(h.REPLY_TO) or texts.get(h.KAFKA_REPLY_TOPIC)
    return Request(
        fault=fault,
        body=body,
        texts=texts,
        correlation=tuple((name, given[name]) for name in CORRELATIONS if name in given and name not in wrong),
        reply_topic=named if REPLIES.isdisjoint(wrong) else None,
        request_id=request_id_of(body),
    )
