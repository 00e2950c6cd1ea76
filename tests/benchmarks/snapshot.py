"""The cost of a snapshot held for an hour or more: a dump, or a forgotten transaction.

Every batch updates its lane's row, and no version of it may go while the snapshot is held. As many as an hour of
batches would leave are made here at once, which saves that hour.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.benchmarks.growth import only_tokens
from tests.benchmarks.load import Backlog
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Beside, Round, medians, nothing, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY
from tests.providers.kafka import TopicNames

COMMANDS: Final = 100_000
VERSIONS: Final = 10_000
"""Versions of each lane's row: more than an hour of a lane that always has a backlog makes."""
BAR: Final = 0.9

# By the row's place: to find it by its key would step over all versions for each new one.
_MAKE: Final = """
CREATE PROCEDURE pg_temp.age(commands text, versions integer) LANGUAGE plpgsql AS $$
DECLARE
    place tid;
BEGIN
    FOR place IN SELECT ctid FROM lane WHERE topic = commands LOOP
        FOR number IN 1..versions LOOP
            UPDATE lane SET next_offset = next_offset WHERE ctid = place RETURNING ctid INTO STRICT place;
            COMMIT;
        END LOOP;
    END LOOP;
END
$$
"""


async def snapshot(stage: Stage, report: Report, quick: bool, *, rounds: int) -> None:
    """Run the same backlog without a snapshot and under one, in turn."""
    share = 10 if quick else 1
    count, versions = COMMANDS // share, VERSIONS // share
    # The broker compiles its code as it runs: the first round would pay for it.
    await _round(stage, count, 0)
    without, under = [], []
    for _ in range(rounds):
        without.append(await _round(stage, count, 0))
        under.append(await _round(stage, count, versions))
    _tell(report, medians(without), medians(under), versions)


async def _round(stage: Stage, count: int, versions: int) -> Round:
    run = await only_tokens(stage, count)
    beside: Beside = partial(_held, stage, versions) if versions else nothing
    return await play(stage, EXACTLY, Backlog.of(run, range(1, count + 1)), beside=beside)


@asynccontextmanager
async def _held(stage: Stage, versions: int, topics: TopicNames) -> AsyncIterator[None]:
    """Hold a snapshot that is older than so many versions of each lane's row."""
    async with stage.owner() as reader, reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.fetchval("SELECT count(*) FROM lane")
        async with stage.owner() as writer:
            await writer.execute("SET synchronous_commit = off")
            await writer.execute(_MAKE)
            await writer.execute("CALL pg_temp.age($1, $2)", topics.commands, versions)
        yield


def _tell(report: Report, without: Round, under: Round, versions: int) -> None:
    rows = [
        (label, run.rate, run.rate / without.rate, run.cpu["worker"], run.cpu["postgres"])
        for label, run in (("no snapshot", without), (f"{versions:,} versions of each lane's row", under))
    ]
    columns = ("", "per second", "beside none", "µs worker", "µs postgres")
    report.table("With a snapshot held open", columns, rows)
    share = under.rate / without.rate
    report.judge(f"the rate under {versions:,} versions", f">= {BAR:g} x", f"{share:.2f} x", met=share >= BAR)
