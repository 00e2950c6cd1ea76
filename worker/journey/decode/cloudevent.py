"""A command that is a whole CloudEvent (structured mode, CONTRACT, Command)."""

from typing import Any

from msgspec.structs import replace

from effective_contract.methods import Methods
from effective_contract.rules.cloudevent import data_of, headers_of
from effective_contract.rules.faults import Fault
from worker.journey.decode.body import parse
from worker.journey.decode.headers import Headers, read_headers
from worker.journey.model import Refused
from worker.journey.refusals import refused
from worker.kafka.delivery import Delivery


def read_event(
    delivery: Delivery, read: Headers, max_bytes: int, methods: Methods
) -> tuple[Headers, dict[str, Any] | Refused]:
    """Read a CloudEvent in structured mode: its attributes count as the headers of their names, its data as the body.

    ``read`` are the message's own headers, which are returned if there is no event.
    """
    event = parse(delivery.value, max_bytes)
    if isinstance(event, Refused):
        return read, event
    headers, fault = headers_of(event, delivery.headers)
    read = read_headers(headers, methods)
    if fault is not None:
        read = replace(read, fault=refused(fault))
    data = data_of(event, max_bytes)
    return read, refused(data) if isinstance(data, Fault) else data
