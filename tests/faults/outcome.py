"""The outcome of a run, for people, for programs, and in the last lines for the reader of a failed run."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.faults.checker import Report, Violation
from tests.faults.ledger import Delivery
from tests.faults.rules import EXIT_CODES, Rule, Side, Verdict, explained
from tests.faults.schedule import Log

LAST_LINES: Final = 28
"""A log's reader is shown thirty, and ``make`` adds one of its own."""
LONGEST_LINE: Final = 300
RULES_TOLD: Final = 4
SEEN_TOLD: Final = 2
REASONS_TOLD: Final = 4


@dataclass(slots=True)
class Outcome:
    """The whole outcome of a run."""

    seed: int
    delivery: Delivery
    seconds: float
    log: Log
    report: Report
    worker_ends: dict[int, int]
    worker_events: dict[str, int]
    unasked: list[str]
    recovery: dict[str, tuple[int, float, float]]

    @property
    def verdict(self) -> Verdict:
        return self.report.verdict

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def failures(self) -> list[Violation]:
        """Return the failures of the harness."""
        return [each for each in self.report.shown() if each.rule.side is Side.HARNESS]

    def broken(self) -> dict[Rule, int]:
        """Return the broken promises, with or without failures of the harness, and their counts."""
        excused = explained(self.report.counts())
        return {rule: count for rule, count in self.report.counts(Side.PRODUCT).items() if rule not in excused}

    def suspected(self) -> dict[Rule, int]:
        """Return those that look broken, possibly because of the harness."""
        excused = explained(self.report.counts())
        return {rule: count for rule, count in self.report.counts(Side.PRODUCT).items() if rule in excused}


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the last attempt as JSON, and the outcome of each."""
    outcome = outcomes[-1]
    return {
        "verdict": outcome.verdict,
        "seed": outcome.seed,
        "delivery": outcome.delivery,
        "seconds": round(outcome.seconds, 1),
        "faults": sum(outcome.log.counts().values()),
        "kinds": outcome.log.counts(),
        "missed": dict(outcome.log.missed),
        "commands": outcome.report.commands,
        "removed": outcome.report.removed,
        "transitions": outcome.report.transitions,
        "statuses": dict(outcome.report.statuses.most_common()),
        "races": outcome.report.races,
        "repeated": outcome.report.repeated,
        "worker_ends": outcome.worker_ends,
        "worker_events": outcome.worker_events,
        "unasked": outcome.unasked,
        "silence_seconds": outcome.recovery,
        "violations": outcome.report.counts(),
        "first_violations": [{**asdict(each), "side": each.rule.side} for each in outcome.report.shown()],
        "attempts": [
            {
                "verdict": each.verdict,
                "harness": each.report.counts(Side.HARNESS),
                "broken": each.broken(),
                "suspected": each.suspected(),
            }
            for each in outcomes
        ],
        "exit_code": outcome.exit_code,
    }


def tell(outcome: Outcome) -> str:
    """Return the outcome for people, without the last lines."""
    report, log = outcome.report, outcome.log
    counts = log.counts()
    lines = [
        f"seed {outcome.seed}, delivery {outcome.delivery}:"
        f" {sum(counts.values())} faults of {len(counts)} kinds in {outcome.seconds:.0f} s"
    ]
    for name, count in counts.items():
        told = outcome.recovery.get(name)
        silence = f"   longest silence {told[1]:.1f} s (median), {told[2]:.1f} s (max)" if told else ""
        lines.append(f"  {count:4} {name:50}{silence}")
    lines += [f"       missed its moment: {name} ({count})" for name, count in sorted(log.missed.items())]
    lines.append(f"commands {report.commands}, transitions {report.transitions}, races between lanes {report.races}")
    lines.append("  " + ", ".join(f"{name} {count}" for name, count in report.statuses.most_common()))
    if report.removed:
        lines.append(f"  removed unread {report.removed}")
    if report.repeated:
        lines.append(f"  given again {report.repeated}")
    lines.append("workers ended: " + ", ".join(f"{count} x {code}" for code, count in outcome.worker_ends.items()))
    lines += [f"  not asked for: {each}" for each in outcome.unasked]
    lines += [f"{each.rule.side}: {each.rule}: {each.what}" for each in report.shown()]
    return "\n".join(lines)


def last_lines(outcomes: Sequence[Outcome], command: str, logs: Path | None) -> list[str]:
    """Return the reason for the verdict: the promise, the findings, the command to repeat it, the path of the logs.

    ``logs`` is ``None`` if they are not kept.
    """
    last = outcomes[-1]
    lines = []
    for number, outcome in enumerate(outcomes, 1):
        if len(outcomes) > 1:
            lines.append(f"run {number} of {len(outcomes)}, with the same seed: {outcome.verdict.upper()}")
        lines += _reasons(outcome)
    if last.verdict is Verdict.NOT_CHECKED:
        lines.append("nothing is proved. Twice in a row on a quiet machine it is a fault of the harness: find it")
    if last.verdict is not Verdict.KEPT:
        lines.append(f"again: {command}")
    if logs is not None:
        lines.append(f"logs: {logs}")
    lines.append(f"verdict: {last.verdict.upper()}")
    return [line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…" for line in lines]


def _reasons(outcome: Outcome) -> list[str]:
    lines = []
    broken = outcome.broken()
    for rule in [*broken][:RULES_TOLD]:
        lines.append(f"  promised: {rule}; not so {broken[rule]} times:")
        seen = [each.what for each in outcome.report.shown() if each.rule is rule]
        lines += [f"    {_one_line(what)}" for what in seen[:SEEN_TOLD]]
    if further := [*broken][RULES_TOLD:]:
        told = "; ".join(f"{rule} ({broken[rule]} times)" for rule in further)
        lines.append(f"  promised, and not so either: {told}")
    failures = outcome.failures()
    lines += [f"  the harness failed: {each.rule}: {_one_line(each.what)}" for each in failures[:REASONS_TOLD]]
    if len(failures) > REASONS_TOLD:
        lines.append(f"  and more of it ({sum(outcome.report.counts(Side.HARNESS).values())} in all)")
    if suspected := outcome.suspected():
        told = "; ".join(f"{rule} ({count} times)" for rule, count in suspected.items())
        lines.append(f"  LOOKED BROKEN, which may come of that: {told}")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


# The options that decide what a run does, with their defaults.
_DECIDING: Final = (
    ("delivery", "exactly_once"),
    ("workers", 2),
    ("partitions", 6),
    ("quiet", 2.5),
    ("mutant", None),
    ("plant", None),
)


def command_of(options: argparse.Namespace) -> str:
    """Return the command that plays the same schedule and load again."""
    words = ["--seconds", f"{options.seconds:g}", "--seed", str(options.seed), "--rate", f"{options.rate:g}"]
    for name, usual in _DECIDING:
        value = getattr(options, name)
        if value != usual:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    words += [f"--{name}" for name in ("bulk", "alone") if getattr(options, name)]
    for kind in options.only:
        words += ["--only", kind]
    return f'make faults ARGS="{shlex.join(words)}"'
