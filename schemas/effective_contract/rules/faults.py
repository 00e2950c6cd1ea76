"""The faults of a command: what is wrong and where, quoting as little of it as possible."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from effective_contract.codes import StatusCode

LONGEST_QUOTE: Final = 64
"""Characters of a sender's text that a message may repeat (CONTRACT, Result)."""

_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """The first fault of a command: its status, and a message for people without secrets."""

    code: StatusCode
    message: str
    member: str = ""
    """The member or header that is at fault, if it is one."""


def malformed(message: str, member: str = "") -> Fault:
    """Return the fault of a command that cannot be read."""
    return Fault(StatusCode.MALFORMED_REQUEST, message, member)


def missing(member: str, hint: str = "") -> Fault:
    """Return the fault of a command without ``member``. ``hint`` is appended to the message."""
    return Fault(StatusCode.MISSING_PARAMETER, f"{member} is not given{hint}", member)


def invalid(message: str, member: str = "") -> Fault:
    """Return the fault of a command with an invalid value."""
    return Fault(StatusCode.INVALID_PARAMETER, message, member)


def kind_of(value: object) -> str:
    """Name the JSON type of a value, with its article."""
    return _KINDS.get(type(value), "null")


def text_fault(text: str, longest: int) -> str | None:
    """Return the fault of a text, or None if it has none. Postgres stores no U+0000."""
    if len(text) > longest:
        return f"is longer than {longest} characters"
    if "\0" in text:
        return "holds the character U+0000"
    return None


def quoted(text: str) -> str:
    """Shorten a sender's text to 64 printable characters, for a message that puts it in double quotes."""
    shown = text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
    shown = shown.replace('"', "'")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)
