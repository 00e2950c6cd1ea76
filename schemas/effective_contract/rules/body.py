"""The body of a command: parsed, and judged for its first fault (CONTRACT, Command and Statuses)."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from effective_contract import headers as h
from effective_contract.access_token import UnknownField
from effective_contract.command import LONGEST_FIELDS_SET, LONGEST_NAME, LONGEST_TOKEN, asked_fields
from effective_contract.rules.faults import Fault, invalid, kind_of, malformed, missing, quoted, text_fault

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
_NAMED: Final = "access_token_identifier"
BODY_MEMBERS: Final = frozenset((*_BODY, _NAMED))
IDENTIFIER_MEMBERS: Final = frozenset(_IDENTIFIER)


def too_large(max_bytes: int) -> str:
    """Return the fault of a command that has too many bytes."""
    return f"the command is larger than {max_bytes} bytes"


def parse(value: bytes | None, max_bytes: int) -> dict[str, Any] | Fault:
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
    twice = given_twice(value)
    return body if twice is None else malformed(f'the member "{quoted(twice)}" is given more than once')


def given_twice(value: bytes) -> str | None:
    """Return the first member that an object gives more than once: readers differ on what it means (RFC 8259, 4)."""
    twice: list[str] = []

    def once(members: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in members)
        twice.extend(name for name, count in names.items() if count > 1)

    # Numbers stay as written: one with too many digits would be an error.
    with suppress(RecursionError):  # no command nests so deep; it is refused for what it is
        json.loads(value, object_pairs_hook=once, parse_int=str, parse_float=str)
    return twice[0] if twice else None


def fault_of(body: Mapping[str, Any]) -> Fault | None:
    """Return the first fault of a parsed body in the order of CONTRACT, Statuses, or None if it has none."""
    wrong = _wrong_type(body)
    if wrong is not None:
        return wrong
    if not body.get("token"):
        return missing("token", _UNSAID_EVENT if "specversion" in body else "")
    named = body.get(_NAMED)
    if named is None or named == "":
        return missing(_NAMED)
    has_code, has_identifier = bool(named.get("authentication_code")), bool(named.get("identifier"))
    if has_code == has_identifier:
        how = "not both" if has_code else "none was"
        return invalid(f"exactly one of authentication_code and identifier must be given in {_NAMED}, {how}", _NAMED)
    if has_identifier and not named.get("pass_code"):
        return missing(f"{_NAMED}.pass_code")
    return _wrong_members(body, named) or _wrong_fields(body.get("fields_set") or "")


def request_id_of(body: Mapping[str, Any]) -> str | None:
    """Return the sender's own id for the command, if it gave a valid one."""
    value = body.get("request_unique_identifier")
    return value if type(value) is str and value and text_fault(value, LONGEST_NAME) is None else None


def _wrong_type(body: Mapping[str, Any]) -> Fault | None:
    for name in _BODY:
        value = body.get(name)
        if value is not None and type(value) is not str:
            return malformed(f"{name} must be a string, not {kind_of(value)}", name)
    named = body.get(_NAMED)
    if named is None or named == "":
        return None
    if type(named) is not dict:
        return malformed(f"{_NAMED} must be an object, not {kind_of(named)}", _NAMED)
    for name in _IDENTIFIER:
        value = named.get(name)
        if value is not None and type(value) is not str:
            return malformed(f"{_NAMED}.{name} must be a string, not {kind_of(value)}", f"{_NAMED}.{name}")
    return None


def _wrong_members(body: Mapping[str, Any], named: Mapping[str, Any]) -> Fault | None:
    if not body.keys() <= BODY_MEMBERS:
        return invalid(f'unknown member "{_first_unknown(body, BODY_MEMBERS)}"')
    if not named.keys() <= IDENTIFIER_MEMBERS:
        return invalid(f'unknown member "{_first_unknown(named, IDENTIFIER_MEMBERS)}" in {_NAMED}', _NAMED)
    return _wrong_text(body, _BODY) or _wrong_text(named, _IDENTIFIER, f"{_NAMED}.")


def _wrong_text(members: Mapping[str, Any], longest: Mapping[str, int], within: str = "") -> Fault | None:
    for name, most in longest.items():
        text = members.get(name)
        what = None if text is None else text_fault(text, most)
        if what is not None:
            return invalid(f"{within}{name} {what}", f"{within}{name}")
    return None


def _first_unknown(members: Mapping[str, Any], known: frozenset[str]) -> str:
    return quoted(next(name for name in members if name not in known))


def _wrong_fields(fields_set: str) -> Fault | None:
    try:
        asked_fields(fields_set)
    except UnknownField as unknown:
        if not unknown.name:
            return invalid("fields_set holds an empty name", "fields_set")
        hint = ": it takes top-level fields only" if "." in unknown.name else ""
        return invalid(f'fields_set holds the unknown name "{quoted(unknown.name)}"{hint}', "fields_set")
    return None
