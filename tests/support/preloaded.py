"""Programs of the worker that start with everything imported: that costs 0.9 s of CPU, and tests start hundreds.

A separate process imports the worker once and forks for each program, which is a process like any other: with an
environment, signals and an end of its own. A program that is measured or killed while it starts is executed from
scratch instead.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

from tests.support import waiting
from worker.cli import application

ROOT: Final = Path(__file__).parents[2]
SUPPORTED: Final = sys.platform == "linux"
"""True on Linux. Elsewhere, state that system libraries create before a fork does not survive it."""
_LENGTH_BYTES: Final = 4
_STANDARD: Final = 3


class Gone(RuntimeError):
    """The forking process is gone, and with it the exit codes of its programs."""


class Program:
    """A running program: the part of ``subprocess.Popen`` for one without pipes."""

    def __init__(self, told: int) -> None:
        self._told = os.fdopen(told, encoding="ascii")
        self._code: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        """Return ``None`` as long as it runs; minus the signal's number if a signal ended it."""
        if self._code is None and select.select([self._told], [], [], 0)[0]:
            self._ended()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return its exit code. Raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        if self._code is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._ended() if self._code is None else self._code

    def send_signal(self, which: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self) -> int:
        self._code = self._number()
        self._told.close()
        return self._code

    def _number(self) -> int:
        line = self._told.readline()
        if not line:
            raise Gone
        return int(line)


def start(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
) -> Program:
    """Start ``python -m worker`` with these arguments, in a session of its own and with an empty stdin."""
    told, tell = os.pipe()
    with Path(os.devnull).open("rb") as stdin:
        request = {"arguments": list(arguments), "cwd": os.fspath(cwd), "env": dict(env)}
        _forking().ask(request, [stdin.fileno(), stdout.fileno(), stderr.fileno(), tell])
    os.close(tell)
    return Program(told)


def run_to_end(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    seconds: float = waiting.SECONDS,
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m worker`` with these arguments, and return its result, whatever its exit code.

    Raises ``TooLate`` with its output if it does not end.
    """
    if not SUPPORTED:
        command = [sys.executable, "-m", "worker", *arguments]
        return waiting.run_to_end(command, cwd=cwd, env=env, seconds=seconds)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def written() -> tuple[str, str]:
            for file in (out, err):
                file.seek(0)
            return out.read(), err.read()

        program = start(arguments, cwd=cwd, env=env, stdout=out, stderr=err)
        ceiling = waiting.Ceiling(seconds)
        try:
            code = program.wait(ceiling.left)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise ceiling.too_late(f"{' '.join(arguments)} ended", "\n".join(written())) from None
        return subprocess.CompletedProcess(list(arguments), code, *written())


class _Forking:
    """The process that forks, and the connection to it. It ends with this one."""

    def __init__(self) -> None:
        self._door, there = socket.socketpair()
        command = [sys.executable, "-m", "tests.support.preloaded", str(there.fileno())]
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with there:
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[there.fileno()], start_new_session=True, **quiet
            )
        self._one_at_a_time = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: Mapping[str, Any], open_files: Sequence[int]) -> None:
        """Ask it to fork for a program.

        The child has the files as 0, 1 and 2; the last one reports its end.
        """
        body = json.dumps(request).encode()
        with self._one_at_a_time:
            socket.send_fds(self._door, [len(body).to_bytes(_LENGTH_BYTES)], open_files)
            self._door.sendall(body)

    def close(self) -> None:
        """End it. The programs that it started go on."""
        self._door.close()
        self._process.wait()


_forking = cache(_Forking)
"""The forking process, started at the first request."""


# --- the process that forks -------------------------------------------------------------------------------------------


def _forked(door: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return the program to run in every forked process, and ``None`` in the end."""
    running: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        waited_for: list[Any] = [door, woken]
        asked, _, _ = select.select(waited_for, [], [])
        if woken in asked:
            os.read(woken, 4096)
            _tell_ends(running)
        if door not in asked:
            continue
        head, open_files, _, _ = socket.recv_fds(door, _LENGTH_BYTES, _STANDARD + 1)
        if not head:
            return None
        request: dict[str, Any] = json.loads(door.recv(int.from_bytes(head), socket.MSG_WAITALL))
        *standard, tell = open_files
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, given in enumerate(standard):
                os.dup2(given, number)
            for number in (door.detach(), woken, wake, *open_files, *running.values()):
                os.close(number)
            return request
        for number in standard:
            os.close(number)
        running[pid] = tell
        os.write(tell, f"{pid}\n".encode())


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        tell = running.pop(pid)
        try:
            os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        except BrokenPipeError:
            pass  # nothing has waited for it
        finally:
            os.close(tell)


def _main() -> None:
    application()
    assert threading.active_count() == 1, "no thread survives a fork"
    gc.collect()
    gc.freeze()
    request = _forked(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["worker", *request["arguments"]]
    runpy.run_module("worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
