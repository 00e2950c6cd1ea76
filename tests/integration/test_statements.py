"""Each statement of the journey, alone: what it finds, locks, writes, and in which order."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.journey import (
    CARD_CODE,
    CODE,
    CODE_OF_IDENTIFIER,
    EFFECTIVE_CODE,
    IDENTIFIER,
    OTHER_TOKEN_ID,
    TOKEN_ID,
)
from tests.providers.postgres import DatabaseUnderTest
from worker.sql import statement

USER_ID: Final = "6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01"
IDENTIFIER_ID: Final = "707E27653A665A42B7092AB3BBD46376"
RIGHT: Final = "ACCESS_TOKENS.SET_EFFECTIVE"
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, 80, UTC)
MINE, THEIRS = UUID(int=1), UUID(int=2)


@pytest.fixture
async def owner(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def worker(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    """Every statement must do with the rights of the worker."""
    connection = await asyncpg.connect(database.worker_dsn, server_settings={"lock_timeout": "5s"})
    yield connection
    await connection.close()


async def take(worker: asyncpg.Connection, mine: UUID = MINE, *, partition: int = 0, group: str = "g") -> Any:
    row = await worker.fetchrow(statement("take_lane"), "c", group, "t", partition, mine, NOW)
    assert row is not None
    return row


async def opened(worker: asyncpg.Connection, *, at: int = 0, partition: int = 0) -> int:
    lane = int((await take(worker, partition=partition))["id"])
    assert await worker.fetchval(statement("open_lane"), lane, MINE, at) == lane
    return lane


# --- lanes ------------------------------------------------------------------------------------------------------------


async def test_take_lane_makes_the_row_once_and_then_takes_it_over(worker: asyncpg.Connection) -> None:
    first = await take(worker)
    assert tuple(first)[1:] == (None, None)
    await worker.execute(statement("open_lane"), first["id"], MINE, 7)

    second = await take(worker, THEIRS)

    assert tuple(second) == (first["id"], 7, 7)
    row = await worker.fetchrow("SELECT owner, owned_since FROM lane")
    assert row is not None
    assert tuple(row) == (THEIRS, NOW)
    assert (await take(worker, partition=1))["id"] != first["id"]
    assert (await take(worker, group="h"))["id"] != first["id"]


async def test_take_lane_keeps_the_chain(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    await worker.execute(statement("advance_chain"), lane, 5, b"\x07" * 32)

    await take(worker, THEIRS)

    row = await worker.fetchrow("SELECT chain_sequence, chain_hash FROM lane")
    assert row is not None
    assert tuple(row) == (5, b"\x07" * 32)


async def test_take_lane_waits_for_a_batch_under_way(database: DatabaseUnderTest, worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    other = await asyncpg.connect(database.worker_dsn)
    transaction = other.transaction()
    await transaction.start()
    assert await other.fetchrow(statement("hold_lane"), lane, MINE, 0, 3, 0) is not None

    taking = asyncio.ensure_future(take(worker, THEIRS))
    await asyncio.wait({taking}, timeout=0.1)
    assert not taking.done()
    await transaction.commit()

    assert (await taking)["next_offset"] == 3
    await other.close()


async def test_owned_lane_knows_the_owner_only(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    assert await worker.fetchval(statement("owned_lane"), lane, MINE) is True
    assert await worker.fetchval(statement("owned_lane"), lane, THEIRS) is None


async def test_open_lane_happens_once_and_to_the_owner_only(worker: asyncpg.Connection) -> None:
    lane = (await take(worker))["id"]

    assert await worker.fetchval(statement("open_lane"), lane, THEIRS, 4) is None
    assert await worker.fetchval(statement("open_lane"), lane, MINE, 4) == lane
    assert await worker.fetchval(statement("open_lane"), lane, MINE, 9) is None


async def test_hold_lane_moves_the_row_on_and_gives_the_chain(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=4)
    await worker.execute(statement("advance_chain"), lane, 2, b"\x09" * 32)

    row = await worker.fetchrow(statement("hold_lane"), lane, MINE, 4, 10, 4)

    assert row is not None
    assert tuple(row) == (2, b"\x09" * 32, 10)
    state = await worker.fetchrow("SELECT first_offset, next_offset FROM lane")
    assert state is not None
    assert tuple(state) == (4, 10)


@pytest.mark.parametrize(("mine", "seen"), [(THEIRS, 4), (MINE, 3), (MINE, 5)])
async def test_hold_lane_refuses_another_owner_and_another_place(
    worker: asyncpg.Connection, mine: UUID, seen: int
) -> None:
    lane = await opened(worker, at=4)

    assert await worker.fetchrow(statement("hold_lane"), lane, mine, 4, 10, seen) is None
    assert await worker.fetchval("SELECT next_offset FROM lane") == 4


async def test_hold_lane_never_moves_next_offset_back(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=8)

    row = await worker.fetchrow(statement("hold_lane"), lane, MINE, 2, 5, 8)

    assert row is not None
    assert row["next_offset"] == 8
    assert await worker.fetchval("SELECT first_offset FROM lane") == 2


async def test_lanes_lists_every_lane(worker: asyncpg.Connection) -> None:
    made = [await opened(worker, partition=number) for number in range(3)]

    assert [row["id"] for row in await worker.fetch(statement("lanes"))] == sorted(made)


# --- callers ----------------------------------------------------------------------------------------------------------


async def test_authorise_answers_in_the_order_of_the_logins(worker: asyncpg.Connection) -> None:
    logins = [
        ("ORG1", "mpadmin", "1", "j1"),
        ("ORG9", "mpadmin", "1", "j2"),
        ("ORG2", "mpadmin", "1", "revoked-login-1"),
        ("ORG1", "mpadmin", "1", "revoked-login-1"),
        ("ORG1", "reader", "9", "j3"),
        ("ORG1", "leaver", "1", "j4"),
        ("ORG1", "mpadmin", "1", "j1"),
    ]

    rows = await worker.fetch(statement("authorise"), *map(list, zip(*logins, strict=True)), RIGHT)

    assert [tuple(row) for row in rows] == [
        (True, USER_ID, "1", False, True),
        (False, None, None, False, False),
        (True, "0A5B7C3D9E1F42608B1C2D3E4F506172", "1", False, True),
        (True, USER_ID, "1", True, True),
        (True, "1B6C8D4EAF2053719C2D3E4F50617283", None, False, False),
        (True, None, "1", False, False),
        (True, USER_ID, "1", False, True),
    ]


async def test_authorise_knows_nobody_of_an_organisation_that_is_not_active(
    owner: asyncpg.Connection, worker: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE organisation SET active = false WHERE id = 'ORG1'")

    [row] = await worker.fetch(statement("authorise"), ["ORG1"], ["mpadmin"], ["1"], ["j"], RIGHT)

    assert tuple(row) == (False, None, None, False, False)


async def test_pass_code_hashes_come_in_the_order_asked(worker: asyncpg.Connection) -> None:
    rows = await worker.fetch(
        statement("pass_code_hashes"),
        ["ORG1", "ORG1", "ORG2", "ORG1"],
        ["nobody", IDENTIFIER, IDENTIFIER, IDENTIFIER.upper()],
    )

    assert [row[0] is None for row in rows] == [True, False, True, True]
    assert rows[1][0].startswith("$argon2id$")


# --- access tokens ----------------------------------------------------------------------------------------------------


async def load(connection: asyncpg.Connection, *, codes: list[str], identifiers: list[str]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        statement("load"), ["ORG1"] * len(codes), codes, ["ORG1"] * len(identifiers), identifiers
    )
    return rows


async def test_load_finds_each_token_once_and_in_the_order_of_ids(worker: asyncpg.Connection) -> None:
    rows = await load(
        worker,
        codes=[CARD_CODE, CODE_OF_IDENTIFIER, CODE, CODE, "unknown", EFFECTIVE_CODE],
        identifiers=[IDENTIFIER, "nobody"],
    )

    ids = [row["id"] for row in rows]
    assert ids == sorted(ids)
    assert {row["authentication_code"] for row in rows} == {CARD_CODE, CODE_OF_IDENTIFIER, CODE, EFFECTIVE_CODE}
    assert {row["organisation"] for row in rows} == {"ORG1"}


async def test_load_locks_in_the_order_of_ids_whatever_the_plan(
    owner: asyncpg.Connection, worker: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code)"
        " SELECT 'ORG1', md5(n::text), n, 'NOT_EFFECTIVE', n FROM generate_series(1, 200) AS n"
    )
    # Hashes keep no order: what is left of it then is what the statement itself asks for.
    await worker.execute("SET enable_sort = off; SET enable_mergejoin = off; SET enable_nestloop = off")

    rows = await load(worker, codes=[str(number) for number in range(1, 201)], identifiers=[])

    ids = [row["id"] for row in rows]
    assert len(ids) == 200
    assert ids == sorted(ids)


async def test_load_compares_codes_exactly(owner: asyncpg.Connection, worker: asyncpg.Connection) -> None:
    await owner.execute("UPDATE access_token SET authentication_code = 'Code' WHERE id = $1", TOKEN_ID)

    assert await load(worker, codes=["code", "CODE", "Code ", " Code"], identifiers=[IDENTIFIER.upper()]) == []
    assert [row["id"] for row in await load(worker, codes=["Code"], identifiers=[])] == [TOKEN_ID]


async def test_load_locks_what_it_found_and_nothing_else(owner: asyncpg.Connection, worker: asyncpg.Connection) -> None:
    async with worker.transaction():
        await load(worker, codes=[CODE], identifiers=[IDENTIFIER])

        free = await owner.fetch(
            "SELECT id FROM access_token WHERE organisation = 'ORG1' FOR NO KEY UPDATE SKIP LOCKED"
        )

    assert {TOKEN_ID, IDENTIFIER_ID}.isdisjoint(row["id"] for row in free)
    assert len(free) == 3


async def test_two_loads_in_opposite_orders_do_not_deadlock(
    database: DatabaseUnderTest, worker: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(database.worker_dsn)
    named = [CODE, CARD_CODE, CODE_OF_IDENTIFIER]

    async def again_and_again(connection: asyncpg.Connection, codes: list[str]) -> None:
        for _ in range(40):
            async with connection.transaction():
                assert len(await load(connection, codes=codes, identifiers=[])) == 3

    await asyncio.gather(again_and_again(worker, named), again_and_again(other, named[::-1]))
    await other.close()


async def test_load_that_waited_sees_what_was_committed_meanwhile(
    owner: asyncpg.Connection, worker: asyncpg.Connection
) -> None:
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(
        "UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = 1, authentication_code = 'moved'"
        " WHERE id = $1",
        TOKEN_ID,
    )
    loading = asyncio.ensure_future(load(worker, codes=[CODE], identifiers=[]))
    await asyncio.wait({loading}, timeout=0.1)
    assert not loading.done()
    await transaction.commit()

    [row] = await loading
    assert (row["life_cycle_state"], row["version"], row["authentication_code"]) == ("EFFECTIVE", 1, "moved")


async def apply(worker: asyncpg.Connection, *changes: tuple[str, int]) -> str:
    """Each change is a token's id and the version it is to reach."""
    count = len(changes)
    status: str = await worker.execute(
        statement("apply"),
        ["ORG1"] * count,
        [token for token, _ in changes],
        [version for _, version in changes],
        [USER_ID] * count,
        ["1"] * count,
        NOW.replace(tzinfo=None),
        ["EFFECTIVE"] * count,
    )
    return status


async def test_apply_changes_each_token_whose_version_is_the_one_before(worker: asyncpg.Connection) -> None:
    assert await apply(worker, (TOKEN_ID, 1), (OTHER_TOKEN_ID, 1)) == "UPDATE 2"

    rows = await worker.fetch("SELECT version, life_cycle_state FROM access_token WHERE updated_by_user = $1", USER_ID)
    assert [tuple(row) for row in rows] == [(1, "EFFECTIVE")] * 2


@pytest.mark.parametrize("version", [0, 2, 7])
async def test_apply_leaves_a_token_of_another_version_alone(worker: asyncpg.Connection, version: int) -> None:
    assert await apply(worker, (TOKEN_ID, version), (OTHER_TOKEN_ID, 1)) == "UPDATE 1"

    assert await worker.fetchval("SELECT version FROM access_token WHERE id = $1", TOKEN_ID) == 0


async def test_apply_leaves_other_organisations_alone(worker: asyncpg.Connection) -> None:
    await apply(worker, ("282E392DF374558688BEDABF209AA8E2", 1))

    assert await worker.fetchval("SELECT count(*) FROM access_token WHERE version > 0") == 0


async def history(worker: asyncpg.Connection, lane: int, *facts: tuple[str, int]) -> str:
    """Each fact is a token's id and its sequence."""
    count = len(facts)
    status: str = await worker.execute(
        statement("write_history"),
        ["ORG1"] * count,
        [token for token, _ in facts],
        [1] * count,
        ["NOT_EFFECTIVE"] * count,
        ["EFFECTIVE"] * count,
        [USER_ID] * count,
        ["1"] * count,
        [f"req:ORG1:{token}" for token, _ in facts],
        [sequence for _, sequence in facts],
        NOW,
        lane,
        [bytes(32)] * count,
        [bytes([sequence]) * 32 for _, sequence in facts],
    )
    return status


async def test_write_history_writes_one_whole_fact_per_transition(worker: asyncpg.Connection) -> None:
    assert await history(worker, 3, (TOKEN_ID, 1), (OTHER_TOKEN_ID, 2)) == "INSERT 0 2"

    row = await worker.fetchrow("SELECT * FROM transition WHERE sequence = 2")
    assert row is not None
    assert dict(row) == {
        "organisation": "ORG1",
        "access_token_id": OTHER_TOKEN_ID,
        "version": 1,
        "from_state": "NOT_EFFECTIVE",
        "to_state": "EFFECTIVE",
        "occurred_at": NOW,
        "user_id": USER_ID,
        "unit_id": "1",
        "command_id": f"req:ORG1:{OTHER_TOKEN_ID}",
        "cause": "API",
        "lane": 3,
        "sequence": 2,
        "previous_hash": bytes(32),
        "hash": b"\x02" * 32,
    }


async def test_advance_chain_moves_one_lane_only(worker: asyncpg.Connection) -> None:
    one, other = await opened(worker), await opened(worker, partition=1)

    await worker.execute(statement("advance_chain"), one, 4, b"\x04" * 32)

    rows = await worker.fetch("SELECT id, chain_sequence FROM lane ORDER BY id")
    assert [tuple(row) for row in rows] == [(one, 4), (other, 0)]


# --- the record of commands -------------------------------------------------------------------------------------------


async def record(
    worker: asyncpg.Connection,
    lane: int,
    *offsets: int,
    applied: bool = True,
    keys: list[UUID] | None = None,
    token: str = TOKEN_ID,
    timestamp: int = 1,
    decided_at: datetime = NOW,
) -> str:
    count = len(offsets)
    keys = keys or [uuid4() for _ in offsets]
    status: str = await worker.execute(
        statement("record"),
        lane,
        decided_at,
        list(offsets),
        [timestamp] * count,
        ["ORG1"] * count,
        keys,
        [f"req:ORG1:{key}" for key in keys],
        [b"digest"] * count,
        ["OK" if applied else "ACCESS_DENIED"] * count,
        [""] * count,
        [False] * count,
        [token if applied else None] * count,
        [1 if applied else None] * count,
        [5] * count,
    )
    return status


async def test_record_writes_every_new_decision(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)

    assert await record(worker, lane, 0, 1, 2) == "INSERT 0 3"
    assert await record(worker, lane, 3, applied=False) == "INSERT 0 1"


async def test_record_leaves_out_an_id_that_another_lane_has_bound(worker: asyncpg.Connection) -> None:
    one, other, key = await opened(worker), await opened(worker, partition=1), uuid4()
    await record(worker, one, 0, keys=[key])

    assert await record(worker, other, 0, 1, keys=[key, uuid4()]) == "INSERT 0 1"
    assert await record(worker, other, 2, applied=False, keys=[key]) == "INSERT 0 1"


async def test_record_waits_for_another_lane_that_is_binding_the_same_id(
    database: DatabaseUnderTest, worker: asyncpg.Connection
) -> None:
    one, other, key = await opened(worker), await opened(worker, partition=1), uuid4()
    second = await asyncpg.connect(database.worker_dsn)
    transaction = second.transaction()
    await transaction.start()
    await record(second, other, 0, keys=[key])
    waiting = asyncio.ensure_future(record(worker, one, 0, keys=[key]))
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()

    await transaction.rollback()

    assert await waiting == "INSERT 0 1"
    await second.close()


async def test_recall_by_coordinates_gives_what_was_recorded_with_its_transition(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    await record(worker, lane, 4, 5, applied=False)
    await record(worker, lane, 6)
    await record(worker, lane, 7, applied=False)
    await history(worker, lane, (TOKEN_ID, 1))

    rows = await worker.fetch(statement("recall_by_coordinates"), lane, 5, 6)

    found = {row["record_offset"]: row for row in rows}
    assert found.keys() == {5, 6}
    assert (found[5]["status"], found[5]["sequence"], found[5]["access_token_id"]) == ("ACCESS_DENIED", None, None)
    assert (found[6]["status"], found[6]["sequence"], found[6]["hash"]) == ("OK", 1, b"\x01" * 32)
    assert (found[6]["fields"], found[6]["digest"], found[6]["decided_at"]) == (5, b"digest", NOW)


async def test_recall_by_coordinates_sees_its_own_lane_only_and_every_timestamp(worker: asyncpg.Connection) -> None:
    one, other = await opened(worker), await opened(worker, partition=1)
    await record(worker, one, 0, timestamp=1)
    await record(worker, one, 0, timestamp=2)
    await record(worker, other, 0)

    rows = await worker.fetch(statement("recall_by_coordinates"), one, 0, 0)

    assert sorted(row["record_timestamp"] for row in rows) == [1, 2]


async def test_recall_by_id_finds_applied_commands_of_any_lane_in_their_organisation(
    worker: asyncpg.Connection,
) -> None:
    one, other = await opened(worker), await opened(worker, partition=1)
    applied, refused, unknown = uuid4(), uuid4(), uuid4()
    await record(worker, one, 0, keys=[applied])
    await record(worker, other, 0, keys=[refused], applied=False)
    await record(worker, other, 1, keys=[applied], applied=False)

    rows = await worker.fetch(
        statement("recall_by_id"), ["ORG1", "ORG1", "ORG1", "ORG2"], [applied, refused, unknown, applied]
    )

    assert [tuple(row) for row in rows] == [(f"req:ORG1:{applied}", b"digest", "ORG1", TOKEN_ID)]


async def test_retire_records_removes_what_is_old_and_settled_in_steps(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=10)
    await record(worker, lane, *range(12), applied=False)
    later = datetime(2026, 3, 5, tzinfo=UTC)

    assert await worker.execute(statement("retire_records"), lane, NOW, 4) == "DELETE 0"
    assert await worker.execute(statement("retire_records"), lane, later, 4) == "DELETE 4"
    assert [row[0] for row in await worker.fetch("SELECT record_offset FROM command_record ORDER BY 1")] == [
        *range(4, 12)
    ]
    assert await worker.execute(statement("retire_records"), lane, later, 100) == "DELETE 6"
    assert await worker.execute(statement("retire_records"), lane, later, 100) == "DELETE 0"


async def test_every_statement_of_the_journey_is_a_file_that_postgres_can_plan(worker: asyncpg.Connection) -> None:
    for name in (
        *("take_lane", "open_lane", "hold_lane", "lanes", "authorise", "pass_code_hashes", "load", "apply"),
        *("write_history", "advance_chain", "record", "recall_by_coordinates", "recall_by_id", "retire_records"),
        "project",
    ):
        await worker.prepare(statement(name))
