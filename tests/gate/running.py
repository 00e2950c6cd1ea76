"""One stage as a process: its output in a log, its end by itself or by the gate."""

import codecs
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from tests.gate.stages import ROOT, Stage
from tests.gate.verdicts import Result

TICK_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 30.0
"""Seconds that a process asked to end may take to stop its servers."""
NOT_FOUND: Final = 127
"""The code by which shells say that there is no such command."""
LONGEST_LINE: Final = 240
LINES: Final = 15
NOT_OURS: Final = frozenset({"ARGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"})
"""Variables of the make that started the gate: its ARGS are for the gate, and would reach every stage."""

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_LAST: Final = re.compile(r"=+ .*\d+ .* in \d+\.\d+s.* =+|=+ no tests ran in .* =+")


def ran(stage: Stage, logs: Path, env: Mapping[str, str], echo: TextIO | None, until: float | None = None) -> Result:
    """Run a stage, copy its output to ``echo``, and end it if it runs beyond ``until`` (of the monotonic clock)."""
    began, log = time.monotonic(), logs / f"{stage.name}.log"
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    own = [stage.logs_option, str(logs / stage.name)] if stage.logs_option else []
    with log.open("ab") as writing, log.open("rb") as reading:
        try:
            # The log is a file and not a pipe: a server left behind that holds it open blocks no reader.
            process = subprocess.Popen(
                [*stage.command, *own],
                cwd=ROOT,
                env={**inherited, **stage.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            writing.write(f"{stage.command[0]}: {error.strerror}\n".encode())
            code: int | None = NOT_FOUND
        else:
            code = _waited(process, reading, echo, until)
    seconds = time.monotonic() - began
    return Result(stage.name, stage.reading.verdict(code), round(seconds, 1), seen(stage, log, code), str(log))


def _waited(
    process: subprocess.Popen[bytes], reading: BinaryIO, echo: TextIO | None, until: float | None
) -> int | None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def copy() -> None:
        if echo is not None:
            echo.write(decoder.decode(reading.read()))
            echo.flush()

    try:
        while until is None or time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(TICK_SECONDS)
            copy()
        return None
    finally:
        _end(process)
        copy()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still runs: first with SIGINT as from the keyboard, since pytest then stops its servers and reports."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(GRACE_SECONDS)


def _lines(log: Path) -> list[str]:
    text = _COLOURS.sub("", log.read_text(encoding="utf-8", errors="replace"))
    return [line.rstrip()[:LONGEST_LINE] for line in text.splitlines() if line.strip()]


def seen(stage: Stage, log: Path, code: int | None) -> list[str]:
    """Return the most telling lines of a log, or nothing if nothing is wrong."""
    if code == 0:
        return []
    told = "its time was up, and it was ended" if code is None else f"exit {code}"
    lines = _lines(log)
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))] if stage.pytest else []
    if not failed:
        return [told, *lines[1 - LINES :]]
    # The first failures, and of each the values that its assertion compared.
    asserted = [line for line in lines if re.match(r"E\s", line)]
    half = LINES // 2
    return [told, *failed[: max(half, LINES - 1 - len(asserted))], *asserted[:half]]


def pytest_summary(log: Path) -> list[str]:
    """Return pytest's own short summary and last line, or nothing if it did not get that far."""
    lines = _lines(log)
    last = max((number for number, line in enumerate(lines) if _LAST.fullmatch(line)), default=None)
    if last is None:
        return []
    first = max((number for number, line in enumerate(lines[:last]) if "short test summary info" in line), default=last)
    return lines[first : last + 1]
