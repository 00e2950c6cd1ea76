"""``effective-worker demo``: everything from wheels, shown, and gone again."""

import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.pace import patience
from tests.support.waiting import SECONDS, output_of, run_to_end, wait_until
from worker.cli.terminal import REFUSED

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "worker")
STAYS: Final = "everything stays up until Ctrl-C"


def submission(directory: Path) -> list[str]:
    """Return the words that submit two commands: for a token that is not effective, and the golden one once more."""
    path = directory / "again.csv"
    path.write_text("authentication_code\n99021047383\n99021047380\n", encoding="utf-8")
    login = shlex.join([*PROGRAM, "login-token", "--organisation", "ORG1", "--user", "mpadmin"])
    return ["submit", str(path), "--token-command", login]


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command from its start; it is gone after the block, whatever happens in it."""
    process = subprocess.Popen(
        [*PROGRAM, "demo", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_it_says(process: subprocess.Popen[str], text: str) -> list[str]:
    """Return the lines of its stderr up to the one with ``text``."""
    assert process.stderr is not None
    said = []
    # A ceiling cannot bound the wait for a missing line; a killed process writes no more.
    late = threading.Timer(patience(SECONDS), process.kill)
    late.start()
    try:
        for line in process.stderr:
            said.append(line)
            if text in line:
                return said
    finally:
        late.cancel()
    raise AssertionError(f"it ended, or was killed after {late.interval:.0f} s, before it said {text!r}: {said}")


def all_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    me = psutil.Process(process.pid)
    return [me, *me.children(recursive=True)]


def test_the_document_says_that_everything_was_answered_as_documented() -> None:
    with demo("--json", "--commands", "2000") as process:
        out, err = output_of(process, "the demo ended")
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["as_documented"] is True
    assert document["commands"][0]["reply"] == json.loads((ROOT / "tests/seed/result.json").read_text())
    assert document["load"]["statuses"] == {"OK": 2000}
    assert document["load"]["duplicates"] == 0
    assert "not Apache Kafka" in document["note"]


def test_it_stays_up_for_other_commands_until_ctrl_c_and_leaves_only_its_directory(kept: Path) -> None:
    with demo("--keep", "--directory", str(kept)) as process:
        said = "".join(until_it_says(process, STAYS))
        settings = kept / "worker.env"
        assert f"export WORKER_ENV_FILE={settings}; effective-worker check" in said
        assert settings.stat().st_mode & 0o777 == 0o600
        for words, code in ((["check"], 0), (["import", "--example"], 0), (submission(kept), REFUSED)):
            done = run_to_end([*PROGRAM, "--env-file", str(settings), *words], cwd=ROOT)
            assert done.returncode == code, done.stderr
        # The topic of its answers is newer than the worker, whose producers have known only their own topics.
        assert "producer_replaced" not in (kept / "worker.log").read_text(encoding="utf-8")
        running = all_of(process)
        assert len(running) > 3
        process.send_signal(signal.SIGINT)
        output_of(process, "the demo ended")
    assert process.returncode == 0
    _, alive = psutil.wait_procs(running, timeout=patience(60))
    assert not alive
    assert (kept / "postgres").is_dir()
    assert not settings.exists()


def test_a_kept_directory_answers_the_golden_command_again(kept: Path) -> None:
    for replayed in (False, True):
        with demo("--json", "--directory", str(kept)) as process:
            out, err = output_of(process, "the demo ended")
        assert process.returncode == 0, err
        assert json.loads(out)["commands"][0]["replayed"] is replayed


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_it_cleans_up_when_it_is_interrupted(which: signal.Signals, kept: Path) -> None:
    with demo("--directory", str(kept)) as process:
        # The worker has been started: broker and Postgres are up, and answers are awaited.
        wait_until(
            lambda: (process.poll(), sorted(path.name for path in kept.iterdir())),
            lambda seen: seen[0] is not None or "worker.log" in seen[1],
            what="the demo had started its worker",
            pause=0.01,
        )
        assert process.poll() is None
        running = all_of(process)
        process.send_signal(which)
        output_of(process, "the demo ended")
    assert process.returncode == 128 + which
    _, alive = psutil.wait_procs(running, timeout=patience(60))
    assert not alive


@pytest.mark.parametrize("name", ["command.json", "result.json", "fixture.ndjson"])
def test_the_demo_ships_the_golden_sample(name: str) -> None:
    assert (ROOT / "worker/demo" / name).read_bytes() == (ROOT / "tests/seed" / name).read_bytes()
