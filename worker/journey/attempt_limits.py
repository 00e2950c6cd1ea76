"""The limits of guessing: pure, as the decision that they are a part of (CONTRACT 3, Attempts).

Failures in a row are counted in series: one for a caller's authentication codes, one for its pass codes, one for its
pass codes of one identifier, and one for those that all callers have tried on that identifier.
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
"""Seconds to wait after the first failure at a limit. Every further one doubles it."""
_FAILURES: Final = frozenset({StatusCode.ACCESS_TOKEN_NOT_FOUND, StatusCode.INVALID_CREDENTIALS})


class Kind(StrEnum):
    """What a series counts."""

    CODES = "codes"
    """Unknown authentication codes of one caller."""
    PASS_CODES = "pass_codes"  # noqa: S105 - a name
    """Wrong pass codes of one caller, on whatever identifier."""
    IDENTIFIER = "identifier"
    """Wrong pass codes of one caller on one identifier."""
    ALL_CALLERS = "all_callers"
    """Wrong pass codes on one identifier, of every caller no more than make it wait by itself."""

    __hash__ = str.__hash__


class Limits(Value, frozen=True):
    """How many failures in a row each kind of series may have before its next attempt must wait (CONTRACT 9)."""

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
    """Whose failures a series counts, and on what. Empty texts where that is no part of it."""

    organisation: str
    kind: Kind
    user: str = ""
    account: str = ""
    """The account of a consumer application's login: its consumers share a user, and are callers of their own."""
    identifier: bytes = b""
    """Its keyed digest."""


class Series(Value, frozen=True):
    """Failures in a row, and how many seconds ago the last one was."""

    failures: int = 0
    since: float = inf
    added: int = 0
    """Those of this batch, since it was last reset."""
    failed: int = 0
    """All those of this batch."""
    reset: bool = False
    """Whether a success of this batch has ended what there was before."""


class Attempt(Value, frozen=True):
    """The series that a command's credentials are counted in: its caller's, and those of the identifier, if any."""

    own: Subject
    identifier: Subject | None = None
    everybody: Subject | None = None


def attempt_of(caller: Caller, identifier: bytes | None) -> Attempt:
    """The attempt of an authorised caller by a code, or with a pass code by ``identifier``, a keyed digest."""
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
    """Seconds that must go by before this is looked at; 0 if it is looked at now."""
    longest = 0.0
    for subject in (attempt.own, attempt.identifier, attempt.everybody):
        if subject is not None:
            counted = series.get(subject, _NONE)
            # Another lane may have counted after the statement began that has read this: less than no time ago.
            if wait := wait_after(subject.kind, counted.failures, limits):
                longest = max(longest, wait - counted.since)
    return longest


def wait_after(kind: Kind, failures: int, limits: Limits) -> float:
    """The seconds between so many failures in a row and the next attempt: none below the limit, then twice as many
    after each, up to the longest wait, which for all callers together is the only one."""
    beyond = failures - limits.of(kind)
    if beyond < 0:
        return 0.0
    if kind is Kind.ALL_CALLERS:
        return limits.longest_wait
    return min(limits.longest_wait, FIRST_WAIT * 2.0 ** min(beyond, 64))


def refused_unseen(attempt: Attempt | None, series: Mapping[Subject, Series], limits: Limits) -> Refused | None:
    """The answer to an attempt that must wait: nothing is said of what it brought. ``None`` if it is looked at."""
    # Most batches come from callers who have not failed: to look that up for each command costs what deciding it does.
    if attempt is None or not series:
        return None
    wait = wait_of(attempt, series, limits)
    if wait <= 0:
        return None
    why = f"too many attempts have failed, and this one was not looked at: wait {ceil(wait)} s"
    return Refused(StatusCode.ACCESS_DENIED, why)


def is_failure(decision: Decision) -> bool:
    """Whether a command was refused for its credentials."""
    return isinstance(decision, Refused) and decision.code in _FAILURES


def must_wait(decision: Decision) -> bool:
    """Whether a command that brings credentials was refused unseen."""
    return isinstance(decision, Refused) and decision.code is StatusCode.ACCESS_DENIED


def seen(attempt: Attempt, decision: Decision, series: dict[Subject, Series], limits: Limits) -> None:
    """Count what an attempt came to, unless it was refused unseen.

    A code that is found ends its caller's series, a right pass code that of its caller and identifier. That of a
    caller's pass codes ends only when an access token becomes effective: whoever knows one pass code could otherwise
    take any number of guesses at others.
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
