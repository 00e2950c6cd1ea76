"""Findings, the report that collects them, and the progress of the work: common to `audit` and `reconcile`.

See CONTRACT, Findings.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar, Final, Generic, TypeVar

K = TypeVar("K", bound=StrEnum)

OnProgress = Callable[[str, int, int], None]
"""A callback that gets the name of a stage, how much of it is done, and its total: 0 if that is not known."""
NOT_IN_DOCUMENT: Final = {"document": False}
"""The metadata of a report's field that is no member of its JSON document."""
_EVERY: Final = 1_000


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """Take the progress of a work, and show it nowhere."""


@dataclass(frozen=True, slots=True)
class Finding(Generic[K]):
    """One thing that is wrong: ``where`` names the place, ``what`` says what was expected there or how it differs."""

    kind: K
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The organisation and the time of a row or message, as it says itself; ``None`` where nothing says it."""

    organisation: str | None = None
    moment: datetime | None = None


@dataclass(frozen=True, slots=True)
class Restriction:
    """The part of the findings that is asked for: of an organisation, of a time, or both."""

    organisation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is too late."""

    def admits(self, origin: Origin) -> bool:
        """Return False if the origin is known to be of another organisation or another time."""
        own, moment = origin.organisation, origin.moment
        if self.organisation is not None and own is not None and own != self.organisation:
            return False
        if moment is None:
            return True
        return (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)


@dataclass(slots=True)
class Report(Generic[K]):
    """Findings: all are counted, and the first of each kind are named."""

    most_named: ClassVar[int]
    """The most findings of each kind that are named."""

    restriction: Restriction | None = None
    on_found: Callable[[Finding[K]], None] | None = None
    """A callback that gets every finding, also those that are not named."""
    counts: Counter[K] = field(default_factory=Counter)
    findings: list[Finding[K]] = field(default_factory=list)
    outside: Counter[K] = field(default_factory=Counter)
    """The findings that the restriction leaves out: they are counted only."""
    states: int = 0
    """Access tokens that were compared with their histories."""
    earliest: datetime | None = None
    latest: datetime | None = None
    """The times between which lies what was read."""

    @property
    def verdict(self) -> bool | None:
        """True if everything holds, False if anything does not; ``None`` if a restricted run has found nothing.

        A restricted run cannot say that everything holds, but it has seen all chains and topics, so a finding that its
        restriction leaves out is a finding.
        """
        if self.counts or self.outside:
            return False
        return True if self.restriction is None else None

    def found(self, kind: K, where: str, what: str, *origins: Origin) -> None:
        """Count a finding, and name it unless the most of its kind are named already.

        ``origins`` are those of the rows and messages that it is about. If none of them may lie within the restriction,
        the finding is outside. One without any is everybody's.
        """
        if self.restriction is not None and origins and not any(map(self.restriction.admits, origins)):
            self.outside[kind] += 1
            return
        self.counts[kind] += 1
        finding = Finding(kind, where, what)
        if self.on_found is not None:
            self.on_found(finding)
        if self.counts[kind] <= self.most_named:
            self.findings.append(finding)

    def covers(self, moment: datetime | None) -> None:
        """Note the time of something that was read."""
        if moment is not None:
            self.earliest = moment if self.earliest is None else min(self.earliest, moment)
            self.latest = moment if self.latest is None else max(self.latest, moment)

    def unnamed(self) -> Iterator[tuple[K, int]]:
        """Yield the kinds with findings that are not named, and the number of these."""
        for kind, count in self.counts.items():
            if count > self.most_named:
                yield kind, count - self.most_named


@dataclass(slots=True)
class Progress:
    """The number of things read in a stage, reported to ``on_progress`` every thousand."""

    on_progress: OnProgress
    stage: str = ""
    total: int = 0
    done: int = 0

    def begin(self, stage: str, total: int = 0) -> None:
        """Begin the next stage."""
        self.stage, self.total, self.done = stage, total, 0
        self.on_progress(stage, 0, total)

    def advance(self, count: int = 1) -> None:
        """Add to the things done."""
        before, self.done = self.done, self.done + count
        if before // _EVERY != self.done // _EVERY:
            self.on_progress(self.stage, self.done, self.total)


def moment_at(seconds: float) -> datetime | None:
    """Return the time so many seconds after the epoch; ``None`` if it lies beyond every calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


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
