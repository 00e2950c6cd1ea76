"""Compare the commands topics with the record of commands, states, transitions and all published messages.

Workers may run meanwhile: everything is compared below the offsets that the group had committed at the start; above
them a message may be there or not. The order of reading ensures this: lanes, committed offsets, ends of the topics, and
then Postgres, which is always ahead of Kafka (DESIGN 2). It is read in pages: a later one only knows more.
"""

from collections.abc import Callable
from datetime import datetime

import asyncpg

from worker.errors import OperatorError
from worker.journey.digests import command_names
from worker.kafka.reader import OffsetRange, TopicReader, topic_reader
from worker.kafka.topics import admin_client, cluster_id
from worker.lanes.losses import losses
from worker.operations.findings import Finding, OnProgress, Progress, Restriction, no_progress
from worker.operations.lanes import committed_offsets
from worker.operations.reconcile.compare import Comparison
from worker.operations.reconcile.lanes import compare_offsets, find_lost, source_of
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.operations.reconcile.scope import Scope
from worker.postgres.connect import owner_connection
from worker.postgres.sql import statement
from worker.settings import Settings


class NothingToCompare(OperatorError):
    """A topic is missing, or the group has not read anything."""


async def reconcile(
    settings: Settings,
    *,
    clock: Callable[[], datetime],
    restriction: Restriction | None = None,
    on_progress: OnProgress = no_progress,
    on_found: Callable[[Finding[Kind]], None] | None = None,
) -> Reconciliation:
    """Compare everything. ``on_progress`` gets the number of messages and access tokens read.

    ``clock`` gives the time by which records may be retired, also during the comparison. ``on_found`` gets every
    difference as it is found. A ``restriction`` restricts the access tokens that are compared, and the differences:
    topics are compared whole.

    Raises ``NothingToCompare`` and ``DependencyUnavailable``.
    """
    report = Reconciliation(restriction=restriction, on_found=on_found)
    async with topic_reader(settings) as kafka:
        cluster, found = await _cluster(settings), await kafka.spans(*settings.topics.read)
        logs = [span for spans in found.values() for span in spans]
        async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
            scope = await _scope(settings, cluster, logs, kafka, connection, clock=clock, report=report)
            comparison = Comparison(scope, report, Progress(on_progress), kafka, connection)
            await comparison.commands()
            await comparison.transitions()
            await comparison.states()
    return report


async def _scope(
    settings: Settings,
    cluster: str,
    logs: list[OffsetRange],
    kafka: TopicReader,
    connection: asyncpg.Connection,
    *,
    clock: Callable[[], datetime],
    report: Reconciliation,
) -> Scope:
    """Read lanes, committed offsets and topics, in this order, and report the lanes that do not fit the others.

    ``logs`` are the partitions of the commands topics as they were before.
    """
    at = (cluster, settings.kafka.group_id, list(settings.topics.read))
    before = await connection.fetch(statement("lanes/of_group"), *at)
    committed = await committed_offsets(settings, [log.source for log in logs])
    spans = await kafka.spans(*settings.topics.own)
    for name in settings.topics.own:
        if name not in spans:
            raise NothingToCompare(f"there is no topic {name}")
    lanes = await connection.fetch(statement("lanes/of_group"), *at)
    compare_offsets(report, committed, before, lanes)
    lost = await losses(connection, [row["id"] for row in lanes])
    find_lost(report, {log.source: log for log in logs}, committed, before, lost)
    return Scope(
        settings=settings,
        cluster=cluster,
        names=command_names(settings),
        spans=spans,
        committed=committed,
        lanes={source_of(row): row["id"] for row in lanes},
        clock=clock,
    )


async def _cluster(settings: Settings) -> str:
    async with admin_client(settings) as admin:
        return await cluster_id(admin)
