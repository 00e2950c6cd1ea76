"""``contact erase`` beside lanes that work: nobody waits while it looks, and what is decided meanwhile goes as well."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import pytest

from tests.journey import (
    CODE,
    DIGEST_KEY,
    IDENTIFIER,
    KEY,
    TOKEN_ID,
    Journey,
    Partition,
    by_code,
    by_identifier,
)
from tests.logins import login_token
from tests.providers.postgres import DatabaseUnderTest, until_waiting
from tests.waiting import in_time
from worker.attempts import digest
from worker.erasure import Erasure, erase
from worker.settings import read_settings

CONTACT: Final = "F038161F36C845B98CEE7361A8C92157"

Erases = Callable[[bool], Awaitable[Erasure]]


@pytest.fixture
def erases(database: DatabaseUnderTest) -> Erases:
    """``contact erase``, of which the topics cannot be looked at: no broker is there."""
    settings = read_settings(
        {
            "WORKER_POSTGRES__DSN": database.worker_dsn,
            "WORKER_POSTGRES__OWNER_DSN": database.owner_dsn,
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "WORKER_DIGEST_KEY": DIGEST_KEY,
        }
    )

    async def carried_out(carry_out: bool) -> Erasure:
        return await erase(settings, "ORG1", CONTACT, carry_out=carry_out)

    return carried_out


@asynccontextmanager
async def other_transaction(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def digests(j: Journey) -> set[bytes]:
    """Of the commands for the contact's access tokens."""
    rows = await j.owner.fetch("SELECT digest FROM command_record WHERE access_token_id = $1", TOKEN_ID)
    return {row["digest"] for row in rows}


async def test_a_dry_run_waits_for_no_lane_and_locks_nothing(
    database: DatabaseUnderTest, j: Journey, lane: Partition, erases: Erases
) -> None:
    await lane.run(by_code())
    async with other_transaction(database) as other:
        await other.execute("SELECT FROM access_token FOR UPDATE")
        await other.execute("SELECT FROM command_record FOR UPDATE")

        planned = await in_time(erases(False), "the dry run was over")

    assert planned.rows["access_token"] >= 1
    assert planned.rows["command_record"] == 1
    assert (await erases(True)).rows == planned.rows
    assert await digests(j) == {bytes(32)}


async def test_nobody_waits_for_an_access_token_while_records_are_looked_for(
    database: DatabaseUnderTest, j: Journey, lane: Partition, erases: Erases
) -> None:
    await lane.run(by_code())
    async with other_transaction(database) as other:
        await other.execute("LOCK command_record IN ACCESS EXCLUSIVE MODE")
        erasing = asyncio.ensure_future(erases(True))
        await until_waiting(other)

        locked = "SELECT count(*) FROM (SELECT FROM access_token FOR UPDATE NOWAIT) AS token"
        assert await other.fetchval(locked) > 0

    await in_time(erasing, "the erasure was over")
    assert await digests(j) == {bytes(32)}


async def test_what_is_decided_while_records_are_looked_for_is_erased_too(
    database: DatabaseUnderTest, j: Journey, lane: Partition, erases: Erases
) -> None:
    await lane.run(by_code(request_id="1"))
    async with other_transaction(database) as other:
        await other.execute("SELECT FROM access_token WHERE id = $1 FOR UPDATE", TOKEN_ID)
        erasing = asyncio.ensure_future(erases(True))
        await until_waiting(other)  # it has looked, and wants the access token
        await other.execute(
            "INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id,"
            " digest, status, message, replayed, access_token_id, fields, decided_at) SELECT lane, 1, 1, organisation,"
            " gen_random_uuid(), 'another', digest, status, message, true, access_token_id, fields, now()"
            " FROM command_record"
        )

    erased = await in_time(erasing, "the erasure was over")
    assert erased.rows["command_record"] == 2
    assert await digests(j) == {bytes(32)}


async def test_an_access_token_that_went_to_somebody_else_meanwhile_stays(
    database: DatabaseUnderTest, j: Journey, lane: Partition, erases: Erases
) -> None:
    await lane.run(by_code())
    async with other_transaction(database) as other:
        await other.execute(
            "UPDATE access_token SET accounts_receivable = NULL, rewards_participant = NULL WHERE id = $1", TOKEN_ID
        )
        erasing = asyncio.ensure_future(erases(True))
        await until_waiting(other)

    await in_time(erasing, "the erasure was over")
    assert (await j.token(CODE))["authentication_code"] == CODE
    assert bytes(32) not in await digests(j)


async def test_what_was_tried_on_a_customers_access_tokens_is_erased_and_others_stay(
    j: Journey, lane: Partition, erases: Erases
) -> None:
    await j.owner.execute("UPDATE access_token SET identifier = NULL WHERE identifier = $1", IDENTIFIER)
    await j.owner.execute("UPDATE access_token SET identifier = $1 WHERE id = $2", IDENTIFIER, TOKEN_ID)
    stranger = login_token(cii="app", acr="another account")
    tried = [by_identifier(pass_code="wrong"), by_code(login=stranger), by_identifier("somebody else"), by_code("none")]
    await lane.run(*tried)

    planned = await erases(False)
    erased = await erases(True)

    assert (planned.rows["command_record"], planned.rows["attempt"]) == (2, 1)
    assert erased.rows == planned.rows
    rows = await j.owner.fetch("SELECT digest FROM command_record ORDER BY record_offset")
    assert [row["digest"] == bytes(32) for row in rows] == [True, True, False, False]
    kept = await j.owner.fetch("SELECT kind, identifier FROM attempt ORDER BY kind, account")
    assert [row["kind"] for row in kept] == ["codes", "codes", "identifier", "pass_codes"]
    assert digest(KEY, "identifier", "ORG1", IDENTIFIER) not in {row["identifier"] for row in kept}
