"""The last commands that were refused or given up: ids and codes, for all who reach the admin port may see them."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MOST_RECENT: Final = 20
"""The number of refusals that are remembered."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command with another answer than ``OK``. ``at`` counts from the epoch, in seconds."""

    at: float
    topic: str
    partition: int
    offset: int
    command_id: str
    code: str
    is_dead_letter: bool


class Recent:
    """The last refusals of all lanes."""

    def __init__(self) -> None:
        self._last: deque[Refusal] = deque(maxlen=MOST_RECENT)

    def note(self, refusals: Iterable[Refusal]) -> None:
        self._last.extend(refusals)

    def newest_first(self) -> Sequence[Refusal]:
        return tuple(reversed(self._last))
