"""A memory of changes to the logs of commands, for the checker: they could not be found out at the end."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.ledger import Sent


@dataclass(slots=True)
class Past:
    """Evidence of the time before a fault changed a log."""

    sent: list[Sent] = field(default_factory=list)
    """The records of a log when it was changed, those of one partition in its order."""
    removed: list[Sent] = field(default_factory=list)
    """Those of them that were removed before the group had read them."""
    untold: list[str] = field(default_factory=list)
    """Reports that a person should have had, and did not."""
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by any fault that changes a log: two at a time would not know their own effects."""
