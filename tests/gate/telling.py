"""The final report: a table to quote, the unchecked stages, and the reasons of the broken ones."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from tests.gate.stages import Stage
from tests.gate.verdicts import Result, Verdict

LAST: Final = 29
"""The lines of the report: of the last thirty, one is make's."""
FEWEST: Final = 3
LONGEST_SUMMARY: Final = 15
_HEAD: Final = ("stage", "seconds", "verdict")


def table(results: Sequence[Result]) -> list[str]:
    """Return the table as Markdown, which reads well unrendered too."""
    rows = [(each.stage, f"{each.seconds:.1f}", _verdict(each)) for each in results]
    name, seconds, verdict = (max(map(len, column)) for column in zip(_HEAD, *rows, strict=True))
    head = f"| {_HEAD[0]:<{name}} | {_HEAD[1]:>{seconds}} | {_HEAD[2]:<{verdict}} |"
    rule = f"| {'-' * name} | {'-' * (seconds - 1)}: | {'-' * verdict} |"
    return [head, rule, *(f"| {row[0]:<{name}} | {row[1]:>{seconds}} | {row[2]:<{verdict}} |" for row in rows)]


def _verdict(result: Result) -> str:
    return f"{result.verdict.loud} (from before)" if result.before else result.verdict.loud


def again(stage: Stage, given: Mapping[str, str]) -> str:
    """Return the command that repeats a stage, as it is typed."""
    env = {**stage.env, **given} if stage.pytest else stage.env
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in sorted(env.items())), stage.by_hand])


def not_checked(results: Sequence[Result], unreached: Sequence[str] = ()) -> list[str]:
    """Return a line for each stage that could not be judged, and one for those that were not run."""
    lines = [
        f"NOT CHECKED: {each.stage}: {_why(each.seen)} ({each.log})"
        for each in results
        if each.verdict is Verdict.NOT_CHECKED
    ]
    return [*lines, *([f"NOT CHECKED: never run at this commit: {', '.join(unreached)}"] if unreached else [])]


def _why(seen: Sequence[str]) -> str:
    """Return the one line of a log that says why there is no verdict."""
    blaming = [line for line in seen if "the harness failed" in line]
    # npm's last line names its own log.
    telling = [line for line in seen if "log of this run" not in line]
    return (blaming or telling[-1:] or ["no reason was given"])[0].strip()


def reason(result: Result, stage: Stage, given: Mapping[str, str], room: int) -> list[str]:
    """Return the promise, the findings, the command that repeats the stage, and the log's path, in so many lines."""
    return [
        f"{result.verdict.loud}: {result.stage}",
        f"promised: {stage.promise}",
        *(f"seen:     {line}" for line in _shortened(result.seen, max(room - 4, FEWEST))),
        f"again:    {again(stage, given)}",
        f"logs:     {result.log}",
    ]


def _shortened(seen: Sequence[str], room: int) -> Sequence[str]:
    """Shorten to fit: the first line tells how it ended; of tests the failures stay too, of a log its end."""
    if len(seen) <= room:
        return seen
    first = room // 2 if any(line.startswith(("FAILED ", "ERROR ")) for line in seen) else 1
    return [*seen[:first], *seen[first - room :]]


def reasons(broken: Sequence[tuple[Result, Stage]], given: Mapping[str, str], room: int) -> list[str]:
    """Return the reasons of all that is broken, in so many lines if possible."""
    return [line for result, stage in broken for line in reason(result, stage, given, room // len(broken))]


def shorter(summary: Sequence[str]) -> list[str]:
    """Return pytest's summary without its middle, if that is long; the last line is always its last."""
    if len(summary) <= LONGEST_SUMMARY:
        return list(summary)
    left_out = len(summary) - LONGEST_SUMMARY + 1
    return [*summary[: LONGEST_SUMMARY - 2], f"… {left_out} lines more, above", summary[-1]]
