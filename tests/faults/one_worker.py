"""Faults of one worker alone: its way to Postgres, its clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import asyncpg

from tests.acceptance.worker_process import WorkerProcess
from tests.faults.calm import CALM_SECONDS
from tests.faults.fleet import RETENTION_SECONDS, Slot, holds_within
from tests.faults.rules import Unkept
from tests.faults.stage import RETENTION_DAYS, Stage
from tests.faults.within import within
from tests.faults.worker import DAY_SECONDS

START_SECONDS: Final = 25.0
"""Seconds that a worker may take to come to work; a slower one has another obstacle."""
LIMIT_SECONDS: Final = 5.0
"""Seconds without Postgres after which a worker of such a life leaves its group, instead of a minute."""
LEAVE_SECONDS: Final = 40.0
"""Many times that, and the looks of its probe."""
TAKE_OVER_SECONDS: Final = 25.0
JOIN_SECONDS: Final = 25.0
DAYS_AHEAD: Final = RETENTION_DAYS + 1
"""Records that are seconds old are past their time by such a clock."""
SAY_SECONDS: Final = 6 * RETENTION_SECONDS
LOOK_SECONDS: Final = 0.5
LOOKS: Final = (2, 4)
"""The least and most looks for records to retire while its clock is ahead."""


async def without_postgres(stage: Stage, chance: Random) -> bool:
    """Cut one worker off from Postgres, not Kafka: others answer its commands, until it has both again.

    Raises ``Unkept`` if it keeps its partitions, no worker takes them, or it does not join again.
    """
    slot = chance.choice(stage.fleet.slots)
    async with _life(stage, slot, without_postgres=LIMIT_SECONDS) as life:
        if not await holds_within(lambda: _works(slot), START_SECONDS):
            return False
        with stage.postgres_of(slot).cut_off():
            if not await holds_within(lambda: _is_out(life), LEAVE_SECONDS):
                if slot.runs:
                    raise Unkept(f"{slot.name} was without Postgres for {LEAVE_SECONDS:.0f} s and kept its partitions")
                return False
            if not await _all_come_on(stage, TAKE_OVER_SECONDS) and not await _all_come_on_in_quiet(stage, slot):
                return False
        return await stage.fleet.ready(slot, JOIN_SECONDS) or await _joins_in_quiet(stage, slot)


async def a_month_ahead(stage: Stage, chance: Random) -> bool:
    """Set one worker's clock ahead by more than records are kept. Raises ``Unkept`` if it does not report that.

    The Kafka client's timestamps stay right: a broker refuses those more than an hour ahead, and all would wait.
    """
    slot = chance.choice(stage.fleet.slots)
    async with _life(stage, slot, days_ahead=DAYS_AHEAD) as life:
        if not await stage.fleet.ready(slot, START_SECONDS):
            return False
        failed = len(life.events("retention_failed"))
        if not await holds_within(lambda: _doubts_its_clock(life), SAY_SECONDS):
            # It may have been kept from asking Postgres for the time; but not in silence.
            if slot.runs and len(life.events("retention_failed")) == failed:
                raise Unkept(f"{slot.name} has a clock {DAYS_AHEAD} days ahead, and does not say so")
            return False
        await asyncio.sleep(RETENTION_SECONDS * chance.randint(*LOOKS))
        return slot.runs


@asynccontextmanager
async def _life(stage: Stage, slot: Slot, **otherwise: float) -> AsyncIterator[WorkerProcess]:
    """Run one unusual life, and after it a usual one."""
    slot.wanted = False
    slot.worker.kill()
    stage.fleet.count_end(slot)
    slot.start(**otherwise)
    try:
        yield slot.worker
    finally:
        slot.worker.kill()
        stage.fleet.count_end(slot)
        slot.wanted = True
        await stage.fleet.ready(slot, START_SECONDS)


def _said(life: WorkerProcess) -> dict[str, Any]:
    return life.probe("/readyz")[1] or {}


def _works(slot: Slot) -> bool:
    """True if it has partitions to lose."""
    return slot.is_ready() and bool(_said(slot.worker).get("lanes"))


def _is_out(life: WorkerProcess) -> bool:
    return bool(life.events("leaving_group")) and "out_of_group" in _said(life)


def _doubts_its_clock(life: WorkerProcess) -> bool:
    said = _said(life)
    ahead = said.get("clock_ahead_of_postgres_seconds", 0.0)
    is_said = "records of commands are not retired" in said.get("reason", "")
    return bool(life.events("records_not_retired")) and is_said and ahead > (DAYS_AHEAD - 1) * DAY_SECONDS


async def _all_come_on_in_quiet(stage: Stage, slot: Slot) -> bool:
    """True if others take over when nothing else hurts them. Raises ``Unkept`` if they do not."""
    async with stage.calm.asked() as is_calm:
        # A fault that changes a log makes its lanes wait for a person, or the load for itself. None begins in the
        # quiet.
        if not is_calm or stage.past.one.locked() or len(stage.fleet.slots) == 1:
            return False
        if await _all_come_on(stage, CALM_SECONDS):
            return True
        if await _hears_postgres(stage):
            raise Unkept(f"{slot.name} was out of its group, and nobody took its partitions for {CALM_SECONDS:.0f} s")
    return False


async def _joins_in_quiet(stage: Stage, slot: Slot) -> bool:
    """True if it joins when nothing hurts it any more. Raises ``Unkept`` if it does not."""
    async with stage.calm.asked() as is_calm:
        if not is_calm:
            return False
        if await stage.fleet.ready(slot, CALM_SECONDS):
            return True
        if slot.runs and "out_of_group" in _said(slot.worker) and await _hears_postgres(stage):
            raise Unkept(f"{slot.name} heard Postgres for {CALM_SECONDS:.0f} s, and did not join again")
    return False


async def _hears_postgres(stage: Stage) -> bool:
    """True if the harness hears Postgres."""
    try:
        await _lanes(stage)
    except (OSError, asyncpg.PostgresError):
        return False
    return True


async def _all_come_on(stage: Stage, seconds: float) -> bool:
    """Wait until all decided in the load's partitions so far is published, and more. True if it came to that.

    A lane settles its offsets when a later batch is decided.
    """
    decided: dict[str, int] = {}

    async def is_settled() -> bool:
        nonlocal decided
        try:
            lanes = await _lanes(stage)
        except (OSError, asyncpg.PostgresError):  # away for all: not yet
            return False
        if not decided:
            decided = {place: end for place, (_, end) in lanes.items()}
        elif all(lanes[place][0] > end for place, end in decided.items()):
            return True
        await asyncio.sleep(LOOK_SECONDS)
        return False

    return await within(seconds, is_settled)


async def _lanes(stage: Stage) -> dict[str, tuple[int, int]]:
    """Return the offsets up to which each partition of the load is published and decided, by name."""
    connection = await asyncpg.connect(stage.scene.database.owner_dsn)
    try:
        rows = await connection.fetch("SELECT topic, partition, first_offset, next_offset FROM lane")
    finally:
        await connection.close()
    return {
        f"{row['topic']}-{row['partition']}": (row["first_offset"] or 0, row["next_offset"] or 0)
        for row in rows
        if row["partition"] < stage.partitions and row["topic"] == stage.source(row["partition"])
    }
