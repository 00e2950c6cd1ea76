"""What the README says to type is typed here, and what it says comes out is looked for.

A fenced block right after ``<!-- run -->`` is run by a shell at the root of the repository. Each
``<!-- output contains: TEXT -->`` right after such a block names a part of what it prints.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 300

_BLOCK: Final = re.compile(
    r"<!-- run -->\n+```[a-z]*\n(?P<script>.*?)\n```(?P<claims>(?:\s*<!-- output contains: .*? -->)*)", re.DOTALL
)
_CLAIM: Final = re.compile(r"<!-- output contains: (.*?) -->")


@dataclass(frozen=True, slots=True)
class Block:
    script: str
    claims: tuple[str, ...]


def blocks_of(text: str) -> list[Block]:
    """The blocks to run, in their order; a dollar sign as a prompt is no part of a command."""
    return [
        Block(re.sub(r"^\$ ", "", match["script"], flags=re.MULTILINE), tuple(_CLAIM.findall(match["claims"])))
        for match in _BLOCK.finditer(text)
    ]


README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = blocks_of(README)


def environment(directory: Path) -> dict[str, str]:
    """This environment's programs first, and nothing of what the tests themselves were told.

    ``make`` is given this very environment, as installed: a test must not install into the Python that runs it.
    """
    installed = directory / "installed"
    installed.touch()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WORKER_", "PYTEST_", "MAKE")) and name != "MFLAGS"
    }
    programs = os.pathsep.join([str(Path(sys.prefix) / "bin"), kept.get("PATH", os.defpath)])
    return kept | {"PATH": programs, "VENV": sys.prefix, "INSTALLED": str(installed)}


def test_the_readme_has_commands_that_are_run() -> None:
    assert BLOCKS
    assert len(BLOCKS) == README.count("<!-- run -->"), "a mark stands before something that is no fenced block"


def test_a_block_is_read_with_its_claims() -> None:
    run = "<!-- run -->\n```sh\n$ one\ntwo\n```\n\n<!-- output contains: a -->\n<!-- output contains: b c -->\n"
    text = f"{run}```sh\nnot this\n```\n"
    assert blocks_of(text) == [Block("one\ntwo", ("a", "b c"))]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.script.splitlines()[0] for block in BLOCKS])
def test_the_commands_of_the_readme_work(block: Block, tmp_path: Path) -> None:
    assert not re.search(r"make test|\.ci/run|pytest", block.script), "the tests would run themselves"
    ran = subprocess.run(
        ["sh", "-euc", block.script],
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert [claim for claim in block.claims if claim not in ran.stdout] == [], ran.stdout
