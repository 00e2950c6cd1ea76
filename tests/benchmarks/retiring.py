"""Retention beside a full load: as many records are due as come, and the record must not grow.

The due records exist beforehand, as those of lanes without an owner: the shortest time that a record is kept is a day.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.benchmarks.growth import only_tokens
from tests.benchmarks.load import Backlog, mixed
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Round, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY
from tests.providers.kafka import TopicNames
from worker.kafka.topics import PARTITIONS

COMMANDS: Final = 8_000_000
"""Ten minutes of them and more."""
EVERY: Final = 8
"""One command of so many finds an access token to set effective, so that a table of a million is enough."""
LOOK_SECONDS: Final = 5.0
QUICK: Final = 40

# As many lanes as the worker has. Settled, and decided longer ago than the default keeps them.
_LANES: Final = """
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)
SELECT 'gone', 'gone', 'gone', n, gen_random_uuid(), now(), $2, $2 FROM generate_series(0, $1::integer - 1) AS n
"""
_RECORDS: Final = """
INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id, digest,
    status, message, replayed, fields, decided_at, recorded_at)
SELECT lane.id, n, 1, 'ORG1', md5(lane.id || '.' || n)::uuid, 'ce:ORG1:%2Fgone:' || lane.id || '.' || n,
    sha256(n::text::bytea), 'INVALID_LIFE_CYCLE_STATE', '', false, 1, now() - interval '60 days',
    now() - interval '60 days'
FROM lane, generate_series(0, $1::bigint - 1) AS n
WHERE consumer_group = 'gone'
"""
# Postgres's own counters: counting the rows would cost more than all that is measured.
_COUNTED: Final = """
SELECT n_tup_ins AS written, n_tup_del AS retired FROM pg_stat_all_tables
WHERE schemaname = 'public' AND relname = 'command_record'
"""


@dataclass(frozen=True, slots=True)
class Look:
    """The records written and retired up to a moment, in seconds of the monotonic clock."""

    at: float
    written: int
    retired: int


async def retiring(stage: Stage, report: Report, quick: bool) -> None:
    """Run a backlog, and as many records that are due."""
    count = COMMANDS // QUICK if quick else COMMANDS
    run = await only_tokens(stage, count // EVERY)
    async with stage.owner() as connection:
        await connection.execute(_LANES, PARTITIONS, count // PARTITIONS)
        await connection.execute(_RECORDS, count // PARTITIONS)
    looks: list[Look] = []

    @asynccontextmanager
    async def watched(_: TopicNames) -> AsyncIterator[None]:
        watch = asyncio.create_task(_watch(stage, looks))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            # A quick run may be over before the second look.
            async with stage.owner() as connection:
                looks.append(await _look(connection))

    statuses = {"OK": count // EVERY, "ACCESS_TOKEN_NOT_FOUND": count - count // EVERY}
    backlog = Backlog.of(run, mixed(count // EVERY, count), statuses=statuses)
    _tell(report, await play(stage, EXACTLY, backlog, beside=watched), looks, due=count)


async def _watch(stage: Stage, looks: list[Look]) -> None:
    async with stage.owner() as connection:
        while True:
            looks.append(await _look(connection))
            await asyncio.sleep(LOOK_SECONDS)


async def _look(connection: asyncpg.Connection) -> Look:
    row = await connection.fetchrow(_COUNTED)
    assert row is not None, "the table is there from the first migration on"
    return Look(time.monotonic(), row["written"], row["retired"])


def _tell(report: Report, played: Round, looks: list[Look], due: int) -> None:
    """Report as long as something was due: afterwards nothing can keep pace. A quick run retires all between looks."""
    first = looks[0]
    last = [looks[1], *(look for look in looks[2:] if look.retired - first.retired < due * 0.98)][-1]
    seconds = last.at - first.at
    written, retired = (last.written - first.written) / seconds, (last.retired - first.retired) / seconds
    columns = ("commands", "per second", "seconds watched", "records written per second", "retired per second")
    report.table("Retention beside a full load", columns, [(played.commands, played.rate, seconds, written, retired)])
    report.keep("retention", [(look.at - first.at, look.written, look.retired) for look in looks])
    grown = [(look.at - first.at, (look.written - first.written) - (look.retired - first.retired)) for look in looks]
    report.plot("retention", "How the record grows", "seconds", "records", {"more than at first": grown})
    share = retired / written
    report.judge("records retired, beside those written", ">= 1 x", f"{share:.2f} x", met=share >= 1)
