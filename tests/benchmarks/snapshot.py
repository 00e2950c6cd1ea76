"""What a snapshot costs that somebody holds for an hour or more: a dump, or a transaction that was forgotten.

Every batch updates its lane's row, and no version of it may go while the snapshot is held: each batch steps over all of
them. They are made here at once, as many as an hour of batches would, so that nobody need wait for an hour.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.benchmarks.growth import only_tokens
from tests.benchmarks.load import Backlog
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Round, medians, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY
from tests.providers.kafka import TopicNames

COMMANDS: Final = 100_000
VERSIONS: Final = (10_000, 36_000)
"""Of each lane's row: an hour of a lane that always has a backlog, with two or three batches of 500 commands a second,
and one of a lane with ten small ones."""
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
    """The same backlog with no snapshot and with each age of one, in turn."""
    ages = (0, *VERSIONS)
    count = COMMANDS // 10 if quick else COMMANDS
    # The broker compiles its code as it runs: the first round would pay for it.
    await _round(stage, count, 0)
    found: dict[int, list[Round]] = {age: [] for age in ages}
    for _ in range(rounds):
        for age in ages:
            found[age].append(await _round(stage, count, age))
    _tell(report, {age: medians(each) for age, each in found.items()})


async def _round(stage: Stage, count: int, age: int) -> Round:
    run = await only_tokens(stage, count)

    @asynccontextmanager
    async def held(topics: TopicNames) -> AsyncIterator[None]:
        async with _snapshot(stage, topics.commands, age):
            yield

    return await play(stage, EXACTLY, Backlog.of(run, range(1, count + 1)), beside=held)


@asynccontextmanager
async def _snapshot(stage: Stage, commands: str, versions: int) -> AsyncIterator[None]:
    """Hold one that is older than so many versions of each lane's row. None is held if there are to be none."""
    if not versions:
        yield
        return
    async with stage.owner() as reader, reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.fetchval("SELECT count(*) FROM lane")
        async with stage.owner() as writer:
            await writer.execute("SET synchronous_commit = off")
            await writer.execute(_MAKE)
            await writer.execute("CALL pg_temp.age($1, $2)", commands, versions)
        yield


def _tell(report: Report, found: dict[int, Round]) -> None:
    without = found[0]
    rows: Sequence[tuple[str | float, ...]] = [
        (
            f"{age:,}" if age else "no snapshot",
            run.rate,
            run.rate / without.rate,
            run.cpu["worker"],
            run.cpu["postgres"],
        )
        for age, run in found.items()
    ]
    columns = ("versions of each lane's row", "per second", "beside none", "µs worker", "µs postgres")
    report.table("With a snapshot held open", columns, rows)
    for age in VERSIONS:
        share = found[age].rate / without.rate
        report.judge(f"the rate under {age:,} versions", f">= {BAR:g} x", f"{share:.2f} x", met=share >= BAR)
