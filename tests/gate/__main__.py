"""``python -m tests.gate ci`` and ``python -m tests.gate verify``: the gate of a change, and that of a release.

Exit 0 if every promise was kept, 1 if one was broken, 64 for wrong arguments. Stages that could not be checked are
named in the last lines: ``verify`` exits 2 then, and ``ci`` 0.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tests.gate import levels, stages
from tests.gate.checkout import RESULTS, Memory, checkout
from tests.gate.levels import Gate
from tests.gate.stages import Stage
from tests.gate.telling import again
from tests.gate.verdicts import Result, Verdict
from tests.model.check import Parser


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="python -m tests.gate", description="what a change must pass")
    both = parser.add_subparsers(dest="level", required=True)
    quick = both.add_parser("ci", help="from cheap to dear, stops at the first broken thing")
    quick.add_argument("--began", type=float, help="when the installation began (seconds since 1970)")
    quick.add_argument("--minutes", type=float, help="end what still runs after so many, the installation included")
    whole = both.add_parser("verify", help="all of it, whatever breaks")
    whole.add_argument("--from", dest="first", metavar="STAGE", help="resume there, with the results from before")
    whole.add_argument("--only", metavar="STAGE", help="this one, with the results from before")
    for level in (quick, whole):
        level.add_argument("--list", action="store_true", help="list the stages and their commands, and end")
    return parser


def listed(stages: Sequence[Stage], out: TextIO) -> None:
    """Print each stage: its name, its promise, and the command that runs it by hand."""
    out.writelines(f"{stage.name:<13} {stage.promise}\n{'':<13} {again(stage, {})}\n" for stage in stages)


def picked(all_: Sequence[Stage], first: str | None, only: str | None) -> Sequence[Stage]:
    """Return the stages from one on, or one. Raises ``ValueError`` if there is none of that name."""
    names = [stage.name for stage in all_]
    for name in (first, only):
        if name is not None and name not in names:
            raise ValueError(f"no stage is called {name}; there are {', '.join(names)}")
    if only is not None:
        return [all_[names.index(only)]]
    return all_[names.index(first) :] if first is not None else all_


def logs() -> Path:
    """Return a directory for the logs of this run."""
    return Path(tempfile.mkdtemp(prefix="effective-worker-gate-"))


def ci(options: argparse.Namespace) -> int:
    """Run the level of every change."""
    now = checkout()
    all_ = stages.ci(now.commit)
    if options.list:
        listed(all_, sys.stdout)
        return 0
    spent = max(0.0, time.time() - options.began) if options.began is not None else 0.0
    gate = Gate(all_, logs())
    if options.began is not None:
        gate.results["install"] = Result("install", Verdict.KEPT, spent)
    if options.minutes is not None:
        gate.until = time.monotonic() - spent + options.minutes * 60
    return levels.ci(gate, now.told)


def verify(options: argparse.Namespace, parser: Parser) -> int:
    """Run the level of a release, or the rest of it."""
    all_ = stages.verify()
    if options.list:
        listed(all_, sys.stdout)
        return 0
    try:
        chosen = picked(all_, options.first, options.only)
    except ValueError as wrong:
        parser.error(str(wrong))
    anew = options.first is None and options.only is None
    return levels.verify(Gate(all_, logs()), checkout, Memory(RESULTS), chosen=chosen, anew=anew)


def main() -> int:
    command_line = parser()
    options = command_line.parse_args()
    # A signal that ends the gate also ends the programs it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return ci(options) if options.level == "ci" else verify(options, command_line)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
