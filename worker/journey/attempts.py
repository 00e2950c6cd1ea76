"""Count guesses in Postgres, and report callers that make too many (CONTRACT, Attempts).

``journey.attempt_limits`` has the rules. Attempts are counted in the transaction that decides their commands, and are
the last rows that it locks. A keyed digest stands for an identifier: without the key, no search finds the identifier.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from worker.journey.attempt_limits import Attempt, Kind, Limits, Series, Subject, attempt_of, wait_after
from worker.journey.authorise import Authorisation
from worker.journey.digests import digest
from worker.journey.model import Caller, Command, Refused
from worker.observability.metrics import Metrics
from worker.postgres.pool import Connection
from worker.postgres.sql import statement
from worker.settings import Settings
from worker.values import Value

_CALLERS: Final = frozenset({Kind.CODES, Kind.PASS_CODES})
"""The kinds that count every failure exactly once, under its caller."""
_SHOWN_DIGITS: Final = 16
"""Hexadecimal digits of a digest that the log shows: enough to tell two apart."""

log = structlog.get_logger(__name__)


class Counted(Value, frozen=True):
    """A series as it is once the batch is committed."""

    subject: Subject
    failures: int
    failed: int
    """Failures of the batch."""


class Attempts:
    """The series of attempts, with a worker's limits and digest key."""

    def __init__(self, key: bytes, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self._key = key
        self._metrics = metrics

    def digest(self, organisation: str, command: Command) -> bytes:
        """The keyed digest of the code or identifier that a command names."""
        if command.authentication_code is not None:
            return digest(self._key, "code", organisation, command.authentication_code)
        return digest(self._key, "identifier", organisation, command.identifier or "")

    def tried(self, requests: Sequence[Command | Refused], callers: Sequence[Caller | Refused]) -> list[Attempt | None]:
        """Return the attempt that each command makes, or ``None`` if its credentials are not examined."""
        by_code: dict[Caller, Attempt] = {}  # most callers of a batch send many of its commands
        tried: list[Attempt | None] = []
        for request, caller in zip(requests, callers, strict=True):
            if isinstance(request, Refused) or isinstance(caller, Refused):
                tried.append(None)
            elif request.identifier is not None:
                tried.append(attempt_of(caller, self.digest(caller.organisation, request)))
            else:
                attempt = by_code.get(caller)
                if attempt is None:
                    attempt = by_code[caller] = attempt_of(caller, None)
                tried.append(attempt)
        return tried

    async def known(
        self, connection: Connection, tried: Sequence[Attempt | None], authorisations: Sequence[Authorisation]
    ) -> dict[Subject, Series]:
        """Return the series that count these attempts. Series without failures are left out."""
        series: dict[Subject, Series] = {}
        for attempt, authorisation in zip(tried, authorisations, strict=True):
            if attempt is not None:
                counted = authorisation.codes if attempt.identifier is None else authorisation.pass_codes
                if counted is not None:
                    series[attempt.own] = counted
        pairs = {each.identifier: each for each in tried if each is not None and each.identifier is not None}
        if pairs:
            series |= await self._known(connection, pairs)
        return series

    async def _known(self, connection: Connection, pairs: Mapping[Subject, Attempt]) -> dict[Subject, Series]:
        rows = await connection.fetch(
            statement("attempts/known"),
            [pair.organisation for pair in pairs],
            [pair.user for pair in pairs],
            [pair.account for pair in pairs],
            [pair.identifier for pair in pairs],
            self.limits.identifier,
        )
        series: dict[Subject, Series] = {}
        for (pair, attempt), row in zip(pairs.items(), rows, strict=True):
            if row["failures"]:
                series[pair] = Series(row["failures"], row["since"])
            if row["all_failures"] and attempt.everybody is not None:
                series[attempt.everybody] = Series(row["all_failures"], row["all_since"])
        return series

    async def count(self, connection: Connection, after: Mapping[Subject, Series]) -> list[Counted]:
        """Write the series that a batch changed, and return them. Writes nothing if none failed or ended."""
        changed = [
            (subject, series)
            for subject, series in after.items()
            if subject.kind is not Kind.ALL_CALLERS and (series.failed or series.reset)
        ]
        if not changed:
            return []
        rows = await connection.fetch(
            statement("attempts/count"),
            [subject.organisation for subject, _ in changed],
            [subject.identifier for subject, _ in changed],
            [subject.kind for subject, _ in changed],
            [subject.user for subject, _ in changed],
            [subject.account for subject, _ in changed],
            [series.failed - series.added if series.reset else None for _, series in changed],
            [series.failed for _, series in changed],
        )
        failed = {subject: series.failed for subject, series in changed}
        found = [
            (Subject(row["organisation"], Kind(row["kind"]), row["user_id"], row["account"], row["identifier"]), row)
            for row in rows
        ]
        counted = [Counted(subject, row["failures"], failed[subject]) for subject, row in found]
        return counted + [Counted(each, series.failures, series.failed) for each, series in _of_everybody(after)]

    def tell(self, counted: Iterable[Counted], refused: int) -> None:
        """Report a committed batch's failures, and the callers whose next attempt must wait.

        ``refused`` is the number of attempts that were refused because they had to wait.
        """
        if refused:
            self._metrics.attempts_refused(refused)
        for each in counted:
            subject = each.subject
            if subject.kind in _CALLERS and each.failed:
                self._metrics.attempts_failed(subject.kind, each.failed)
            wait = wait_after(subject.kind, each.failures, self.limits) if each.failed else 0.0
            if wait:
                self._metrics.attempts_limited(subject.kind)
                log.warning(
                    "attempts_limited",
                    kind=subject.kind.value,
                    organisation=subject.organisation,
                    user_id=subject.user or None,
                    account=subject.account or None,
                    identifier_digest=subject.identifier.hex()[:_SHOWN_DIGITS] or None,
                    failures=each.failures,
                    wait_seconds=wait,
                )


def _of_everybody(after: Mapping[Subject, Series]) -> list[tuple[Subject, Series]]:
    """Return the all-callers series that this batch added to. They are summed up when read, not stored."""
    return [(each, series) for each, series in after.items() if each.kind is Kind.ALL_CALLERS and series.failed]


def limits_of(settings: Settings) -> Limits:
    limits = settings.attempts
    return Limits(
        codes=limits.codes,
        pass_codes=limits.pass_codes,
        identifier=limits.identifier,
        all_callers=limits.all_callers,
        longest_wait=limits.longest_wait_seconds,
    )


async def forget(connection: Connection, age: timedelta) -> None:
    """Forget the series whose last failure is older than ``age``."""
    await connection.execute(statement("attempts/forget"), age)
