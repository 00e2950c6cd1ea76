"""The two levels: one that stops at the first broken stage, and one that runs all of them."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.gate.checkout import Checkout, Memory
from tests.gate.running import LINES, pytest_summary, ran
from tests.gate.stages import Stage
from tests.gate.telling import LAST, not_checked, reason, reasons, shorter, table
from tests.gate.verdicts import Result, Verdict, exit_code


@dataclass(slots=True)
class Gate:
    """The stages in order, their results so far, and the output that reports them."""

    stages: Sequence[Stage]
    logs: Path
    until: float | None = None
    """The deadline of the whole, of the monotonic clock."""
    out: TextIO = field(default_factory=lambda: sys.stdout)
    results: dict[str, Result] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, str]:
        """Return the environment that kept stages give to those after them."""
        kept = {each.stage for each in self.results.values() if each.verdict is Verdict.KEPT}
        return {name: value for stage in self.stages if stage.name in kept for name, value in stage.gives.items()}

    @property
    def told(self) -> list[Result]:
        """Return the results in the order of the stages; one without a stage (the installation) comes first."""
        order = [stage.name for stage in self.stages]
        return sorted(self.results.values(), key=lambda each: order.index(each.stage) if each.stage in order else -1)

    @property
    def broken(self) -> list[tuple[Result, Stage]]:
        """Return the broken results, with their stages."""
        stages = {stage.name: stage for stage in self.stages}
        return [(each, stages[each.stage]) for each in self.told if each.verdict is Verdict.BROKEN]

    def say(self, *lines: str) -> None:
        self.out.writelines(f"{line}\n" for line in lines)
        self.out.flush()

    def run(self, stage: Stage) -> Result:
        """Run one stage, and report it in a line."""
        echo = self.out if stage.aloud or self.out.isatty() else None
        if echo is not None:
            self.say(f"--- {stage.name} ---")
        try:
            result = ran(stage, self.logs, self.given if stage.pytest else {}, echo, self.until)
        except KeyboardInterrupt:
            log = self.logs / f"{stage.name}.log"
            self.say("", *table(self.told), "", f"ended from outside during {stage.name}; logs: {log}")
            raise
        self.results[stage.name] = result
        note = f"  ({stage.note})" if stage.note else ""
        self.say(f"{stage.name:<13} {result.seconds:>8.1f} s  {result.verdict.loud}{note}")
        return result

    def put_away(self) -> None:
        """Remove the logs, if nothing in them is of interest."""
        if {each.verdict for each in self.results.values()} <= {Verdict.KEPT}:
            shutil.rmtree(self.logs)


def ci(gate: Gate, head: str) -> int:
    """Run from cheap to expensive and stop at the first broken stage.

    An unchecked stage is reported, and is no failure. The last lines are the table, the unchecked stages, the reason,
    and, if the tests were run, pytest's own summary.
    """
    gate.say(f"{head}; stages: {', '.join(stage.name for stage in gate.stages)}")
    summary: list[str] = []
    for stage in gate.stages:
        result = gate.run(stage)
        if stage.aloud:
            summary = pytest_summary(Path(result.log))
        if result.verdict is Verdict.BROKEN:
            break
    last = ["", *table(gate.told), "", *not_checked(gate.told)]
    if gate.broken:
        # The reason contains the failures. The last line of tests that were cut off would sound as if all had passed.
        summary = [line for line in summary[-1:] if "failed" in line or "error" in line]
        last += reasons(gate.broken, gate.given, LAST - len(last) - len(summary))
    gate.say(*last, *shorter(summary))
    code = exit_code({each.verdict for each in gate.results.values()}, not_checked=0)
    gate.put_away()
    return code


def verify(gate: Gate, now: Callable[[], Checkout], memory: Memory, *, chosen: Sequence[Stage], anew: bool) -> int:
    """Run the chosen stages, even after one is broken.

    The table lists all stages, with the results of an earlier run. Returns 0 only if all is kept; 2 if nothing is
    broken and something was not checked or not run.
    """
    if anew:
        memory.forget()
    began = now()
    gate.results.update({name: each for name, each in memory.results(began).items() if _is_stage(gate, name)})
    gate.say(f"make verify, {began.told}; stages: {', '.join(stage.name for stage in chosen)}")
    for stage in chosen:
        before = now()
        result = gate.run(stage)
        if before.commit != began.commit:
            gate.say(f"the checkout has changed: {before.told}")
        memory.keep(result, before, now())
        if result.verdict is Verdict.BROKEN and stage is not chosen[-1]:
            gate.say(*reason(result, stage, gate.given, LINES + 4))
    return _verdict_of_all(gate, began, now())


def _is_stage(gate: Gate, name: str) -> bool:
    return any(stage.name == name for stage in gate.stages)


def _verdict_of_all(gate: Gate, began: Checkout, ended: Checkout) -> int:
    unreached = [stage.name for stage in gate.stages if stage.name not in gate.results]
    last = ["", f"make verify, {began.told}:", "", *table(gate.told), "", *not_checked(gate.told, unreached)]
    if ended != began:
        last.append(f"NOT CHECKED: the files changed meanwhile: now {ended.told}")
    if gate.broken:
        last += reasons(gate.broken, gate.given, LAST - len(last))
    gate.say(*last)
    verdicts = {each.verdict for each in gate.results.values()}
    if unreached or ended != began:
        verdicts.add(Verdict.NOT_CHECKED)
    gate.put_away()
    return exit_code(verdicts, not_checked=2)
