"""Each statement of the journey, alone: the rows that it finds, locks and writes, and their order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from effective_contract.codes import StatusCode
from tests.providers.postgres import DatabaseUnderTest, until_waiting
from tests.support.builders import transition
from tests.support.connections import connected
from tests.support.seeded import (
    CARD_CODE,
    CODE,
    CODE_OF_IDENTIFIER,
    EFFECTIVE_CODE,
    IDENTIFIER,
    OTHER_TOKEN_ID,
    TOKEN_ID,
    USER_ID,
)
from worker.errors import BatchConflict, from_postgres
from worker.journey.apply import apply
from worker.journey.model import Answer, TokenKey, Transition, command_key
from worker.journey.pass_codes import COMPARED
from worker.journey.record import record
from worker.kafka.delivery import Coordinates
from worker.lanes.losses import Loss, losses
from worker.postgres.pool import rolled_back
from worker.postgres.sql import statement, statements

IDENTIFIER_ID: Final = "707E27653A665A42B7092AB3BBD46376"
RIGHT: Final = "ACCESS_TOKENS.SET_EFFECTIVE"
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, 80, UTC)
MINE, THEIRS = UUID(int=1), UUID(int=2)


@pytest.fixture
async def owner(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database.owner_dsn) as connection:
        yield connection


@pytest.fixture
async def worker(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of the worker's role: every statement must do with its rights."""
    async with connected(database.worker_dsn, lock_timeout="5s") as connection:
        yield connection


@pytest.fixture
async def another(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    """Yield another worker's connection."""
    async with connected(database.worker_dsn) as connection:
        yield connection


async def take(worker: asyncpg.Connection, mine: UUID = MINE, *, partition: int = 0, group: str = "g") -> Any:
    row = await worker.fetchrow(statement("lanes/take"), "c", group, "t", partition, mine, NOW)
    assert row is not None
    return row


async def opened(worker: asyncpg.Connection, *, at: int = 0, partition: int = 0) -> int:
    lane = int((await take(worker, partition=partition))["id"])
    assert await worker.fetchval(statement("lanes/open"), lane, MINE, at) == lane
    return lane


# --- lanes ------------------------------------------------------------------------------------------------------------

MARK = "SELECT first_offset, next_offset, last_offset, last_timestamp FROM lane"


async def test_take_lane_makes_the_row_once_and_then_takes_it_over(worker: asyncpg.Connection) -> None:
    first = await take(worker)
    assert set(tuple(first)[1:]) == {None}
    await worker.execute(statement("lanes/open"), first["id"], MINE, 7)

    second = await take(worker, THEIRS)

    assert tuple(second)[:4] == (first["id"], 7, 7, None)
    row = await worker.fetchrow("SELECT owner, owned_since FROM lane")
    assert row is not None
    assert tuple(row) == (THEIRS, NOW)
    assert (await take(worker, partition=1))["id"] != first["id"]
    assert (await take(worker, group="h"))["id"] != first["id"]


async def test_what_is_lost_is_written_down_by_the_owner_alone_and_the_lane_goes_on_behind_it(
    worker: asyncpg.Connection,
) -> None:
    lane = await opened(worker, at=7)
    lost = (3, 12, 7, NOW)
    assert await worker.fetchval(statement("lanes/lose_commands"), lane, THEIRS, *lost) is None
    assert await losses(worker, [lane]) == {}
    assert await worker.fetchval(statement("lanes/lose_commands"), lane, MINE, *lost) == lane
    assert await losses(worker, [lane]) == {lane: (Loss(3, 12, 7, NOW),)}
    assert tuple(await take(worker))[:4] == (lane, 12, 12, 12)
    assert await worker.fetchval(statement("lanes/order_done"), lane, THEIRS) is None
    assert await worker.fetchval(statement("lanes/order_done"), lane, MINE) == lane
    assert await losses(worker, [lane]) == {lane: (Loss(3, 12, 7, NOW, settled=True),)}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute(statement("lanes/acknowledge"), [lane], NOW, NOW)


async def test_only_what_was_shown_is_acknowledged(owner: asyncpg.Connection, worker: asyncpg.Connection) -> None:
    lane, later = await opened(worker, at=7), NOW + timedelta(seconds=1)
    await worker.execute(statement("lanes/lose_commands"), lane, MINE, 7, 9, 7, NOW)
    await worker.execute(statement("lanes/lose_commands"), lane, MINE, 9, 10, 9, later)
    await owner.execute(statement("lanes/acknowledge"), [lane], later, NOW)
    assert await losses(worker, [lane]) == {lane: (Loss(7, 9, 7, NOW, acknowledged_at=later), Loss(9, 10, 9, later))}


async def place_of(connection: asyncpg.Connection, lane: int) -> Any:
    """Return the place of the version of its row that is visible."""
    return await connection.fetchval("SELECT ctid FROM lane WHERE id = $1", lane)


async def lease(connection: asyncpg.Connection, lane: int, owner: UUID, seen: int, place: Any = None) -> Any:
    return await connection.fetchrow(statement("lanes/renew"), lane, owner, seen, place)


async def move(connection: asyncpg.Connection, lane: int, *to: Any) -> int | None:
    """Move the lane. ``to``: first and next offset, sequence and hash of the head, timestamp of the last command."""
    moved: int | None = await connection.fetchval(statement("lanes/move"), lane, *to, await place_of(connection, lane))
    return moved


async def test_mend_lane_takes_the_row_only_as_it_was_looked_at_and_whoever_had_it_has_lost_it(
    worker: asyncpg.Connection,
) -> None:
    lane = await opened(worker, at=7)
    # Its knowledge of the log, and the reasons that keep it from starting, are void.
    await worker.execute(statement("lanes/know_topic"), lane, MINE, THEIRS)
    await worker.execute(statement("lanes/block"), lane, MINE, "the log is another", NOW)

    async def mend(first: int, following: int, ordered: int | None) -> Any:
        seen = (first, following, ordered)
        return await worker.fetchval(statement("lanes/mend"), lane, THEIRS, NOW, 4, 9, 4, *seen)

    assert await mend(7, 8, None) is None
    assert await mend(6, 7, None) is None
    assert await mend(7, 7, 7) is None
    assert await worker.fetchval(statement("lanes/owned"), lane, MINE)
    assert await mend(7, 7, None) == lane
    assert await worker.fetchval(statement("lanes/owned"), lane, MINE) is None
    assert await lease(worker, lane, MINE, 7) is None
    assert await worker.fetchval(statement("lanes/order_done"), lane, MINE) is None
    assert tuple(await take(worker))[:4] == (lane, 4, 9, 4)
    assert await worker.fetchval(statement("lanes/order_done"), lane, MINE) == lane
    assert tuple(await take(worker)) == (lane, 4, 9, *[None] * 5)


async def test_take_lane_keeps_the_chain(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    await move(worker, lane, 0, 1, 7, b"\x07" * 32, 100)

    await take(worker, THEIRS)

    assert await chains(worker) == [(lane, 7, b"\x07" * 32)]


async def test_take_lane_waits_for_a_batch_under_way(worker: asyncpg.Connection, another: asyncpg.Connection) -> None:
    lane = await opened(worker)
    transaction = another.transaction()
    await transaction.start()
    assert await lease(another, lane, MINE, 0) is not None

    taking = asyncio.ensure_future(take(worker, THEIRS))
    await until_waiting(another)
    assert not taking.done()
    await move(another, lane, 0, 3, 0, bytes(32), 100)
    await transaction.commit()

    assert (await taking)["next_offset"] == 3


async def test_a_lane_that_is_held_is_locked_until_the_end_whatever_is_rolled_back_meanwhile(
    worker: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    lane = await opened(worker)
    async with another.transaction():
        await lease(another, lane, MINE, 0)
        async with rolled_back(another):
            await move(another, lane, 0, 3, 1, b"\x01" * 32, 100)
        taking = asyncio.ensure_future(take(worker, THEIRS))
        await until_waiting(another)
        await move(another, lane, 0, 2, 0, bytes(32), 100)

    assert (await taking)["next_offset"] == 2


@pytest.mark.parametrize("placed", [False, True])
async def test_who_waited_to_hold_a_lane_that_was_taken_meanwhile_does_not_hold_it(
    worker: asyncpg.Connection, another: asyncpg.Connection, placed: bool
) -> None:
    lane = await opened(worker)
    place = await place_of(worker, lane) if placed else None
    async with another.transaction():
        await take(another, THEIRS)
        holding = asyncio.ensure_future(lease(worker, lane, MINE, 0, place))
        await until_waiting(another)

    assert await holding is None


@pytest.mark.parametrize("placed", [False, True])
async def test_who_waited_to_hold_a_lane_that_was_updated_meanwhile_holds_it_where_it_lies_now(
    worker: asyncpg.Connection, another: asyncpg.Connection, placed: bool
) -> None:
    lane = await opened(worker)
    former = await place_of(worker, lane)
    async with worker.transaction():
        async with another.transaction():
            await another.execute("UPDATE lane SET owned_since = owned_since WHERE id = $1", lane)
            holding = asyncio.ensure_future(lease(worker, lane, MINE, 0, former if placed else None))
            await until_waiting(another)
        row = await holding
        assert row is not None
        assert row["place"] == await place_of(another, lane) != former
        assert await worker.fetchval(statement("lanes/move"), lane, 0, 3, 0, bytes(32), 100, row["place"]) == 3


async def values_taken(owner: asyncpg.Connection) -> int:
    return int(await owner.fetchval("SELECT last_value FROM lane_id_seq"))


async def test_a_start_of_a_known_lane_takes_no_value_of_the_sequence(
    owner: asyncpg.Connection, worker: asyncpg.Connection
) -> None:
    lane = (await take(worker))["id"]
    taken = await values_taken(owner)

    assert [(await take(worker, each))["id"] for each in (THEIRS, MINE, THEIRS)] == [lane] * 3

    assert await values_taken(owner) == taken


async def test_the_lane_of_imports_takes_one_value_of_the_sequence(owner: asyncpg.Connection) -> None:
    await owner.execute(statement("imports/open_lane"))
    taken = await values_taken(owner)

    await owner.execute(statement("imports/open_lane"))

    assert await values_taken(owner) == taken
    assert await owner.fetchval("SELECT count(*) FROM lane WHERE cluster = ''") == 1


async def test_two_first_starts_at_once_both_get_the_lane_and_the_later_one_owns_it(
    owner: asyncpg.Connection, worker: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    transaction = another.transaction()
    await transaction.start()
    first = await take(another, MINE)

    second = asyncio.ensure_future(take(worker, THEIRS))
    await until_waiting(another)
    await transaction.commit()

    assert tuple(await second) == tuple(first)
    assert await owner.fetchval("SELECT owner FROM lane") == THEIRS


async def test_owned_lane_knows_the_owner_only(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    assert await worker.fetchval(statement("lanes/owned"), lane, MINE) is True
    assert await worker.fetchval(statement("lanes/owned"), lane, THEIRS) is None


async def test_open_lane_happens_once_and_to_the_owner_only(worker: asyncpg.Connection) -> None:
    lane = (await take(worker))["id"]

    assert await worker.fetchval(statement("lanes/open"), lane, THEIRS, 4) is None
    assert await worker.fetchval(statement("lanes/open"), lane, MINE, 4) == lane
    assert await worker.fetchval(statement("lanes/open"), lane, MINE, 9) is None


async def test_hold_lane_gives_the_chain_and_move_lane_moves_it_and_the_row_on(worker: asyncpg.Connection) -> None:
    lane, other = await opened(worker, at=4), await opened(worker, partition=1)
    assert await move(worker, lane, 4, 10, 9, b"\x09" * 32, 100) == 10

    row = await lease(worker, lane, MINE, 10)

    assert row is not None
    assert (row["chain_sequence"], row["chain_hash"]) == (9, b"\x09" * 32)
    state = await worker.fetchrow(f"{MARK} WHERE id = $1", lane)
    assert state is not None
    assert tuple(state) == (4, 10, 9, 100)
    assert await chains(worker) == [(lane, 9, b"\x09" * 32), (other, 0, bytes(32))]


async def test_hold_lane_finds_the_row_where_it_was_left_and_where_it_was_moved_to(worker: asyncpg.Connection) -> None:
    lane, other = await opened(worker, at=4), await opened(worker, partition=1, at=4)
    left = await place_of(worker, lane)

    for place in (left, None, await place_of(worker, other), (77, 7)):
        row = await lease(worker, lane, MINE, 4, place)
        assert row is not None
        assert row["place"] == left
    assert await move(worker, lane, 4, 5, 0, bytes(32), 100) == 5
    assert await lease(worker, lane, MINE, 4, left) is None
    row = await lease(worker, lane, MINE, 5, left)
    assert row is not None
    assert row["place"] == await place_of(worker, lane) != left


async def test_a_lane_that_is_where_it_was_left_is_not_looked_for_by_its_key(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=4)
    place = await place_of(worker, lane)
    plan = "EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, COSTS OFF) "

    told = await worker.fetch(plan + statement("lanes/renew"), lane, MINE, 4, place)

    lines = [line for (line,) in told]
    assert any("Tid Scan" in line and "(actual rows=1" in line for line in lines), lines
    assert any("Index Scan" in line and "(never executed)" in line for line in lines), lines


async def test_hold_lane_writes_no_version_of_the_row(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=4)
    before = await worker.fetchval("SELECT ctid::text FROM lane")

    await lease(worker, lane, MINE, 4)

    assert await worker.fetchval("SELECT ctid::text FROM lane") == before


@pytest.mark.parametrize(("mine", "seen"), [(THEIRS, 4), (MINE, 3), (MINE, 5)])
async def test_hold_lane_refuses_another_owner_and_another_place(
    worker: asyncpg.Connection, mine: UUID, seen: int
) -> None:
    lane = await opened(worker, at=4)

    assert await lease(worker, lane, mine, seen) is None
    assert await worker.fetchval("SELECT next_offset FROM lane") == 4


async def test_move_lane_never_moves_next_offset_back(worker: asyncpg.Connection) -> None:
    lane = await opened(worker, at=8)

    assert await move(worker, lane, 2, 5, 0, bytes(32), 100) == 8

    state = await worker.fetchrow(MARK)
    assert state is not None
    assert tuple(state) == (2, 8, None, None)


async def test_what_is_no_command_leaves_the_last_one_where_it_was(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)

    await move(worker, lane, 0, 5, 0, bytes(32), 100)
    assert await move(worker, lane, 5, 7, 0, bytes(32), None) == 7

    state = await worker.fetchrow(MARK)
    assert state is not None
    assert tuple(state) == (5, 7, 4, 100)


async def test_a_lane_knows_its_topic_and_why_it_does_not_start(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    later = NOW + timedelta(hours=1)

    assert await worker.fetchval(statement("lanes/know_topic"), lane, THEIRS, THEIRS) is None
    assert await worker.fetchval(statement("lanes/block"), lane, THEIRS, "why", NOW) is None
    assert await worker.fetchval(statement("lanes/know_topic"), lane, MINE, THEIRS) == lane
    assert await worker.fetchval(statement("lanes/block"), lane, MINE, "why", NOW) == lane
    assert await worker.fetchval(statement("lanes/block"), lane, MINE, "why else", later) == lane

    row = await take(worker)
    assert (row["topic_id"], row["blocked"]) == (THEIRS, "why else")
    assert await worker.fetchval("SELECT blocked_since FROM lane") == NOW


async def test_lanes_lists_every_lane(worker: asyncpg.Connection) -> None:
    made = [await opened(worker, partition=number) for number in range(3)]

    assert [row["id"] for row in await worker.fetch(statement("lanes/all"))] == sorted(made)


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

    rows = await worker.fetch(
        statement("journey/authorise"), *map(list, zip(*logins, strict=True)), [RIGHT] * len(logins), [""] * len(logins)
    )

    assert [tuple(row)[:5] for row in rows] == [
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

    [row] = await worker.fetch(statement("journey/authorise"), ["ORG1"], ["mpadmin"], ["1"], ["j"], [RIGHT], [""])

    assert tuple(row)[:5] == (False, None, None, False, False)


async def test_pass_code_hashes_come_in_the_order_asked(worker: asyncpg.Connection) -> None:
    rows = await worker.fetch(
        statement("journey/pass_code_hashes"),
        ["ORG1", "ORG1", "ORG2", "ORG1"],
        ["nobody", IDENTIFIER, IDENTIFIER, IDENTIFIER.upper()],
    )

    assert [row[0] is None for row in rows] == [True, False, True, True]
    assert rows[1][0].startswith("$argon2id$")


async def test_no_more_hashes_are_told_at_once_than_a_batch_compares(worker: asyncpg.Connection) -> None:
    organisations = ["ORG1"] * (COMPARED + 1)
    rows = await worker.fetch(statement("journey/pass_code_hashes"), organisations[1:], [IDENTIFIER] * COMPARED)
    assert {row[0].partition("$v")[0] for row in rows} == {"$argon2id"}

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="told 16 at a time: 17 are refused"):
        await worker.fetch(statement("journey/pass_code_hashes"), organisations, [IDENTIFIER] * (COMPARED + 1))


# --- access tokens ----------------------------------------------------------------------------------------------------


async def load(connection: asyncpg.Connection, *, codes: list[str], identifiers: list[str]) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        statement("journey/load"), ["ORG1"] * len(codes), codes, ["ORG1"] * len(identifiers), identifiers
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
    # Hashes keep no order: any order left comes from the statement itself.
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
    worker: asyncpg.Connection, another: asyncpg.Connection
) -> None:
    named = [CODE, CARD_CODE, CODE_OF_IDENTIFIER]

    async def again_and_again(connection: asyncpg.Connection, codes: list[str]) -> None:
        for _ in range(40):
            async with connection.transaction():
                assert len(await load(connection, codes=codes, identifiers=[])) == 3

    await asyncio.gather(again_and_again(worker, named), again_and_again(another, named[::-1]))


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
    await until_waiting(owner)
    assert not loading.done()
    await transaction.commit()

    [row] = await loading
    assert (row["life_cycle_state"], row["version"], row["authentication_code"]) == ("EFFECTIVE", 1, "moved")


def facts_of(*changes: tuple[str, int], first: int = 1, at: datetime = NOW) -> list[Transition]:
    """Return the transitions of a batch.

    Each change is a token's id and the version it reached; ``first`` is the first sequence.
    """
    return [
        transition(
            token,
            version,
            occurred_at=at,
            user=USER_ID,
            command_id=f"req:ORG1:{token}",
            lane="c/g/t/0",
            sequence=sequence,
            previous_hash=bytes([sequence - 1]) * 32,
            hash=bytes([sequence]) * 32,
            offset=10 + sequence,
        )
        for sequence, (token, version) in enumerate(changes, first)
    ]


async def chains(worker: asyncpg.Connection) -> list[tuple[int, int, bytes]]:
    rows = await worker.fetch("SELECT id, chain_sequence, chain_hash FROM lane ORDER BY id")
    return [(row["id"], row["chain_sequence"], row["chain_hash"]) for row in rows]


async def test_apply_changes_each_token_whose_version_is_the_one_before(owner: asyncpg.Connection) -> None:
    at = datetime(2026, 3, 4, 5, 6, 7, 999_999, UTC)

    await apply(owner, facts_of((TOKEN_ID, 1), (OTHER_TOKEN_ID, 1), at=at), await opened(owner))

    rows = await owner.fetch(
        "SELECT version, life_cycle_state, updated_date, updated_by_unit FROM access_token WHERE updated_by_user = $1",
        USER_ID,
    )
    assert [tuple(row) for row in rows] == [(1, "EFFECTIVE", datetime(2026, 3, 4, 5, 6, 7), "1")] * 2  # noqa: DTZ001


@pytest.mark.parametrize("version", [2, 7])
async def test_apply_leaves_a_token_of_another_version_alone_and_says_so(
    owner: asyncpg.Connection, version: int
) -> None:
    with pytest.raises(RuntimeError, match=r"2 transitions .* UPDATE 1"):
        await apply(owner, facts_of((TOKEN_ID, version), (OTHER_TOKEN_ID, 1)), await opened(owner))

    assert await owner.fetchval("SELECT version FROM access_token WHERE id = $1", TOKEN_ID) == 0


async def test_apply_leaves_other_organisations_alone(owner: asyncpg.Connection) -> None:
    of_another_organisation = "282E392DF374558688BEDABF209AA8E2"

    with pytest.raises(RuntimeError, match="UPDATE 0"):
        await apply(owner, facts_of((of_another_organisation, 1)), await opened(owner))

    assert await owner.fetchval("SELECT count(*) FROM access_token WHERE version > 0") == 0


async def test_apply_follows_the_facts_of_its_own_lane_and_batch_only(owner: asyncpg.Connection) -> None:
    one, other = await opened(owner), await opened(owner, partition=1)
    await apply(owner, facts_of((TOKEN_ID, 1)), one)
    await apply(owner, facts_of((OTHER_TOKEN_ID, 1), first=2), other)
    # The existing transitions would fit once more.
    await owner.execute("UPDATE access_token SET version = 0")

    await apply(owner, facts_of((IDENTIFIER_ID, 1), first=2), one)

    assert await owner.fetchval("SELECT array_agg(id) FROM access_token WHERE version > 0") == [IDENTIFIER_ID]


async def test_apply_writes_one_whole_fact_per_transition(owner: asyncpg.Connection) -> None:
    lane = await opened(owner)

    await apply(owner, facts_of((TOKEN_ID, 1), (OTHER_TOKEN_ID, 1)), lane)

    rows = [dict(row) for row in await owner.fetch("SELECT * FROM transition ORDER BY sequence")]
    assert [row["access_token_id"] for row in rows] == [TOKEN_ID, OTHER_TOKEN_ID]
    assert rows[1] == {
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
        "lane": lane,
        "sequence": 2,
        "previous_hash": b"\x01" * 32,
        "hash": b"\x02" * 32,
        "record_offset": 12,
    }


async def test_apply_without_facts_changes_nothing(owner: asyncpg.Connection) -> None:
    await apply(owner, [], await opened(owner))

    assert await owner.fetchval("SELECT count(*) FROM transition") == 0


# --- the record of commands -------------------------------------------------------------------------------------------


def command_ids(count: int) -> list[str]:
    """Return new ids, in the order in which they are recorded."""
    return sorted((f"req:ORG1:{uuid4()}" for _ in range(count)), key=command_key)


async def remember(
    worker: asyncpg.Connection,
    lane: int,
    *offsets: int,
    applied: bool = True,
    ids: list[str] | None = None,
    timestamp: int = 1,
) -> None:
    """Record a batch of commands, all of which were applied to one token, or refused."""
    answer = (
        Answer("", StatusCode.OK, "", NOW, token=TokenKey("ORG1", TOKEN_ID), version=1, fields=5)
        if applied
        else Answer("", StatusCode.ACCESS_DENIED, "not yours", NOW)
    )
    decided = [
        (
            Coordinates("c", "t", 0, offset, timestamp),
            replace(answer, command_id=command_id, organisation="ORG1", digest=b"digest"),
        )
        for offset, command_id in zip(offsets, ids or command_ids(len(offsets)), strict=True)
    ]
    await record(worker, lane, decided)


async def recorded(worker: asyncpg.Connection, lane: int) -> list[int]:
    """Return the offsets that are recorded."""
    rows = await worker.fetch("SELECT record_offset FROM command_record WHERE lane = $1 ORDER BY 1", lane)
    return [row[0] for row in rows]


async def test_record_writes_every_new_decision(worker: asyncpg.Connection) -> None:
    lane, [applied, refused] = await opened(worker), command_ids(2)

    await remember(worker, lane, 3, ids=[applied], timestamp=8)
    await remember(worker, lane, 4, ids=[refused], applied=False)
    await record(worker, lane, [])

    of_both = {"lane": lane, "organisation": "ORG1", "digest": b"digest", "replayed": False, "decided_at": NOW}
    of_both["user_id"] = None
    shown = {"record_offset": 3, "record_timestamp": 8, "status": "OK", "message": "", "fields": 5}
    denied = {"record_offset": 4, "record_timestamp": 1, "status": "ACCESS_DENIED", "message": "not yours", "fields": 0}
    rows = [dict(row) for row in await worker.fetch("SELECT * FROM command_record ORDER BY record_offset")]
    now = await worker.fetchval("SELECT now()")
    assert all(abs(now - row.pop("recorded_at")) < timedelta(hours=1) for row in rows)
    assert rows == [
        {"command_key": UUID(command_key(command_id)), "command_id": command_id, **of_both, **of_one}
        for command_id, of_one in (
            (applied, {**shown, "access_token_id": TOKEN_ID, "version": 1}),
            (refused, {**denied, "access_token_id": None, "version": None}),
        )
    ]


async def test_record_refuses_a_batch_with_an_id_that_another_lane_has_bound(worker: asyncpg.Connection) -> None:
    one, other, [bound, free] = await opened(worker), await opened(worker, partition=1), command_ids(2)
    await remember(worker, one, 0, ids=[bound])

    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await remember(worker, other, 0, 1, ids=[bound, free])

    assert type(from_postgres(refused.value)) is BatchConflict
    assert await recorded(worker, other) == []
    await remember(worker, other, 2, applied=False, ids=[bound])
    assert await recorded(worker, other) == [2]


async def test_record_refuses_coordinates_that_were_decided_before(worker: asyncpg.Connection) -> None:
    lane = await opened(worker)
    await remember(worker, lane, 0, applied=False)

    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await remember(worker, lane, 0, applied=False)

    assert type(from_postgres(refused.value)) is BatchConflict


@pytest.mark.parametrize("committed", [True, False])
async def test_record_waits_for_another_lane_that_is_binding_the_same_id(
    worker: asyncpg.Connection, another: asyncpg.Connection, committed: bool
) -> None:
    one, other, ids = await opened(worker), await opened(worker, partition=1), command_ids(1)
    transaction = another.transaction()
    await transaction.start()
    await remember(another, other, 0, ids=ids)
    waiting = asyncio.ensure_future(remember(worker, one, 0, ids=ids))
    await until_waiting(another)
    assert not waiting.done()

    await (transaction.commit() if committed else transaction.rollback())

    with pytest.raises(asyncpg.UniqueViolationError) if committed else nullcontext():
        await waiting
    assert await recorded(worker, one) == ([] if committed else [0])


async def test_records_of_the_same_ids_in_opposite_orders_do_not_deadlock(
    database: DatabaseUnderTest, worker: asyncpg.Connection
) -> None:
    lanes = [await opened(worker, partition=number) for number in range(3)]
    ids = command_ids(3)
    connections = [await asyncpg.connect(database.worker_dsn) for _ in lanes]
    transaction = connections[2].transaction()
    await transaction.start()
    await remember(connections[2], lanes[2], 0, ids=ids[1:2])

    # In the order in which they came, the first two would hold one end each, and wait for the middle, then each other.
    ways = (ids, ids[::-1])
    binding = [
        asyncio.ensure_future(remember(connection, lane, 0, 1, 2, ids=way))
        for connection, lane, way in zip(connections, lanes, ways, strict=False)
    ]
    await until_waiting(connections[2], len(binding))
    assert not any(each.done() for each in binding)
    await transaction.rollback()

    outcomes = await asyncio.gather(*binding, return_exceptions=True)
    assert sorted(map(type, outcomes), key=str) == [type(None), asyncpg.UniqueViolationError]
    for connection in connections:
        await connection.close()


async def test_recall_by_coordinates_gives_what_was_recorded_with_its_transition(owner: asyncpg.Connection) -> None:
    lane = await opened(owner)
    await remember(owner, lane, 4, 5, applied=False)
    await remember(owner, lane, 6)
    await remember(owner, lane, 7, applied=False)
    await apply(owner, facts_of((TOKEN_ID, 1)), lane)

    rows = await owner.fetch(statement("journey/recall_by_coordinates"), lane, 5, 6)

    found = {row["record_offset"]: row for row in rows}
    assert found.keys() == {5, 6}
    assert (found[5]["status"], found[5]["sequence"], found[5]["access_token_id"]) == ("ACCESS_DENIED", None, None)
    assert (found[6]["status"], found[6]["sequence"], found[6]["hash"]) == ("OK", 1, b"\x01" * 32)
    assert (found[6]["fields"], found[6]["digest"], found[6]["decided_at"]) == (5, b"digest", NOW)


async def test_recall_by_coordinates_sees_its_own_lane_only_and_every_timestamp(worker: asyncpg.Connection) -> None:
    one, other = await opened(worker), await opened(worker, partition=1)
    await remember(worker, one, 0, timestamp=1)
    await remember(worker, one, 0, timestamp=2)
    await remember(worker, other, 0)

    rows = await worker.fetch(statement("journey/recall_by_coordinates"), one, 0, 0)

    assert sorted(row["record_timestamp"] for row in rows) == [1, 2]


async def test_recall_by_id_finds_applied_commands_of_any_lane_in_their_organisation(
    worker: asyncpg.Connection,
) -> None:
    one, other = await opened(worker), await opened(worker, partition=1)
    applied, refused, unknown = command_ids(3)
    await remember(worker, one, 0, ids=[applied])
    await remember(worker, other, 0, ids=[refused], applied=False)
    await remember(worker, other, 1, ids=[applied], applied=False)

    keys = [command_key(command_id) for command_id in (applied, refused, unknown, applied)]
    rows = await worker.fetch(statement("journey/recall_by_id"), ["ORG1", "ORG1", "ORG1", "ORG2"], keys)

    assert [tuple(row) for row in rows] == [(applied, b"digest", "ORG1", TOKEN_ID)]


async def test_retire_records_removes_what_is_old_and_settled_in_steps(
    owner: asyncpg.Connection, worker: asyncpg.Connection
) -> None:
    lane = await opened(worker, at=10)
    await remember(worker, lane, *range(12), applied=False)
    await owner.execute("UPDATE command_record SET recorded_at = now() - interval '2 days'")
    anything, old = timedelta(days=1), timedelta(days=3)

    async def step(age: timedelta, records: int, since: int = 0) -> tuple[int, int | None]:
        row = await worker.fetchrow(statement("retention/retire_records"), lane, age, records, since)
        assert row is not None
        return row["records"], row["last"]

    assert await step(old, 4) == (0, None)
    assert await step(anything, 4) == (4, 3)
    assert await recorded(worker, lane) == [*range(4, 12)]
    assert await step(anything, 3, 5) == (3, 7)
    assert await recorded(worker, lane) == [4, *range(8, 12)]
    assert await step(anything, 100) == (3, 9)
    assert await step(anything, 100) == (0, None)


async def test_every_statement_of_the_journey_is_a_file_that_postgres_can_plan(worker: asyncpg.Connection) -> None:
    for name in sorted(statements()):
        if name.startswith(("journey/", "lanes/", "attempts/", "retention/")):
            await worker.prepare(statement(name))
