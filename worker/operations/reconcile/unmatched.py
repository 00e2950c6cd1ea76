"""Judge the messages that have no counterpart, or a different one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from worker.journey.model import command_key
from worker.operations.findings import Origin
from worker.operations.reconcile.events import COMPARED
from worker.operations.reconcile.messages import Expected, Ledger, Observed
from worker.operations.reconcile.observed import ObservedMessages
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.operations.reconcile.scope import Scope
from worker.operations.reconcile.stream_join import Unmatched
from worker.postgres.sql import statement
from worker.values import rfc3339

_LOOKED_UP: Final = 500
"""Spare messages that are checked against Postgres at once."""


class _Kinds(NamedTuple):
    """The kinds of difference of a ledger."""

    missing: Kind
    other: Kind
    again: Kind
    """A second message of a command or transition."""
    unasked: Kind


_KINDS: Final = {
    Ledger.RESULTS: _Kinds(Kind.NO_RESULT, Kind.OTHER_RESULT, Kind.TWO_RESULTS, Kind.UNASKED_RESULT),
    Ledger.DEAD_LETTERS: _Kinds(
        Kind.NO_DEAD_LETTER, Kind.OTHER_DEAD_LETTER, Kind.SPARE_DEAD_LETTER, Kind.SPARE_DEAD_LETTER
    ),
    Ledger.EVENTS: _Kinds(Kind.NO_EVENT, Kind.OTHER_EVENT, Kind.TWO_EVENTS, Kind.UNKNOWN_EVENT),
}


@dataclass(slots=True)
class UnmatchedMessages:
    """The judge of unmatched messages: it counts those with an innocent reason, and reports the rest."""

    scope: Scope
    report: Reconciliation
    connection: asyncpg.Connection
    observed: ObservedMessages
    _spare: list[Observed] = field(default_factory=list)
    """Observed messages without a counterpart that are not checked against Postgres yet."""

    async def judge(self, each: Unmatched) -> None:
        """Judge one; an observed message is collected and checked against Postgres later."""
        expected, observed = each.expected, each.observed
        if expected is not None and observed is not None:
            what = f"{_difference(observed, expected)}: {expected.where}"
            own = observed.origin
            if own.organisation is None:  # its key is that of the other one
                own = Origin(expected.organisation, own.moment)
            self.report.found(_KINDS[expected.ledger].other, observed.where, what, expected.origin, own)
        elif expected is not None:
            self.judge_missing(expected)
        elif observed is not None:
            self._spare.append(observed)
            if len(self._spare) == _LOOKED_UP:
                await self.judge_spare()

    def judge_missing(self, expected: Expected) -> None:
        """Report a message that was not observed, unless there is a reason for that."""
        if expected.elsewhere:
            self.report.redirected += 1
        elif self.observed.may_have_lost(expected):
            self.report.not_comparable += 1
        elif expected.certain:
            what = f"due since {rfc3339(expected.moment)}: {', '.join(map(str, expected.says[:2]))}"
            self.report.found(_KINDS[expected.ledger].missing, expected.where, what, expected.origin)

    async def judge_spare(self) -> None:
        """Check unexpected messages against Postgres, and report those that no other group or retirement explains."""
        spare, self._spare = self._spare, []
        known = await self._known_results(spare) | await self._known_events(spare)
        for observed in spare:
            is_ours, is_event = known.get(observed.key), observed.ledger is Ledger.EVENTS
            if is_ours is False or (is_event and "IMPORT" in observed.says):
                self.report.others += 1
            elif not is_event and observed.moment < self.scope.kept_since():
                self.report.retired += 1
            elif is_ours and self.scope.settings.delivery == "at_least_once":
                self.report.repeated += 1
            else:
                kinds = _KINDS[observed.ledger]
                kind = kinds.again if is_ours else kinds.unasked
                self.report.found(kind, observed.where, _named(observed), observed.origin)

    async def _known_results(self, spare: Sequence[Observed]) -> dict[object, bool]:
        """Return by key the results of recorded commands: True for these lanes, False for others."""
        names, results = self.scope.names, [each for each in spare if each.ledger is Ledger.RESULTS]
        ids = list({name for each in results for name in (each.called, names.of(each.called))})
        rows = await self.connection.fetch(
            statement("reconcile/known_commands"), ids, list(map(command_key, ids)), list(self.scope.lanes.values())
        )
        known = {row["command_id"]: row["ours"] for row in rows}
        return {
            each.key: known[name] for each in results for name in (names.of(each.called), each.called) if name in known
        }

    async def _known_events(self, spare: Sequence[Observed]) -> dict[object, bool]:
        """Return by key the events of stored transitions: True for these lanes, False for others."""
        keys = [each.key for each in spare if each.ledger is Ledger.EVENTS and isinstance(each.key, tuple)]
        columns = [[key[place] for key in keys] for place in range(3)]
        rows = await self.connection.fetch(
            statement("reconcile/known_transitions"), *columns, list(self.scope.lanes.values())
        )
        return {(row["organisation"], row["access_token_id"], row["version"]): row["ours"] for row in rows}


def _named(observed: Observed) -> str:
    parts = observed.key if isinstance(observed.key, tuple) else (observed.key,)
    parts = (observed.called, *parts[1:]) if observed.called else parts
    return ", ".join(str(part) for part in (*parts, *observed.says[:2]))


def _difference(observed: Observed, expected: Expected) -> str:
    """Return the difference between two messages, by the names of an event's members, or by status and ``replayed``."""
    names = COMPARED if observed.ledger is Ledger.EVENTS else ("status", "replayed")
    pairs = zip(names, observed.says, expected.says, strict=False)
    return "; ".join(f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted)
