"""Changes that the database refuses to any role, and requests that the worker's role may not make."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from tests.providers.postgres import DatabaseUnderTest, PostgresServer
from tests.support.connections import connected
from tests.support.seeded import OTHER_TOKEN_ID, TOKEN_ID

EFFECTIVE_ID: Final = "537D12273727599D9270455F413F62FA"
PENDING_ID: Final = "60ADF0025EB6568A9C629E561D7084E8"
NOW: Final = datetime(2026, 1, 2, tzinfo=UTC)
HASH: Final = b"\x01" * 32
OWNER: Final = UUID(int=7)


class Session:
    """A connection in a transaction that is rolled back at the end; a refused statement leaves it usable."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def execute(self, statement: str, *arguments: Any) -> str:
        async with self._connection.transaction():
            return await self._connection.execute(statement, *arguments)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._connection.transaction():
            return await self._connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record:
        [row] = await self.fetch(statement, *arguments)
        return row

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        return (await self.fetchrow(statement, *arguments))[0]

    async def insert(self, table: str, row: dict[str, Any]) -> None:
        places = ", ".join(f"${position}" for position in range(1, len(row) + 1))
        await self.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[Session]:
    async with connected(dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Session(connection)
        await transaction.rollback()


async def committed(database: DatabaseUnderTest, statement: str, *arguments: Any) -> None:
    """Run as the owner the statements whose effect every session must see."""
    async with connected(database.owner_dsn) as connection:
        await connection.execute(statement, *arguments)


@pytest.fixture(scope="module")
def shared(shared_postgres: PostgresServer) -> Iterator[DatabaseUnderTest]:
    """Yield one database for all the tests here, with an effective access token: none of them commits anything."""
    copy = asyncio.run(shared_postgres.copy())
    asyncio.run(committed(copy, "UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE id = $1", EFFECTIVE_ID))
    yield copy
    asyncio.run(shared_postgres.drop(copy.name))


@pytest.fixture
async def owner(shared: DatabaseUnderTest) -> AsyncIterator[Session]:
    async with session(shared.owner_dsn) as opened:
        yield opened


@pytest.fixture
async def worker(shared: DatabaseUnderTest) -> AsyncIterator[Session]:
    async with session(shared.worker_dsn) as opened:
        yield opened


def token(**changes: Any) -> dict[str, Any]:
    good = {"organisation": "ORG1", "id": "new", "number": "new number", "life_cycle_state": "NOT_EFFECTIVE"}
    return good | changes


def lane(**changes: Any) -> dict[str, Any]:
    good = {
        "cluster": "c",
        "consumer_group": "g",
        "topic": "t",
        "partition": 0,
        "owner": OWNER,
        "owned_since": NOW,
        "first_offset": 3,
        "next_offset": 5,
    }
    return good | changes


def transition(**changes: Any) -> dict[str, Any]:
    good = {
        "organisation": "ORG1",
        "access_token_id": TOKEN_ID,
        "version": 1,
        "from_state": "NOT_EFFECTIVE",
        "to_state": "EFFECTIVE",
        "occurred_at": NOW,
        "user_id": "u",
        "unit_id": "1",
        "command_id": "rec:x",
        "cause": "API",
        "lane": 1,
        "sequence": 1,
        "previous_hash": bytes(32),
        "hash": HASH,
    }
    return good | changes


def imported(**changes: Any) -> dict[str, Any]:
    return transition(cause="IMPORT", from_state=None, user_id=None, unit_id=None, command_id=None) | changes


def record(lane_id: int, **changes: Any) -> dict[str, Any]:
    good = {
        "lane": lane_id,
        "record_offset": 0,
        "record_timestamp": 1,
        "organisation": "ORG1",
        "command_key": UUID(int=1),
        "command_id": "req:ORG1:1",
        "digest": b"digest",
        "status": "OK",
        "message": "",
        "replayed": False,
        "access_token_id": TOKEN_ID,
        "version": 1,
        "fields": 1,
        "decided_at": NOW,
    }
    return good | changes


async def a_lane(connection: Session) -> int:
    await connection.insert("lane", lane())
    return int(await connection.fetchval("SELECT id FROM lane"))


# --- the life cycle ---------------------------------------------------------------------------------------------------

STATES: Final = {TOKEN_ID: "NOT_EFFECTIVE", EFFECTIVE_ID: "EFFECTIVE", PENDING_ID: "PENDING_VERIFICATION"}
EVERY_CHANGE: Final = [(each, to_state) for each in STATES for to_state in STATES.values()]


@pytest.mark.parametrize("as_worker", [False, True], ids=["owner", "worker"])
@pytest.mark.parametrize(("token_id", "to_state"), EVERY_CHANGE)
async def test_only_a_not_effective_token_may_become_effective(
    owner: Session, worker: Session, token_id: str, to_state: str, as_worker: bool
) -> None:
    from_state = STATES[token_id]
    change = worker if as_worker else owner
    statement = "UPDATE access_token SET life_cycle_state = $1 WHERE organisation = 'ORG1' AND id = $2"
    if to_state == from_state or (from_state, to_state) == ("NOT_EFFECTIVE", "EFFECTIVE"):
        assert await change.execute(statement, to_state, token_id) == "UPDATE 1"
        return

    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await change.execute(statement, to_state, token_id)

    assert refused.value.constraint_name == "access_token_life_cycle_check"
    assert await owner.fetchval("SELECT life_cycle_state FROM access_token WHERE id = $1", token_id) == from_state


@pytest.mark.parametrize("state", ["TERMINATED", "effective", "", None])
async def test_a_state_is_one_of_the_three(owner: Session, state: str | None) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.insert("access_token", token(life_cycle_state=state))
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.execute("UPDATE access_token SET life_cycle_state = $1 WHERE id = $2", state, TOKEN_ID)


# --- access tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "constraint"),
    [
        ({"number": "AT0000000674"}, "access_token_number_key"),
        ({"authentication_code": "99021047383"}, "access_token_authentication_code_key"),
        ({"identifier": "polina@example.com"}, "access_token_identifier_key"),
        ({"id": TOKEN_ID}, "access_token_pkey"),
    ],
)
async def test_what_names_a_token_is_unique_within_its_organisation_only(
    owner: Session, taken: dict[str, str], constraint: str
) -> None:
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await owner.insert("access_token", token(**taken))
    assert refused.value.constraint_name == constraint

    await owner.insert("access_token", token(organisation="ORG2", **taken))


async def test_many_tokens_may_have_neither_code_nor_identifier(owner: Session) -> None:
    for number in range(3):
        await owner.insert("access_token", token(id=f"new{number}", number=f"n{number}"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"number": ""},
        {"number": None},
        {"authentication_code": ""},
        {"identifier": ""},
        {"version": -1},
        {"version": None},
        {"pass_code_hash": "correct horse 7"},
        {"pass_code_hash": ""},
        {"pass_code_hash": "$2b$12$bcrypt"},
        {"pass_code_hash": "$argon2i$v=19$m=1"},
        *({f"udf_float_{number}": float(text)} for number in range(1, 5) for text in ("nan", "inf", "-inf")),
    ],
    ids=str,
)
async def test_a_wrong_value_of_a_token_is_refused(owner: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.insert("access_token", token(**wrong))


@pytest.mark.parametrize("number", [0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308])
async def test_every_number_that_json_can_show_is_taken(owner: Session, number: float) -> None:
    await owner.insert("access_token", token(udf_float_1=number))

    assert await owner.fetchval("SELECT udf_float_1 FROM access_token WHERE id = 'new'") == number


@pytest.mark.parametrize(
    "wrong",
    [
        {"organisation": "ORG9"},
        {"classification": "unknown"},
        {"accounts_receivable": "unknown"},
        {"rewards_participant": "unknown"},
        {"organisation": "ORG2", "classification": "C1"},
        {"organisation": "ORG2", "accounts_receivable": "8C1E866074D743EE834E910A28C1E582"},
        {"organisation": "ORG2", "rewards_participant": "942D9960056A497FB3BC65EDDF7D8D81"},
    ],
    ids=str,
)
async def test_a_token_names_what_exists_in_its_own_organisation(owner: Session, wrong: dict[str, str]) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await owner.insert("access_token", token(**wrong))


async def test_ids_are_compared_byte_by_byte(owner: Session) -> None:
    columns = await owner.fetch(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name NOT LIKE '%pogo%' AND column_name IN ('id', 'organisation',"
        " 'authentication_code', 'identifier', 'number', 'username', 'jti') AND data_type = 'text'"
        " AND NOT (column_name = 'number' AND table_name <> 'access_token')"
    )

    assert len(columns) > 15
    assert {row["collation_name"] for row in columns} == {"C"}
    await owner.insert("access_token", token(authentication_code="code", identifier="\u00e9"))
    await owner.insert("access_token", token(id="NEW", number="N", authentication_code="CODE", identifier="e\u0301"))


# --- owners of tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("organisation", {"id": "", "name": "x"}),
        ("organisation", {"id": "ORG1", "name": "x"}),
        ("organisation", {"id": "new", "name": None}),
        ("unit", {"organisation": "ORG1", "id": ""}),
        ("unit", {"organisation": "ORG1", "id": "1"}),
        ("unit", {"organisation": "ORG9", "id": "1"}),
        ("app_user", {"organisation": "ORG1", "id": "", "username": "x"}),
        ("app_user", {"organisation": "ORG1", "id": "x", "username": ""}),
        ("app_user", {"organisation": "ORG1", "id": "x", "username": "mpadmin"}),
        ("app_user", {"organisation": "ORG9", "id": "x", "username": "x"}),
        ("app_user", {"organisation": "ORG1", "id": "x", "username": "x", "rights": None}),
        ("revoked_login", {"organisation": "ORG1", "jti": ""}),
        ("revoked_login", {"organisation": "ORG1", "jti": "revoked-login-1"}),
        ("revoked_login", {"organisation": "ORG9", "jti": "x"}),
        ("contact", {"organisation": "ORG1", "id": "", "body": '{"id": ""}'}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": '{"id": "y"}'}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": "{}"}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": '{"id": null}'}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": "[]"}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": "null"}),
        ("contact", {"organisation": "ORG1", "id": "x", "body": None}),
        ("accounts_receivable", {"organisation": "ORG1", "id": ""}),
        ("accounts_receivable", {"organisation": "ORG1", "id": "x", "life_cycle_state": "EFFECTIVE"}),
        ("accounts_receivable", {"organisation": "ORG1", "id": "x", "account_owner": "unknown"}),
        ("rewards_participant", {"organisation": "ORG1", "id": ""}),
        ("rewards_participant", {"organisation": "ORG1", "id": "x", "life_cycle_state": "ACTIVE"}),
        ("rewards_participant", {"organisation": "ORG1", "id": "x", "accounts_receivable": "unknown"}),
        ("classification", {"organisation": "ORG1", "id": ""}),
        ("classification", {"organisation": "ORG1", "id": "C1"}),
    ],
    ids=str,
)
async def test_a_row_that_makes_no_sense_is_refused(owner: Session, table: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await owner.insert(table, wrong)


async def test_the_same_ids_may_stand_in_two_organisations(owner: Session) -> None:
    await owner.insert("classification", {"organisation": "ORG2", "id": "C1"})
    await owner.insert("app_user", {"organisation": "ORG2", "id": "x", "username": "reader"})
    await owner.insert("revoked_login", {"organisation": "ORG2", "jti": "revoked-login-1"})
    await owner.insert("contact", {"organisation": "ORG2", "id": "x", "body": '{"id": "x"}'})


# --- the history ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transition SET user_id = 'other'",
        "UPDATE transition SET user_id = 'other' WHERE false",
        "DELETE FROM transition",
        "DELETE FROM transition WHERE false",
        "TRUNCATE transition",
        "TRUNCATE transition, command_record",
        "INSERT INTO transition SELECT * FROM transition ON CONFLICT (lane, sequence) DO UPDATE SET user_id = 'other'",
        "MERGE INTO transition USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    ],
)
async def test_history_is_append_only_even_for_its_owner(owner: Session, statement: str) -> None:
    await owner.insert("transition", transition())

    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await owner.execute(statement)

    assert refused.value.constraint_name == "transition_append_only"
    assert await owner.fetchval("SELECT user_id FROM transition") == "u"


@pytest.mark.parametrize(
    "wrong",
    [
        {"from_state": "EFFECTIVE"},
        {"from_state": "PENDING_VERIFICATION"},
        {"from_state": None},
        {"to_state": "NOT_EFFECTIVE"},
        {"to_state": "PENDING_VERIFICATION"},
        {"to_state": None},
        {"user_id": None},
        {"unit_id": None},
        {"command_id": None},
        {"cause": "HAND"},
        {"cause": ""},
        {"cause": None},
        {"version": 0},
        {"sequence": 0},
        {"hash": b""},
        {"hash": b"\x01" * 31},
        {"hash": b"0" * 64},
        {"hash": None},
        {"previous_hash": b"\x01" * 33},
        {"previous_hash": None},
        {"occurred_at": None},
        {"lane": None},
    ],
    ids=str,
)
async def test_a_transition_by_a_command_is_whole_and_follows_the_rule(owner: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.insert("transition", transition(**wrong))

    await owner.insert("transition", transition())


@pytest.mark.parametrize(
    "wrong", [{"from_state": "NOT_EFFECTIVE"}, {"user_id": "u"}, {"version": 0}, {"to_state": None}], ids=str
)
async def test_the_first_state_of_an_imported_token_has_none_before_it(owner: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.insert("transition", imported(**wrong))

    await owner.insert("transition", imported())
    await owner.insert("transition", imported(version=2, sequence=2))


@pytest.mark.parametrize(
    ("other", "constraint"),
    [({"sequence": 2}, "transition_pkey"), ({"version": 2}, "transition_chain_key")],
)
async def test_a_version_and_a_place_in_a_chain_are_taken_once(
    owner: Session, other: dict[str, int], constraint: str
) -> None:
    await owner.insert("transition", transition())

    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await owner.insert("transition", transition(**other))

    assert refused.value.constraint_name == constraint
    await owner.insert("transition", transition(organisation="ORG2", lane=2))


# --- lanes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"partition": -1},
        {"owner": None},
        {"owned_since": None},
        {"first_offset": None},
        {"next_offset": None},
        {"first_offset": -1},
        {"first_offset": 6},
        {"chain_sequence": -1},
        {"chain_sequence": None},
        {"chain_hash": b"\x00" * 31},
        {"chain_hash": None},
        {"cluster": None},
    ],
    ids=str,
)
async def test_a_lane_that_makes_no_sense_is_refused(owner: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.NotNullViolationError)):
        await owner.insert("lane", lane(**wrong))


async def test_there_is_one_lane_per_partition_and_group(owner: Session) -> None:
    await owner.insert("lane", lane())

    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await owner.insert("lane", lane(first_offset=None, next_offset=None))
    assert refused.value.constraint_name == "lane_coordinates_key"
    for other in ({"cluster": "C"}, {"consumer_group": "h"}, {"topic": "u"}, {"partition": 1}):
        await owner.insert("lane", lane(**other))


async def test_a_new_lane_has_decided_nothing_and_its_chain_begins_with_zeros(owner: Session) -> None:
    fresh = lane()
    del fresh["first_offset"], fresh["next_offset"]
    await owner.insert("lane", fresh)

    row = await owner.fetchrow("SELECT first_offset, next_offset, chain_sequence, chain_hash FROM lane")
    assert tuple(row) == (None, None, 0, bytes(32))


# --- the record of commands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"record_offset": -1},
        {"status": "INVALID_TOKEN"},
        {"replayed": True},
        {"organisation": None},
        {"digest": None},
        {"version": None, "organisation": None},
        {"version": None, "digest": None},
        {"lane": None},
        {"command_id": None},
        {"command_key": None},
        {"message": None},
        {"decided_at": None},
        {"record_timestamp": None},
    ],
    ids=str,
)
async def test_a_record_that_makes_no_sense_is_refused(owner: Session, wrong: dict[str, Any]) -> None:
    lane_id = await a_lane(owner)

    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await owner.insert("command_record", record(lane_id, **wrong))

    await owner.insert("command_record", record(lane_id))


async def test_only_an_applied_command_binds_its_id_and_only_in_its_organisation(owner: Session) -> None:
    lane_id = await a_lane(owner)
    refused = {"status": "INVALID_TOKEN", "version": None, "digest": None, "access_token_id": None}
    await owner.insert("command_record", record(lane_id))
    await owner.insert("command_record", record(lane_id, record_offset=1, replayed=True, version=None))
    await owner.insert("command_record", record(lane_id, record_offset=2, **refused))
    await owner.insert("command_record", record(lane_id, record_offset=3, organisation="ORG2"))

    with pytest.raises(asyncpg.UniqueViolationError) as taken:
        await owner.insert("command_record", record(lane_id, record_offset=4, command_id="another text"))

    assert taken.value.constraint_name == "command_record_applied_key"


async def test_one_record_per_coordinates_but_a_recreated_topic_has_coordinates_of_its_own(
    owner: Session,
) -> None:
    lane_id = await a_lane(owner)
    again = {"command_key": UUID(int=2), "command_id": "req:ORG1:2"}
    await owner.insert("command_record", record(lane_id))

    with pytest.raises(asyncpg.UniqueViolationError) as taken:
        await owner.insert("command_record", record(lane_id, **again))

    assert taken.value.constraint_name == "command_record_pkey"
    await owner.insert("command_record", record(lane_id, record_timestamp=2, **again))


# --- the worker's role ------------------------------------------------------------------------------------------------

READ_ONLY: Final = (
    "organisation",
    "unit",
    "app_user",
    "revoked_login",
    "contact",
    "accounts_receivable",
    "rewards_participant",
    "classification",
)
EVERY_TABLE: Final = (*READ_ONLY, "access_token", "lane", "transition", "command_record", "command_loss", "attempt")
# The columns that a transition changes, and nothing else.
CHANGED_BY_A_TRANSITION: Final = {
    "life_cycle_state",
    "version",
    "updated_date",
    "updated_by_user",
    "updated_by_unit",
}
FORBIDDEN: Final = [
    *(f"TRUNCATE {table}" for table in EVERY_TABLE),
    *(f"DROP TABLE {table}" for table in EVERY_TABLE),
    *(f"ALTER TABLE {table} ADD COLUMN x text" for table in EVERY_TABLE),
    *(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in EVERY_TABLE),
    *(f"DELETE FROM {table}" for table in EVERY_TABLE if table != "attempt"),
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in (*READ_ONLY, "access_token")),
    *(
        f"CREATE TRIGGER x BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_transition()"
        for table in READ_ONLY
    ),
    *(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE" for table in READ_ONLY),
    "SELECT FROM erasure",
    "INSERT INTO erasure (organisation, contact, places) VALUES ('ORG1', '1', '[]')",
    "UPDATE command_loss SET acknowledged_at = now()",
    "UPDATE command_loss SET end_offset = begin_offset",
    "UPDATE attempt SET user_id = 'x'",
    "SELECT pass_code_hash FROM access_token",
    "SELECT verification_code FROM access_token",
    "SELECT * FROM access_token",
    "SELECT token FROM access_token AS token",
    "SELECT FROM access_token WHERE pass_code_hash LIKE '%'",
    "UPDATE access_token SET version = version RETURNING pass_code_hash",
    "COPY access_token TO STDOUT",
    "UPDATE organisation SET active = true",
    "UPDATE unit SET active = true",
    "UPDATE app_user SET rights = '{ACCESS_TOKENS.SET_EFFECTIVE}'",
    "UPDATE revoked_login SET jti = 'x'",
    "UPDATE contact SET body = body",
    "UPDATE accounts_receivable SET name = 'x'",
    "UPDATE rewards_participant SET number = 'x'",
    "UPDATE classification SET name = 'x'",
    "UPDATE transition SET user_id = 'x'",
    "UPDATE command_record SET status = 'OK'",
    "UPDATE lane SET cluster = 'x'",
    "UPDATE lane SET partition = 1",
    "UPDATE lane SET topic = 'x'",
    "UPDATE lane SET consumer_group = 'x'",
    "CREATE TABLE mine (x text)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE mine",
    "ALTER FUNCTION refuse_transition() RENAME TO mine",
    "DROP FUNCTION refuse_change_of_history() CASCADE",
    "ALTER TABLE transition OWNER TO CURRENT_USER",
    "SET session_replication_role = replica",
    "COPY access_token TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION')",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_worker_may_not(worker: Session, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute(statement)


async def test_the_worker_changes_of_a_token_only_what_a_transition_changes(owner: Session, worker: Session) -> None:
    columns = await owner.fetch(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = 'access_token'"
    )

    allowed = set()
    for (column,) in columns:
        try:
            await worker.execute(f"UPDATE access_token SET {column} = {column} WHERE id = '{OTHER_TOKEN_ID}'")
            allowed.add(column)
        except asyncpg.InsufficientPrivilegeError:
            continue

    assert allowed == CHANGED_BY_A_TRANSITION


async def test_the_worker_has_exactly_the_rights_of_the_journey(owner: Session) -> None:
    rows = await owner.fetch(
        "SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE grantee = 'effective_worker'"
        " AND NOT starts_with(table_name, '_pogo')"
    )

    # Of an access token it reads columns, and neither the hash of the pass code nor the verification code.
    expected = {(table, "SELECT") for table in EVERY_TABLE if table != "access_token"}
    expected |= {("lane", "INSERT"), ("transition", "INSERT"), ("command_record", "INSERT")}
    expected |= {("command_loss", "INSERT"), ("attempt", "INSERT"), ("attempt", "DELETE")}
    assert {tuple(row) for row in rows} == expected


async def test_the_workers_role_is_no_owner_and_no_superuser(worker: Session) -> None:
    row = await worker.fetchrow(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles"
        " WHERE rolname = current_user"
    )

    assert not any(row)
    assert await worker.fetchval("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole") == 0
