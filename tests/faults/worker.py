"""``worker run`` with faults built in, as a program.

``python -m tests.faults.worker [--mutant NAME] [--point NAME:NUMBER:SIGNAL]... [--retention SECONDS]
[--without-postgres SECONDS] [--days-ahead DAYS]``
"""

import argparse
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any, Final

from tests.faults.holdings import tell
from tests.faults.mutants import MUTANTS
from tests.faults.points import arm
from worker import service
from worker.cli import main
from worker.operations import retention

BLOCKED_SECONDS: Final = 8.0
"""Seconds for which a SIGUSR1 blocks the event loop: longer than a session."""
DAY_SECONDS: Final = 24 * 60 * 60


def faulty(*points: str, mutant: str | None = None, **otherwise: float) -> tuple[str, ...]:
    """Return the arguments for Python: a worker with these points armed and that rule undone.

    ``otherwise`` names its unusual settings: the options of this program that take a number.
    """
    undone = () if mutant is None else ("--mutant", mutant)
    armed = (argument for point in points for argument in ("--point", point))
    options = (f"--{name.replace('_', '-')}={number:g}" for name, number in otherwise.items())
    return ("-m", "tests.faults.worker", *undone, *armed, *options)


def make_otherwise(*, retention_seconds: float | None, without_postgres: float | None, days_ahead: float) -> None:
    """Change settings in this process.

    They are the interval between the worker's looks for records to retire, the seconds without Postgres after which it
    leaves its group, and the clock that tells it the time of day.
    """
    at_work: Any = service
    retiring: Any = retention
    if retention_seconds is not None:
        retiring.INTERVAL_SECONDS = retention_seconds
    if without_postgres is not None:
        at_work.WITHOUT_POSTGRES_SECONDS = without_postgres
    if days_ahead:
        ahead = days_ahead * DAY_SECONDS
        # All users of a clock get it there.
        at_work.time = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)


def _stand() -> None:
    sys.stderr.write('{"event": "standing"}\n')
    sys.stderr.flush()
    time.sleep(BLOCKED_SECONDS)


def _run() -> None:
    parser = argparse.ArgumentParser(description="worker run, with faults built in")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="the rule to undo")
    parser.add_argument("--point", action="append", default=[], metavar="NAME:NUMBER:SIGNAL")
    parser.add_argument("--retention", type=float, metavar="SECONDS", help="how often to look for what to retire")
    parser.add_argument("--without-postgres", type=float, metavar="SECONDS", help="when to leave the group for it")
    parser.add_argument("--days-ahead", type=float, default=0.0, metavar="DAYS", help="of its clock")
    asked = parser.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: _stand())
    signal.signal(signal.SIGUSR2, lambda *_: tell())
    if asked.mutant is not None:
        MUTANTS[asked.mutant].undo()
    # After the mutant: its calls to the client pass the points as well.
    try:
        for point in asked.point:
            arm(point)
    except ValueError as error:
        parser.error(str(error))
    make_otherwise(
        retention_seconds=asked.retention, without_postgres=asked.without_postgres, days_ahead=asked.days_ahead
    )
    sys.argv[1:] = ["run"]
    main()


if __name__ == "__main__":
    _run()
