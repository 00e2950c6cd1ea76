"""A forger with the worker's database role and all of its code, and the witnesses against it (SECURITY.md)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import pytest

from effective_contract.states import LifeCycleState
from tests.providers.postgres import DatabaseUnderTest
from tests.support.builders import transition
from tests.support.connections import connected
from tests.support.journey import Journey, by_code, journey
from tests.support.seeded import CARD_CODE, CODE, USER_ID
from worker.journey.apply import Chain, sealed, write_transitions
from worker.journey.model import IMPORT_LANE, Transition, lane_name
from worker.operations.audit.report import Kind
from worker.operations.audit.verify import verify
from worker.postgres.pool import SERVER_SETTINGS
from worker.postgres.sql import statement

LANE: Final = lane_name("cluster", "group", "commands", 0)
VICTIM: Final = CARD_CODE
"""The code of an access token that is not effective."""


class Forger:
    """A thief of the worker's login at Postgres."""

    def __init__(self, connection: asyncpg.Connection, journey_: Journey) -> None:
        self.connection = connection
        self.j = journey_

    async def lane(self) -> tuple[int, Chain]:
        row = await self.connection.fetchrow("SELECT id, chain_sequence, chain_hash FROM lane WHERE cluster <> ''")
        assert row is not None
        return row["id"], Chain(row["chain_sequence"], row["chain_hash"])

    async def transition(self, chain: Chain, lane: str = LANE, **said: Any) -> Transition:
        """Return a well-chained transition of the victim, as the worker would make it, but for ``said``."""
        token = await self.j.token(VICTIM)
        whole = {
            "token": token["id"],
            "version": token["version"] + 1,
            "occurred_at": datetime.now(UTC),
            "user": USER_ID,
            "command_id": "rec:cluster/commands/0/77@1",
            "lane": lane,
            "sequence": chain.sequence + 1,
            "previous_hash": chain.hash,
            "offset": 77,
        }
        return sealed(transition(**(whole | said)))

    async def write(self, transition: Transition, lane: int) -> None:
        await write_transitions(self.connection, [transition], lane)

    async def move_head(self, transition: Transition, lane: int) -> None:
        await self.connection.execute(
            "UPDATE lane SET chain_sequence = $2, chain_hash = $3 WHERE id = $1",
            lane,
            transition.sequence,
            transition.hash,
        )

    async def set_effective(self, transition: Transition) -> None:
        await self.connection.execute(
            "UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = $2, updated_by_user = $3,"
            " updated_by_unit = $4, updated_date = $5 WHERE id = $1",
            transition.token,
            transition.version,
            transition.user,
            transition.unit,
            transition.occurred_at.replace(tzinfo=None, microsecond=0),
        )


@pytest.fixture
async def forger(database: DatabaseUnderTest) -> AsyncIterator[Forger]:
    """Yield the forger, after a worker has set one access token effective and refused another."""
    async with journey(database.worker_dsn, database.owner_dsn, whole=True) as opened:
        lane = await opened.lane()
        await lane.run(by_code(CODE), by_code("unknown"))
        await opened.owner.execute(statement("imports/open_lane"))
        async with connected(database.worker_dsn, **SERVER_SETTINGS) as connection:
            yield Forger(connection, opened)


async def in_own_lane(forger: Forger, **said: Any) -> None:
    lane, chain = await forger.lane()
    await forger.write(await forger.transition(chain, **said), lane)


async def as_an_import(forger: Forger) -> None:
    await in_own_lane(forger, cause="IMPORT", from_state=None, user=None, unit=None, command_id=None)


async def of_another_state(forger: Forger) -> None:
    await in_own_lane(forger, from_state=LifeCycleState.EFFECTIVE, to_state=LifeCycleState.NOT_EFFECTIVE)


async def in_the_lane_of_imports(forger: Forger) -> None:
    lane = await forger.connection.fetchval("SELECT id FROM lane WHERE cluster = ''")
    await forger.write(await forger.transition(Chain(0, bytes(32)), IMPORT_LANE), lane)


async def in_no_lane(forger: Forger) -> None:
    await forger.write(await forger.transition(Chain(0, bytes(32)), "nowhere"), 77)


async def back_dated(forger: Forger) -> None:
    await in_own_lane(forger, occurred_at=datetime.now(UTC) - timedelta(minutes=2))


async def of_the_future(forger: Forger) -> None:
    await in_own_lane(forger, occurred_at=datetime.now(UTC) + timedelta(minutes=2))


async def back_dated_in_a_lane_of_its_own(forger: Forger) -> None:
    lane = await forger.connection.fetchval(
        "INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)"
        " VALUES ('c', 'g', 't', 0, gen_random_uuid(), now()) RETURNING id"
    )
    moment = datetime.now(UTC) - timedelta(days=40)
    await forger.write(await forger.transition(Chain(0, bytes(32)), "c/g/t/0", occurred_at=moment), lane)


async def without_the_place_of_a_command(forger: Forger) -> None:
    await in_own_lane(forger, offset=None)


async def with_a_gap_before_it(forger: Forger) -> None:
    lane, chain = await forger.lane()
    await forger.write(await forger.transition(Chain(chain.sequence + 5, chain.hash)), lane)


async def of_two_moments(forger: Forger) -> None:
    lane, chain = await forger.lane()
    first = await forger.transition(chain)
    second = await forger.transition(
        Chain(first.sequence, first.hash),
        version=first.version + 1,
        occurred_at=first.occurred_at + timedelta(seconds=1),
    )
    await write_transitions(forger.connection, [first, second], lane)


async def another_lane_of_imports(forger: Forger) -> None:
    await forger.connection.execute(
        "INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)"
        " VALUES ('', '', 'import', 1, gen_random_uuid(), now())"
    )


async def the_head_of_imports(forger: Forger) -> None:
    await forger.connection.execute("UPDATE lane SET chain_sequence = 7, first_offset = 0 WHERE cluster = ''")


async def a_history_rewritten(forger: Forger) -> None:
    await forger.connection.execute("UPDATE transition SET user_id = 'somebody else'")


async def a_history_cut_off(forger: Forger) -> None:
    await forger.connection.execute("DELETE FROM transition")


async def triggers_switched_off(forger: Forger) -> None:
    await forger.connection.execute("SET session_replication_role = replica")


async def a_record_removed(forger: Forger) -> None:
    await forger.connection.execute("DELETE FROM command_record WHERE version IS NOT NULL")


async def records_of_today_retired(forger: Forger) -> None:
    await all_retired(forger, "1 hour")


async def records_retired_by_a_calendar_of_its_own(forger: Forger) -> None:
    """By comparison the interval is of one day: a month counts as thirty. Most years ago it was another one."""
    await all_retired(forger, "-12 months 361 days")


async def hashes_read(forger: Forger) -> None:
    await forger.connection.fetch("SELECT pass_code_hash FROM access_token")


async def hashes_of_all_asked_for(forger: Forger) -> None:
    await forger.connection.fetch(
        "SELECT pass_code_hashes(array_agg(organisation), array_agg(identifier))"
        " FROM access_token, generate_series(1, 5)"
    )


async def verification_codes_read(forger: Forger) -> None:
    await forger.connection.fetch("SELECT verification_code FROM access_token")


async def all_retired(forger: Forger, age: str) -> None:
    """Mark the lane as settled, as its owner may, and then its records as due."""
    await forger.connection.execute("UPDATE lane SET first_offset = next_offset WHERE cluster <> ''")
    removed = await forger.connection.fetchval(
        f"SELECT sum(removed.records) FROM lane, retire_records(lane.id, '{age}', 1000, 0) AS removed"
    )
    assert removed == 0


async def an_access_token_set_back(forger: Forger) -> None:
    await forger.connection.execute("UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE'")


REFUSED: Final = [
    as_an_import,
    of_another_state,
    in_the_lane_of_imports,
    in_no_lane,
    back_dated,
    of_the_future,
    without_the_place_of_a_command,
    back_dated_in_a_lane_of_its_own,
    with_a_gap_before_it,
    of_two_moments,
    another_lane_of_imports,
    the_head_of_imports,
    a_history_rewritten,
    a_history_cut_off,
    triggers_switched_off,
    an_access_token_set_back,
    a_record_removed,
    records_of_today_retired,
    records_retired_by_a_calendar_of_its_own,
    hashes_read,
    hashes_of_all_asked_for,
    verification_codes_read,
]


@pytest.mark.parametrize("forgery", REFUSED, ids=lambda forgery: forgery.__name__)
async def test_postgres_refuses(forger: Forger, forgery: Callable[[Forger], Awaitable[None]]) -> None:
    before = await forger.j.every_table()

    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.InsufficientPrivilegeError)):
        async with forger.connection.transaction():
            await forgery(forger)

    assert await forger.j.every_table() == before
    assert (await verify(forger.j.owner)).holds


async def a_fact_alone(forger: Forger) -> None:
    await in_own_lane(forger)


async def a_fact_and_its_head(forger: Forger) -> None:
    lane, chain = await forger.lane()
    transition = await forger.transition(chain)
    await forger.write(transition, lane)
    await forger.move_head(transition, lane)


async def all_but_a_record(forger: Forger) -> None:
    lane, chain = await forger.lane()
    transition = await forger.transition(chain)
    await forger.write(transition, lane)
    await forger.move_head(transition, lane)
    await forger.set_effective(transition)


async def all_with_the_record_of_another(forger: Forger) -> None:
    lane, chain = await forger.lane()
    place = await forger.connection.fetchval("SELECT record_offset FROM command_record WHERE version IS NOT NULL")
    transition = await forger.transition(chain, offset=place)
    await forger.write(transition, lane)
    await forger.move_head(transition, lane)
    await forger.set_effective(transition)


async def a_state_alone(forger: Forger) -> None:
    await forger.connection.execute(
        "UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE authentication_code = $1", VICTIM
    )


async def somebody_else_blamed(forger: Forger) -> None:
    await forger.connection.execute(
        "UPDATE access_token SET updated_by_user = 'somebody else' WHERE authentication_code = $1", CODE
    )


async def a_chain_begun_anew(forger: Forger) -> None:
    await forger.connection.execute(
        "UPDATE lane SET chain_sequence = 0, chain_hash = $1 WHERE cluster <> ''", bytes(32)
    )


FOUND: Final = [
    (a_fact_alone, {Kind.HEAD, Kind.STATE, Kind.UNRECORDED, Kind.SIGNED}),
    (a_fact_and_its_head, {Kind.STATE, Kind.UNRECORDED, Kind.SIGNED}),
    (all_but_a_record, {Kind.UNRECORDED}),
    (all_with_the_record_of_another, {Kind.UNRECORDED}),
    (a_state_alone, {Kind.STATE}),
    (somebody_else_blamed, {Kind.SIGNED}),
    (a_chain_begun_anew, {Kind.HEAD}),
]


@pytest.mark.parametrize(("forgery", "kinds"), FOUND, ids=lambda given: getattr(given, "__name__", None))
async def test_the_audit_finds(forger: Forger, forgery: Callable[[Forger], Awaitable[None]], kinds: set[Kind]) -> None:
    assert (await verify(forger.j.owner)).holds

    await forgery(forger)

    assert set((await verify(forger.j.owner)).counts) == kinds


async def test_what_is_forged_whole_postgres_alone_does_not_tell(forger: Forger) -> None:
    """With a record as well everything in Postgres fits: only the topics, which the role cannot write, prove it.

    docs/audit-and-privacy.md says so.
    """
    await all_but_a_record(forger)
    lane, chain = await forger.lane()
    await forger.connection.execute(
        "INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id,"
        " digest, status, message, replayed, access_token_id, version, fields, decided_at)"
        " SELECT t.lane, 77, 1, organisation, left(encode(sha256(convert_to(command_id, 'UTF8')), 'hex'), 32)::uuid,"
        " command_id, '', 'OK', '', false, access_token_id, version, 1, occurred_at FROM transition AS t"
        " WHERE t.lane = $1 AND t.sequence = $2",
        lane,
        chain.sequence,
    )

    assert (await verify(forger.j.owner)).holds


async def test_a_worker_whose_clock_is_wrong_writes_facts_of_now_all_the_same(database: DatabaseUnderTest) -> None:
    async with journey(
        database.worker_dsn, database.owner_dsn, clock=lambda: datetime.now(UTC).timestamp() + 1800
    ) as opened:
        [applied] = await (await opened.lane()).run(by_code())
        now = await opened.owner.fetchval("SELECT now()")

        assert applied.transition is not None
        assert abs(applied.transition.occurred_at - now) < timedelta(minutes=1)
        assert applied.answer.decided_at > now + timedelta(minutes=29)


async def test_where_postgres_clock_was_set_back_facts_go_on_from_the_last_one(forger: Forger) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await forger.j.owner.execute("ALTER TABLE transition DISABLE TRIGGER transition_append_only")
    await forger.j.owner.execute("UPDATE transition SET occurred_at = $1", ahead)
    lane = await forger.j.lane()

    [applied] = await lane.run(by_code(CARD_CODE))

    assert applied.transition is not None
    assert applied.transition.occurred_at == ahead
