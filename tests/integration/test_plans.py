"""The plan of every statement of the journey, as Postgres would choose it with ten million rows in each table."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
import pytest

from effective_contract.access_token import ALL_FIELDS, fields_mask
from tests.providers.postgres import DatabaseUnderTest
from tests.support.connections import connected
from worker.journey.pass_codes import COMPARED
from worker.journey.project import projection
from worker.postgres.pool import SERVER_SETTINGS
from worker.postgres.sql import statement, statements

ROWS: Final = 10_000_000
"""The row count that Postgres believes each of these tables has."""
GROWING: Final = (
    "access_token",
    "transition",
    "command_record",
    "accounts_receivable",
    "rewards_participant",
    "contact",
    "app_user",
    "revoked_login",
    "attempt",
)
THERE: Final = 10_000
"""The rows that exist: as many as the largest batch names."""
BATCHES: Final = (1, 500, THERE)
MODES: Final = ("force_custom_plan", "force_generic_plan")
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OWNER: Final = UUID(int=1)

# The lane, its settled records over ten million offsets, access tokens with all that the answers show, and the
# transitions of a batch that its access tokens must follow.
FILL: Final = f"""
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)
    VALUES ('c', 'g', 't', 0, '{OWNER}', now(), {ROWS + 1}, {ROWS + 1});
INSERT INTO contact (organisation, id, body)
    SELECT 'ORG1', 'O' || i, json_build_object('id', 'O' || i) FROM generate_series(1, {THERE}) AS i;
INSERT INTO accounts_receivable (organisation, id, account_owner)
    SELECT 'ORG1', 'A' || i, 'O' || i FROM generate_series(1, {THERE}) AS i;
INSERT INTO rewards_participant (organisation, id, accounts_receivable)
    SELECT 'ORG1', 'R' || i, 'A' || i FROM generate_series(1, {THERE}) AS i;
INSERT INTO app_user (organisation, id, username) SELECT 'ORG1', 'U' || i, i FROM generate_series(1, {THERE}) AS i;
INSERT INTO revoked_login (organisation, jti) SELECT 'ORG1', 'J' || i FROM generate_series(1, {THERE}) AS i;
INSERT INTO attempt (organisation, identifier, kind, user_id, account, failed)
    SELECT 'ORG1', decode(lpad(to_hex(i), 8, '0'), 'hex'), 'identifier', 'U' || i, '', 1
    FROM generate_series(1, {THERE}) AS i;
INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code, identifier, pass_code_hash,
        verified_by_user, accounts_receivable, rewards_participant, updated_by_user)
    SELECT 'ORG1', 'T' || i, 'N' || i, 'NOT_EFFECTIVE', 'C' || i, 'I' || i, '$argon2id$' || repeat('h', 87),
        'U' || i, 'A' || i, 'R' || i, 'U' || i
    FROM generate_series(1, {THERE}) AS i;
INSERT INTO transition (organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id,
        command_id, cause, lane, sequence, previous_hash, hash, record_offset)
    SELECT 'ORG1', 'T' || i, 1, 'NOT_EFFECTIVE', 'EFFECTIVE', now(), 'U' || i, '1', i, 'API', 1, i, sha256(''),
        sha256(''), i * {ROWS // THERE}
    FROM generate_series(1, {THERE}) AS i;
INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id, digest,
        status, message, replayed, access_token_id, version, fields, decided_at, recorded_at)
    SELECT 1, i * {ROWS // THERE}, 0, 'ORG1', lpad(to_hex(i), 32, '0')::uuid, i, '', 'OK', '', false, 'T' || i, 1, 0,
        now(), now() - interval '2 days'
    FROM generate_series(1, {THERE}) AS i;
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement, and its arguments for a batch of so many commands."""

    name: str
    text: str
    arguments: Callable[[int], tuple[Any, ...]]


def each(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def named(prefix: str, count: int) -> tuple[list[str], list[str]]:
    return ["ORG1"] * count, each(prefix, count)


def _authorise(count: int) -> tuple[Any, ...]:
    rights = ["ACCESS_TOKENS.SET_EFFECTIVE"] * count
    return *named("", count), ["1"] * count, each("J", count), rights, [""] * count


def _known(count: int) -> tuple[Any, ...]:
    return ["ORG1"] * count, each("U", count), [""] * count, _digests(count), 10


def _counted(count: int) -> tuple[Any, ...]:
    whose = ["ORG1"] * count, _digests(count), ["identifier"] * count, each("U", count), [""] * count
    return *whose, [0] * count, [1] * count


def _digests(count: int) -> list[bytes]:
    return [number.to_bytes(4) for number in range(1, count + 1)]


def _offsets(count: int) -> list[int]:
    return [number * (ROWS // THERE) for number in range(1, count + 1)]


def _projection(*names: str) -> str:
    return projection(fields_mask(names) if names else ALL_FIELDS, reveal_verification_code=False)


PLACE: Final = (0, 1)
GOLDEN: Final = ("verified_by_user", "number", "rewards_participant", "accounts_receivable")
STATEMENTS: Final = (
    *(
        Asked(name, statement(name), arguments)
        for name, arguments in (
            ("lanes/take", lambda _: ("c", "g", "t", 0, OWNER, NOW)),
            ("lanes/open", lambda _: (1, OWNER, 0)),
            ("lanes/owned", lambda _: (1, OWNER)),
            ("lanes/order_done", lambda _: (1, OWNER)),
            ("lanes/renew", lambda _: (1, OWNER, ROWS + 1, PLACE)),
            ("lanes/move", lambda count: (1, ROWS + 1, ROWS + 1 + count, 1, bytes(32), 1, PLACE)),
            ("lanes/settle", lambda _: (1, OWNER, ROWS + 1)),
            ("lanes/know_topic", lambda _: (1, OWNER, OWNER)),
            ("lanes/block", lambda _: (1, OWNER, "why", NOW)),
            ("lanes/lose_commands", lambda _: (1, OWNER, 1, 3, 2, NOW)),
            ("lanes/losses", lambda _: ([1],)),
            ("journey/recall_by_coordinates", lambda count: (1, 1, count)),
            ("journey/pass_code_hashes", lambda count: named("I", min(count, COMPARED))),
            ("journey/authorise", _authorise),
            ("attempts/known", _known),
            ("attempts/count", _counted),
            ("journey/load", lambda count: (*named("C", count), *named("I", count))),
            (
                "journey/recall_by_id",
                lambda count: (["ORG1"] * count, [UUID(int=number + 1) for number in range(count)]),
            ),
            ("journey/recall_from_history", lambda count: (*named("T", count), each("I", count), each("", count))),
            ("journey/project_accounts", lambda count: named("A", count)),
            ("journey/apply", lambda count: (1, 1, count, NOW.replace(tzinfo=None))),
            ("retention/retire_records", lambda count: (1, timedelta(days=1), count, 0)),
        )
    ),
    *(
        Asked(f"journey/project {label}", _projection(*names), lambda count: named("T", count))
        for label, names in (("one field", GOLDEN[1:2]), ("the golden four", GOLDEN), ("all fields", ()))
    ),
)
FUNCTIONS: Final = {"retention/retire_records": 1, "journey/pass_code_hashes": 1}
"""The statements that call a function, which Postgres plans apart, and the number of statements in each."""
AUTO_EXPLAIN: Final = {
    "log_min_duration": 0,
    "log_nested_statements": "on",
    "log_analyze": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_level": "notice",
}
LOOKING_BACK: Final = tuple(
    Asked(name, statement(name), arguments)
    for name, arguments in (
        ("explain/commands", lambda _: ("7", UUID(int=7))),
        ("explain/ids", lambda _: ([UUID(int=7)], "c", "t", 0, ROWS // THERE, 0, "7")),
        ("explain/transition", lambda _: (["7"], None)),
        ("explain/at", lambda _: ("t", 0, ROWS // THERE)),
        ("erasure/lock_tokens", lambda count: ("ORG1", each("T", count), each("A", count), each("R", count))),
        ("erasure/newer_records", lambda count: ("ORG1", each("T", count), [1], [ROWS - count + 1], [], ["%x%"])),
        ("erasure/records_at", lambda count: ([1] * count, _offsets(count), [0] * count, "ORG1")),
        ("erasure/bound", lambda count: ([UUID(int=number + 1) for number in range(count)], "ORG1")),
        ("erasure/before", lambda _: ("ORG1", "O1")),
        (
            "erasure/from_records",
            lambda count: (
                [1] * count,
                _offsets(count),
                [0] * count,
                each("name", count),
                [UUID(int=ROWS + number) for number in range(count)],
                [True] * count,
                each("T", count),
                [b"digest"],
            ),
        ),
    )
)
"""The owner's statements beside the journey, planned as Postgres likes: rows are locked, or a person waits."""


@pytest.fixture
async def owner(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    """Fill the tables and make Postgres believe in ROWS in each.

    The planner counts a table's pages and multiplies them by ``reltuples / relpages``.
    """
    async with connected(database.owner_dsn) as connection:
        for table in GROWING:
            # Autovacuum comes by once a minute, and would correct the statistics.
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await connection.execute(FILL)
        await connection.execute("ANALYZE")
        await connection.execute("UPDATE pg_class SET reltuples = $1 WHERE relname = ANY ($2)", ROWS, list(GROWING))
        yield connection


@pytest.fixture
async def worker(database: DatabaseUnderTest, owner: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database.worker_dsn, **SERVER_SETTINGS) as connection:
        yield connection


async def explained(worker: asyncpg.Connection, asked: Asked, count: int) -> dict[str, Any]:
    """Return the plan, executed and rolled back. ``plan_cache_mode`` concerns prepared statements, hence EXECUTE."""
    prepared = await worker.prepare(asked.text)
    literals = [
        await worker.fetchval(f"SELECT quote_nullable($1::{parameter.name}::text)", argument)
        for parameter, argument in zip(prepared.get_parameters(), asked.arguments(count), strict=True)
    ]
    transaction = worker.transaction()
    await transaction.start()
    try:
        plan = await worker.fetchval(
            f"EXPLAIN (ANALYZE, TIMING off, FORMAT json) EXECUTE {prepared.get_name()} ({', '.join(literals)})"
        )
    finally:
        await transaction.rollback()
    return dict(orjson.loads(plan)[0]["Plan"])


async def explained_within(owner: asyncpg.Connection, asked: Asked, count: int) -> list[dict[str, Any]]:
    """Return the plans within a function, executed and rolled back; its caller's own is of one call."""
    plans: list[dict[str, Any]] = []

    def listen(_: Any, message: Any) -> None:
        _, _, plan = message.message.partition("plan:\n")
        plans.extend([orjson.loads(plan)["Plan"]] if plan else [])

    await owner.execute("LOAD 'auto_explain'")
    for name, value in AUTO_EXPLAIN.items():
        await owner.execute(f"SET auto_explain.{name} = {value}")
    owner.add_log_listener(listen)
    transaction = owner.transaction()
    await transaction.start()
    try:
        await owner.fetch(asked.text, *asked.arguments(count))
    finally:
        await transaction.rollback()
        owner.remove_log_listener(listen)
        await owner.execute("SET auto_explain.log_min_duration = -1")
    return [plan for plan in plans if plan["Node Type"] != "Function Scan"]


def asked_by_name(name: str) -> Asked:
    return next(asked for asked in STATEMENTS if asked.name == name)


def faults(plan: dict[str, Any], count: int) -> Iterator[str]:
    """Yield forbidden parts of a plan: reading more of a growing table than the batch names, or spilling to disk."""
    kind, table = plan["Node Type"], plan.get("Relation Name")
    if table in GROWING and "Scan" in kind:
        # A whole index, or a whole organisation under a filter, is no better than a whole table.
        read = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
        if kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in plan) or read > count:
            yield f"{kind} of {table}"
    if plan.get("Sort Space Type") == "Disk" or plan.get("Hash Batches", 1) > 1:
        yield f"{kind} that spills"
    for child in plan.get("Plans", ()):
        yield from faults(child, count)


@pytest.mark.parametrize("table", GROWING)
async def test_postgres_believes_in_ten_million_rows(worker: asyncpg.Connection, table: str) -> None:
    plan = orjson.loads(await worker.fetchval(f"EXPLAIN (FORMAT json) SELECT FROM {table}"))[0]["Plan"]

    assert plan["Plan Rows"] == pytest.approx(ROWS, rel=0.01)


@pytest.mark.parametrize("mode", MODES)
async def test_no_statement_reads_a_whole_table_or_spills(worker: asyncpg.Connection, mode: str) -> None:
    await worker.execute(f"SET plan_cache_mode = {mode}")

    found = [
        (asked.name, count, fault)
        for asked in STATEMENTS
        for count in BATCHES
        for fault in faults(await explained(worker, asked, count), count)
    ]

    assert found == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
async def test_no_function_reads_a_whole_table_or_spills(owner: asyncpg.Connection, name: str, mode: str) -> None:
    asked = asked_by_name(name)
    for setting, value in SERVER_SETTINGS.items():
        await owner.execute(f"SET {setting} = '{value}'")
    await owner.execute(f"SET plan_cache_mode = {mode}")

    plans = {count: await explained_within(owner, asked, count) for count in BATCHES}

    assert {len(found) for found in plans.values()} == {FUNCTIONS[name]}
    assert [(count, fault) for count, found in plans.items() for plan in found for fault in faults(plan, count)] == []


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("retention/retire_records", "ALTER TABLE command_record DROP CONSTRAINT command_record_pkey"),
        ("journey/pass_code_hashes", "ALTER TABLE access_token DROP CONSTRAINT access_token_identifier_key"),
    ],
)
async def test_without_its_index_what_a_function_reads_would_be_seen(
    owner: asyncpg.Connection, name: str, lost: str
) -> None:
    await owner.execute(lost)

    [plan] = await explained_within(owner, asked_by_name(name), 10)

    assert list(faults(plan, 10))


@pytest.mark.parametrize("count", [1, 100])
async def test_nothing_that_looks_back_reads_a_whole_table_while_somebody_waits(
    owner: asyncpg.Connection, count: int
) -> None:
    found = [
        (asked.name, fault) for asked in LOOKING_BACK for fault in faults(await explained(owner, asked, count), count)
    ]

    assert found == []


async def test_without_its_index_the_search_for_a_retired_commands_transition_would_be_seen(
    owner: asyncpg.Connection,
) -> None:
    await owner.execute("DROP INDEX transition_command_idx")
    asked = next(asked for asked in LOOKING_BACK if asked.name == "explain/transition")

    assert list(faults(await explained(owner, asked, 1), 1)) == ["Seq Scan of transition"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", BATCHES)
async def test_apply_finds_the_facts_of_the_batch(worker: asyncpg.Connection, mode: str, count: int) -> None:
    await worker.execute(f"SET plan_cache_mode = {mode}")

    plan = await explained(worker, asked_by_name("journey/apply"), count)

    [changed] = [node for node in plan["Plans"] if node["Parent Relationship"] == "Outer"]
    assert (plan["Node Type"], plan["Relation Name"]) == ("ModifyTable", "access_token")
    assert changed["Actual Rows"] == count


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("journey/load", "ALTER TABLE access_token DROP CONSTRAINT access_token_authentication_code_key"),
        ("journey/apply", "ALTER TABLE access_token DROP CONSTRAINT access_token_pkey"),
        ("journey/apply", "ALTER TABLE transition DROP CONSTRAINT transition_chain_key"),
        ("journey/recall_by_id", "DROP INDEX command_record_applied_key"),
        ("journey/recall_by_coordinates", "ALTER TABLE command_record DROP CONSTRAINT command_record_pkey"),
    ],
)
async def test_a_lost_index_would_be_seen(
    owner: asyncpg.Connection, worker: asyncpg.Connection, name: str, lost: str
) -> None:
    await owner.execute(lost)

    assert any(faults(await explained(worker, asked_by_name(name), 10), 10))


async def test_a_sort_that_spills_would_be_seen(worker: asyncpg.Connection) -> None:
    await worker.execute("SET work_mem = '256kB'")

    plan = await explained(worker, asked_by_name("journey/load"), THERE)

    assert list(faults(plan, THERE)) == ["Sort that spills"]


def test_no_statement_of_the_journey_is_left_out() -> None:
    # `lanes` reads all of a small table, the others none; audits and imports are no part of the journey.
    unplanned = ("lanes/all", "lanes/other_groups", "connection/")
    operators = ("attempts/f", "attempts/list", "lanes/acknowledge", "lanes/mend", "lanes/of_group")
    looking_back = ("audit/", "dead_letters/", "erasure/", "explain/", "history/", "reconcile/")
    others = (*unplanned, *operators, *looking_back, "demo/", "imports/", "login/", "schema/")

    assert {asked.name.split()[0] for asked in STATEMENTS} == {
        name for name in statements() if not name.startswith(others)
    }
