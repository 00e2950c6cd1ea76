"""Compare commands with their records, transitions with their commands, and both with the published messages."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import asyncpg

from worker.kafka.reader import OffsetRange, TopicReader
from worker.operations.findings import Origin, Progress, state_text, token_place
from worker.operations.reconcile.dry_run_join import DryRunJoin
from worker.operations.reconcile.dry_runs import DryRunResult
from worker.operations.reconcile.expected import ExpectedMessages
from worker.operations.reconcile.messages import Expected, Ledger, Observed
from worker.operations.reconcile.observed import ObservedMessages
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.operations.reconcile.scope import Scope
from worker.operations.reconcile.stream_join import StreamJoin, in_order
from worker.operations.reconcile.unmatched import UnmatchedMessages
from worker.postgres.pages import by_token
from worker.postgres.sql import statement

Message = Expected | Observed | DryRunResult


class Comparison:
    """The comparison of everything in one scope."""

    def __init__(
        self,
        scope: Scope,
        report: Reconciliation,
        progress: Progress,
        kafka: TopicReader,
        connection: asyncpg.Connection,
    ) -> None:
        self._scope = scope
        self._report = report
        self._progress = progress
        self._kafka = kafka
        self._connection = connection
        self._dry_runs = DryRunJoin(scope, report)
        self._expected = ExpectedMessages(scope, report, progress, kafka, connection, self._dry_runs)
        self._observed = ObservedMessages(scope, report, progress, kafka)
        self._unmatched = UnmatchedMessages(scope, report, connection, self._observed)

    async def commands(self) -> None:
        """Compare commands with their records, and these with results and dead letters."""
        topics, spans = self._scope.settings.topics, self._scope.spans
        every = [span for topic in topics.read for span in spans[topic]]
        commands = [span.until(self._scope.committed.get(span.source, 0)) for span in every]
        results, dead_letters = spans[topics.results], spans[topics.dead_letters]
        self._open("commands and answers", [*commands, *results, *dead_letters])
        matched = await self._join(
            [
                *(self._expected.answers(span) for span in commands),
                *(self._observed.results(span) for span in results),
                *(self._observed.dead_letters(span) for span in dead_letters),
            ]
        )
        for missing in self._dry_runs.rest():
            self._unmatched.judge_missing(missing)
        self._report.results += matched[Ledger.RESULTS]
        self._report.dead_letters = matched[Ledger.DEAD_LETTERS]

    async def transitions(self) -> None:
        """Compare transitions with their applied commands, and with their events."""
        events = self._scope.spans[self._scope.settings.topics.transitions]
        self._open("transitions and events", events)
        matched = await self._join(
            [
                *(self._expected.events(source, lane) for source, lane in self._scope.lanes.items()),
                *(self._observed.events(span) for span in events),
            ]
        )
        self._report.transitions = matched[Ledger.EVENTS]

    async def states(self) -> None:
        """Compare access tokens with their last transitions."""
        restriction = self._report.restriction
        own = None if restriction is None else restriction.organisation
        self._progress.begin("states")
        query = statement("reconcile/states")
        async for row in by_token(self._connection, query, organisation=own, on_page=self._count_states):
            now = state_text(row["life_cycle_state"], row["version"])
            last = state_text(row["to_state"], row["last_version"])
            where = token_place(row["organisation"], row["id"])
            what = f"is {now}; its last transition: {last}"
            self._report.found(Kind.OTHER_STATE, where, what, Origin(row["organisation"]))

    def _open(self, stage: str, spans: list[OffsetRange]) -> None:
        """Begin a stage that reads these parts of topics."""
        self._progress.begin(stage, sum(max(0, span.end - span.begin) for span in spans))
        self._kafka.open(spans)

    def _count_states(self, count: int) -> None:
        self._report.states += count
        self._progress.advance(count)

    async def _join(self, streams: Iterable[AsyncIterator[Message]]) -> Mapping[Ledger, int]:
        """Pair the messages of all streams, and judge those without a counterpart. Returns the numbers of pairs."""
        joins: Final = {ledger: StreamJoin() for ledger in Ledger}
        first = last = None
        async for message in in_order(streams):
            first, last = first or message, message
            if isinstance(message, DryRunResult):
                self._dry_runs.answer(message)
                continue
            for each in joins[message.ledger].take(message):
                await self._unmatched.judge(each)
        for join in joins.values():
            for each in join.rest():
                await self._unmatched.judge(each)
        await self._unmatched.judge_spare()
        for end in (first, last):
            self._report.covers(None if end is None else end.moment)
        return {ledger: join.matched for ledger, join in joins.items()}
