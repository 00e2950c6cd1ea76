"""``make pins``: a vulnerability is reported, and so is a failure to look one up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.gate.pins import KNOWN, PINNED, ROOT, TOOLS, looked_through

VULNERABLE: Final = {"name": "urllib3", "version": "1.24.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.24.2"]}]}
SOUND: Final = {"name": "orjson", "version": "3.13.0", "vulns": []}
KNOWN_FILE: Final = Path("known.txt")


class Audit:
    """Reports for each file what it is given, and that nothing can be looked up for any other."""

    def __init__(self, **said: Sequence[dict[str, Any]]) -> None:
        self.said = said
        self.arguments: list[Sequence[str]] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        self.arguments.append(arguments)
        packages = self.said.get(Path(arguments[-1]).stem)
        if packages is None:
            return 1, "", "WARNING: it is slow\nERROR: orjson: Dependency not found"
        return 0, json.dumps({"dependencies": packages}), ""


def test_pins_of_which_nothing_is_known_are_kept() -> None:
    audit = Audit(known=[VULNERABLE], ours=[SOUND])

    assert looked_through(audit, [Path("ours.txt")], KNOWN_FILE) == (
        0,
        ["nothing is known of what is pinned in 1 files"],
    )
    assert audit.arguments[-1] == ["--require-hashes", "-r", "ours.txt"]


def test_a_vulnerable_pin_is_named_with_its_way_out() -> None:
    audit = Audit(known=[VULNERABLE], ours=[SOUND, VULNERABLE], theirs=[SOUND])

    code, lines = looked_through(audit, [Path("ours.txt"), Path("theirs.txt")], KNOWN_FILE)

    assert (code, lines) == (1, ["ours.txt: urllib3 1.24.1: PYSEC-1, mended in 1.24.2"])


@pytest.mark.parametrize(
    ("audit", "why"),
    [
        (Audit(known=[], ours=[SOUND]), f"nothing is said to be wrong with {KNOWN}"),
        (Audit(ours=[SOUND]), "the tool ended with 1: ERROR: orjson: Dependency not found"),
        (Audit(known=[VULNERABLE]), "ours.txt: the tool ended with 1"),
    ],
    ids=["no data", "no answer", "no answer of ours"],
)
def test_what_cannot_be_looked_up_is_not_checked(audit: Audit, why: str) -> None:
    code, [line] = looked_through(audit, [Path("ours.txt")], KNOWN_FILE)

    assert code == 2
    assert line.startswith("not checked: ")
    assert why in line


def test_all_that_is_pinned_is_looked_through() -> None:
    pinned = {path.name for path in (ROOT / "deploy").glob("requirements*.txt")}

    assert {*PINNED, TOOLS.name} == pinned
