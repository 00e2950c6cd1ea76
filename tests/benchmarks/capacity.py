"""The cost of a command, and the resources that a given rate needs.

A batch has a price of its own and so has every command in it: µs per command = command + batch / size. That is fitted
on three sizes of batches and checked on a fourth. From it follow the cores, the log and the disk for a rate.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from tests.benchmarks.load import Backlog, make_tokens, new_run
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Round, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY

FITTED: Final = {25: 10_000, 100: 30_000, 500: 100_000}
"""Sizes of batches, each with the number of commands it is measured on."""
CHECKED: Final = (250, 60_000)
QUICK: Final = 10
"""So many times fewer commands."""
RATES: Final = (1_000, 10_000, 100_000)
BUSY: Final = 0.7
"""The share of a core used at most, so that a rate may rise and a worker may fail."""
PROCESSES: Final = ("worker", "postgres", "kafka")


def fitted(costs: Mapping[int, float]) -> tuple[float, float]:
    """Return the prices of a command and of a batch, by least squares. ``costs``: µs per command by size of batch."""
    count = len(costs)
    inverse = {size: 1 / size for size in costs}
    mean_x, mean_y = sum(inverse.values()) / count, sum(costs.values()) / count
    slope = sum((inverse[size] - mean_x) * (cost - mean_y) for size, cost in costs.items())
    slope /= sum((x - mean_x) ** 2 for x in inverse.values())
    return mean_y - slope * mean_x, slope


async def capacity(stage: Stage, report: Report, quick: bool) -> None:
    """Measure, fit, check, and report the needs of a rate."""
    shrink = QUICK if quick else 1
    rounds = {size: await _round(stage, size, count // shrink) for size, count in FITTED.items()}
    size, count = CHECKED
    checked = await _round(stage, size, count // shrink)
    prices = {name: fitted({each: done.cpu[name] for each, done in rounds.items()}) for name in PROCESSES}
    foretold = {name: command + batch / size for name, (command, batch) in prices.items()}
    off = {name: checked.cpu[name] / foretold[name] - 1 for name in PROCESSES}
    rows = [
        (
            name,
            *prices[name],
            *(done.cpu[name] for done in rounds.values()),
            foretold[name],
            checked.cpu[name],
            f"{off[name]:+.0%}",
        )
        for name in PROCESSES
    ]
    measured = [f"{each}: µs" for each in FITTED]
    report.table(
        f"What a command costs: fitted on batches of {', '.join(map(str, FITTED))}, checked on {size}",
        ("process", "µs a command", "µs a batch", *measured, f"{size}: foretold", f"{size}: measured", "off by"),
        rows,
    )
    worst = max(map(abs, off.values()))
    report.judge(f"a batch of {size}, foretold", "within 15 %", f"{worst:.0%} off", met=worst <= 0.15)
    await _tell(stage, report, rounds[max(FITTED)])


async def _round(stage: Stage, size: int, count: int) -> Round:
    run = new_run()
    await make_tokens(stage.owner_dsn, run, count)
    variables = {"WORKER_MAX_BATCH": str(size)}
    return await play(stage, EXACTLY, Backlog.of(run, range(1, count + 1)), variables=variables)


async def _tell(stage: Stage, report: Report, full: Round) -> None:
    stored = await _stored(stage)
    wal, kept = full.wal / full.commands, full.kafka_bytes / full.commands
    report.table(
        "Bytes per command",
        ("write-ahead log", "record and transition, indexes included", "Kafka: command, result, event"),
        [(wal, stored, kept)],
    )
    cpu = full.cpu
    rows = [_needs(rate, cpu, wal, stored, kept) for rate in RATES]
    columns = (
        "commands per s",
        "workers",
        "Postgres cores",
        "Kafka cores",
        "WAL, MB/s",
        "tables, GB a day",
        "Kafka, GB a day",
    )
    report.table(f"What a rate needs, at most {BUSY:.0%} busy, by the prices of full batches", columns, rows)


def _needs(rate: int, cpu: Mapping[str, float], wal: float, stored: float, kept: float) -> Sequence[float]:
    cores = {name: rate * cpu[name] / 1e6 / BUSY for name in PROCESSES}
    day = rate * 86_400 / 1e9
    # A worker is one core: it computes in one thread.
    return (rate, ceil(cores["worker"]), cores["postgres"], cores["kafka"], rate * wal / 1e6, day * stored, day * kept)


async def _stored(stage: Stage) -> float:
    """Return the bytes that a record and a transition take in their tables and indexes."""
    async with stage.owner() as connection:
        return float(
            await connection.fetchval(
                "SELECT pg_total_relation_size('command_record')::float8 / (SELECT count(*) FROM command_record)"
                " + pg_total_relation_size('transition')::float8 / (SELECT count(*) FROM transition)"
            )
        )
