"""The commands that README and the pages of ``docs`` show are run here, and their documented output is checked.

A fenced block right after ``<!-- run -->`` is run by a shell at the root of the repository. Those of a page after
``<!-- run with servers -->`` are run one after the other by one shell, in an empty directory, with the tests' own
broker and Postgres in the settings; before those of any other page comes the first start of ``docs/operating.md``.
``with servers and a worker`` has a worker running meanwhile, ``with servers, a worker and kcat`` needs that program
too. Each ``<!-- output contains: TEXT -->`` right after such a block names a part of its output.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from tests.providers.kafka import KafkaServer
from tests.providers.postgres import PostgresServer
from tests.support.logins import SECRET
from tests.support.waiting import run_to_end
from worker.demo.servers.postgres import make_database

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 600

_BLOCK: Final = re.compile(
    r"<!-- run(?: with (?P<needs>[a-z, ]+))? -->\n+```[a-z]*\n(?P<script>.*?)\n```"
    r"(?P<claims>(?:\s*<!-- output contains: .*? -->)*)",
    re.DOTALL,
)
_CLAIM: Final = re.compile(r"<!-- output contains: (.*?) -->")


@dataclass(frozen=True, slots=True)
class Block:
    script: str
    claims: tuple[str, ...]
    needs: frozenset[str] = frozenset()


def blocks_of(text: str) -> list[Block]:
    """Return the blocks to run, in order; a dollar sign as a prompt is no part of a command."""
    return [
        Block(
            re.sub(r"^\$ ", "", match["script"], flags=re.MULTILINE),
            tuple(_CLAIM.findall(match["claims"])),
            frozenset(re.split(r", | and ", match["needs"] or "")) - {""},
        )
        for match in _BLOCK.finditer(text)
    ]


TEXTS: Final = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BLOCKS: Final = {page: blocks_of(text) for page, text in TEXTS.items()}
FIRST_START: Final = "docs/operating.md"
NEEDS: Final = {"servers", "a worker", "kcat"}


def environment(directory: Path) -> dict[str, str]:
    """Return an environment with this one's programs first.

    ``make`` is given this very environment, as installed: a test must not install into the Python that runs it.
    """
    installed = directory / "installed"
    installed.touch()
    programs = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": programs, "VENV": sys.prefix, "INSTALLED": str(installed)}


def test_the_readme_has_commands_that_are_run() -> None:
    assert BLOCKS["README.md"]


@pytest.mark.parametrize("page", TEXTS)
def test_every_mark_stands_before_a_block(page: str) -> None:
    assert len(BLOCKS[page]) == TEXTS[page].count("<!-- run")
    claims = [claim for block in BLOCKS[page] for claim in block.claims]
    assert len(claims) == TEXTS[page].count("<!-- output contains")
    assert {need for block in BLOCKS[page] for need in block.needs} <= NEEDS


def test_a_block_is_read_with_its_claims() -> None:
    run = "<!-- run -->\n```sh\n$ one\ntwo\n```\n\n<!-- output contains: a -->\n<!-- output contains: b c -->\n"
    served = "<!-- run with servers, a worker and kcat -->\n```sh\nthree\n```\n"
    text = f"{run}```sh\nnot this\n```\n{served}"
    assert blocks_of(text) == [Block("one\ntwo", ("a", "b c")), Block("three", (), frozenset(NEEDS))]


def run(script: str, directory: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_to_end(["sh", "-euc", script], cwd=directory, env=variables, merged=True, seconds=SECONDS)


def check(block: Block, printed: str) -> None:
    assert [claim for claim in block.claims if claim not in printed] == [], printed


ALONE: Final = [block for blocks in BLOCKS.values() for block in blocks if not block.needs]


_SLOW: Final = pytest.mark.slow(
    why="the demo once more, with many commands: 15 s",
    instead="tests/acceptance/test_readme.py::test_the_commands_of_the_readme_work",
)


def _called(block: Block) -> Any:
    """Return a block as a parameter, by its first line."""
    name = block.script.splitlines()[0]
    return pytest.param(block, id=name, marks=[_SLOW] if "--commands" in name else [])


@pytest.mark.parametrize("block", [_called(block) for block in ALONE])
def test_the_commands_of_the_readme_work(block: Block, tmp_path: Path) -> None:
    assert not re.search(r"make test|\.ci/run|pytest", block.script), "the tests would run themselves"
    ran = run(block.script, ROOT, environment(tmp_path))
    assert ran.returncode == 0, ran.stdout
    check(block, ran.stdout)


WORKER: Final = "effective-worker run >worker-of-the-test.log 2>&1 &"
END_OF_JOBS: Final = "jobs -p >jobs-of-the-test; kill $(cat jobs-of-the-test) 2>/dev/null || true; wait"
"""Ends all background processes of a script, however that ends. In `$(jobs -p)` some shells know of no job."""
BETWEEN: Final = "----- the next block -----"


def told(script: str, kafka: KafkaServer, name: str) -> str:
    """Return a script with this broker's address and this test's topics, instead of those that the pages name."""
    own = {"kafka:9092": kafka.bootstrap, "access-token.set-effective.": f"{name}.", "access-token.": f"{name}."}
    for theirs, ours in own.items():
        script = script.replace(theirs, ours)
    return script


def left_in(directory: Path) -> list[str]:
    """Return the processes that still run in a directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(directory):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if any(block.needs for block in blocks)])
async def test_the_commands_for_ones_own_servers_work_one_after_the_other(
    page: str, kafka: KafkaServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """From an empty database and a broker without the topics, as the pages have it."""
    name = f"page_{uuid4().hex[:12]}"
    await make_database(postgres_server.owner_dsn, name)
    owner = urlsplit(postgres_server.owner_dsn)._replace(path=f"/{name}").geturl()
    topics = ("COMMANDS", "RESULTS", "TRANSITIONS", "DEAD_LETTERS")
    variables = environment(tmp_path) | {
        "WORKER_ADMIN__PORT": "0",
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "WORKER_KAFKA__GROUP_ID": name,
        "WORKER_POSTGRES__DSN": owner,
        "WORKER_LOGIN__SECRETS": SECRET,
        **{f"WORKER_TOPICS__{topic}": f"{name}.{topic.lower().replace('_', '-')}" for topic in topics},
    }
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    blocks = [block for block in BLOCKS[page] if block.needs]
    ready = [block for block in blocks if "kcat" not in block.needs or shutil.which("kcat")]
    first_start = [block.script for block in BLOCKS[FIRST_START] if block.needs][:2]  # and the example's customers
    before = [] if page in {"README.md", FIRST_START} else first_start
    if any("a worker" in block.needs for block in blocks):
        before.append(WORKER)
    script = [f"trap '{END_OF_JOBS}' EXIT", *before]
    for block in ready:
        script += [f"echo '{BETWEEN}'", block.script]

    ran = run(told("\n".join(script), kafka, name), tmp_path, variables)

    assert left_in(tmp_path) == []
    assert ran.returncode == 0, ran.stdout
    for block, printed in zip(ready, ran.stdout.split(f"{BETWEEN}\n")[1:], strict=True):
        check(block, printed)
    if ready != blocks:
        pytest.skip(f"kcat is not installed: {len(blocks) - len(ready)} of {len(blocks)} blocks were not run")
