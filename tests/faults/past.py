"""A memory of what was done to the logs of commands, for the checker: nobody could find it out at the end."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.ledger import Sent


@dataclass(slots=True)
class Past:
    """Evidence of the time before somebody changed a log."""

    sent: list[Sent] = field(default_factory=list)
    """The records of a log when it was changed, those of one partition in its order."""
    removed: list[Sent] = field(default_factory=list)
    """Those of them that were removed before the group had read them."""
    untold: list[str] = field(default_factory=list)
    """Things that a person should have been told, and was not."""
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever changes a log: two at a time would not know what either has done."""
