"""The progress of a long work on stderr: a bar on a terminal, a line now and then where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

LINE_SECONDS: Final = 10.0
"""Seconds between two lines of progress where no bar can be shown."""

Advance = Callable[[str, int, int, str], None]
"""A callback that gets the name of the work or of its stage, how much is done, the total (0: not known), and more to
say.
"""
Say = Callable[[str], None]


@contextmanager
def screen(*, with_bar: bool = True) -> Iterator[tuple[Advance, Say]]:
    """Yield a callback for the progress and one for other lines, which stay whole above the bar.

    There is no bar if stderr is no terminal.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from worker.observability.terminals import console_on

    console = console_on(sys.stderr)
    if not (with_bar and console.is_terminal):
        yield Lines().advance, _write
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(),
    )
    # A redirected stdout would go to stderr, beside the bar, and lines of stderr would be folded, which are commands to
    # paste at times.
    progress = Progress(
        *columns, console=console, transient=True, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False
    )
    with progress:
        task, shown = progress.add_task("", total=None, said=""), ""

        def advance(name: str, done: int, total: int, said: str = "") -> None:
            nonlocal shown
            if name != shown:  # the speed and the time that is left are those of the stage
                progress.reset(task, total=None, description=name)
                shown = name
            told = f"{done:,}/{total:,} {said}" if total else f"{done:,} {said}"
            progress.update(task, completed=done, total=total or None, said=told)

        yield advance, partial(console.print, markup=False, soft_wrap=True)


def _write(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@contextmanager
def tracked(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for the progress of a work of one stage: how much is done, and the total."""
    with screen() as (advance, _):
        yield lambda done, total: advance(what, done, total, "")


class Lines:
    """A progress line every ten seconds, with the rate since the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._name = ""
        self._said_at, self._done = clock(), 0

    def advance(self, name: str, done: int, total: int, said: str = "") -> None:
        """Take the progress, and write a line if the last one is old enough."""
        now = self._clock()
        if name != self._name and self._name:
            self._said_at, self._done = now, done
        self._name, passed = name, now - self._said_at
        if passed < LINE_SECONDS:
            return
        rate = (done - self._done) / passed
        left = f", {(total - done) / rate:,.0f} s to go" if rate > 0 and total else ""
        of, more = f" of {total:,}" if total else "", f"; {said}" if said else ""
        sys.stderr.write(f"{name}: {done:,}{of}, {rate:,.0f}/s{left}{more}\n")
        self._said_at, self._done = now, done
