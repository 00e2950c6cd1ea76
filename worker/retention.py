"""Retire the record of commands: past its time and settled, in small steps that never hold a lane up (DESIGN 2)."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from worker.database import Database
from worker.errors import WorkerError
from worker.observe import Metrics
from worker.patience import pause
from worker.sql import statement

STEP_RECORDS: Final = 500
PAUSE_SECONDS: Final = 0.1
"""Between two steps, so that a year's worth of records does not go in one burst."""
INTERVAL_SECONDS: Final = 600.0

log = structlog.get_logger(__name__)


class Retention:
    """Retires records of every lane in the database: those of a group that is gone have nobody else."""

    def __init__(self, database: Database, *, days: int, clock: Callable[[], float], metrics: Metrics) -> None:
        self._database = database
        self._age = timedelta(days=days)
        self._clock = clock
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Look every ten minutes until ``stop``. A failure is reported and tried again at the next look."""
        while not stop.is_set():
            try:
                await self.retire(stop)
            except WorkerError as error:
                log.warning("retention_failed", reason=str(error))
            await pause(INTERVAL_SECONDS, stop)

    async def retire(self, stop: asyncio.Event) -> int:
        """Remove everything that is due now, step by step. Returns the number of records removed."""
        due = datetime.fromtimestamp(self._clock(), UTC) - self._age
        total = 0
        for lane in await self._lanes():
            removed = STEP_RECORDS
            while removed == STEP_RECORDS and not stop.is_set():
                removed = await self._step(lane, due)
                total += removed
                self._metrics.records_retired(removed)
                await pause(PAUSE_SECONDS if removed else 0, stop)
        if total:
            log.info("records_retired", count=total)
        return total

    async def _lanes(self) -> list[int]:
        async with self._database.connection() as connection:
            return [row["id"] for row in await connection.fetch(statement("lanes"))]

    async def _step(self, lane: int, due: datetime) -> int:
        async with self._database.transaction() as transaction:
            removed = await transaction.execute(statement("retire_records"), lane, due, STEP_RECORDS)
        return int(removed.removeprefix("DELETE "))
