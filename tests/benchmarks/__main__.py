"""``python -m tests.benchmarks``: measure, print tables, and write figures and plots.

Exit 0 if everything was measured, whatever the figures are; 1 if something could not be, or was answered wrongly.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from tests.benchmarks.auditing import auditing
from tests.benchmarks.bulk import bulk
from tests.benchmarks.capacity import capacity
from tests.benchmarks.compare import ROUNDS, compare
from tests.benchmarks.flooding import flooding
from tests.benchmarks.growth import growth
from tests.benchmarks.importing import importing
from tests.benchmarks.inflating import inflating
from tests.benchmarks.latency import latency
from tests.benchmarks.rehearsing import rehearsing
from tests.benchmarks.report import Report
from tests.benchmarks.retiring import retiring
from tests.benchmarks.snapshot import snapshot
from tests.benchmarks.stage import open_stage
from tests.benchmarks.submitting import submitting
from tests.providers import Unavailable

PLAIN: Final = {
    "capacity": capacity,
    "growth": growth,
    "audit": auditing,
    "bulk": bulk,
    "import": importing,
    "dry-run": rehearsing,
    "inflating": inflating,
    "flooding": flooding,
    "retention": retiring,
}
IN_ROUNDS: Final = {"submit": submitting, "snapshot": snapshot}
SECTIONS: Final = ("compare", "latency", *PLAIN, *IN_ROUNDS)


async def run(options: argparse.Namespace) -> None:
    """Run the sections asked for, on one stage."""
    task = asyncio.current_task()
    assert task is not None
    # A signal that ends this process also ends the programs it started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    report = Report(options.out)
    async with open_stage() as stage:
        report.table("What it was measured on", ("what", "stated"), list(stage.describe().items()))
        saturation = None
        if "compare" in options.only:
            saturation = (await compare(stage, report, options.quick, rounds=options.rounds)).saturation
        if "latency" in options.only:
            await latency(stage, report, options.quick, saturation=saturation)
        for name, measure in PLAIN.items():
            if name in options.only:
                await measure(stage, report, options.quick)
        for name, in_turn in IN_ROUNDS.items():
            if name in options.only:
                await in_turn(stage, report, options.quick, rounds=options.rounds)
        report.keep("commit latency at the end, ms", await stage.commit_latency() * 1000)
    report.write()


def sections(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure the worker.")
    parser.add_argument("--only", type=sections, default=list(SECTIONS), help=f"some of: {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help=f"of compare, submit and snapshot (default {ROUNDS}, quick 1)")
    parser.add_argument("--quick", action="store_true", help="a little of everything: for trying out, not for figures")
    parser.add_argument("--out", type=Path, default=Path("build", "bench"), help="where figures and plots go")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    try:
        asyncio.run(run(options))
    except Unavailable as why:
        sys.stderr.write(f"nothing can be measured here: {why}\n")
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0


if __name__ == "__main__":
    sys.exit(main())
