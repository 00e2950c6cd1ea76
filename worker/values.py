"""The base of every value, and the two text forms of values that are used everywhere."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote

import msgspec


class Value(msgspec.Struct, frozen=True, gc=False):
    """A value of the journey. A command needs twenty of them, and a frozen dataclass costs five times as much to make.

    Members that are ``hidden`` are left out of its ``repr``. No value ever refers to itself, so the garbage collector
    need not track any.
    """

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.hidden)
        return f"{type(self).__name__}({', '.join(shown)})"


@lru_cache(maxsize=64)  # a batch is decided at one moment
def rfc3339(moment: datetime) -> str:
    """Write a moment in UTC with microseconds, always all six digits (CONTRACT, Transition event)."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def utc_text(seconds: float, timespec: str = "seconds") -> str:
    """Write a moment in UTC for people. ``seconds`` count from the epoch, ``timespec`` is that of ``isoformat``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def counted(count: int, what: str, plural: str = "", *, form: str = "") -> str:
    """Write a number of things for people: ``1 record``, ``2 records``, ``2 series``.

    ``plural`` is the noun of several, if no ``s`` makes it; ``form`` is the format of the number.
    """
    return f"{count:{form}} {what if count == 1 else plural or f'{what}s'}"


_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")


def percent_encoded(part: str) -> str:
    """Encode one part of a command id: every separator is escaped, so that two ids never coincide.

    See CONTRACT, Command.
    """
    return part if _UNRESERVED.fullmatch(part) else quote(part, safe="")
