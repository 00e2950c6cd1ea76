"""A record as Kafka delivered it: its coordinates, its bytes, and a note of any part that was cut off."""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from worker.values import Value, percent_encoded

Header = tuple[str, bytes]


@lru_cache(maxsize=64)
def _log_name(cluster: str, topic: str) -> str:
    return f"rec:{percent_encoded(cluster)}/{percent_encoded(topic)}"


class Coordinates(Value, frozen=True):
    """The position of a command in Kafka. ``timestamp`` (milliseconds) tells a re-created topic from the old one."""

    cluster: str
    topic: str
    partition: int
    offset: int
    timestamp: int

    @property
    def command_id(self) -> str:
        """The ``rec:`` id of a command without an id of its own, or from an unverified sender (CONTRACT, Command)."""
        return f"{_log_name(self.cluster, self.topic)}/{self.partition}/{self.offset}@{self.timestamp}"


_RECORD_ID: Final = re.compile(r"rec:([^/]+)/([^/]+)/(\d{1,9})/(\d{1,18})@(-?\d{1,18})")


def coordinates_of(command_id: str) -> Coordinates | None:
    """Return the coordinates in a ``rec:`` id; ``None`` for any other id."""
    parts = _RECORD_ID.fullmatch(command_id)
    return None if parts is None else Coordinates(unquote(parts[1]), unquote(parts[2]), *map(int, parts.group(3, 4, 5)))


KEPT_BYTES: Final = 64 * 1024
"""The bytes that are kept of a value that is too large, of a key, and of all headers together."""


class Cut(Value, frozen=True):
    """The reason for not reading a record whole, and what is known of the rest. Hashes are SHA-256."""

    reason: str
    value_bytes: int | None = None
    """The size of the value, if it could be read."""
    value_hash: bytes | None = None
    """The hash of the whole value; ``None`` if its end was not reached."""
    batch_hash: bytes | None = None
    """The hash of the record batch as it is in the log, where nothing else identifies the record."""


class Delivery(Value, frozen=True):
    """One record of a commands topic, untouched; of one that is too large, the parts that ``cut`` leaves."""

    hidden = frozenset({"value", "headers"})

    coordinates: Coordinates
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    stamped_by_broker: bool
    """True if ``coordinates.timestamp`` is the broker's (``LogAppendTime``) and may judge an expiry."""
    cut: Cut | None = None
