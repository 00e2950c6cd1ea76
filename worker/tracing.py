"""Carry a sender's trace on into the answer (W3C Trace Context)."""

import hashlib
import re
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def continued(traceparent: str | None, seed: bytes) -> str | None:
    """The ``traceparent`` of an answer: the sender's trace and flags, and a span of our own.

    The span id follows from ``seed`` alone, so that an answer written again carries the same one. ``None`` for ``None``
    and for what is no trace context.
    """
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if parts is None:
        return None
    version, trace, parent, flags, more = parts.groups()
    nothing = set(trace) == {"0"} or set(parent) == {"0"}
    # Only a later version may say more than these four parts, and "ff" is no version.
    if nothing or version == "ff" or (version == "00" and more is not None):
        return None
    return f"00-{trace}-{_span(seed)}-{flags}"


def _span(seed: bytes) -> str:
    span = hashlib.sha256(seed).digest()[:8]
    return (span if any(span) else b"\x01" * 8).hex()
