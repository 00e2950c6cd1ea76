"""Check the protocol exhaustively for small bounds: every configuration must hold, every mutant must break.

Needs spin and gcc, and nothing else. README.md tells what P1 to P6 mean, and what is not modelled.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn, TextIO

HERE: Final = Path(__file__).resolve().parent
MEMORY_MIB: Final = 2000
"""MiB of one run; two run at a time."""
AT_ONCE: Final = 2
DEPTH: Final = 1_000_000
HOLDS: Final = "holds"
BROKEN: Final = 1
NOT_CHECKED: Final = 2
USAGE: Final = 64
MUTANTS_IN_TURN: Final = 12
CONFIGURATIONS_IN_TURN: Final = 1


class Unusable(Exception):
    """A tool is missing or does not work: this says nothing about the protocol."""


@dataclass(frozen=True, slots=True)
class Run:
    """One exhaustive search. ``breaks`` is the property that must be violated, ``None`` if all must hold.

    ``quick``: a few CPU seconds, and a part of the protocol that the others do not reach.
    """

    name: str
    bounds: str
    breaks: str | None = None
    model: str = "lane"
    live: bool = False
    quick: bool = False

    @property
    def defines(self) -> list[str]:
        live = ["-DLIVE"] if self.live else []
        return live + [f"-D{bound}" for bound in self.bounds.split()]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a search: ``holds`` or the violated property, the states stored, seconds, MiB."""

    run: Run
    result: str
    states: int
    seconds: float
    memory: float

    @property
    def expected(self) -> bool:
        return self.result == (self.run.breaks or HOLDS)


CONFIGURATIONS: Final = (
    Run("a crash and a rebalance", "CRASHES=1 REBALANCES=1", quick=True),
    Run("four commands", "N=4 REBALANCES=1"),
    Run("two of each", "N=2 CRASHES=2 REBALANCES=2"),
    Run("an answer is lost", "CRASHES=1 REBALANCES=1 LOST=1"),
    Run("two answers are lost", "N=2 REBALANCES=1 LOST=2", quick=True),
    Run("a request is late", "REBALANCES=1 LATE=1", quick=True),
    Run("lost and late", "N=2 REBALANCES=1 LOST=1 LATE=1"),
    Run("a Produce is refused, a transaction timed out", "N=2 REBALANCES=1 REFUSALS=1 TIMEOUTS=1 LATE=1"),
    Run("an answer is refused for good (Kafka halves)", "CRASHES=1 REBALANCES=1 LARGE=1", quick=True),
    Run("the same, with faults", "N=2 REBALANCES=1 LARGE=0 REFUSALS=1 LOST=1"),
    Run("a bad command (Postgres halves)", "CRASHES=1 REBALANCES=1 BAD=1 ROLLBACKS=1"),
    Run("batches refused as such", "CRASHES=1 REBALANCES=1 TOGETHER=1 LOST=1"),
    Run("fencing looks like another error, restarts", "N=2 REBALANCES=2 MASKED=1 AWAY=1 TIMEOUTS=1"),
    Run("an old broker", "N=2 CRASHES=1 REBALANCES=1 LATE=1 VERIFY=0"),
    Run("at_least_once", "DELIVERY=1 CRASHES=1 REBALANCES=1 LOST=1"),
    Run("at_least_once, late and refused", "N=2 DELIVERY=1 REBALANCES=1 LATE=1 REFUSALS=1 LARGE=1", quick=True),
    Run("change-over after crashes", "DELIVERY=2 CRASHES=2 LOST=1", quick=True),
    Run("change-over with a zombie", "N=2 DELIVERY=2 REBALANCES=1 LOST=1 LATE=1"),
    Run("liveness", "N=2 CRASHES=1 REBALANCES=1", live=True),
    Run("liveness, restarts without a heartbeat", "N=2 REBALANCES=1 AWAY=1 LOST=1", live=True),
    Run("liveness, fencing always looks like another error", "N=2 REBALANCES=1 MASKED=-1", live=True, quick=True),
    Run("liveness, a zombie deaf to the group", "N=3 REBALANCES=1 DEAF=1", live=True),
    Run("the same, and fencing always looks like another error", "N=2 REBALANCES=1 DEAF=1 MASKED=-1", live=True),
    Run("commands are removed unread", "N=2 RETENTIONS=1 CRASHES=1 REBALANCES=1"),
    Run("removed in two steps", "RETENTIONS=2 CRASHES=1"),
    Run("removed, an answer is lost", "N=2 RETENTIONS=1 CRASHES=1 LOST=1"),
    Run("removed, and a former owner publishes again", "N=2 RETENTIONS=1 REBALANCES=1 LOST=1"),
    Run("the group's offset expires", "EXPIRIES=1 STOPS=1 CRASHES=1"),
    Run("removed unread, and the offset expires", "N=2 RETENTIONS=1 EXPIRIES=1 STOPS=1 CRASHES=1", quick=True),
    Run("the offset expires, with a zombie", "N=2 EXPIRIES=1 STOPS=1 CRASHES=1 REBALANCES=1"),
    Run("Postgres is put back", "RESTORES=1 CRASHES=1"),
    Run("Postgres is put back, with a zombie", "N=2 RESTORES=1 REBALANCES=1"),
    Run("Postgres is put back, a former owner publishes again", "N=2 RESTORES=1 REBALANCES=1 LOST=1"),
    Run("Postgres is put back, an answer is lost", "N=2 RESTORES=1 CRASHES=1 LOST=1", quick=True),
    Run("the log is cut, and its start goes on", "CUTS=1 RETENTIONS=1 STOPS=1", quick=True),
    Run("the log is cut, with a zombie", "N=2 CUTS=1 CRASHES=1 REBALANCES=1"),
    Run("a marker at the end", "MARKER=2 CRASHES=1 REBALANCES=1"),
    Run("a marker in between", "MARKER=1 CRASHES=1 REBALANCES=1"),
    Run("a marker, an answer is lost", "MARKER=2 REBALANCES=1 LOST=1"),
    Run("statement by statement", "STATEMENTS=1 CRASHES=1 REBALANCES=1"),
    Run("statement by statement, with a marker", "N=2 MARKER=1 STATEMENTS=1 REBALANCES=1 ROLLBACKS=1", quick=True),
    Run("one id, the same request", "CASE=1", model="ids"),
    Run("one id, the right granted meanwhile", "CASE=1 LATE_RIGHT=1", model="ids"),
    Run("one id, another request", "CASE=2 LATE_RIGHT=1", model="ids"),
    Run("one id, twice in one batch", "CASE=3 LATE_RIGHT=1", model="ids"),
    Run("one id, both", "CASE=4 LATE_RIGHT=1", model="ids", quick=True),
    Run("one id, beside another for the same token", "CASE=5 LATE_RIGHT=1", model="ids"),
)

DEEP: Final = (
    Run("four commands, a crash too", "N=4 CRASHES=1 REBALANCES=1"),
    Run("a late request and a crash", "CRASHES=1 REBALANCES=1 LATE=1"),
    Run("lost and late, three commands", "REBALANCES=1 LOST=1 LATE=1"),
    Run("lost and late, a crash too", "N=2 CRASHES=1 REBALANCES=1 LOST=1 LATE=1"),
    Run("change-over with a zombie and a crash", "N=2 DELIVERY=2 CRASHES=1 REBALANCES=1 LOST=1 LATE=1"),
    Run("refused for good, refused once, a crash", "CRASHES=1 REBALANCES=1 LARGE=1 REFUSALS=1"),
    Run("a bad command, a lost answer, a crash", "CRASHES=1 REBALANCES=1 BAD=1 ROLLBACKS=1 LOST=1"),
    Run("two rebalances, restarts, a time-out", "REBALANCES=2 TIMEOUTS=1 AWAY=1 MASKED=1"),
    Run("at_least_once, lost and late", "DELIVERY=1 CRASHES=1 REBALANCES=1 LOST=1 LATE=1"),
    Run("commands are removed unread, three commands", "RETENTIONS=1 CRASHES=1 REBALANCES=1"),
    Run("the group's offset expires, an answer is lost", "N=2 EXPIRIES=1 STOPS=1 CRASHES=1 REBALANCES=1 LOST=1"),
    Run("Postgres is put back, a zombie and a crash", "N=2 RESTORES=1 CRASHES=1 REBALANCES=1"),
    Run("liveness, two rebalances", "N=2 CRASHES=1 REBALANCES=2", live=True),
    Run("liveness, all restarts", "N=2 REBALANCES=1 AWAY=1 LOST=1 TIMEOUTS=1", live=True),
)

MUTANTS: Final = (
    Run("NO_RECORD", "N=2 REBALANCES=1", "P3"),
    Run("NO_RECALL", "N=2 CRASHES=1", "P1"),
    Run("NO_HOLD", "N=2 REBALANCES=1 NO_OWNER_CHECK=1 NO_NEXT_CHECK=1", "P1"),
    Run("NO_NEXT_CHECK", "N=2 LOST=1", "P1"),
    Run("NO_GREATEST", "CRASHES=1", "P1"),
    Run("OFFSET_BEFORE", "N=2", "P4"),
    Run("OFFSET_AFTER", "N=2 CRASHES=1", "P2"),
    Run("NO_GATHER", "N=2 REFUSALS=1", "P4"),
    Run("READ_BEFORE_OPEN", "N=2 CRASHES=1", "P2"),
    Run("NO_READ_AFTER_OPEN", "N=2 LOST=1", "P2"),
    Run("NO_REPLACEMENT", "LATE=1", "P4"),
    Run("ID_PER_WORKER", "N=2 REBALANCES=1", "P4"),
    Run("SEND_ABORT", "N=2 LATE=1 VERIFY=0", "P2"),
    Run("NO_RESTART", "N=2 REBALANCES=1", "P1"),
    Run("NO_HEARTBEAT", "N=2 REBALANCES=1 DEAF=1", "P5", live=True),
    Run("NO_QUESTION", "N=2 REBALANCES=1 DEAF=1 MASKED=-1", "P5", live=True),
    Run("NO_SECOND_QUESTION", "N=2 RETENTIONS=1 REBALANCES=1 LOST=1", "P4"),
    Run("NO_CANCEL", "N=2 REBALANCES=1", "P5", live=True),
    Run("NO_HALVING", "N=2 LARGE=1", "P1"),
    Run("WHOLE_BOUNDARY", "N=2 LARGE=1", "P4"),
    Run("OTHER_STATUS", "N=2 LARGE=1", "P3"),
    Run("BLAME_BATCH", "N=2 BAD=1", "P3"),
    Run("RIGHT_FIRST", "N=2 TOGETHER=1", "P3"),
    Run("NO_RECORD (at_least_once)", "N=2 DELIVERY=1 CRASHES=1", "P3"),
    Run("NO_GATHER (at_least_once)", "N=2 DELIVERY=1 REFUSALS=1", "P4"),
    Run("OFFSET_BEFORE (at_least_once)", "N=2 DELIVERY=1", "P4"),
    Run("NO_SETTLING (change-over)", "N=2 DELIVERY=2 CRASHES=2", "P1"),
    Run("LOSE_SILENTLY", "N=2 RETENTIONS=1", "P1"),
    Run("LOSE_ANSWERED", "N=2 RETENTIONS=1", "P6"),
    Run("LOSE_APART", "N=2 RETENTIONS=1 CRASHES=1", "P6"),
    Run("LOSE_UNOWNED", "N=2 RETENTIONS=1 REBALANCES=1", "P6"),
    Run("NO_ORDER", "N=2 RETENTIONS=1 CRASHES=1", "P4"),
    Run("FORGET_EARLY", "N=2 RETENTIONS=1 CRASHES=1", "P4"),
    Run("FORGET_UNSETTLED", "N=2 RESTORES=1", "P4"),
    Run("ORDER_UNSETTLED", "N=2 RETENTIONS=1 CRASHES=1", "P4"),
    Run("ORDER_UNASKED", "N=1 RESTORES=1 REBALANCES=1", "P4"),
    Run("NO_SETTLE", "N=2 EXPIRIES=1 STOPS=1", "P2"),
    Run("SETTLE_EARLY", "N=2 EXPIRIES=1 CRASHES=1", "P4"),
    Run("FROM_LOG_START", "EXPIRIES=1 CRASHES=1", "P2"),
    Run("FIRST_START_ANYWAY", "N=2 RESTORES=1", "P3"),
    Run("GO_ON_FORWARD", "N=2 RESTORES=1", "P3"),
    Run("DECIDE_AGAIN", "N=2 RESTORES=1", "P3"),
    Run("NO_BLOCK", "CUTS=1 RETENTIONS=1 STOPS=1", "P4"),
    Run("NO_SAME_RECORD", "N=2 CUTS=1 STOPS=1", "P1"),
    Run("NO_LOCK", "BATCH=1 STATEMENTS=1 REBALANCES=1 LOST=1", "P3"),
    Run("NO_REST", "N=2 MARKER=1", "P1"),
    Run("REST_UNDECIDED", "N=2 MARKER=1 CRASHES=1", "P4"),
    Run("RECALL_FIRST", "CASE=1", "P3", model="ids"),
    Run("NO_DOUBT", "CASE=1", "P3", model="ids"),
    Run("NO_SHARED", "CASE=5", "P3", model="ids"),
    Run("ALWAYS_TRUSTING", "CASE=2", "P1", model="ids"),
    Run("NO_OVERTAKEN", "CASE=2", "P2", model="ids"),
    Run("KEEP_WRITES", "CASE=2", "P3", model="ids"),
    Run("BIND_REFUSALS", "CASE=1 LATE_RIGHT=1", "P1", model="ids"),
    Run("UNSORTED_TOKENS", "CASE=1", "P1", model="ids"),
    Run("UNSORTED_IDS", "CASE=2", "P1", model="ids"),
)

REMARKS: Final = (
    Run("NO_OWNER_CHECK: next_offset alone tells owners apart", "N=2 CRASHES=1 REBALANCES=1 LOST=1 NO_OWNER_CHECK=1"),
    Run("OPEN_BEFORE_OWN: the order of these two is free", "N=2 CRASHES=1 REBALANCES=1 LOST=1 OPEN_BEFORE_OWN=1"),
)


def mutated(run: Run) -> Run:
    """Return the mutant's own switch, which is its name, unless its bounds already set one."""
    switch = run.name.split()[0]
    if switch == "NO_HOLD":
        return run
    return replace(run, bounds=f"{run.bounds} {switch}=1")


def in_turn(names: Sequence[str], turn: str, count: int) -> list[str]:
    """Return so many of the names, chosen by ``turn`` alone: over many turns, each comes as often as any other."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{turn} {name}".encode()).digest())
    return sorted(ranked[:count], key=list(names).index)


def quick(turn: str) -> tuple[list[Run], list[Run]]:
    """Return the configurations and mutants of ``--quick``: those that alone reach something, and others in turn."""

    def chosen(runs: Sequence[Run], count: int) -> list[Run]:
        names = in_turn([run.name for run in runs if not run.quick], turn, count)
        return [run for run in runs if run.quick or run.name in names]

    return chosen(CONFIGURATIONS, CONFIGURATIONS_IN_TURN), chosen([*map(mutated, MUTANTS)], MUTANTS_IN_TURN)


def searched(run: Run, *, shortest: bool = False, trace: bool = False, optimised: bool = True) -> tuple[Verdict, str]:
    """Build and run the search in a directory of its own.

    Returns the verdict and, if asked for, the counter-example. Raises ``Unusable`` if the search could not be finished.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="effective-worker-model-") as name:
        directory = Path(name)
        source = str(shutil.copy(HERE / f"{run.model}.pml", directory))
        _called(["spin", *run.defines, "-a", source], directory)
        kind = ["-DNFAIR=2"] if run.live else ["-DSAFETY", "-DNOCLAIM", *(["-DBFS"] if shortest else [])]
        # The compiler takes most of the time of a short search.
        level = "-O2" if optimised and run.breaks is None and not run.quick else "-O0"
        compiled = ["gcc", level, "-w", f"-DMEMLIM={MEMORY_MIB}", *kind]
        _called([*compiled, "-o", "pan", "pan.c"], directory)
        output = _called(["./pan", f"-m{DEPTH}", "-E", "-w22", *(["-a", "-f"] if run.live else [])], directory)
        verdict = _read(run, output, time.monotonic() - began)
        said = _trace(run, source, directory) if trace else ""
    return verdict, said


def _called(command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unusable(f"{command[0]} failed: {(done.stderr + done.stdout).strip()[:600]}")
    return done.stdout


def _read(run: Run, output: str, seconds: float) -> Verdict:
    states = re.search(r"(\S+) states, stored", output)
    memory = re.search(r"(\S+)\s+total actual memory usage", output)
    errors = re.search(r"errors: (\d+)", output)
    if states is None or errors is None or (errors[1] == "0" and re.search("not completed|too small", output)):
        raise Unusable(f"the search of {run.name} was not finished: {output.strip()[:600]}")
    result = HOLDS
    if errors[1] != "0":
        broken = re.search(r"property_(\d)", next(line for line in output.splitlines() if line.startswith("pan:1:")))
        result = f"P{broken[1]}" if broken else "P5" if "acceptance cycle" in output else "another error"
    return Verdict(run, result, int(float(states[1])), seconds, float(memory[1]) if memory else 0.0)


def _trace(run: Run, source: str, directory: Path) -> str:
    for trail in directory.glob("*.trail"):
        told = _called(["spin", *run.defines, "-t", "-k", trail.name, source], directory)
        kept = [line.strip() for line in told.splitlines() if "SAY" in line or "START OF CYCLE" in line]
        return "\n".join(line.removeprefix("SAY ") for line in kept)
    return ""


def _say(text: str, stream: TextIO = sys.stdout) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def reported(title: str, runs: Sequence[Run], *, shortest: bool = False, optimised: bool = True) -> bool:
    """Run all, and print a line for each as it ends, in order. True if all came out as expected."""
    _say(f"\n{title}")
    _say(f"  {'':<52} {'bounds':<62} {'states':>10} {'s':>5} {'MiB':>5}  result")
    well = True

    def search(run: Run) -> Verdict:
        return searched(run, shortest=shortest and not run.live, optimised=optimised)[0]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for verdict in pool.map(search, runs):
            run, mark = verdict.run, "" if verdict.expected else f"  <-- expected: {verdict.run.breaks or HOLDS}"
            shown = verdict.result if verdict.result == HOLDS else f"{verdict.result} breaks"
            bounds = f"{'live ' if run.live else ''}{run.bounds}"
            figures = f"{verdict.states:>10} {verdict.seconds:>5.1f} {verdict.memory:>5.0f}"
            _say(f"  {run.name:<52} {bounds:<62} {figures}  {shown}{mark}")
            well = well and verdict.expected
    return well


def told(name: str) -> int:
    """Print the counter-example of one mutant, or of one remark."""
    for run in (*map(mutated, MUTANTS), *REMARKS):
        if run.name == name:
            verdict, said = searched(run, shortest=not run.live, trace=True)
            _say(f"{said}\n{verdict.result} breaks" if said else "no counter-example")
            return 0
    _say(f"no mutant is called {name}", sys.stderr)
    return USAGE


class Parser(argparse.ArgumentParser):
    """A parser that exits 64 for a wrong option: 2 has a meaning of its own here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--deep", action="store_true", help="larger bounds: some minutes more, the same memory")
    size.add_argument("--quick", action="store_true", help="a selection that takes half a minute")
    parser.add_argument("--turn", default="", help="decides what else --quick takes: a commit, say")
    parser.add_argument("--trace", metavar="NAME", help="print the counter-example of this mutant or remark")
    return parser.parse_args()


def checked(arguments: argparse.Namespace) -> bool:
    """Run the searches asked for. True if all came out as expected."""
    configurations, mutants = [*CONFIGURATIONS, *(DEEP if arguments.deep else ())], [*map(mutated, MUTANTS)]
    if arguments.quick:
        configurations, mutants = quick(arguments.turn)
    optimised = not arguments.quick
    well = reported("The protocol: all of these hold", configurations, optimised=optimised)
    well = reported("Mutants: each breaks a property", mutants, shortest=True) and well
    return (arguments.quick or reported("Remarks (README.md)", REMARKS)) and well


def main() -> int:
    """Exit 0 if every configuration holds and every mutant breaks the property it should, 1 if one does not.

    Exit 2 if that could not be found out, for want of a tool or of memory.
    """
    arguments = options()
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        _say(f"{' and '.join(missing)} not found: the model needs both (on Debian: spin, gcc)", sys.stderr)
        return NOT_CHECKED
    os.environ["LC_ALL"] = "C"
    began = time.monotonic()
    try:
        if arguments.trace:
            return told(arguments.trace)
        well = checked(arguments)
    except Unusable as fault:
        _say(str(fault), sys.stderr)
        return NOT_CHECKED
    _say(f"\n{'as it should be' if well else 'NOT as it should be'}, after {time.monotonic() - began:.0f} s")
    return 0 if well else BROKEN


if __name__ == "__main__":
    sys.exit(main())
