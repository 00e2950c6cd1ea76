"""Retire old, settled records of commands in small steps that never hold up a lane (DESIGN 2); forget old guesses."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from worker.errors import DependencyUnavailable, WorkerError
from worker.journey.attempts import forget
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.resilience.backoff import Backoff, pause

STEP_SECONDS: Final = 0.2
"""Seconds that a step should take. A step's duration sets the size of the next one and the length of the pause.

Under full load most of a step's time is waiting for its turn, whatever its size: shorter steps would retire too few.
"""
FIRST_STEP: Final = 1000
SMALLEST_STEP: Final = 100
LARGEST_STEP: Final = 10_000
INTERVAL_SECONDS: Final = 600.0
CLOCKS_SECONDS: Final = 60.0
"""Seconds by which the worker's clock and Postgres's may differ: beyond that, one of them must be wrong."""

log = structlog.get_logger(__name__)


class Retention:
    """The retirement of records of every lane in the database, also of groups that no longer exist.

    Postgres's clock decides their age, at both ends; the worker's clock is only compared with it. All workers do this,
    but only one at a time retires a lane's records.
    """

    def __init__(
        self,
        database: Database,
        *,
        days: int,
        clock: Callable[[], float],
        metrics: Metrics,
        health: Health,
        timer: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        """``clock`` gives seconds since the epoch; ``chance`` shuffles the lanes, so that workers share them."""
        self._database = database
        self._age = timedelta(days=days)
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._timer = timer
        self._chance = chance or random.Random()  # noqa: S311 - spreads work, guards no secret
        self._backoff = Backoff(self._chance)
        self._records = FIRST_STEP
        self._cleared: dict[int, int] = {}
        """The offset below which a lane's records are gone. A long snapshot keeps the dead rows in a step's way."""
        self._passed_over = False
        """True if the last run passed over a lane because another worker's step was under way."""
        self._nothing_due = self._timer()

    @property
    def behind_seconds(self) -> float:
        """Seconds since a run removed everything that was due, or since the start."""
        return self._timer() - self._nothing_due

    async def run(self, stop: asyncio.Event) -> None:
        """Retire records every ten minutes until ``stop``. A failure is logged.

        After a failure, or if a lane was passed over, the next run comes within seconds: under full load, a lane's
        worth of records is written in ten minutes.
        """
        while not stop.is_set():
            try:
                await self.retire(stop)
            except WorkerError as error:
                log.warning("retention_failed", reason=str(error))
                await self._backoff.wait(stop)
                continue
            if self._passed_over:
                await self._backoff.wait(stop)
            else:
                self._backoff.reset()
                await pause(INTERVAL_SECONDS, stop)

    async def retire(self, stop: asyncio.Event) -> int:
        """Remove all records that are due now, step by step. Returns the number removed.

        Nothing is removed while the clocks disagree.
        """
        if not await self._clocks_agree():
            return 0
        total, self._passed_over = 0, False
        lanes = await self._lanes()
        self._chance.shuffle(lanes)
        for lane, first in lanes:
            total += await self._retire_lane(lane, first, stop)
        if total:
            log.info("records_retired", count=total)
        async with self._database.transaction() as transaction:
            await forget(transaction, self._age)
        if not self._passed_over and not stop.is_set():
            self._nothing_due = self._timer()
        return total

    async def _retire_lane(self, lane: int, first: int, stop: asyncio.Event) -> int:
        since = self._cleared.get(lane, 0)
        since, total, most, removed = (since if since <= first else 0), 0, 0, 0
        while removed == most and not stop.is_set():
            began, most = self._timer(), self._records
            try:
                removed, since = await self._step(lane, since, most)
            except DependencyUnavailable:
                self._records = smaller(most)  # the step may have been too large for a statement's time limit
                raise
            took = self._timer() - began
            total += removed
            if removed:
                self._backoff.reset()
            self._cleared[lane] = since
            self._metrics.records_retired(removed)
            self._records = next_step(most, removed, took)
            await pause(took if removed else 0, stop)
        return total

    async def _lanes(self) -> list[tuple[int, int]]:
        """Return every lane, and the offset below which it is settled."""
        async with self._database.connection() as connection:
            return [(row["id"], row["first_offset"] or 0) for row in await connection.fetch(statement("lanes/all"))]

    async def _step(self, lane: int, since: int, records: int) -> tuple[int, int]:
        """Remove one step's worth. Returns the number removed, and the offset to go on from."""
        async with self._database.transaction() as transaction:
            row = await transaction.fetchrow(statement("retention/retire_records"), lane, self._age, records, since)
        assert row is not None, "it counts, whatever there is"
        self._passed_over = self._passed_over or not row["turn"]
        return (0, since) if row["last"] is None else (row["records"], row["last"])

    async def _clocks_agree(self) -> bool:
        async with self._database.connection() as connection:
            before = self._clock()
            theirs = await connection.fetchval(statement("connection/clock"))
            waited = self._clock() - before
        ahead: float = before + waited / 2 - theirs.timestamp()
        agree = abs(ahead) - waited / 2 <= CLOCKS_SECONDS
        self._health.clocks(ahead, agree=agree)
        if not agree:
            log.error("records_not_retired", ahead_seconds=round(ahead, 1), reason="the clocks disagree")
        return agree


def next_step(most: int, removed: int, took: float) -> int:
    """Return the size of the next step after one that ``took`` so many seconds. Only a full step enlarges it."""
    if took > STEP_SECONDS:
        return smaller(most)
    if removed == most and took < STEP_SECONDS / 2:
        return min(LARGEST_STEP, most * 2)
    return most


def smaller(most: int) -> int:
    """Return the size of the next step, after one that took too long."""
    return max(SMALLEST_STEP, most // 2)
