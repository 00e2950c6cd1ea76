"""The worker of the demo: a separate process, as in production, so that its memory can be measured."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import OperatorError

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


class WorkerFailed(OperatorError):
    """The worker ended unasked. The text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that has its partitions. ``admin`` is the address of its admin port."""

    pid: int
    admin: str

    def peak_memory(self) -> int | None:
        """Return the most memory it had resident so far, in bytes; ``None`` if the system does not say."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024


@asynccontextmanager
async def running_worker(settings: Mapping[str, str], log: Path) -> AsyncIterator[Running]:
    """Run ``effective-worker run`` for the length of the block, then send SIGTERM. ``settings`` are its environment.

    Raises ``WorkerFailed`` if it does not come up or does not end cleanly.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker",
            "run",
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,  # the demo handles a Ctrl-C at the terminal
        )
    try:
        yield Running(process.pid, await _admin_address(process, log))
        await _stopped(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _admin_address(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        raise WorkerFailed(f"the worker did not start within {READY_SECONDS:.0f} s") from None
    if not line:
        raise _failed(await process.wait(), log)
    return line.removeprefix("admin ").strip()


async def _stopped(process: asyncio.subprocess.Process, log: Path) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            code = await process.wait()
    except TimeoutError:
        raise WorkerFailed(f"the worker did not end within {STOP_SECONDS:.0f} s of SIGTERM") from None
    if code != 0:
        raise _failed(code, log)


def _failed(code: int, log: Path) -> WorkerFailed:
    end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return WorkerFailed(f"the worker ended with {code}: {' | '.join(end)}")
