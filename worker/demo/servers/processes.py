"""Servers as child processes: polled until they are ready, and ended with this process, however it ends."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import OperatorError

POLL_SECONDS: Final = 0.02
TAIL_LINES: Final = 20

# The system's ports for outgoing connections start above: a client that keeps trying to reach a stopped server on one
# of those would in the end connect to itself, and keep the server off its own port.
_PORTS: Final = range(20_000, 32_000)

# The launcher runs between us and the server, in its own process, because code between fork and exec may not run in a
# program with threads. It asks the kernel to end the server with us, even after a SIGKILL. It asks after giving up
# root, which would cancel the request; it loads everything before, since our Python may be where only root can read.
# The last check closes the gap in which we may have died already.
_LAUNCHER: Final = """
import os, sys
parent, death, uid, gid = map(int, sys.argv[1:5])
if sys.platform == "linux":
    import ctypes
    prctl = ctypes.CDLL(None).prctl
else:
    prctl = lambda *_: 0
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
prctl(1, death)
if os.getppid() != parent:
    sys.exit("the program that started this server is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""


class EmbeddedUnavailable(OperatorError):
    """The embedded servers are not installed, or not available for this platform. The text gives the way out."""


class EmbeddedFailed(OperatorError):
    """An embedded server did not start or does not work. The text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a server runs as."""

    name: str
    uid: int
    gid: int


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free TCP port of ``host``, outside the range of outgoing connections."""
    # Any free port will do: the choice is no secret.
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise EmbeddedFailed("no free TCP port was found on this machine")


class ServerProcess:
    """A server in the foreground of its own session, so that a Ctrl-C at our terminal reaches us and not the server."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self.name = name
        self._popen = popen
        self._log = log
        self._log_start = log_start

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        account: Account | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        held: Sequence[int] = (),
    ) -> "ServerProcess":
        """Start ``command`` (the program's absolute path first), with its output appended to ``log``.

        On Linux ``death_signal`` reaches it when the calling thread ends: call this in a thread that outlives the
        server, such as that of the event loop. ``held`` are file descriptors that it keeps open.
        """
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(death_signal))]
        launcher += [str(account.uid), str(account.gid)] if account else ["-1", "-1"]
        with log.open("ab") as output:
            start = output.tell()
            popen = subprocess.Popen(  # noqa: S603 - the commands are ours
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=dict(environment),
                start_new_session=True,
                pass_fds=tuple(held),
            )
        return cls(name, popen, log, start)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs; minus the signal's number if one ended it."""
        return self._popen.poll()

    def log_tail(self) -> str:
        """Return the last lines of its log since this start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    async def ready(self, answers: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Wait until ``answers`` returns True. Raises ``EmbeddedFailed`` if it ends first, or after ``seconds``."""
        try:
            await until(lambda: self._running_and(answers), seconds)
        except TimeoutError:
            raise EmbeddedFailed(self._with_log(f"was not ready within {seconds:.0f} s")) from None

    async def finished(self, *, seconds: float) -> None:
        """Wait until it ends by itself. Raises ``EmbeddedFailed`` if it fails, or does not end in ``seconds``."""
        try:
            in_time = await self._gone(seconds)
        finally:
            self.kill()
        if not in_time:
            raise EmbeddedFailed(self._with_log(f"did not end within {seconds:.0f} s"))
        if self.exit_code:
            raise EmbeddedFailed(self._with_log(f"failed with exit code {self.exit_code}"))

    async def stop(self, stop_signal: signal.Signals = signal.SIGTERM, *, seconds: float = 10.0) -> None:
        """Signal it to end, wait, and kill it if it does not. Safe to call twice, and after it has ended."""
        try:
            self._popen.send_signal(stop_signal)
            await self._gone(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once. Safe to call twice."""
        self._popen.kill()
        self._popen.wait()

    async def _running_and(self, answers: Callable[[], Awaitable[bool]]) -> bool:
        if self.exit_code is not None:
            raise EmbeddedFailed(self._with_log(f"ended with exit code {self.exit_code} before it was ready"))
        return await answers()

    async def _gone(self, seconds: float) -> bool:
        try:
            await until(self._has_ended, seconds)
        except TimeoutError:
            return False
        return True

    async def _has_ended(self) -> bool:
        return self.exit_code is not None

    def _with_log(self, what: str) -> str:
        return f"{self.name} {what}. The end of its log:\n{self.log_tail()}"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Poll ``condition``. Raises ``TimeoutError`` if it is not True within ``seconds``."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(POLL_SECONDS)


async def listens(host: str, port: int) -> bool:
    """True if a process accepts TCP connections at this address."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
