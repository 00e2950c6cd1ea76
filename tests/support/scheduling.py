"""The order and the shares in which pytest-xdist hands out tests (``make test``).

Its own ``loadgroup`` reads the marks of tests through a part of pytest that no longer exists, and then silently groups
nothing. The process that hands out tests has seen only their files, so files decide.
"""

import re
from functools import cache
from pathlib import Path
from typing import Final

from xdist.scheduler import LoadScopeScheduling

ROOT: Final = Path(__file__).parents[2]
OWN_SERVERS: Final = "own_servers"
ONE_BY_ONE: Final = ("tests/acceptance/", "tests/integration/")
"""Folders whose tests take seconds each."""
ORDER: Final = ("tests/acceptance/", "tests/faults/", "tests/integration/")
"""The folders whose tests come first, because they take longest: short tests even out the end."""


def rank(file: str) -> tuple[bool, int]:
    """Return the rank of a file, named from the root: files that start servers of their own come first."""
    folder = next((place for place, name in enumerate(ORDER) if file.startswith(name)), len(ORDER))
    return scope_of(file) != OWN_SERVERS, folder


def scope_of(test: str) -> str:
    """Return the scope of a test (``file::name``): tests of one scope run in one process, one after the other.

    The tests that stop servers share a broker and a Postgres, and those of a file its fixtures of module scope.
    """
    file = test.partition("::")[0]
    text = _text(file)
    if re.search(rf"^pytestmark = .*\b{OWN_SERVERS}\b", text, re.MULTILINE):
        return OWN_SERVERS
    return test if file.startswith(ONE_BY_ONE) and 'scope="module"' not in text and "shared_scene" not in text else file


@cache
def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Hands out one scope after the other, to any free process."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
