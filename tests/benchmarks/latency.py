"""The time for which a command waits for its answer: alone, and at fixed rates up to 80 % of the worker's maximum.

From the sender's clock before it sends to the ``read_committed`` reader, in an open loop (``openloop``). Beside both
ways of delivery stands Kafka alone, the transactional echo, and the clients alone: sender to reader, with nothing
between them. All run from the beginning and are measured in turn, each for seconds, round after round, so that they
meet the same machine; the others stand still meanwhile. Sender, reader, worker and servers share the machine's cores.
"""

import asyncio
import dataclasses
import json
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.acceptance.worker_process import ROOT, WorkerProcess
from tests.benchmarks.load import Backlog, make_tokens, new_run
from tests.benchmarks.openloop import Phase, Plan, Timed
from tests.benchmarks.report import Cell, Report
from tests.benchmarks.rounds import SHOWN_LOG, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import AT_LEAST, EXACTLY, KAFKA, Subject, process
from tests.providers.kafka import TopicNames
from worker.kafka.topics import PARTITIONS

RATES: Final = (1, 100, 500, 1000, 2000)
"""Commands a second."""
OF_SATURATION: Final = 0.8
NOBODY: Final = "the clients alone"
LONE: Final = 0
"""Stands for a rate where commands come one by one, each after all has been idle for a while."""
SUBJECTS: Final = (KAFKA, EXACTLY, AT_LEAST)
WARM_UP: Final = Phase(200, 200.0)
"""The warm-up of each pass: a subject that stood still needs it."""
FIRST_WARM_UP: Final = Phase(600, 200.0)
LONE_BAR: Final = 2.0
"""A lone command's median, beside the same of Kafka alone."""
BUSY_BAR: Final = 3.0
BUSY_RATE: Final = 500
"""The rate whose 99th percentile is compared with that of Kafka alone."""


@dataclass(frozen=True, slots=True)
class Size:
    """The amount measured: rounds, seconds of a pass at a rate, lone commands of a pass."""

    rounds: int
    seconds: float
    lone: int

    def phase(self, rate: int) -> Phase:
        return Phase(self.lone) if rate == LONE else Phase.at(rate, self.seconds)


WHOLE: Final = Size(3, 4.0, 20)
QUICK: Final = Size(1, 1.0, 6)


@dataclass(frozen=True, slots=True)
class Summary:
    """All passes of a subject at a rate, in milliseconds: the median pass, but the extremes of all commands together.

    ``late`` is the sender's own delay, at its 99th percentile; ``cores`` is the number of busy ones.
    """

    count: int
    p50: float
    p99: float
    p999: float
    longest: float
    late: float
    cores: float


Measured = dict[str, dict[int, Summary]]
"""By subject and rate."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all do not exceed. There must be one."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def summary(passes: Sequence[Timed]) -> Summary:
    """Return the summary of passes that were made alike."""
    whole = [each for timed in passes for each in timed.took]

    def of_median_pass(figure: Callable[[Timed], float]) -> float:
        return median(map(figure, passes))

    return Summary(
        count=len(whole),
        p50=of_median_pass(lambda timed: percentile(timed.took, 0.5)),
        p99=of_median_pass(lambda timed: percentile(timed.took, 0.99)),
        p999=percentile(whole, 0.999),
        longest=max(whole),
        late=of_median_pass(lambda timed: percentile(timed.late, 0.99)),
        cores=of_median_pass(lambda timed: timed.cores),
    )


async def latency(stage: Stage, report: Report, quick: bool, *, saturation: float | None = None) -> None:
    """Measure every subject at every rate, and report.

    ``saturation`` (commands a second) is measured if it is not given.
    """
    if saturation is None:
        saturation = await _saturation(stage, 20_000 if quick else 60_000)
    rates = (LONE, *RATES, round(OF_SATURATION * saturation))
    passes = await _in_turn(stage, report, rates, QUICK if quick else WHOLE)
    measured = {
        name: {rate: summary(each) for rate, each in by_rate.items() if each} for name, by_rate in passes.items()
    }
    _report(report, measured, saturation)


async def _saturation(stage: Stage, count: int) -> float:
    """Return commands per second when they wait."""
    run = new_run()
    await make_tokens(stage.owner_dsn, run, count)
    return (await play(stage, EXACTLY, Backlog.of(run, range(1, count + 1)))).rate


# --- passes -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Target:
    """A receiver of commands: a subject that stands still until its turn comes, or none. ``sent``: so far."""

    name: str
    topics: TopicNames
    run: str
    running: WorkerProcess | None = None
    sent: int = 0

    def plan(self, stage: Stage, warm_up: Phase, phase: Phase) -> Plan:
        """Return a pass with the commands that come next."""
        first, self.sent = self.sent + 1, self.sent + warm_up.count + phase.count
        servers, sent_to = (stage.postgres_pid, stage.kafka_pid), self.topics.commands
        if self.running is None:  # the reader reads the sender's records directly
            return Plan(stage.bootstrap, sent_to, sent_to, self.run, first, warm_up, phase, None, servers)
        pids = (*servers, self.running.pid)
        return Plan(stage.bootstrap, sent_to, self.topics.results, self.run, first, warm_up, phase, "OK", pids)


async def _in_turn(
    stage: Stage, report: Report, rates: Sequence[int], size: Size
) -> Mapping[str, Mapping[int, list[Timed]]]:
    """Measure every pass, by subject and rate. Of the clients alone one round is enough."""
    needed = FIRST_WARM_UP.count + 1 + size.rounds * sum(WARM_UP.count + size.phase(rate).count for rate in rates)
    async with _targets(stage, needed) as (nobody, *others):
        passes: dict[str, dict[int, list[Timed]]] = {
            target.name: {rate: [] for rate in rates} for target in (nobody, *others)
        }
        for target in others:
            await _pass(stage, target, FIRST_WARM_UP, Phase(1))
        for number in range(1, size.rounds + 1):
            for rate in rates:
                await stage.settle()
                for target in (nobody, *others) if number == 1 else others:
                    passes[target.name][rate].append(await _pass(stage, target, WARM_UP, size.phase(rate)))
            report.say(f"round {number} of {size.rounds}: every rate was offered")
        return passes


@asynccontextmanager
async def _targets(stage: Stage, needed: int) -> AsyncIterator[list[Target]]:
    """Yield the empty target and all subjects, running; each that wants access tokens has as many as ``needed``."""
    targets = [Target(NOBODY, await stage.new_topics(PARTITIONS), new_run())]
    with ExitStack() as running:
        for subject in SUBJECTS:
            target = Target(subject.title, await stage.new_topics(PARTITIONS), new_run())
            if subject is not KAFKA:
                await make_tokens(stage.owner_dsn, target.run, needed)
            target.running = process(subject, stage, target.topics).start()
            running.callback(target.running.kill)
            targets.append(target)
        yield targets
    for target in targets:
        await stage.drop_topics(target.topics)


async def _pass(stage: Stage, target: Target, warm_up: Phase, phase: Phase) -> Timed:
    """Let the target go, carry out one plan, and let it stand still again."""
    if target.running is None:
        return await carried_out(target.plan(stage, warm_up, phase))
    target.running.resume()
    try:
        return await carried_out(target.plan(stage, warm_up, phase))
    except Exception as error:
        error.add_note(f"{target.name} wrote:\n{target.running.logs()[-SHOWN_LOG:]}")
        raise
    finally:
        target.running.pause()


async def carried_out(plan: Plan) -> Timed:
    """Let the open loop carry out the plan. Raises ``RuntimeError`` with its output if it cannot."""
    loop = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.benchmarks.openloop",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complaint = await loop.communicate(json.dumps(dataclasses.asdict(plan)).encode())
    finally:
        if loop.returncode is None:
            loop.kill()
    if loop.returncode:
        raise RuntimeError(f"the open loop ended with {loop.returncode}: {complaint.decode()[-2000:]}")
    return Timed(**json.loads(said))


# --- the report -------------------------------------------------------------------------------------------------------


def _report(report: Report, measured: Measured, saturation: float) -> None:
    report.table(
        f"How long an answer takes, in ms ({PARTITIONS} partitions; saturated at {saturation:,.0f}/s)",
        ("", "per second", "commands", "p50", "p99", "p99.9", "longest", "sender late, p99", "cores busy"),
        [(name, *_cells(rate, each)) for name, by_rate in measured.items() for rate, each in by_rate.items()],
    )
    report.table(
        "The same, beside Kafka alone",
        ("", *(f"{rate:,}/s" if rate else "lone" for rate in measured[KAFKA.title])),
        [
            (f"{subject.title}, {part}", *(f"{times:.2f} x" for times in _ratios(measured, subject, part).values()))
            for subject in (EXACTLY, AT_LEAST)
            for part in ("p50", "p99")
        ],
    )
    series = {
        f"{name}, {part}": [(float(rate), float(getattr(each, part))) for rate, each in by_rate.items() if rate]
        for name, by_rate in measured.items()
        for part in ("p50", "p99")
    }
    report.plot("latency", "Latency at fixed rates", "commands per second, offered", "milliseconds", series, log="xy")
    for subject in (EXACTLY, AT_LEAST):
        _judge(report, measured, subject)


def _cells(rate: int, each: Summary) -> tuple[Cell, ...]:
    """Return the cells. A percentile with too few commands is left out: it would be the longest."""
    told = ((each.p50, 2), (each.p99, 100), (each.p999, 1000))
    shown = (value if each.count >= needed else None for value, needed in told)
    return (rate or "lone", each.count, *shown, each.longest, each.late, each.cores)


def _ratios(measured: Measured, subject: Subject, part: str) -> dict[int, float]:
    """Return a percentile at every rate, as a multiple of Kafka alone."""
    ours, theirs = measured[subject.title], measured[KAFKA.title]
    return {rate: getattr(ours[rate], part) / getattr(theirs[rate], part) for rate in ours}


def _judge(report: Report, measured: Measured, subject: Subject) -> None:
    lone, busy = _ratios(measured, subject, "p50")[LONE], _ratios(measured, subject, "p99")[BUSY_RATE]
    name = f"{subject.title}: a lone command's p50, beside f's"
    report.judge(name, f"<= {LONE_BAR:g} x", f"{lone:.2f} x", met=lone <= LONE_BAR)
    name = f"{subject.title}: p99 at {BUSY_RATE}/s, beside f's"
    report.judge(name, f"<= {BUSY_BAR:g} x", f"{busy:.2f} x", met=busy <= BUSY_BAR)
