"""Refusals: made of a fault of the contract's rules, and kept without the text of a sender."""

import re
from typing import Final

from effective_contract.rules.faults import Fault
from worker.journey.model import Refused

_QUOTED: Final = re.compile(r'"[^"]*"')


def refused(fault: Fault) -> Refused:
    """Refuse a command for its fault."""
    return Refused(fault.code, fault.message)


def unquoted(message: str) -> str:
    """Remove from a message the text in quotes: a sender's text is shown to the sender, and not kept."""
    return _QUOTED.sub('"…"', message) if '"' in message else message
