"""The wording of refusals: what is wrong with a command and where, quoting as little of it as possible."""

import re
from collections.abc import Mapping
from typing import Final

from effective_contract.codes import StatusCode
from worker.journey.model import Refused

LONGEST_QUOTE: Final = 64
"""Characters of a sender's text that a message may repeat (CONTRACT, Result)."""

_QUOTED: Final = re.compile(r'"[^"]*"')
_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def kind_of(value: object) -> str:
    """Name the JSON type of a value, with its article."""
    return _KINDS.get(type(value), "null")


def malformed(message: str) -> Refused:
    """Refuse a command that cannot be read."""
    return Refused(StatusCode.MALFORMED_REQUEST, message)


def missing(member: str, hint: str = "") -> Refused:
    """Refuse a command without ``member``. ``hint`` is appended to the message."""
    return Refused(StatusCode.MISSING_PARAMETER, f"{member} is not given{hint}")


def invalid(message: str) -> Refused:
    """Refuse a command for an invalid value."""
    return Refused(StatusCode.INVALID_PARAMETER, message)


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


def unquoted(message: str) -> str:
    """Remove from a message the text in quotes: a sender's text is shown to the sender, and not kept."""
    return _QUOTED.sub('"…"', message) if '"' in message else message
