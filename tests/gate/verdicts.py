"""Three verdicts: only a broken promise of the product fails."""

from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from typing import Any, Self


class Verdict(StrEnum):
    """The verdict of a stage."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_CHECKED = "not checked"

    @property
    def loud(self) -> str:
        """Return it as written in a table: a verdict that needs a reader is in capitals."""
        return self.value if self is Verdict.KEPT else self.value.upper()


class Reading(Enum):
    """The meaning of an exit code. A stage without a code had to be ended."""

    TOOL = "0 is kept, anything else is broken: linters, pytest (5, nothing was run, as well)"
    HARNESS = "2 and a signal say that the harness failed or lacks a tool, anything else but 0 that a promise is broken"
    OPTIONAL = "anything but 0 says that something is not there"

    def verdict(self, code: int | None) -> Verdict:
        if code == 0:
            return Verdict.KEPT
        failed = code is None or code == 2 or code < 0
        excused = {Reading.TOOL: False, Reading.HARNESS: failed, Reading.OPTIONAL: True}[self]
        return Verdict.NOT_CHECKED if excused else Verdict.BROKEN


@dataclass(frozen=True, slots=True)
class Result:
    """One stage that was run: the lines of its log that matter, and the path of the whole log."""

    stage: str
    verdict: Verdict
    seconds: float
    seen: list[str] = field(default_factory=list)
    log: str = ""
    before: bool = False
    """True if it is of an earlier run, at the same commit."""

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_before(cls, document: dict[str, Any]) -> Self:
        return cls(**{**document, "verdict": Verdict(document["verdict"]), "before": True})


def exit_code(verdicts: set[Verdict], *, not_checked: int) -> int:
    """Return 1 if something is broken, else ``not_checked`` if something was not checked, else 0."""
    if Verdict.BROKEN in verdicts:
        return 1
    return not_checked if Verdict.NOT_CHECKED in verdicts else 0
