"""The SQL statements, one file each, in a folder per user: the journey, the lanes, and each operation."""

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".sql"):
            yield prefix + entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")


# All at import: a worker out of descriptors could open no file later, and would blame Postgres for it.
_STATEMENTS: Final = dict(_read(files(__name__)))


def statement(name: str) -> str:
    """Return the text of ``name.sql``, for example ``lanes/renew``. Raises ``KeyError`` for any other name."""
    return _STATEMENTS[name]


def statements() -> frozenset[str]:
    """Return the names of all statements."""
    return frozenset(_STATEMENTS)
