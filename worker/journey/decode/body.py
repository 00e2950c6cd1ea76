"""The body of a command: a fast path for valid bodies, and a slow one that reports the fault.

See CONTRACT, Command and Result.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec.structs import replace

from effective_contract import headers as h
from effective_contract.access_token import UnknownField
from effective_contract.command import LONGEST_FIELDS_SET, LONGEST_NAME, LONGEST_TOKEN, asked_fields
from worker.journey.model import Command, Refused
from worker.journey.refusals import invalid, kind_of, malformed, missing, quoted, text_fault
from worker.kafka.delivery import KEPT_BYTES, Cut, Delivery

_UNSAID_EVENT: Final = f": a whole CloudEvent needs the header {h.CONTENT_TYPE}: {h.STRUCTURED_CONTENT}"

_BODY: Final = {
    "token": LONGEST_TOKEN,
    "fields_set": LONGEST_FIELDS_SET,
    "request_unique_identifier": LONGEST_NAME,
}
_IDENTIFIER: Final = {
    "authentication_code": LONGEST_NAME,
    "identifier": LONGEST_NAME,
    "pass_code": LONGEST_NAME,
}
_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
_BODY_MEMBERS: Final = frozenset((*_BODY, "access_token_identifier"))
_IDENTIFIER_MEMBERS: Final = frozenset(_IDENTIFIER)


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
_IN_QUOTES: Final = tuple(b'"%b"' % name.encode() for name in sorted(_BODY_MEMBERS | _IDENTIFIER_MEMBERS))
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
        and _given_twice(value)
    ):
        return None
    code, identifier, pass_code = named.authentication_code or None, named.identifier or None, named.pass_code or None
    if not body.token or (code is None) == (identifier is None) or (code is None and pass_code is None):
        return None
    fields = _fields(body.fields_set or "")
    if isinstance(fields, Refused):
        return None
    command = Command(body.token, code, identifier, None if identifier is None else pass_code, fields)
    return command, body.request_unique_identifier or None


def _quotes(body: _RightBody) -> int:
    """Count the quotes of a body that gives each member once, none as ``null``, and has no quote in a text."""
    named = body.access_token_identifier
    code, identifier, pass_code = named.authentication_code, named.identifier, named.pass_code
    left_out = (body.fields_set, body.request_unique_identifier, code, identifier, pass_code).count(None)
    return _ALL_QUOTES - 4 * left_out


def _given_twice(value: bytes) -> str | None:
    """Return the first member that an object gives more than once: readers differ on what it means (RFC 8259, 4)."""
    twice: list[str] = []

    def once(members: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in members)
        twice.extend(name for name, count in names.items() if count > 1)

    # Numbers stay as written: one with too many digits would be an error.
    with suppress(RecursionError):  # no command nests so deep; it is refused for what it is
        json.loads(value, object_pairs_hook=once, parse_int=str, parse_float=str)
    return twice[0] if twice else None


def kept(delivery: Delivery, max_bytes: int) -> Delivery:
    """Return the delivery with a value that is too large cut. An even larger one was cut when it was read."""
    value, cut = delivery.value, delivery.cut
    if cut is not None:
        is_too_large = cut.value_bytes is not None and cut.value_bytes > max_bytes
        return replace(delivery, cut=replace(cut, reason=too_large(max_bytes))) if is_too_large else delivery
    if value is None or len(value) <= max(max_bytes, KEPT_BYTES):
        return delivery
    kept, cut = shortened(value, too_large(max_bytes))
    return replace(delivery, value=kept, cut=cut)


def shortened(value: bytes, reason: str) -> tuple[bytes, Cut]:
    """Return the beginning of a value that is not kept whole, with the size and hash of the whole."""
    return value[:KEPT_BYTES], Cut(reason, len(value), hashlib.sha256(value).digest())


def too_large(max_bytes: int) -> str:
    """Return the fault of a command that has too many bytes."""
    return f"the command is larger than {max_bytes} bytes"


def parse(value: bytes | None, max_bytes: int) -> dict[str, Any] | Refused:
    """Parse a body that should be a JSON object."""
    if value is None:
        return malformed("the command has no value")
    if len(value) > max_bytes:
        return malformed(too_large(max_bytes))
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return malformed(f"the command is not JSON in UTF-8 (line {error.lineno}, column {error.colno})")
    if type(body) is not dict:
        return malformed(f"the command must be an object, not {kind_of(body)}")
    twice = _given_twice(value)
    return body if twice is None else malformed(f'the member "{quoted(twice)}" is given more than once')


def judge(body: dict[str, Any]) -> Command | Refused:
    """Make a command of a parsed body, or refuse it for its first fault in the order of CONTRACT, Result."""
    wrong = _wrong_type(body)
    if wrong is not None:
        return wrong
    login_token = body.get("token")
    if not login_token:
        return missing("token", _UNSAID_EVENT if "specversion" in body else "")
    named = body.get("access_token_identifier")
    if named is None or named == "":
        return missing("access_token_identifier")
    code, identifier = named.get("authentication_code") or None, named.get("identifier") or None
    if (code is None) == (identifier is None):
        how = "not both" if code is not None else "none was"
        return invalid(
            f"exactly one of authentication_code and identifier must be given in access_token_identifier, {how}"
        )
    pass_code = named.get("pass_code") or None
    if identifier is not None and pass_code is None:
        return missing("access_token_identifier.pass_code")
    wrong = _wrong_members(body, named)
    if wrong is not None:
        return wrong
    fields = _fields(body.get("fields_set") or "")
    if isinstance(fields, Refused):
        return fields
    return Command(login_token, code, identifier, None if identifier is None else pass_code, fields)


def _wrong_type(body: dict[str, Any]) -> Refused | None:
    for name in _BODY:
        value = body.get(name)
        if value is not None and type(value) is not str:
            return malformed(f"{name} must be a string, not {kind_of(value)}")
    named = body.get("access_token_identifier")
    if named is None or named == "":
        return None
    if type(named) is not dict:
        return malformed(f"access_token_identifier must be an object, not {kind_of(named)}")
    for name in _IDENTIFIER:
        value = named.get(name)
        if value is not None and type(value) is not str:
            return malformed(f"access_token_identifier.{name} must be a string, not {kind_of(value)}")
    return None


def _wrong_members(body: dict[str, Any], named: dict[str, Any]) -> Refused | None:
    if not body.keys() <= _BODY_MEMBERS:
        return invalid(f'unknown member "{_first_unknown(body, _BODY_MEMBERS)}"')
    if not named.keys() <= _IDENTIFIER_MEMBERS:
        return invalid(f'unknown member "{_first_unknown(named, _IDENTIFIER_MEMBERS)}" in access_token_identifier')
    fault = _first_text_fault(body, _BODY)
    if fault is not None:
        return invalid(fault)
    fault = _first_text_fault(named, _IDENTIFIER)
    return None if fault is None else invalid(f"access_token_identifier.{fault}")


def _first_text_fault(members: dict[str, Any], longest: Mapping[str, int]) -> str | None:
    for name, most in longest.items():
        text = members.get(name)
        if text is not None:
            fault = text_fault(text, most)
            if fault is not None:
                return f"{name} {fault}"
    return None


def _first_unknown(members: dict[str, Any], known: frozenset[str]) -> str:
    return quoted(next(name for name in members if name not in known))


def _fields(fields_set: str) -> int | Refused:
    try:
        return asked_fields(fields_set)
    except UnknownField as unknown:
        if not unknown.name:
            return invalid("fields_set holds an empty name")
        hint = ": it takes top-level fields only" if "." in unknown.name else ""
        return invalid(f'fields_set holds the unknown name "{quoted(unknown.name)}"{hint}')


def request_id_of(body: dict[str, Any]) -> str | None:
    """Return the sender's own id for the command, if it gave a valid one."""
    value = body.get("request_unique_identifier")
    return value if type(value) is str and value and text_fault(value, LONGEST_NAME) is None else None
