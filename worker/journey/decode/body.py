"""The body of a command: a fast path for valid bodies, and a slow one that reports the fault.

See CONTRACT, Command and Result.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from effective_contract.access_token import UnknownField
from effective_contract.command import LONGEST_FIELDS_SET, LONGEST_NAME, LONGEST_TOKEN, asked_fields
from effective_contract.rules import body as rules
from effective_contract.rules.faults import Fault
from worker.journey.model import Command, Refused
from worker.journey.refusals import refused
from worker.kafka.delivery import KEPT_BYTES, Cut, Delivery

_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]


class _RightIdentifier(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    authentication_code: _Name | None = None
    identifier: _Name | None = None
    pass_code: _Name | None = None


class _RightBody(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The shape of a valid body. Any other body goes to the slow parser, which reports the fault."""

    token: Annotated[str, msgspec.Meta(max_length=LONGEST_TOKEN)]
    access_token_identifier: _RightIdentifier
    fields_set: Annotated[str, msgspec.Meta(max_length=LONGEST_FIELDS_SET)] | None = None
    request_unique_identifier: _Name | None = None


_BACKSLASH: Final = ord("\\")
_QUOTE: Final = ord('"')
_ALL_QUOTES: Final = 4 * 6 + 2
"""The quotes of a body with every member: four for each of six texts, and two for the object's name."""
_IN_QUOTES: Final = tuple(b'"%b"' % name.encode() for name in sorted(rules.BODY_MEMBERS | rules.IDENTIFIER_MEMBERS))
_read_right: Final = msgspec.json.Decoder(_RightBody).decode


def right_body(value: bytes | None, max_bytes: int) -> tuple[Command, str | None] | None:
    """Return the command and the sender's id for it; None if anything may be wrong with the body.

    This takes a third of the time of the slow parser, which then reports the fault, if there is one.
    """
    # An escape may hide a character that no text here may hold. Searching for one byte takes a tenth of the time of
    # two.
    if value is None or len(value) > max_bytes or (_BACKSLASH in value and b"\\u" in value):
        return None
    try:
        body = _read_right(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    named = body.access_token_identifier
    if (
        value.count(_QUOTE) != _quotes(body)
        and any(value.count(name) > 1 for name in _IN_QUOTES)
        and rules.given_twice(value)
    ):
        return None
    code, identifier, pass_code = named.authentication_code or None, named.identifier or None, named.pass_code or None
    if not body.token or (code is None) == (identifier is None) or (code is None and pass_code is None):
        return None
    try:
        fields = asked_fields(body.fields_set or "")
    except UnknownField:
        return None
    command = Command(body.token, code, identifier, None if identifier is None else pass_code, fields)
    return command, body.request_unique_identifier or None


def _quotes(body: _RightBody) -> int:
    """Count the quotes of a body that gives each member once, none as ``null``, and has no quote in a text."""
    named = body.access_token_identifier
    code, identifier, pass_code = named.authentication_code, named.identifier, named.pass_code
    left_out = (body.fields_set, body.request_unique_identifier, code, identifier, pass_code).count(None)
    return _ALL_QUOTES - 4 * left_out


def kept(delivery: Delivery, max_bytes: int) -> Delivery:
    """Return the delivery with a value that is too large cut. An even larger one was cut when it was read."""
    value, cut = delivery.value, delivery.cut
    if cut is not None:
        is_too_large = cut.value_bytes is not None and cut.value_bytes > max_bytes
        return replace(delivery, cut=replace(cut, reason=rules.too_large(max_bytes))) if is_too_large else delivery
    if value is None or len(value) <= max(max_bytes, KEPT_BYTES):
        return delivery
    kept, cut = shortened(value, rules.too_large(max_bytes))
    return replace(delivery, value=kept, cut=cut)


def shortened(value: bytes, reason: str) -> tuple[bytes, Cut]:
    """Return the beginning of a value that is not kept whole, with the size and hash of the whole."""
    return value[:KEPT_BYTES], Cut(reason, len(value), hashlib.sha256(value).digest())


def parse(value: bytes | None, max_bytes: int) -> dict[str, Any] | Refused:
    """Parse a body that should be a JSON object."""
    body = rules.parse(value, max_bytes)
    return refused(body) if isinstance(body, Fault) else body


def judge(body: Mapping[str, Any]) -> Command | Refused:
    """Make a command of a parsed body, or refuse it for its first fault in the order of CONTRACT, Result."""
    fault = rules.fault_of(body)
    if fault is not None:
        return refused(fault)
    named = body["access_token_identifier"]
    code, identifier = named.get("authentication_code") or None, named.get("identifier") or None
    pass_code = None if identifier is None else named.get("pass_code")
    return Command(body["token"], code, identifier, pass_code, asked_fields(body.get("fields_set") or ""))
