"""What the README says to type is typed here, and what it says comes out is looked for.

A fenced block right after ``<!-- run -->`` is run by a shell at the root of the repository; after
``<!-- run with servers -->`` in an empty directory, with the tests' own broker and Postgres in the settings. Each
``<!-- output contains: TEXT -->`` right after such a block names a part of what it prints.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.providers.kafka import KafkaServer
from tests.providers.postgres import PostgresServer
from tests.support.logins import SECRET
from tests.support.waiting import run_to_end
from worker.demo.servers.postgres import make_database

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 600

_BLOCK: Final = re.compile(
    r"<!-- run(?P<servers> with servers)? -->\n+```[a-z]*\n(?P<script>.*?)\n```"
    r"(?P<claims>(?:\s*<!-- output contains: .*? -->)*)",
    re.DOTALL,
)
_CLAIM: Final = re.compile(r"<!-- output contains: (.*?) -->")


@dataclass(frozen=True, slots=True)
class Block:
    script: str
    claims: tuple[str, ...]
    with_servers: bool = False


def blocks_of(text: str) -> list[Block]:
    """The blocks to run, in their order; a dollar sign as a prompt is no part of a command."""
    return [
        Block(
            re.sub(r"^\$ ", "", match["script"], flags=re.MULTILINE),
            tuple(_CLAIM.findall(match["claims"])),
            match["servers"] is not None,
        )
        for match in _BLOCK.finditer(text)
    ]


README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = blocks_of(README)


def environment(directory: Path) -> dict[str, str]:
    """Return an environment with this one's programs first.

    ``make`` is given this very environment, as installed: a test must not install into the Python that runs it.
    """
    installed = directory / "installed"
    installed.touch()
    programs = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": programs, "VENV": sys.prefix, "INSTALLED": str(installed)}


def test_the_readme_has_commands_that_are_run() -> None:
    assert BLOCKS
    assert len(BLOCKS) == README.count("<!-- run"), "a mark stands before something that is no fenced block"


def test_a_block_is_read_with_its_claims() -> None:
    run = "<!-- run -->\n```sh\n$ one\ntwo\n```\n\n<!-- output contains: a -->\n<!-- output contains: b c -->\n"
    text = f"{run}```sh\nnot this\n```\n"
    assert blocks_of(text) == [Block("one\ntwo", ("a", "b c"))]


def run(block: Block, directory: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_to_end(["sh", "-euc", block.script], cwd=directory, env=variables, merged=True, seconds=SECONDS)


def check(block: Block, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stdout
    assert [claim for claim in block.claims if claim not in ran.stdout] == [], ran.stdout


ALONE: Final = [block for block in BLOCKS if not block.with_servers]


_SLOW: Final = pytest.mark.slow(
    why="the demo once more, with many commands: 15 s",
    instead="tests/acceptance/test_readme.py::test_the_commands_of_the_readme_work",
)


def _called(block: Block) -> Any:
    """A block as a parameter, by its first line."""
    name = block.script.splitlines()[0]
    return pytest.param(block, id=name, marks=[_SLOW] if "--commands" in name else [])


@pytest.mark.parametrize("block", [_called(block) for block in ALONE])
def test_the_commands_of_the_readme_work(block: Block, tmp_path: Path) -> None:
    assert not re.search(r"make test|\.ci/run|pytest", block.script), "the tests would run themselves"
    check(block, run(block, ROOT, environment(tmp_path)))


async def test_the_commands_for_ones_own_servers_work_one_after_the_other(
    kafka: KafkaServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """From an empty database and a broker without the topics, as the README has it."""
    name = f"readme_{uuid4().hex[:12]}"
    await make_database(postgres_server.owner_dsn, name)
    owner = urlsplit(postgres_server.owner_dsn)._replace(path=f"/{name}").geturl()
    topics = ("COMMANDS", "RESULTS", "TRANSITIONS", "DEAD_LETTERS")
    variables = environment(tmp_path) | {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "WORKER_POSTGRES__DSN": owner,
        "WORKER_LOGIN__SECRETS": SECRET,
        **{f"WORKER_TOPICS__{topic}": f"{name}.{topic.lower()}" for topic in topics},
    }
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for block in BLOCKS:
        if block.with_servers:
            check(block, run(block, tmp_path, variables))
