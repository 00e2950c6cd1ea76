"""The factor by which this machine is slower now than the one that the tests' ceilings are meant for.

Measured once per session, with the load of other programs included, and handed on by an environment variable: every
process of the session scales its ceilings by the same figure. A ceiling is there to end a test that hangs. No test
judges how long anything takes.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

VARIABLE: Final = "TEST_PACE"
"""The variable with the figure. A number given by hand is kept: ``TEST_PACE=5 make test`` is five times as patient."""

MOST: Final = 20.0
"""The most by which a ceiling is multiplied: what hangs must end too."""

STRETCHED_MOST: Final = 3.0
"""The same for deliberate timeouts: a session that must end before a test goes on."""

ROUND_SECONDS: Final = 0.002
"""Seconds of a round on an idle core of a common machine; a quicker machine gets the same ceilings."""
START_SECONDS: Final = 0.03
"""Seconds to start a process and see it end, likewise."""
STARTS: Final = 2
LOOK_SECONDS: Final = 0.1
"""Seconds of the measurement: longer than any time slice of another program, or the pause of a throttled group."""


def pace(environment: Mapping[str, str] = os.environ) -> float:
    """Return this session's figure, from 1 to ``MOST``. Raises ``ValueError`` if the variable holds no number."""
    return _bounded(float(environment.get(VARIABLE) or 1.0))


def patience(seconds: float, environment: Mapping[str, str] = os.environ) -> float:
    """Return the ceiling of a wait that takes up to ``seconds`` where nothing is wrong or slow."""
    return seconds * pace(environment)


def stretched(seconds: float, environment: Mapping[str, str] = os.environ) -> float:
    """Return a deadline of the worker's that must not strike for want of CPU, and that some test sits out."""
    return seconds * min(pace(environment), STRETCHED_MOST)


def in_milliseconds(seconds: float, environment: Mapping[str, str] = os.environ) -> str:
    """Return the same as a setting of the worker's."""
    return str(round(stretched(seconds, environment) * 1000))


def measure(
    clock: Callable[[], float] = time.perf_counter,
    work: Callable[[], object] | None = None,
    start: Callable[[], object] | None = None,
) -> float:
    """Work for a moment, start a process, and compare the slower of both with its usual time."""
    began = now = clock()
    rounds = 0
    while now - began < LOOK_SECONDS:
        (work or _work)()
        rounds += 1
        now = clock()
    of_work = (now - began) / rounds / ROUND_SECONDS
    starts = []
    for _ in range(STARTS):
        began = clock()
        (start or _start)()
        starts.append(clock() - began)
    # The quickest: the first one may have to fetch the program from the disk.
    return _bounded(max(of_work, min(starts) / START_SECONDS))


def measured_once(
    environment: "os._Environ[str] | dict[str, str]" = os.environ, measured: Callable[[], float] = measure
) -> None:
    """Measure, unless the variable is set already, and set it for all processes."""
    if not environment.get(VARIABLE):
        environment[VARIABLE] = f"{measured():.2f}"


def _bounded(figure: float) -> float:
    return min(max(figure, 1.0), MOST)


def _work() -> int:
    return sum(number * number % 7 for number in range(20_000))


def _start() -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, stdin=subprocess.DEVNULL)
