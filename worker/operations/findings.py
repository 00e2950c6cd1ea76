"""Findings, the report that collects them, and the progress of the work: common to `audit` and `reconcile`."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Generic, TypeVar

K = TypeVar("K", bound=StrEnum)

OnProgress = Callable[[int, int], None]
"""A callback that gets how much is done, and the total."""
_EVERY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Finding(Generic[K]):
    """One thing that is wrong: ``where`` names the place, ``what`` says what was expected there or how it differs."""

    kind: K
    where: str
    what: str


@dataclass(slots=True)
class Report(Generic[K]):
    """Findings: all are counted, and the first of each kind are named."""

    most_named: ClassVar[int]
    """The most findings of each kind that are named."""

    counts: Counter[K] = field(default_factory=Counter)
    findings: list[Finding[K]] = field(default_factory=list)

    def found(self, kind: K, where: str, what: str) -> None:
        """Count a finding, and name it unless the most of its kind are named already."""
        self.counts[kind] += 1
        if self.counts[kind] <= self.most_named:
            self.findings.append(Finding(kind, where, what))

    def unnamed(self) -> Iterator[tuple[K, int]]:
        """Yield the kinds with findings that are not named, and the number of these."""
        for kind, count in self.counts.items():
            if count > self.most_named:
                yield kind, count - self.most_named


@dataclass(slots=True)
class Progress:
    """The number of things read, reported to ``on_progress`` every thousand."""

    on_progress: OnProgress
    total: int
    done: int = 0

    def advance(self, count: int = 1) -> None:
        """Add to the things done."""
        before, self.done = self.done, self.done + count
        if before // _EVERY != self.done // _EVERY:
            self.on_progress(self.done, self.total)


def partition_place(topic: str, partition: int) -> str:
    """Return the name of a partition in findings."""
    return f"{topic}/{partition}"


def record_place(topic: str, partition: int, offset: int) -> str:
    """Return the name of a Kafka message in findings."""
    return f"{partition_place(topic, partition)} offset {offset}"


def token_place(organisation: str, token: str) -> str:
    """Return the name of an access token in findings."""
    return f"access token {token} of {organisation}"


def state_text(state: str | None, version: int | None) -> str:
    """Return the state and version of an access token, or "none" if no transition has reached one."""
    return "none" if state is None else f"{state}, version {version}"


def version_place(organisation: str, token: str, version: int) -> str:
    """Return the name of a transition in findings, by the version that it gave an access token."""
    return f"version {version} of the {token_place(organisation, token)}"
