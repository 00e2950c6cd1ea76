"""The growth of cost: with the backlog, the stored rows, their distribution, the commands, and their senders.

Each question changes one thing and leaves the rest alone. A run is compared with the first of its question, which works
in tables of the same size, unless their size is the question. The data of each run is made beforehand; then all tables
are vacuumed and analysed and a checkpoint is made, so that every run pays for a page's first change after one.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any, Final

from effective_contract.access_token import FIELD_NAMES
from tests.benchmarks.load import Backlog, commands, give_accounts, make_tokens, new_run
from tests.benchmarks.report import Cell, Report
from tests.benchmarks.rounds import Round, medians, play
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY
from worker.journey.pass_codes import HASHER
from worker.kafka.topics import PARTITIONS

COMMANDS: Final = 50_000
"""Commands of a run where their number is not the question."""
LONG: Final = 100_000
"""Commands of a run that is judged."""
BACKLOGS: Final = (10_000, 100_000, 1_000_000)
TOKENS: Final = (100_000, 500_000, 2_000_000)
RECORDS: Final = (1_000_000, 5_000_000)
PARTITION_COUNTS: Final = (1, 4, 8, 16, 64)
WORKERS: Final = (1, 2, 4)
PASS_CODES: Final = 600
STORED: Final = len(TOKENS) + len(RECORDS) - 1
"""The index of the largest stored size."""
BACKLOG_BAR: Final = 0.95
STORED_BAR: Final = 0.85
MEMORY_BAR: Final = 200
"""MiB."""
OPERATORS: Final = (("wal_compression", "on"), ("max_wal_size", "16GB"))
"""Settings that the operator of a large Postgres may change without a restart, applied one after the other and kept."""
_PASS_CODE: Final = "2468"

# All rows of earlier runs go; the reference data stays, without its history; the transitions cannot be truncated.
_EMPTIED: Final = """
SET session_replication_role = replica;
CREATE TEMP TABLE kept AS SELECT * FROM access_token WHERE number LIKE 'AT%';
UPDATE kept SET version = 0;
TRUNCATE access_token, transition, command_record, lane;
INSERT INTO access_token SELECT * FROM kept;
DROP TABLE kept
"""

# Decided before, number $2 to $3, on a lane that is gone. In the order of its keys each index grows at its end, and a
# million rows take seconds. The ids lie among those of the tokens, and the keys anywhere, as those of new rows do.
_RECORDS: Final = """
INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id, digest,
    status, message, replayed, access_token_id, version, fields, decided_at)
SELECT 0, $2::bigint + row_number() OVER (ORDER BY key), 1, 'ORG1', key, 'ce:ORG1:%2Fbench:' || id,
    sha256(convert_to(id, 'UTF8')), 'OK', '', false, id, 1, 1, now()
FROM (SELECT id, md5(id)::uuid AS key
    FROM (SELECT $1::text || '-' || n % $4::integer || '.' || n AS id
        FROM generate_series($2::integer, $3::integer) AS n) AS named) AS keyed
"""
_TRANSITIONS: Final = """
INSERT INTO transition (organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id,
    command_id, cause, lane, sequence, previous_hash, hash)
SELECT 'ORG1', id, 1, 'NOT_EFFECTIVE', 'EFFECTIVE', now(), '6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01', '1',
    'ce:ORG1:%2Fbench:' || id, 'API', 0, $2::bigint + row_number() OVER (ORDER BY id),
    sha256(convert_to(id, 'UTF8')), sha256(convert_to(id, 'UTF8'))
FROM (SELECT ($1::text || '-' || n % $4::integer || '.' || n) COLLATE "C" AS id
    FROM generate_series($2::integer, $3::integer) AS n) AS named
"""


@dataclass(frozen=True, slots=True)
class Point:
    """An answer to a question: a run, or the medians of several. ``size`` is its position in the plot."""

    label: str
    run: Round
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Access tokens, and the random order in which commands name them: in a large table each has its own page."""

    run: str
    tokens: int
    numbers: Iterator[int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """All of it, or a share. A judged run is repeated ``again`` times, its reference before and after."""

    share: float
    again: int

    def __call__(self, size: int) -> int:
        return max(1, round(size * self.share))


WHOLE: Final = Sizes(1.0, again=2)
QUICK: Final = Sizes(0.1, again=1)


async def growth(stage: Stage, report: Report, quick: bool) -> None:
    """Ask every question, the small databases first."""
    # The broker compiles its code as it runs: the first question would pay for it.
    await _golden(stage, COMMANDS if not quick else COMMANDS // 10)
    sizes = QUICK if quick else WHOLE
    _tell(report, "partitions", "partitions", await _partitions(stage, sizes))
    _tell(report, "workers", "workers (on the same cores: it shows what sharing costs)", await _workers(stage, sizes))
    _tell(report, "kinds", "kinds of commands", await _kinds(stage, sizes))
    stored = await _stored(stage, report, sizes)
    _tell(report, "stored", "rows stored, access tokens and records", stored)
    judged = stored[STORED]
    _judge(report, f"the rate at {judged.label}, beside {stored[0].label}", judged, stored[0], STORED_BAR)
    backlogs = await _backlogs(stage, sizes)
    _tell(report, "backlog", "commands waiting", backlogs)
    _, usual, most = backlogs
    _judge(report, f"the rate with {most.label}, beside {usual.label}", most, usual, BACKLOG_BAR)
    memory = max(point.run.memory for point in backlogs)
    report.judge("peak memory at any backlog", f"<= {MEMORY_BAR} MiB", f"{memory:.0f} MiB", met=memory <= MEMORY_BAR)


# --- the questions ----------------------------------------------------------------------------------------------------


async def _partitions(stage: Stage, sizes: Sizes) -> list[Point]:
    return [
        Point(str(count), await _golden(stage, sizes(COMMANDS), partitions=count), count) for count in PARTITION_COUNTS
    ]


async def _workers(stage: Stage, sizes: Sizes) -> list[Point]:
    return [Point(str(count), await _golden(stage, sizes(COMMANDS), workers=count), count) for count in WORKERS]


async def _golden(stage: Stage, count: int, *, partitions: int = PARTITIONS, workers: int = 1) -> Round:
    """Return golden commands for all the access tokens there are."""
    run = await only_tokens(stage, count)
    backlog = Backlog.of(run, range(1, count + 1))
    return await play(stage, EXACTLY, backlog, partitions=partitions, workers=workers)


async def _kinds(stage: Stage, sizes: Sizes) -> list[Point]:
    """Measure kinds of commands. Four fields are the golden command's; the codes of the refused half do not exist."""
    count = sizes(COMMANDS)
    half = count // 2
    statuses = {"OK": half, "ACCESS_TOKEN_NOT_FOUND": count - half}
    return [
        await _kind(stage, "four fields", count),
        await _kind(stage, "one field", count, fields_set="number"),
        await _kind(stage, f"all {len(FIELD_NAMES)} fields", count, fields_set=""),
        await _kind(stage, "an account of its own each", count, own=True),
        await _kind(stage, "half of them refused", count, tokens=half, statuses=statuses),
        await _pass_codes(stage, sizes(PASS_CODES)),
    ]


async def _kind(
    stage: Stage,
    label: str,
    count: int,
    *,
    tokens: int | None = None,
    statuses: Mapping[str, int] | None = None,
    own: bool = False,
    **members: Any,
) -> Point:
    """Return commands in a random order, of which the first ``tokens`` name an access token: all, by default.

    The access tokens share one account if they do not each get their ``own``.
    """
    run = await only_tokens(stage, count if tokens is None else tokens)
    if own:
        await give_accounts(stage.owner_dsn, run)
    backlog = Backlog.of(run, _shuffled(count), statuses=statuses, **members)
    return Point(label, await play(stage, EXACTLY, backlog))


async def _pass_codes(stage: Stage, count: int) -> Point:
    """Measure commands with an identifier and its pass code, which costs an Argon2id by design."""
    run = await only_tokens(stage, count)
    async with stage.owner() as connection:
        await connection.execute(
            "UPDATE access_token SET identifier = id, pass_code_hash = $2 WHERE starts_with(id, $1 || '-')",
            run,
            HASHER.hash(_PASS_CODE),
        )
    written = (
        commands(run, [number], access_token_identifier={"identifier": f"{run}-{number}", "pass_code": _PASS_CODE})
        for number in range(1, count + 1)
    )
    backlog = Backlog(run, count, chain.from_iterable(written), {"OK": count})
    return Point("pass codes", await play(stage, EXACTLY, backlog))


async def _stored(stage: Stage, report: Report, sizes: Sizes) -> list[Point]:
    """Measure more tokens first, with no records; then more records, and as many transitions, beside the most tokens.

    The first size, which the last is judged by, is measured before all others and after them.
    """
    fewest, some, most = map(sizes, TOKENS)
    count = sizes(LONG)
    small = [await _random(stage, await _table(stage, fewest), count) for _ in range(sizes.again)]
    points = [Point(f"{some:,} tokens", await _random(stage, await _table(stage, some), count), some)]
    table = await _table(stage, most)
    points.append(Point(f"{most:,} tokens", await _random(stage, table, count), most))
    for before, records in pairwise((0, *map(sizes, RECORDS))):
        await _store(stage, report, table, range(before + 1, records + 1))
        rounds = [await _random(stage, table, count) for _ in range(sizes.again)]
        points.append(Point(f"{most:,} tokens, {records:,} records", medians(rounds), most + records))
    points += await _with_the_most(stage, table, count)
    small += [await _random(stage, await _table(stage, fewest), count) for _ in range(sizes.again)]
    return [Point(f"{fewest:,} tokens", medians(small), fewest), *points]


async def _with_the_most(stage: Stage, table: Table, count: int) -> list[Point]:
    """Measure other effects on the rate in the largest tables: another order, and an operator's settings."""
    inserted = Table(await _more(stage, count), count, iter(range(1, count + 1)))
    points = [Point("… named in the order in which they are stored", await _random(stage, inserted, count))]
    label = "…"
    try:
        for name, value in OPERATORS:
            await _set_up(stage, f"ALTER SYSTEM SET {name} = '{value}'")
            label += f" {name} = {value},"
            points.append(Point(f"{label} any order", await _random(stage, table, count)))
    finally:
        for name, _ in OPERATORS:
            await _set_up(stage, f"ALTER SYSTEM RESET {name}")
    return points


async def _set_up(stage: Stage, setting: str) -> None:
    async with stage.owner() as connection:
        await connection.execute(setting)
        await connection.execute("SELECT pg_reload_conf()")


async def _more(stage: Stage, tokens: int) -> str:
    """Add so many access tokens."""
    run = new_run()
    await make_tokens(stage.owner_dsn, run, tokens)
    return run


async def _table(stage: Stage, tokens: int) -> Table:
    """Make a table with nothing else stored."""
    return Table(await only_tokens(stage, tokens), tokens, iter(_shuffled(tokens)))


async def _random(stage: Stage, table: Table, count: int) -> Round:
    """Return the next so many."""
    return await play(stage, EXACTLY, Backlog.of(table.run, list(islice(table.numbers, count))))


async def _store(stage: Stage, report: Report, table: Table, numbers: range) -> None:
    """Store a record and a transition for each number, as if commands had been answered long ago."""
    began = time.monotonic()
    async with stage.owner() as connection:
        for statement in (_RECORDS, _TRANSITIONS):
            await connection.execute(statement, table.run, numbers[0], numbers[-1], table.tokens)
        await connection.execute("ANALYZE command_record, transition")
    report.say(f"{len(numbers):,} records and transitions were stored in {time.monotonic() - began:.0f} s")


async def _backlogs(stage: Stage, sizes: Sizes) -> list[Point]:
    """Measure all backlogs in the same table: the tokens of all are there from the beginning.

    The second backlog, which the largest is judged by, is measured before it and after it.
    """
    few, usual, most = map(sizes, BACKLOGS)
    planned = [few, *[usual] * sizes.again, most, *[usual] * sizes.again]
    run, first = await only_tokens(stage, sum(planned)), 1
    rounds: dict[int, list[Round]] = {few: [], usual: [], most: []}
    for count in planned:
        rounds[count].append(await play(stage, EXACTLY, Backlog.of(run, range(first, first + count))))
        first += count
    return [Point(f"{count:,} waiting", medians(each), count) for count, each in rounds.items()]


def _shuffled(count: int) -> list[int]:
    """Return 1 to ``count`` in a random order that is the same in every run."""
    return random.Random(count).sample(range(1, count + 1), count)


async def only_tokens(stage: Stage, tokens: int) -> str:
    """Leave so many access tokens and nothing of earlier runs; return the name of the new run."""
    async with stage.owner() as connection:
        await connection.execute(_EMPTIED)
    return await _more(stage, tokens)


# --- the report -------------------------------------------------------------------------------------------------------


def _tell(report: Report, name: str, title: str, points: Sequence[Point]) -> None:
    columns = ("", "commands", "per second", "beside the first", "µs worker", "µs postgres", "µs kafka", "MiB worker")
    report.table(f"How cost grows: {title}", columns, [_row(point, points[0]) for point in points])
    placed = [(point.size, point.run.rate) for point in points if point.size is not None]
    if placed:
        report.plot(f"growth-{name}", f"Rate by {title}", title, "commands per second", {"rate": placed}, log="x")
    else:
        costs = {point.label: point.run.cpu for point in points}
        report.plot_stacks(
            f"growth-{name}", f"CPU per command: {title}", "µs per command (logarithmic)", costs, log="x"
        )


def _row(point: Point, first: Point) -> tuple[Cell, ...]:
    run = point.run
    cpu = (run.cpu[name] for name in ("worker", "postgres", "kafka"))
    return (point.label, run.commands, run.rate, run.rate / first.run.rate, *cpu, run.memory)


def _judge(report: Report, what: str, point: Point, beside: Point, bar: float) -> None:
    share = point.run.rate / beside.run.rate
    report.judge(what, f">= {bar:g} x", f"{share:.2f} x", met=share >= bar)
