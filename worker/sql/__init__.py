"""The statements of the journey, one file per step."""

from importlib.resources import files
from typing import Final

# All of them now: a worker that has used up its descriptors could open none later, and would blame Postgres for it.
_STATEMENTS: Final = {
    file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
    for file in files(__name__).iterdir()
    if file.name.endswith(".sql")
}


def statement(name: str) -> str:
    """The text of ``name.sql``."""
    return _STATEMENTS[name]
