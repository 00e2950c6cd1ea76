"""Run as a program: ``worker run`` with faults built in.

``python -m tests.faults.worker [--mutant NAME] [--point NAME:NUMBER:SIGNAL]...``
"""

import argparse
import signal
import sys
import time
from typing import Final

from tests.faults.holdings import tell
from tests.faults.mutants import MUTANTS
from tests.faults.points import arm
from worker.cli import main

BLOCKED_SECONDS: Final = 8.0
"""For how long a SIGUSR1 blocks the event loop: longer than a session."""


def faulty(*points: str, mutant: str | None = None) -> tuple[str, ...]:
    """What to run Python with: a worker with these points armed and that rule undone."""
    undone = () if mutant is None else ("--mutant", mutant)
    armed = (argument for point in points for argument in ("--point", point))
    return ("-m", "tests.faults.worker", *undone, *armed)


def _stand() -> None:
    sys.stderr.write('{"event": "standing"}\n')
    sys.stderr.flush()
    time.sleep(BLOCKED_SECONDS)


def _run() -> None:
    parser = argparse.ArgumentParser(description="worker run, with faults built in")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="the rule to undo")
    parser.add_argument("--point", action="append", default=[], metavar="NAME:NUMBER:SIGNAL")
    asked = parser.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: _stand())
    signal.signal(signal.SIGUSR2, lambda *_: tell())
    if asked.mutant is not None:
        MUTANTS[asked.mutant].undo()
    # After the mutant: what it calls by way of the client passes the points as well.
    try:
        for point in asked.point:
            arm(point)
    except ValueError as error:
        parser.error(str(error))
    sys.argv[1:] = ["run"]
    main()


if __name__ == "__main__":
    _run()
