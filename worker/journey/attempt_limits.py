"""The limits on guessing credentials: pure, like the decision that they are a part of (CONTRACT, Attempts).

Failures in a row are counted in series. A caller has one for authentication codes, one for pass codes, and one for pass
codes on each identifier. Each identifier has one for the pass codes of all callers.
"""

from collections.abc import Mapping
from enum import StrEnum
from math import ceil, inf
from typing import Final

from msgspec.structs import replace

from effective_contract.codes import StatusCode
from worker.journey.model import Applied, Caller, Decision, Refused
from worker.values import Value

FIRST_WAIT: Final = 1.0
"""Seconds to wait after the failure that reaches a limit. Every further failure doubles it."""
_FAILURES: Final = frozenset({StatusCode.ACCESS_TOKEN_NOT_FOUND, StatusCode.INVALID_CREDENTIALS})


class Kind(StrEnum):
    """The kinds of series, by the failures that they count."""

    CODES = "codes"
    """Unknown authentication codes of one caller."""
    PASS_CODES = "pass_codes"  # noqa: S105 - a name
    """Wrong pass codes of one caller, on any identifier."""
    IDENTIFIER = "identifier"
    """Wrong pass codes of one caller on one identifier."""
    ALL_CALLERS = "all_callers"
    """Wrong pass codes on one identifier, of all callers. One caller adds no more of them than its own limit there."""

    __hash__ = str.__hash__


class Limits(Value, frozen=True):
    """The failures in a row that each kind of series may have before its next attempt must wait.

    See CONTRACT, Settings.
    """

    codes: int = 1000
    pass_codes: int = 100
    identifier: int = 10
    all_callers: int = 100
    longest_wait: float = 3600.0
    """Seconds."""

    def of(self, kind: Kind) -> int:
        return int(getattr(self, kind))


DEFAULT_LIMITS: Final = Limits()


class Subject(Value, frozen=True):
    """The caller and the identifier whose failures a series counts. A part that does not apply is empty."""

    organisation: str
    kind: Kind
    user: str = ""
    account: str = ""
    """The account of a consumer application's login: its consumers share a user, but each is a caller of its own."""
    identifier: bytes = b""
    """The identifier's keyed digest."""


class Series(Value, frozen=True):
    """Failures in a row, and the seconds since the last one."""

    failures: int = 0
    since: float = inf
    added: int = 0
    """Failures of this batch since the last reset."""
    failed: int = 0
    """All failures of this batch."""
    reset: bool = False
    """True if a success in this batch ended the failures before it."""


class Attempt(Value, frozen=True):
    """The series that count a command's credentials: the caller's, and those of the identifier if it names one."""

    own: Subject
    identifier: Subject | None = None
    everybody: Subject | None = None


def attempt_of(caller: Caller, identifier: bytes | None) -> Attempt:
    """Return the attempt of an authorised caller by a code, or by a pass code for ``identifier`` (a keyed digest)."""
    organisation, user, account = caller.organisation, caller.user, caller.account or ""
    if identifier is None:
        return Attempt(Subject(organisation, Kind.CODES, user, account))
    return Attempt(
        Subject(organisation, Kind.PASS_CODES, user, account),
        Subject(organisation, Kind.IDENTIFIER, user, account, identifier),
        Subject(organisation, Kind.ALL_CALLERS, identifier=identifier),
    )


_NONE: Final = Series()


def wait_of(attempt: Attempt, series: Mapping[Subject, Series], limits: Limits) -> float:
    """Return the seconds until this attempt may be examined; 0 if it may be examined now."""
    longest = 0.0
    for subject in (attempt.own, attempt.identifier, attempt.everybody):
        if subject is not None:
            counted = series.get(subject, _NONE)
            # ``since`` may be negative: another lane may have counted after the statement that read this began.
            if wait := wait_after(subject.kind, counted.failures, limits):
                longest = max(longest, wait - counted.since)
    return longest


def wait_after(kind: Kind, failures: int, limits: Limits) -> float:
    """Return the seconds between this many failures in a row and the next attempt.

    They are 0 below the limit, then double with each failure up to the longest wait. All callers together always wait
    for the longest.
    """
    beyond = failures - limits.of(kind)
    if beyond < 0:
        return 0.0
    if kind is Kind.ALL_CALLERS:
        return limits.longest_wait
    return min(limits.longest_wait, FIRST_WAIT * 2.0 ** min(beyond, 64))


def refused_unseen(attempt: Attempt | None, series: Mapping[Subject, Series], limits: Limits) -> Refused | None:
    """Return the refusal of an attempt that must wait, or ``None`` if it may be examined now.

    The refusal says nothing about the credentials.
    """
    # Most batches come from callers without failures. Looking up each command would cost as much as deciding it.
    if attempt is None or not series:
        return None
    wait = wait_of(attempt, series, limits)
    if wait <= 0:
        return None
    why = f"too many attempts have failed, and this one was not checked: wait {ceil(wait)} s"
    return Refused(StatusCode.ACCESS_DENIED, why)


def is_failure(decision: Decision) -> bool:
    """True if a command was refused for its credentials."""
    return isinstance(decision, Refused) and decision.code in _FAILURES


def must_wait(decision: Decision) -> bool:
    """True if a command with credentials was refused unseen."""
    return isinstance(decision, Refused) and decision.code is StatusCode.ACCESS_DENIED


def seen(attempt: Attempt, decision: Decision, series: dict[Subject, Series], limits: Limits) -> None:
    """Count the outcome of an attempt, unless it was refused unseen.

    A code that is found ends its caller's series. A right pass code ends that of its caller and identifier. The series
    of all of a caller's pass codes ends only when an access token becomes effective: otherwise a caller that knows one
    pass code could guess others without limit.
    """
    if is_failure(decision):
        _fail(attempt, series, limits)
        return
    if not series or must_wait(decision):
        return
    if attempt.identifier is None or isinstance(decision, Applied):
        _reset(attempt.own, series)
    if attempt.identifier is not None and attempt.everybody is not None:
        former = series.get(attempt.identifier, _NONE)
        counted = series.get(attempt.everybody, _NONE)
        theirs = min(former.failures, limits.identifier)
        series[attempt.everybody] = replace(counted, failures=max(0, counted.failures - theirs))
        _reset(attempt.identifier, series)


def _fail(attempt: Attempt, series: dict[Subject, Series], limits: Limits) -> None:
    if attempt.identifier is not None and attempt.everybody is not None:
        counted = series.get(attempt.everybody, _NONE)
        counts = series.get(attempt.identifier, _NONE).failures < limits.identifier
        series[attempt.everybody] = replace(
            counted, failures=counted.failures + counts, since=0.0, failed=counted.failed + 1
        )
        _add(attempt.identifier, series)
    _add(attempt.own, series)


def _add(subject: Subject, series: dict[Subject, Series]) -> None:
    of = series.get(subject, _NONE)
    series[subject] = Series(of.failures + 1, 0.0, of.added + 1, of.failed + 1, of.reset)


def _reset(subject: Subject, series: dict[Subject, Series]) -> None:
    of = series.get(subject, _NONE)
    if of.failures:
        series[subject] = Series(failed=of.failed, reset=True)
