"""Rates compared, in interleaved rounds: the worker, a user's first version, and either server alone."""

import os
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.load import Backlog, make_tokens, new_run
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Round, medians, play, saturation
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import AT_LEAST, EXACTLY, KAFKA, ONE, POOL, POSTGRES, Subject
from worker.kafka.topics import PARTITIONS

ROUNDS: Final = 3
QUICK: Final = 10
"""So many times fewer commands."""
COUNTS: Final = {EXACTLY: 100_000, AT_LEAST: 100_000, ONE: 1_500, POOL: 8_000, POSTGRES: 100_000, KAFKA: 100_000}
"""Commands of a round: the slow ones have fewer, so that all take seconds."""
FAR: Final = 10
"""A subject that costs so many times as much is named beside the plot: it would dwarf all others in it."""
MOST_MEMORY: Final = 200
"""MiB."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The median round of each subject."""

    by_subject: dict[Subject, Round]

    @property
    def saturation(self) -> float:
        """Return the worker's rate when commands wait, exactly once: commands per second."""
        return self.by_subject[EXACTLY].rate


async def compare(stage: Stage, report: Report, quick: bool, *, rounds: int) -> Comparison:
    """Run every subject once per round, so that changes of the machine meet them all."""
    played: dict[Subject, list[Round]] = {subject: [] for subject in COUNTS}
    # The broker compiles its code as it runs: for the first hundred thousand commands it takes twice the CPU.
    await _golden(stage, EXACTLY, quick)
    for number in range(1, rounds + 1):
        for subject in COUNTS:
            done = await _golden(stage, subject, quick)
            report.say(f"round {number} of {rounds}: {subject.title}: {done.rate:,.0f}/s")
            played[subject].append(done)
    comparison = Comparison({subject: medians(each) for subject, each in played.items()})
    report.keep("rounds", {subject.key: [_figures(each) for each in played[subject]] for subject in played})
    _show(comparison, report, rounds)
    _judge(comparison, report)
    return comparison


async def _golden(stage: Stage, subject: Subject, quick: bool) -> Round:
    count, run = COUNTS[subject] // (QUICK if quick else 1), new_run()
    await make_tokens(stage.owner_dsn, run, count)
    return await play(stage, subject, Backlog.of(run, range(1, count + 1)))


def _figures(done: Round) -> dict[str, object]:
    return {"commands": done.commands, "rate": done.rate, "cpu": done.cpu, "memory": done.memory}


def _show(comparison: Comparison, report: Report, rounds: int) -> None:
    cpus = ("worker", "postgres", "kafka")
    whole = comparison.saturation
    rows = [
        (
            f"{subject.key}. {subject.title}",
            done.commands,
            done.rate,
            whole / done.rate,
            *(done.cpu[name] for name in cpus),
            sum(done.cpu.values()),
            done.memory,
        )
        for subject, done in comparison.by_subject.items()
    ]
    figures = ("commands", "per s", "a is … x", *(f"µs {name}" for name in cpus), "µs all", "MiB")
    report.table(
        f"How fast, beside what: medians of {rounds} rounds, {PARTITIONS} partitions; CPU per command, peak memory",
        ("subject", *figures),
        rows,
    )
    labels = {subject: f"{subject.key}. {subject.title}" for subject in comparison.by_subject}
    costs = {subject: sum(done.cpu.values()) for subject, done in comparison.by_subject.items()}
    near = {subject: done for subject, done in comparison.by_subject.items() if costs[subject] < FAR * costs[EXACTLY]}
    far = [f"{subject.key}: {cost:,.0f} µs" for subject, cost in costs.items() if subject not in near]
    report.plot_stacks(
        "rate",
        "Commands per second, from a backlog",
        "commands per second",
        {labels[subject]: {"rate": done.rate} for subject, done in comparison.by_subject.items()},
    )
    report.plot_stacks(
        "cpu",
        f"CPU per command, by process ({', '.join(far)})" if far else "CPU per command, by process",
        "µs per command",
        {labels[subject]: done.cpu for subject, done in near.items()},
    )


def _judge(comparison: Comparison, report: Report) -> None:
    worker = comparison.by_subject[EXACTLY]
    for subject, wanted in ((ONE, 20), (POOL, 6)):
        times = worker.rate / comparison.by_subject[subject].rate
        report.judge(f"a's rate beside {subject.key}'s", f">= {wanted} x", f"{times:.1f} x", met=times >= wanted)
    for name in ("worker", "postgres"):
        cost = worker.cpu[name]
        report.judge(f"CPU per command of a: {name}", "<= 60 µs", f"{cost:.0f} µs", met=cost <= 60)
    share = saturation(worker.rate, worker.cpu, os.cpu_count() or 1)
    report.judge("a's rate, of what the cores' CPU allows", ">= 0.85", f"{share:.2f}", met=share >= 0.85)
    ran, queued = worker.thread
    report.say(f"a's thread ran {ran:.0%} of the time; {queued:.0%} it could have run, and had no core")
    report.keep("thread", {"ran": ran, "queued": queued})
    memory = max(comparison.by_subject[subject].memory for subject in (EXACTLY, AT_LEAST))
    report.judge("the worker's peak memory", f"<= {MOST_MEMORY} MiB", f"{memory:.0f} MiB", met=memory <= MOST_MEMORY)
