"""What was done to the logs of commands themselves, for the checker: nobody could find it out at the end."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.ledger import Sent


@dataclass(slots=True)
class Past:
    """Evidence of the time before somebody changed a log."""

    sent: list[Sent] = field(default_factory=list)
    """What stood in a log when it was changed, that of one partition in its order."""
    removed: list[Sent] = field(default_factory=list)
    """Those of them that were removed before the group had read them."""
    untold: list[str] = field(default_factory=list)
    """What a person should have been told, and was not."""
    one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Whoever changes a log holds it: two at a time would not know what either has done."""
