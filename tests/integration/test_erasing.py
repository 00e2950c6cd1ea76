"""``contact erase`` beside working lanes: it blocks no lane while it looks, and erases new decisions as well."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import asyncpg
import pytest

from tests.providers.postgres import DatabaseUnderTest, until_waiting
from tests.support.connections import connected
from tests.support.journey import DIGEST_KEY, KEY, NAMES, Journey, Partition, by_code, by_identifier
from tests.support.logins import login_token
from tests.support.seeded import CARD_CODE, CODE, CONTACT, IDENTIFIER, OTHER_TOKEN_ID, TOKEN_ID
from tests.support.waiting import in_time
from worker.errors import DependencyUnavailable
from worker.journey.digests import NoDigestKey, digest
from worker.journey.model import command_key
from worker.operations.erasure.erase import Erasure, NotErased, NotLookedAtAgain, erase
from worker.operations.erasure.mentions import Mentions, OnProgress, Sought, Topics, Where
from worker.settings import Settings, read_settings

Looking = Callable[[Settings], AbstractAsyncContextManager[Topics]]


class Erases(Protocol):
    def __call__(self, carry_out: bool, topics: Topics | None = None, /) -> Awaitable[Erasure]: ...


class Empty:
    """Topics without records; they go away after so many ``looks``, if that is given."""

    cluster = "cluster"

    def __init__(self, looks: int | None = None) -> None:
        self.looks = looks

    async def commands(self, _sought: Sought, _on_progress: OnProgress) -> list[Where]:
        if self.looks == 0:
            raise DependencyUnavailable("kafka", "it is away")
        self.looks = None if self.looks is None else self.looks - 1
        return []

    async def answers(self, _sought: Sought, _on_progress: OnProgress) -> list[Mentions]:
        return []

    async def still(self, found: Sequence[Mentions]) -> list[Mentions]:
        return list(found)

    async def delete(self, found: Sequence[Mentions]) -> list[Mentions]:
        return list(found)


def showing(topics: Topics) -> Looking:
    @asynccontextmanager
    async def looking_into(_settings: Settings) -> AsyncIterator[Topics]:
        yield topics

    return looking_into


@pytest.fixture
def erases(database: DatabaseUnderTest) -> Erases:
    """Run ``contact erase``, with topics without records unless others are given."""
    settings = read_settings(
        {
            "WORKER_POSTGRES__DSN": database.worker_dsn,
            "WORKER_POSTGRES__OWNER_DSN": database.owner_dsn,
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "WORKER_DIGEST_KEYS": DIGEST_KEY,
        }
    )

    async def carried_out(carry_out: bool, topics: Topics | None = None, /) -> Erasure:
        looking_into = showing(topics or Empty())
        return await erase(settings, "ORG1", CONTACT, carry_out=carry_out, looking_into=looking_into)

    return carried_out


@asynccontextmanager
async def other_transaction(database: DatabaseUnderTest) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database.owner_dsn) as connection, connection.transaction():
        yield connection


async def digests(j: Journey) -> set[bytes]:
    """Return the digests of the commands for the contact's access tokens."""
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


# --- senders' names for commands --------------------------------------------------------------------------------------


async def test_a_fact_holds_nothing_that_a_sender_chose(j: Journey, lane: Partition) -> None:
    answered = await lane.one(by_code(event=("/shop", "order of polina@example.com")))
    [transition] = await j.owner.fetch("SELECT command_id, record_offset FROM transition")

    assert "polina" in answered.answer.command_id
    assert transition["command_id"] == NAMES.of(answered.answer.command_id)
    assert "polina" not in transition["command_id"]
    assert transition["record_offset"] == answered.decoded.delivery.coordinates.offset


async def test_a_record_does_not_keep_what_a_message_quotes(j: Journey, lane: Partition) -> None:
    answered = await lane.one(by_code(fields="polina@example.com"))
    message = await j.owner.fetchval("SELECT message FROM command_record")

    assert 'the unknown name "polina@example.com"' in answered.answer.message
    assert message == 'fields_set holds the unknown name "…": it takes top-level fields only'


async def test_what_a_message_quotes_is_told_again_to_the_same_record(lane: Partition) -> None:
    first = await lane.one(by_code(fields="polina"))
    heir = await lane.taken_over()
    [again] = await heir.take(heir.log)

    assert '"polina"' in first.answer.message
    assert again.answer == first.answer


async def test_an_erased_record_keeps_the_name_that_its_fact_has(j: Journey, lane: Partition, erases: Erases) -> None:
    answered = await lane.one(by_code(event=("/shop", "1")))
    await erases(True)

    name = NAMES.of(answered.answer.command_id)
    [record] = await j.owner.fetch("SELECT command_id, command_key, digest FROM command_record")
    assert tuple(record) == (name, UUID(command_key(name)), bytes(32))
    assert await j.owner.fetchval("SELECT command_id FROM transition") == name


async def test_a_command_that_is_called_after_the_customer_is_renamed_and_stays_whose_it_is(
    j: Journey, lane: Partition, erases: Erases
) -> None:
    await j.owner.execute("UPDATE access_token SET identifier = NULL WHERE identifier = $1", IDENTIFIER)
    await j.owner.execute("UPDATE access_token SET identifier = $1 WHERE id = $2", IDENTIFIER, TOKEN_ID)
    await j.owner.execute(
        "UPDATE access_token SET accounts_receivable = NULL, rewards_participant = NULL WHERE id = $1", OTHER_TOKEN_ID
    )
    await lane.run(by_code(CARD_CODE, event=("/shop", f"friend of {IDENTIFIER.upper()}")))
    digest_before = await j.owner.fetchval("SELECT digest FROM command_record")

    erased = await erases(True)

    [record] = await j.owner.fetch("SELECT command_id, digest, access_token_id FROM command_record")
    assert (erased.rows["command_record"], record["access_token_id"]) == (1, OTHER_TOKEN_ID)
    assert record["command_id"].startswith("hmac:")
    assert record["digest"] == digest_before


async def test_a_command_of_another_organisation_with_the_same_code_keeps_its_id(
    j: Journey, lane: Partition, erases: Erases
) -> None:
    answered = await lane.one(by_code("none", event=("/shop", "1")))
    await j.owner.execute("UPDATE command_record SET organisation = 'ORG2'")
    at = answered.decoded.delivery.coordinates

    class Finding(Empty):
        async def commands(self, _sought: Sought, _on_progress: OnProgress) -> list[Where]:
            return [(at.topic, at.partition, at.offset, at.timestamp)]

    await erases(True, Finding())

    assert await j.owner.fetchval("SELECT command_id FROM command_record") == answered.answer.command_id


async def test_a_customer_may_be_imported_and_erased_again(j: Journey, lane: Partition, erases: Erases) -> None:
    sent = by_code(event=("/shop", "1"))
    await lane.run(sent)
    await erases(True)
    await j.owner.execute("ALTER TABLE access_token DISABLE TRIGGER access_token_life_cycle")
    await j.owner.execute(
        "UPDATE access_token SET authentication_code = $1, life_cycle_state = 'NOT_EFFECTIVE' WHERE id = $2",
        CODE,
        TOKEN_ID,
    )
    await lane.run(sent)
    again = await erases(True)

    assert again.rows["command_record"] == 1
    ids = await j.owner.fetch("SELECT command_id FROM command_record ORDER BY record_offset")
    assert [row["command_id"].partition(":")[0] for row in ids] == ["hmac", "rec"]


# --- reports ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_erased_where_topics_cannot_be_looked_at(j: Journey, lane: Partition, erases: Erases) -> None:
    await lane.run(by_code())
    with pytest.raises(NotErased, match="nothing was erased, since topics must be searched first: kafka: it is away"):
        await erases(True, Empty(looks=0))

    assert bytes(32) not in await digests(j)
    assert (await j.token())["authentication_code"] == CODE


async def test_topics_that_are_away_afterwards_are_told_and_looked_at_the_next_time(
    j: Journey, lane: Partition, erases: Erases
) -> None:
    await lane.run(by_code())
    with pytest.raises(NotLookedAtAgain, match="all is erased, but the topics must be searched again"):
        await erases(True, Empty(looks=1))

    assert await digests(j) == {bytes(32)}
    assert (await erases(True)).is_already_done


async def test_the_second_time_it_says_when_all_was_erased(lane: Partition, erases: Erases) -> None:
    await lane.run(by_code())
    first, second, third = await erases(True), await erases(True), await erases(False)

    assert (first.erased_before, first.is_already_done) == (None, False)
    assert second.is_already_done
    assert not any(second.rows.values())
    assert (third.is_already_done, third.erased_before) == (True, second.erased_before)


async def test_where_topics_hold_something_is_remembered_until_it_is_gone(lane: Partition, erases: Erases) -> None:
    place = Mentions("commands", 0, 2, 7, 5, datetime(2026, 12, 1, tzinfo=UTC))

    class Holding(Empty):
        async def answers(self, _sought: Sought, _on_progress: OnProgress) -> list[Mentions]:
            return [place]

    class Emptied(Empty):
        async def still(self, _found: Sequence[Mentions]) -> list[Mentions]:
            return []

    await lane.run(by_code())
    assert (await erases(True, Holding())).mentions == (place,)
    assert (await erases(False)).mentions == (place,)
    assert (await erases(True, Emptied())).mentions == ()
    assert (await erases(False)).mentions == ()


async def test_without_a_key_nothing_is_looked_for(database: DatabaseUnderTest) -> None:
    settings = read_settings({"WORKER_POSTGRES__OWNER_DSN": database.owner_dsn})
    with pytest.raises(NoDigestKey, match="set WORKER_DIGEST_KEYS"):
        await erase(settings, "ORG1", CONTACT, carry_out=True, looking_into=showing(Empty()))
