"""Compare the lanes in Postgres with the committed offsets and with the remaining logs."""

from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition

from worker.kafka.reader import OffsetRange
from worker.lanes.losses import Loss, range_lost, removed, unacknowledged
from worker.operations.findings import partition_place
from worker.operations.reconcile.report import Kind, Reconciliation
from worker.postgres.pool import Row
from worker.values import rfc3339


def source_of(lane: Row) -> TopicPartition:
    """Return the partition that a lane reads."""
    return TopicPartition(lane["topic"], lane["partition"])


def compare_offsets(
    report: Reconciliation, committed: Mapping[TopicPartition, int], before: Sequence[Row], lanes: Sequence[Row]
) -> None:
    """Report every lane that does not fit its committed offset.

    ``before`` was read before the committed offsets, ``lanes`` after, so a running worker makes no difference.
    """
    earlier, later = ({source_of(row): row for row in rows} for rows in (before, lanes))
    for source, offset in sorted(committed.items()):
        where, lane = partition_place(*source), later.get(source)
        if lane is None or lane["next_offset"] is None:
            if offset:
                report.found(Kind.LANE, where, f"the committed offset is {offset}, and there is no lane")
            continue
        if offset > lane["next_offset"]:
            what = f"the committed offset is {offset}, but commands were decided up to {lane['next_offset']} only"
            report.found(Kind.LANE, where, what)
        first = earlier[source]["first_offset"] if source in earlier else None
        if first is not None and offset < first:
            report.found(Kind.LANE, where, f"the committed offset is {offset}, and was {first} or more: set back")


def find_lost(
    report: Reconciliation,
    logs: Mapping[TopicPartition, OffsetRange],
    committed: Mapping[TopicPartition, int],
    before: Sequence[Row],
    losses: Mapping[int, Sequence[Loss]],
) -> None:
    """Report the losses that are not acknowledged, and those that no worker has noticed yet."""
    for row in before:
        source = source_of(row)
        where = partition_place(*source)
        for loss in unacknowledged(losses.get(row["id"], ())):
            report.found(Kind.LOST, where, f"{loss}; noticed at {rfc3339(loss.noticed_at)}")
        log, first = logs.get(source), row["first_offset"]
        if log is None or first is None or row["ordered_offset"] is not None:
            continue
        if lost := removed(committed.get(source), first, log.begin):
            report.found(Kind.LOST, where, range_lost(lost.start, lost.stop, row["next_offset"]))
