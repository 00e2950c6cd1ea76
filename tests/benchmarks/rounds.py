"""One round: a subject, fresh topics, a backlog that waits, and the cost of working it off."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Final
from uuid import uuid4

from tests.acceptance.worker_process import WorkerProcess
from tests.benchmarks.load import Backlog, answered, make_tokens, new_run, send_all, wait_through
from tests.benchmarks.meter import Meter, Usage
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import POSTGRES, Subject, process
from tests.providers.kafka import TopicNames
from worker.kafka.topics import PARTITIONS

WARM: Final = 20 * PARTITIONS
"""Commands before the measured ones: code is loaded, connections stand, statements are prepared."""
SHOWN_LOG: Final = 4000
"""Characters of the end of a subject's log, for an error."""

Beside = Callable[[TopicNames], AbstractAsyncContextManager[None]]
"""Something that goes on beside a worker, from its start on the backlog to its end."""


def nothing(_: TopicNames) -> AbstractAsyncContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Round:
    """One round. ``usage`` is of ``worker``, ``postgres`` and ``kafka``, from the subject's start to its end."""

    commands: int
    rate: float
    """Commands per second: from the same moment to the broker's timestamp of the last answer."""
    usage: Usage
    wal: int = 0
    """Bytes of write-ahead log."""
    kafka_bytes: int = 0
    """Bytes that the broker keeps of commands, results and transition events, those that warmed up included."""

    @property
    def cpu(self) -> dict[str, float]:
        """Return microseconds per command, by process."""
        return {name: seconds / self.commands * 1e6 for name, seconds in self.usage.cpu.items()}

    @property
    def thread(self) -> tuple[float, float]:
        """Return the shares of the time in which the worker's one busy thread ran, and was runnable without a core."""
        seconds = self.commands / self.rate
        return self.usage.cpu["worker"] / seconds, self.usage.queued.get("worker", 0.0) / seconds

    @property
    def memory(self) -> float:
        """Return the peak of the worker that took most, in MiB."""
        return self.usage.peak_memory["worker"] / 2**20


def medians(rounds: Sequence[Round]) -> Round:
    """Return the median of every figure for itself."""
    assert rounds, "there was no round"
    names = rounds[0].usage.cpu
    cpu = {name: median(each.usage.cpu[name] for each in rounds) for name in names}
    memory = {name: int(median(each.usage.peak_memory[name] for each in rounds)) for name in names}
    queued = {name: median(each.usage.queued[name] for each in rounds) for name in rounds[0].usage.queued}
    return Round(rounds[0].commands, median(each.rate for each in rounds), Usage(cpu, memory, queued))


def saturation(rate: float, cpu: dict[str, float], cores: int) -> float:
    """Return the share of the rate that the cores would allow if they did nothing but this. ``cpu``: µs per command."""
    return rate / (cores / (sum(cpu.values()) / 1e6))


async def play(
    stage: Stage,
    subject: Subject,
    backlog: Backlog,
    *,
    partitions: int = PARTITIONS,
    workers: int = 1,
    variables: Mapping[str, str] | None = None,
    beside: Beside = nothing,
) -> Round:
    """Measure so many workers of the subject on a backlog whose access tokens are there, and check the answers.

    ``variables`` are settings of the worker that are not the defaults.
    """
    topics = await stage.new_topics(partitions)
    warm = new_run()
    await make_tokens(stage.owner_dsn, warm, WARM)
    load = {"BENCH_RUN": backlog.run, "BENCH_COUNT": str(backlog.count), "BENCH_LANES": str(partitions)}
    load |= {"BENCH_WARM_RUN": warm, "BENCH_WARM": str(WARM), **(variables or {})}
    group = f"group-{uuid4().hex[:12]}"
    with ExitStack() as running:
        every = [process(subject, stage, topics, group=group, variables=load) for _ in range(workers)]
        for each in every:
            each.start()
            running.callback(each.kill)
        try:
            if subject is POSTGRES:
                done = await _without_kafka(stage, every, backlog)
            else:
                done = await _with_kafka(stage, topics, every, backlog, warm, beside=beside)
        except Exception as error:
            error.add_note(f"{subject.title} wrote:\n{every[0].logs()[-SHOWN_LOG:]}")
            raise
    await stage.drop_topics(topics)
    return done


async def _with_kafka(
    stage: Stage, topics: TopicNames, workers: Sequence[WorkerProcess], backlog: Backlog, warm: str, *, beside: Beside
) -> Round:
    place = stage.bootstrap, topics.commands
    if len(workers) > 1:  # all must have joined before there is work, or the first does it all
        for each in workers:
            await asyncio.to_thread(each.wait_ready)
    await asyncio.to_thread(send_all, *place, Backlog.of(warm, range(1, WARM + 1)).written)
    await _through(stage, topics, workers)
    # They neither begin on half a backlog nor pay for the sender.
    for each in workers:
        each.pause()
    await asyncio.to_thread(send_all, *place, backlog.written)
    await stage.settle()
    async with beside(topics):
        meter, wal = _meter(stage, workers), await stage.wal()
        began_ms = time.time() * 1000
        for each in workers:
            each.resume()
        await _through(stage, topics, workers)
        usage, wal = meter.stop(), await stage.wal() - wal
    for each in workers:
        await asyncio.to_thread(each.terminate)
    answers = await asyncio.to_thread(answered, stage.bootstrap, topics.results, backlog.run)
    answers.check(backlog.count, backlog.statuses)
    kept = sum(map(stage.log_bytes, (topics.commands, topics.results, topics.transitions)))
    return Round(backlog.count, answers.rate_since(began_ms), usage, wal, kept)


async def _without_kafka(stage: Stage, workers: Sequence[WorkerProcess], backlog: Backlog) -> Round:
    """Measure a subject that makes its golden commands itself, from the first on, and takes the time itself."""
    (worker,) = workers
    await asyncio.to_thread(worker.wait_event, "prepared")
    await stage.settle()
    meter = _meter(stage, workers)
    worker.resume()
    done = await asyncio.to_thread(worker.wait_event, "done")
    usage = meter.stop()
    await asyncio.to_thread(worker.terminate)
    assert done["statuses"] == backlog.statuses, done
    return Round(backlog.count, backlog.count / done["seconds"], usage)


async def _through(stage: Stage, topics: TopicNames, workers: Sequence[WorkerProcess]) -> None:
    await asyncio.to_thread(wait_through, stage.bootstrap, workers[0].group, topics.commands)


def _meter(stage: Stage, workers: Sequence[WorkerProcess]) -> Meter:
    pids = [worker.pid for worker in workers]
    return Meter({"worker": pids, "postgres": [stage.postgres_pid], "kafka": [stage.kafka_pid]})
