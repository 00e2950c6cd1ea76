"""Verify the history: every lane's hash chain, every access token's state, the topic, and anchors.

Workers may run meanwhile: everything in Postgres is read in pages, in the order of the chains, and no two pages need
the same snapshot. A chain proves itself; only its end and its lane's head must be read at the same moment, and so must
an access token's state and its history. Ten million transitions therefore take no more memory than ten, and no snapshot
stays open.

See CONTRACT, Transition event.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import asyncpg

from worker.kafka.reader import TopicReader
from worker.operations.audit.anchors import Anchor
from worker.operations.audit.chains import verify_chains
from worker.operations.audit.lanes import all_lanes
from worker.operations.audit.published import verify_published
from worker.operations.audit.report import Audit, Kind
from worker.operations.audit.states import verify_states
from worker.operations.findings import Finding, OnProgress, Progress, Restriction, no_progress

LARGEST_BATCH: Final = 10_000
"""The largest batch that the settings allow, in commands (CONTRACT, Settings)."""
_UNNOTICED: Final = timedelta(minutes=1)
"""Tolerance for the clock that retires the record of a command: it is read a little later than the audit's."""


async def verify(
    connection: asyncpg.Connection,
    *,
    topic: tuple[TopicReader, str] | None = None,
    anchor: Anchor | None = None,
    kept: timedelta = timedelta(days=30),
    batch: int = LARGEST_BATCH,
    restriction: Restriction | None = None,
    on_progress: OnProgress = no_progress,
    on_found: Callable[[Finding[Kind]], None] | None = None,
) -> Audit:
    """Verify everything. ``topic`` is a reader of the transitions topic, and its name; ``None`` leaves the topic out.

    ``kept`` is the time for which workers keep the record of a command, ``batch`` the most commands in a batch.
    ``on_progress`` gets the number of transitions, access tokens and events read. ``on_found`` gets every finding as it
    is found. Raises ``DependencyUnavailable``.

    A ``restriction`` leaves chains whole: it restricts the access tokens that are compared, and the findings.
    """
    lanes = {row["id"]: row for row in await all_lanes(connection, batch)}
    report = Audit(lanes=len(lanes), restriction=restriction, on_found=on_found)
    progress = Progress(on_progress)
    progress.begin("chains", sum(row["chain_sequence"] for row in lanes.values()))
    kept_for_certain = max(timedelta(0), kept - _UNNOTICED)
    await verify_chains(connection, lanes, report, progress, anchor=anchor, kept=kept_for_certain)
    progress.begin("states")
    await verify_states(connection, report, progress)
    if topic is not None:
        await verify_published(topic, connection, lanes.values(), report, progress)
    return report
