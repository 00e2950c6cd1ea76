"""The messages in the topics, partition by partition."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from effective_contract import headers as h
from worker.kafka.delivery import coordinates_of
from worker.kafka.reader import OffsetRange, TopicReader, header, is_dry_run
from worker.operations.findings import Progress
from worker.operations.reconcile.dry_runs import DryRunResult
from worker.operations.reconcile.events import observed_event
from worker.operations.reconcile.log_record import moment_of, place_of
from worker.operations.reconcile.messages import Expected, Ledger, Observed
from worker.operations.reconcile.report import Reconciliation
from worker.operations.reconcile.scope import Scope

M = TypeVar("M", Observed, Observed | DryRunResult)

_APART: Final = timedelta(minutes=1)
"""The most by which a message may come late if two lanes share a partition: each writes in its own order only."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class ObservedMessages:
    """The streams of observed messages, each in the order of its partition."""

    scope: Scope
    report: Reconciliation
    progress: Progress
    kafka: TopicReader
    _begins: dict[tuple[str, int], datetime] = field(default_factory=dict)
    """By topic and partition: the earliest time that is left, if the beginning was removed."""

    def results(self, span: OffsetRange) -> AsyncIterator[Observed | DryRunResult]:
        """Yield the results in a partition, including those of dry runs."""
        return self._read(span, self._result)

    def dead_letters(self, span: OffsetRange) -> AsyncIterator[Observed]:
        """Yield the dead letters of the group in a partition."""
        return self._read(span, self._dead_letter)

    def events(self, span: OffsetRange) -> AsyncIterator[Observed]:
        """Yield the transition events in a partition."""
        return self._read(span, lambda record: observed_event(record, self.report))

    def may_have_lost(self, expected: Expected) -> bool:
        """Return True if the message may have been removed with the beginning of its topic."""
        apart = _APART if len(self.scope.settings.topics.read) > 1 else timedelta()
        return expected.moment - apart < self._begin_of(expected)

    def _begin_of(self, expected: Expected) -> datetime:
        """Return the time before which the message may have been removed.

        If the topic has as many partitions as the commands topic, the message is in the partition of the same number.
        """
        topic, spans = expected.ledger.topic(self.scope.settings.topics), self.scope.spans
        read, partition = expected.source
        if len(spans[topic]) == len(spans[read]):
            return self._begins.get((topic, partition), _NEVER)
        return max((moment for (name, _), moment in self._begins.items() if name == topic), default=_NEVER)

    async def _read(self, span: OffsetRange, read: Callable[[Any], M | None]) -> AsyncIterator[M]:
        place = (span.source.topic, span.source.partition)
        if span.begin:
            self._begins[place] = datetime.max.replace(tzinfo=UTC)
        async for record in self.kafka.read(span):
            self.progress.advance()
            message = read(record)
            if message is not None:
                if span.begin:
                    self._begins[place] = min(self._begins[place], message.moment)
                yield message

    def _result(self, record: Any) -> Observed | DryRunResult:
        told = header(record, h.CE_TIME)
        moment = moment_of(record, told)
        if is_dry_run(record):
            subject = header(record, h.CE_SUBJECT)
            return DryRunResult(coordinates_of(subject), subject, moment, place_of(record))
        says = (header(record, h.STATUS_CODE), header(record, h.REPLAYED))
        called = header(record, h.COMMAND_ID)
        return Observed(Ledger.RESULTS, (self.scope.names.of(called), told), moment, says, place_of(record), called)

    def _dead_letter(self, record: Any) -> Observed | None:
        settings = self.scope.settings
        if header(record, "dl_topic") not in settings.topics.read:
            return None
        if header(record, "dl_consumer_group") != settings.kafka.group_id:
            return None
        key = tuple(header(record, name) for name in ("dl_topic", "dl_partition", "dl_offset", "dl_timestamp"))
        moment = moment_of(record, header(record, "dl_failed_at"))
        own = header(record, "dl_organisation") or None
        says = (header(record, "dl_code"),)
        return Observed(Ledger.DEAD_LETTERS, key, moment, says, place_of(record), organisation=own)
