"""Interactive commands while a migration runs: their waits beside a bulk topic, and the rate left for bulk.

An open loop of interactive commands is timed on an idle worker, and again while a backlog waits in its bulk topic. The
reader of the answers reads those of the bulk commands as well: they share the results topic. Beside it stand the same
with one topic for both, and the cost of a backlog in either topic alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from effective_contract.headers import CORRELATION_ID
from tests.acceptance.worker_process import WorkerProcess
from tests.benchmarks.latency import carried_out, percentile
from tests.benchmarks.load import Backlog, answered, make_tokens, new_run, read_headers, send_all, wait_through
from tests.benchmarks.meter import Meter
from tests.benchmarks.openloop import Phase, Plan, Timed
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import SHOWN_LOG, WARM
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY, process
from tests.providers.kafka import TopicNames, create_topics, delete_topics
from worker.kafka.topics import PARTITIONS
from worker.lanes.priority import LATELY_SECONDS

RATE: Final = 100
"""Interactive commands a second."""
WINDOW: Final = 5 * RATE
WARM_UP: Final = Phase(200, 100.0)
RATIO_BAR: Final = 3.0
"""The 99th percentile of interactive commands beside a backlog, as a multiple of the same without one."""
ALONE_BAR: Final = 0.95
"""The rate of a backlog in the bulk topic, beside that in the other."""


@dataclass(frozen=True, slots=True)
class Size:
    """Seconds of a pass, commands of the backlog beside it, rounds and commands of either backlog alone."""

    seconds: float
    backlog: int
    rounds: int
    alone: int


WHOLE: Final = Size(60.0, 500_000, 3, 100_000)
QUICK: Final = Size(5.0, 60_000, 1, 20_000)


@dataclass(frozen=True, slots=True)
class Place:
    """A worker and its topics. ``backlog`` is the topic that bulk commands are sent to: its own, or the only one."""

    stage: Stage
    topics: TopicNames
    backlog: str
    worker: WorkerProcess

    async def send(self, backlog: Backlog) -> None:
        """Send the backlog while the worker stands still: it neither begins on half of it nor pays for the sender."""
        self.worker.pause()
        await asyncio.to_thread(send_all, self.stage.bootstrap, self.backlog, backlog.written)
        await self.stage.settle()

    async def through(self, topic: str | None = None) -> None:
        """Wait until the topic (by default that of the backlog) has been worked off."""
        await asyncio.to_thread(wait_through, self.stage.bootstrap, self.worker.group, topic or self.backlog)

    async def timed(self, run: str, first: int, warm_up: Phase, phase: Phase) -> Timed:
        """Time interactive commands on the first topic. ``first`` is the number of the first one."""
        servers = (self.stage.postgres_pid, self.stage.kafka_pid, self.worker.pid)
        place = (self.stage.bootstrap, self.topics.commands, self.topics.results)
        return await carried_out(Plan(*place, run, first, warm_up, phase, "OK", servers))


@asynccontextmanager
async def place_for(stage: Stage, *, bulk: bool = True) -> AsyncIterator[Place]:
    """Run a warm worker with topics of its own. An error in the block carries the worker's output."""
    topics = await stage.new_topics(PARTITIONS)
    name, variables = topics.commands, {}
    if bulk:
        name = f"bulk-{topics.commands}"
        variables["WORKER_TOPICS__BULK_COMMANDS"] = name
        await asyncio.to_thread(create_topics, stage.bootstrap, name, partitions=PARTITIONS)
    place = Place(stage, topics, name, process(EXACTLY, stage, topics, variables=variables).start())
    warm = new_run()
    await make_tokens(stage.owner_dsn, warm, 2 * WARM)
    try:
        for topic, numbers in ((topics.commands, range(1, WARM + 1)), (name, range(WARM + 1, 2 * WARM + 1))):
            await asyncio.to_thread(send_all, stage.bootstrap, topic, Backlog.of(warm, numbers).written)
            await place.through(topic)
        yield place
    except Exception as error:
        error.add_note(f"the worker wrote:\n{place.worker.logs()[-SHOWN_LOG:]}")
        raise
    finally:
        place.worker.kill()
    await stage.drop_topics(topics)
    if bulk:
        await asyncio.to_thread(delete_topics, stage.bootstrap, name)


async def bulk(stage: Stage, report: Report, quick: bool) -> None:
    """Measure and report. The least sensitive part comes first: it warms the servers."""
    size = QUICK if quick else WHOLE
    await _alone(stage, report, size)
    await _behind(stage, report, size)
    await _beside(stage, report, size)


# --- interactive commands beside a backlog ----------------------------------------------------------------------------


async def _beside(stage: Stage, report: Report, size: Size) -> None:
    run, migration = new_run(), new_run()
    idle, busy = Phase.at(RATE, size.seconds / 2), Phase.at(RATE, size.seconds)
    await make_tokens(stage.owner_dsn, run, 3 * WARM_UP.count + 2 * idle.count + busy.count)
    await make_tokens(stage.owner_dsn, migration, size.backlog)
    async with place_for(stage) as place:
        before = await place.timed(run, 1, WARM_UP, idle)
        await place.send(Backlog.of(migration, range(1, size.backlog + 1)))
        place.worker.resume()
        first = 1 + WARM_UP.count + idle.count
        during = await place.timed(run, first, WARM_UP, busy)
        await place.through()
        first += WARM_UP.count + busy.count
        after = await place.timed(run, first, WARM_UP, idle)
        rates = await asyncio.to_thread(_rates, place, migration, run, range(first - busy.count, first))
    quiet = [*before.took, *after.took]
    ratio = usual(during.took, 0.99) / usual(quiet, 0.99)
    rows = [
        (name, len(took), usual(took, 0.5), usual(took, 0.99), percentile(took, 0.99), max(took), usual(late, 0.99))
        for name, took, late in (
            ("nothing else", quiet, [*before.late, *after.late]),
            (f"{size.backlog:,} bulk commands waiting", during.took, during.late),
        )
    ]
    columns = ("beside", "commands", "p50", "p99", "p99 of all", "longest", "sender late, p99")
    report.table(f"Interactive commands at {RATE}/s, in ms (p50 and p99 of the median five seconds)", columns, rows)
    report.table("Bulk commands per second", ("meanwhile", "afterwards"), [rates])
    report.judge(
        f"interactive p99 at {RATE}/s beside a backlog, by that without",
        f"<= {RATIO_BAR:g} x",
        f"{ratio:.2f} x",
        met=ratio <= RATIO_BAR,
    )


def usual(took: Sequence[float], share: float) -> float:
    """Return the percentile of the median five seconds: brief activity of the machine does not count."""
    passes = [took[first : first + WINDOW] for first in range(0, len(took), WINDOW)]
    return median(percentile(each, share) for each in passes)


def _rates(place: Place, migration: str, run: str, numbers: range) -> tuple[float, float]:
    """Return bulk commands a second, by the broker's clock: while these interactive ones were answered, and after."""
    bulk_ms, interactive_ms = [], []
    for headers, moment in read_headers(place.stage.bootstrap, place.topics.results):
        name, _, number = headers.get(CORRELATION_ID, b"").decode().rpartition("-")
        if name == migration:
            bulk_ms.append(moment)
        elif name == run and int(number) in numbers:
            interactive_ms.append(moment)
    begin, end = min(interactive_ms), max(interactive_ms)
    meanwhile = sum(begin <= each < end for each in bulk_ms) / (end - begin) * 1000
    alone = end + 1000 * (LATELY_SECONDS + 1)
    left = max(bulk_ms) - alone
    return meanwhile, sum(each >= alone for each in bulk_ms) / left * 1000 if left > 0 else float("nan")


# --- both in one topic ------------------------------------------------------------------------------------------------


async def _behind(stage: Stage, report: Report, size: Size) -> None:
    """Time interactive commands behind a backlog in their own topic."""
    run, migration = new_run(), new_run()
    phase = Phase.at(RATE, 1.0)
    await make_tokens(stage.owner_dsn, run, phase.count)
    await make_tokens(stage.owner_dsn, migration, size.alone)
    async with place_for(stage, bulk=False) as place:
        await place.send(Backlog.of(migration, range(1, size.alone + 1)))
        place.worker.resume()
        timed = await place.timed(run, 1, Phase(0, RATE), phase)
    columns = ("backlog in the same topic", "commands", "p50", "p99")
    row = (size.alone, len(timed.took), percentile(timed.took, 0.5), percentile(timed.took, 0.99))
    report.table(f"Interactive commands at {RATE}/s with one topic for both, in ms", columns, [row])


# --- a backlog alone --------------------------------------------------------------------------------------------------


async def _alone(stage: Stage, report: Report, size: Size) -> None:
    """Measure the same backlog on a worker with one topic, and in the bulk topic of another, in turn."""
    async with place_for(stage, bulk=False) as plain, place_for(stage) as divided:
        plain.worker.pause()
        divided.worker.pause()
        rounds = [(*await _rate(plain, size.alone), *await _rate(divided, size.alone)) for _ in range(size.rounds)]
    columns = ("commands", "one topic, /s", "µs a command", "in a bulk topic, /s", "µs a command there")
    report.table("A backlog and nothing else (µs of CPU, all processes)", columns, [(size.alone, *r) for r in rounds])
    normal, of_bulk = median(each[0] for each in rounds), median(each[2] for each in rounds)
    share = of_bulk / normal
    name = "a backlog in a bulk topic, by one in the only topic"
    report.judge(name, f">= {ALONE_BAR:g}", f"{share:.2f}", met=share >= ALONE_BAR)


async def _rate(place: Place, count: int) -> tuple[float, float]:
    """Return commands a second when they wait, and µs of CPU for each. The worker stands still around it."""
    run = new_run()
    await make_tokens(place.stage.owner_dsn, run, count)
    await place.send(Backlog.of(run, range(1, count + 1)))
    await asyncio.sleep(LATELY_SECONDS)  # or it would give way to earlier commands
    pids = (place.worker.pid, place.stage.postgres_pid, place.stage.kafka_pid)
    meter, began_ms = Meter({"all": pids}), time.time() * 1000
    place.worker.resume()
    await place.through()
    cost = meter.stop().total / count * 1e6
    place.worker.pause()
    answers = await asyncio.to_thread(answered, place.stage.bootstrap, place.topics.results, run)
    answers.check(count, {"OK": count})
    return answers.rate_since(began_ms), cost
