"""Waiting for a condition. A wait that gives up says what it waited for and what it saw last.

Every ceiling is multiplied by the session's pace; see ``tests.support.pace``.
"""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support.pace import patience

T = TypeVar("T")

SECONDS: Final = 120.0
"""The default ceiling: many times what any wait here takes on a busy machine."""
PAUSE: Final = 0.05
SHOWN_CHARACTERS: Final = 4000
"""The number of characters shown of what was seen last."""


class TooLate(AssertionError):
    """A condition did not hold in time."""


class Ceiling:
    """The end of one wait, which begins when this is made."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = patience(seconds)
        self._end = clock() + self._seconds

    @property
    def left(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(0.0, self._end - self._clock())

    def too_late(self, what: str, seen: object) -> TooLate:
        """Return the error of a wait for ``what``: a clause, as in "120 s went by before ..."."""
        return TooLate(f"{self._seconds:.0f} s went by before {what}; last seen: {shown(seen)}")


def wait_until(
    look: Callable[[], T],
    wanted: Callable[[T], object] = bool,
    *,
    what: str,
    seconds: float = SECONDS,
    pause: float = PAUSE,
    tell: Callable[[], str] = str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Look until the result is ``wanted``, and return it.

    Raises ``TooLate``: ``what`` is the clause behind "went by before", and ``tell`` adds details. However slow the
    looks are, the last one begins after the ceiling: a process that got no CPU has not waited.
    """
    ceiling = Ceiling(seconds, clock)
    while True:
        is_last = not ceiling.left
        seen = look()
        if wanted(seen):
            return seen
        if is_last:
            raise _with(ceiling.too_late(what, seen), tell())
        sleep(pause)


async def until(
    look: Callable[[], T],
    wanted: Callable[[T], object] = bool,
    *,
    what: str,
    seconds: float = SECONDS,
    pause: float = 0.01,
    tell: Callable[[], str] = str,
) -> T:
    """Do the same on an event loop, which goes on meanwhile."""

    async def looked() -> T:
        return look()

    return await until_answered(looked, wanted, what=what, seconds=seconds, pause=pause, tell=tell)


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    wanted: Callable[[T], object] = bool,
    *,
    what: str,
    seconds: float = SECONDS,
    pause: float = 0.01,
    tell: Callable[[], str] = str,
) -> T:
    """Do the same where the look is a coroutine."""
    ceiling = Ceiling(seconds)
    while True:
        is_last = not ceiling.left
        seen = await ask()
        if wanted(seen):
            return seen
        if is_last:
            raise _with(ceiling.too_late(what, seen), tell())
        await asyncio.sleep(pause)


async def in_time(
    awaitable: Awaitable[T], what: str, seconds: float = SECONDS, *, seen: Callable[[], object] = lambda: "nothing"
) -> T:
    """Return the result of ``awaitable``. Raises its errors, and ``TooLate`` if it does not come."""
    task = asyncio.ensure_future(awaitable)
    ceiling = Ceiling(seconds)
    try:
        done, _ = await asyncio.wait({task}, timeout=ceiling.left)
        if not done:
            raise ceiling.too_late(what, seen())
        return task.result()
    finally:
        task.cancel()


async def turns(count: int = 100) -> None:
    """Give the event loop so many turns: more than any work needs that does not wait for time to pass."""
    for _ in range(count):
        await asyncio.sleep(0)


def output_of(process: "subprocess.Popen[str]", what: str, seconds: float = SECONDS) -> tuple[str, str]:
    """Return the output of both pipes of a process that has ended. One that does not end is killed: ``TooLate``."""
    ceiling = Ceiling(seconds)
    try:
        return process.communicate(timeout=ceiling.left)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise ceiling.too_late(what, f"{out}\n{err}") from None


def run_to_end(
    command: Sequence[str | Path],
    *,
    what: str = "",
    seconds: float = SECONDS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    given: str | None = None,
    merged: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run a program, ``given`` this on its stdin, and return its result, whatever its exit code.

    ``merged`` puts its stderr into its stdout, in order.
    """
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    ceiling = Ceiling(seconds)
    try:
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            check=False,
            timeout=ceiling.left,
            **source,
        )
    except subprocess.TimeoutExpired as late:
        written = b"\n".join(filter(None, (late.stdout, late.stderr))).decode(errors="replace")
        raise ceiling.too_late(what or f"{' '.join(map(str, command))[:200]} ended", written) from None


def shown(seen: object) -> str:
    """Return what was seen, or the end of it if it is long: the latest part matters in a text that grows."""
    text = seen if isinstance(seen, str) else repr(seen)
    return text if len(text) <= SHOWN_CHARACTERS else f"... {text[-SHOWN_CHARACTERS:]}"


def _with(late: TooLate, told: str) -> TooLate:
    return TooLate(f"{late}\n{told}") if told else late
