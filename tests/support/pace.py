"""How much slower this machine is today than the one that the tests' ceilings were thought out for.

Measured once per session, other programs' claims on the cores included, and handed on by an environment variable: every
process of the session scales its ceilings by the same figure. A ceiling is there to end a test that hangs. How long
anything takes is nobody's verdict.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

VARIABLE: Final = "TEST_PACE"
"""A number given by hand is kept: ``TEST_PACE=5 make test`` is five times as patient."""

MOST: Final = 20.0
"""Nobody is waited for any longer than so many times a ceiling: what hangs must end too."""

STRETCHED_MOST: Final = 3.0
"""The same for what is waited for in vain on purpose: a session that has to end before a test goes on."""

ROUND_SECONDS: Final = 0.002
"""What a round takes on an idle core of a common machine; one that is quicker is waited for as long."""
START_SECONDS: Final = 0.03
"""The same of a process that is started and ends."""
STARTS: Final = 2
LOOK_SECONDS: Final = 0.1
"""How long is looked: longer than any turn that a core gives another program, or a group of programs its rest."""


def pace(environment: Mapping[str, str] = os.environ) -> float:
    """The figure of this session, between 1 and ``MOST``. Raises ``ValueError`` if the variable holds no number."""
    return _bounded(float(environment.get(VARIABLE) or 1.0))


def patience(seconds: float, environment: Mapping[str, str] = os.environ) -> float:
    """The ceiling of a wait that is over within ``seconds`` wherever nothing is wrong and nothing slow."""
    return seconds * pace(environment)


def stretched(seconds: float, environment: Mapping[str, str] = os.environ) -> float:
    """A deadline of the worker's own that must not strike for want of a core, and that some test sits out."""
    return seconds * min(pace(environment), STRETCHED_MOST)


def in_milliseconds(seconds: float, environment: Mapping[str, str] = os.environ) -> str:
    """The same as a setting of the worker's."""
    return str(round(stretched(seconds, environment) * 1000))


def measure(
    clock: Callable[[], float] = time.perf_counter,
    work: Callable[[], object] | None = None,
    start: Callable[[], object] | None = None,
) -> float:
    """Work for a moment, start a process, and compare the slower of both with what it takes elsewhere."""
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
    """Measure, unless the variable says already what is to hold, and leave it there for everybody."""
    if not environment.get(VARIABLE):
        environment[VARIABLE] = f"{measured():.2f}"


def _bounded(figure: float) -> float:
    return min(max(figure, 1.0), MOST)


def _work() -> int:
    return sum(number * number % 7 for number in range(20_000))


def _start() -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, stdin=subprocess.DEVNULL)
