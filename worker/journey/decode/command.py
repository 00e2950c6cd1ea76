"""Decode a record into its command, or into a refusal. No command that passes makes its batch's statements fail."""

from typing import Any

from msgspec.structs import replace

from effective_contract.methods import METHODS, Methods
from effective_contract.rules.body import request_id_of
from effective_contract.rules.faults import malformed
from worker.journey.decode.body import judge, kept, parse, right_body
from worker.journey.decode.cloudevent import read_event
from worker.journey.decode.headers import read_headers
from worker.journey.model import Command, Decoded, Refused
from worker.journey.refusals import refused
from worker.kafka.delivery import Delivery


def decode(delivery: Delivery, *, max_bytes: int, methods: Methods = METHODS) -> Decoded:
    """Decode a record: its command or its first fault (CONTRACT, Statuses), and what the answer needs either way.

    Nothing that a sender wrote makes it raise. The answer to a refused command still carries every valid header.
    """
    read = read_headers(delivery.headers, methods)
    request: Command | Refused
    delivery = kept(delivery, max_bytes)
    if delivery.cut is not None:
        return Decoded(delivery, read.envelope, refused(malformed(delivery.cut.reason)))
    right = right_body(delivery.value, max_bytes) if read.structured is False else None
    if right is not None:
        request, request_id = right
    else:
        body: dict[str, Any] | Refused
        if isinstance(read.structured, Refused):
            body = read.structured
        elif read.structured:
            read, body = read_event(delivery, read, max_bytes, methods)
        else:
            body = parse(delivery.value, max_bytes)
        if isinstance(body, Refused):
            return Decoded(delivery, read.envelope, body)
        request, request_id = judge(body), request_id_of(body)
    envelope = read.envelope if request_id is None else replace(read.envelope, request_id=request_id)
    if read.fault is not None and isinstance(request, Command):
        request = read.fault
    return Decoded(delivery, envelope, request)


def read_command(value: bytes, *, max_bytes: int) -> Command | Refused:
    """Decode the value of a record as ``decode`` does if the headers have no fault."""
    right = right_body(value, max_bytes)
    if right is not None:
        return right[0]
    body = parse(value, max_bytes)
    return body if isinstance(body, Refused) else judge(body)
