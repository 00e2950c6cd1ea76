"""Programs that start with everything imported are processes like any other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import preloaded
from tests.support.preloaded import Program
from tests.support.waiting import TooLate, run_to_end, wait_until

pytestmark = pytest.mark.skipif(not preloaded.SUPPORTED, reason="every program is executed anew on this system")

SERVED = {
    "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "WORKER_POSTGRES__DSN": "postgresql://nobody@127.0.0.1:9/none",
    "WORKER_LOGIN__SECRETS": "k1:" + "0" * 64,
    "WORKER_ADMIN__PORT": "0",
}


@pytest.fixture
def waiting_for_servers(tmp_path: Path) -> Iterator[Program]:
    """Start a worker whose servers are not there."""
    with (tmp_path / "log").open("wb") as log:
        program = preloaded.start(["run"], cwd=preloaded.ROOT, env={**os.environ, **SERVED}, stdout=log, stderr=log)
    yield program
    program.kill()
    program.wait()


@pytest.mark.parametrize("arguments", [["--help"], ["lanes", "--help"], ["run"], ["nothing"]], ids=" ".join)
def test_it_says_and_ends_as_one_that_is_executed(arguments: list[str]) -> None:
    env = {**os.environ, "WORKER_LANES": "7"}
    executed = run_to_end([sys.executable, "-m", "worker", *arguments], cwd=preloaded.ROOT, env=env)
    forked = preloaded.run_to_end(arguments, cwd=preloaded.ROOT, env=env)
    assert (forked.returncode, forked.stdout, forked.stderr) == (executed.returncode, executed.stdout, executed.stderr)


def test_it_is_a_process_of_its_own(waiting_for_servers: Program) -> None:
    other, pid = preloaded.run_to_end(["--help"], cwd=preloaded.ROOT, env=os.environ), waiting_for_servers.pid
    assert other.returncode == 0
    assert waiting_for_servers.poll() is None
    assert os.getsid(pid) == pid
    with pytest.raises(subprocess.TimeoutExpired):
        waiting_for_servers.wait(0)


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGABRT])
def test_its_end_is_told_with_the_signal_that_brought_it(waiting_for_servers: Program, which: signal.Signals) -> None:
    waiting_for_servers.send_signal(which)
    assert wait_until(waiting_for_servers.poll, lambda code: code is not None, what="it ended") == -which
    assert waiting_for_servers.wait() == -which
    waiting_for_servers.kill()  # safe to call twice


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLate, match="run ended"):
        preloaded.run_to_end(["run"], cwd=preloaded.ROOT, env={**os.environ, **SERVED}, seconds=0.01)
