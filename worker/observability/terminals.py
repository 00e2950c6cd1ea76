"""Terminals: which of them takes colour, and what is drawn on one."""

import os
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console


def takes_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True for a terminal, unless ``NO_COLOR`` is set or ``TERM`` is ``dumb``."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def console_on(stream: TextIO) -> Console:
    """Return a console that draws on terminals only, and in colour on those that take it."""
    return Console(
        file=stream,
        force_terminal=stream.isatty(),
        color_system="auto" if takes_colour(stream, os.environ) else None,
        highlight=False,
    )
