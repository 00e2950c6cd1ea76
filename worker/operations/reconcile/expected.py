"""The messages that Postgres says must be published, lane by lane.

On the way, the records are compared with the commands, and the transitions with the records.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from aiokafka import TopicPartition

from worker.journey.digests import is_digest
from worker.journey.messages import DEAD_LETTERED
from worker.kafka.reader import OffsetRange, TopicReader, is_dry_run
from worker.operations.findings import Origin, Progress, record_place, token_place
from worker.operations.reconcile.dry_run_join import DryRunJoin
from worker.operations.reconcile.events import expected_event
from worker.operations.reconcile.log_record import at, is_redirected, origin_of, place_of
from worker.operations.reconcile.messages import Expected, Ledger
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.operations.reconcile.scope import Scope
from worker.postgres.pages import pages
from worker.postgres.pool import Row
from worker.postgres.sql import statement
from worker.values import rfc3339


@dataclass(slots=True)
class ExpectedMessages:
    """The streams of expected messages, each in the order of its lane."""

    scope: Scope
    report: Reconciliation
    progress: Progress
    kafka: TopicReader
    connection: asyncpg.Connection
    dry_runs: DryRunJoin

    async def answers(self, span: OffsetRange) -> AsyncIterator[Expected]:
        """Yield the results and dead letters of a partition's commands, from the records of its lane."""
        self.report.compared[span.source] = (span.begin, span.end)
        begun = False
        async for command, record in _paired(self.kafka.read(span), self._records(span.source)):
            if command is not None:
                self.progress.advance()
                self.report.commands += 1
                if is_dry_run(command):
                    self.dry_runs.add(command, span.source, record)
                    continue
            if record is None:
                self._unrecorded(command, span, is_first=not begun)
                continue
            begun = True
            self._judge(record, span, command)
            for expected in self._of_record(record, span.source, command):
                yield expected

    async def events(self, source: TopicPartition, lane: int) -> AsyncIterator[Expected]:
        """Yield the events of a lane's transitions, in the order of its chain."""
        settled = self.scope.committed.get(source, 0)
        query = statement("reconcile/transitions")
        async for row in self._rows(query, (0,), lambda row: (row["sequence"],), lane):
            event = expected_event(row, source, certain=not row["is_recorded"] or row["record_offset"] < settled)
            placed, of_command = row["record_offset"] is not None, row["cause"] == "API"
            if placed and not row["is_recorded"] and of_command and row["occurred_at"] >= self.scope.kept_since():
                what = f"no applied command is recorded at offset {row['record_offset']}, of {row['command_id']}"
                self.report.found(Kind.NO_APPLIED, event.where, what, event.origin)
            yield event

    def _unrecorded(self, command: Any, span: OffsetRange, *, is_first: bool) -> None:
        """Report a command without a record. If it comes before the first record, its record may have been retired."""
        if is_first and at(command.timestamp) < self.scope.kept_since():
            self.report.retired += 1
            self.report.compared[span.source] = (command.offset + 1, span.end)
        else:
            what = "lies below the committed offset, and was not decided"
            self.report.found(Kind.NO_RECORD, place_of(command), what, Origin(moment=at(command.timestamp)))

    def _judge(self, record: Row, span: OffsetRange, command: Any) -> None:
        """Report a record that lacks its command or its transition."""
        offset = record["record_offset"]
        where = record_place(span.source.topic, span.source.partition, offset)
        if command is None and span.begin <= offset < span.end:
            what = f"{record['command_id']} was decided there at {rfc3339(record['decided_at'])}"
            self.report.found(Kind.NO_COMMAND, where, what, origin_of(record))
        if record["version"] is not None and not self._is_its(record):
            token = token_place(record["organisation"], record["access_token_id"])
            found = "there is none" if record["transition_of"] is None else f"that is of {record['transition_of']}"
            what = f"{record['command_id']} gave the {token} its version {record['version']}, but {found}"
            self.report.found(Kind.NO_TRANSITION, where, what, origin_of(record))

    def _of_record(self, record: Row, source: TopicPartition, command: Any) -> Iterator[Expected]:
        """Yield the messages of one record. ``command`` is the command itself, if it is still in the topic."""
        offset, status, moment = record["record_offset"], record["status"], record["decided_at"]
        where, there = record_place(source.topic, source.partition, offset), command is not None
        key = (self.scope.names.of(record["command_id"]), rfc3339(moment))
        says = (status, "true" if record["replayed"] else "false")
        own, elsewhere = record["organisation"], there and is_redirected(command)
        yield Expected(Ledger.RESULTS, key, moment, says, where, source, there, elsewhere, own)
        if status in DEAD_LETTERED:
            place = (source.topic, str(source.partition), str(offset), str(record["record_timestamp"]))
            yield Expected(Ledger.DEAD_LETTERS, place, moment, (status,), where, source, there, organisation=own)

    def _is_its(self, record: Row) -> bool:
        """Return True if the transition belongs to the command whose record claims it."""
        command, names = record["transition_of"], self.scope.names
        if command is None or not record["is_in_place"]:
            return False
        return command in names.all_of(record["command_id"]) or (is_digest(command) and not names.keys)

    async def _records(self, source: TopicPartition) -> AsyncIterator[Row]:
        lane = self.scope.lanes.get(source)
        if lane is not None:
            query = statement("reconcile/records")
            place = ("record_offset", "record_timestamp")
            async for row in self._rows(query, (-1, 0), lambda row: tuple(row[name] for name in place), lane):
                yield row

    async def _rows(
        self, query: str, begin: tuple[int, ...], key: Callable[[Row], tuple[Any, ...]], lane: int
    ) -> AsyncIterator[Row]:
        async for page in pages(self.connection, query, begin, key, lane):
            for row in page:
                yield row


async def _paired(commands: AsyncIterator[Any], records: AsyncIterator[Row]) -> AsyncIterator[tuple[Any, Row | None]]:
    """Pair commands with their records, both in the order of the log; ``None`` stands for the missing one."""
    command, record = await anext(commands, None), await anext(records, None)
    while command is not None or record is not None:
        mine = (math.inf, 0) if command is None else (command.offset, command.timestamp)
        its = (math.inf, 0) if record is None else (record["record_offset"], record["record_timestamp"])
        yield command if mine <= its else None, record if its <= mine else None
        command = await anext(commands, None) if mine <= its else command
        record = await anext(records, None) if its <= mine else record
