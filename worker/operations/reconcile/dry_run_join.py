"""Compare the dry runs of all partitions with their results. A result itself tells which dry run it answers."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from worker.operations.findings import Origin, record_place
from worker.operations.reconcile.dry_runs import DryRun, DryRunResult, DryRuns
from worker.operations.reconcile.log_record import at, is_redirected, origin_of, place_of
from worker.operations.reconcile.messages import Expected, Ledger
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.operations.reconcile.scope import Scope
from worker.postgres.pool import Row
from worker.values import rfc3339


@dataclass(slots=True)
class DryRunJoin:
    """A join of dry runs and results by coordinates."""

    scope: Scope
    report: Reconciliation
    _dry_runs: dict[TopicPartition, DryRuns] = field(default_factory=lambda: defaultdict(DryRuns))
    _early: list[DryRunResult] = field(default_factory=list)
    """Results that came before their dry runs, or whose dry runs do not exist."""

    def add(self, command: Any, source: TopicPartition, record: Row | None) -> None:
        """Add the next dry run of a partition, and report it if it has a ``record``."""
        self.report.dry_runs += 1
        self._dry_runs[source].add(DryRun(command.offset, command.timestamp, is_redirected(command)))
        if record is not None:
            what = f"{record['status']} at {rfc3339(record['decided_at'])}, as {record['command_id']}"
            self.report.found(Kind.RECORDED, place_of(command), what, origin_of(record))

    def answer(self, result: DryRunResult) -> None:
        """Take a result, which may come before its dry run."""
        if not self._is_settled(result):
            self._early.append(result)

    def rest(self) -> Iterator[Expected]:
        """Report the results that answer no dry run, and yield the results that are missing."""
        for result in self._early:
            if not self._is_settled(result):
                self._unasked(result)
        for source, dry_runs in self._dry_runs.items():
            for each in dry_runs.unanswered():
                where = record_place(source.topic, source.partition, each.offset)
                says = ("a dry run",)
                yield Expected(Ledger.RESULTS, None, at(each.timestamp), says, where, source, True, each.elsewhere)

    def _is_settled(self, result: DryRunResult) -> bool:
        """Count or report a result. False if there is no such dry run, or none yet."""
        place, settings = result.answers, self.scope.settings
        if place is None or place.cluster != self.scope.cluster or place.topic not in settings.topics.read:
            self.report.others += 1
            return True
        source = TopicPartition(place.topic, place.partition)
        is_first = self._dry_runs[source].answer(place.offset, place.timestamp)
        if is_first is None:
            return False
        if is_first:
            self.report.results += 1
        elif settings.delivery == "at_least_once":
            self.report.repeated += 1
        else:
            what = f"of the dry run {result.command_id}"
            self.report.found(Kind.TWO_RESULTS, result.where, what, Origin(moment=result.moment))
        return True

    def _unasked(self, result: DryRunResult) -> None:
        assert result.answers is not None
        source = TopicPartition(result.answers.topic, result.answers.partition)
        begin, end = self.report.compared.get(source, (0, 0))
        if begin <= result.answers.offset < end:
            what = f"says that it is of {result.command_id}"
            self.report.found(Kind.NO_DRY_RUN, result.where, what, Origin(moment=result.moment))
        elif result.answers.offset < begin:
            self.report.not_comparable += 1
