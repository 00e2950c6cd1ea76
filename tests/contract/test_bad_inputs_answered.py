"""The bad inputs in one batch over a real Postgres, with good commands among them."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import asyncpg
import orjson
import pytest
from msgspec.structs import replace

from effective_contract.access_token import AccessToken
from effective_contract.codes import StatusCode
from effective_contract.result import Result
from tests.contract.bad_inputs import (
    BAD_INPUTS,
    CANARY_PASS_CODE,
    CANARY_TOKEN,
    CODE,
    EFFECTIVE_CODE,
    MAX_BYTES,
    PASS_CODE,
    body,
)
from tests.deliveries import delivery
from tests.journey import decided
from tests.logins import SECRET, login_token
from tests.providers.postgres import DatabaseUnderTest
from worker.journey.attempt_limits import Limits
from worker.journey.attempts import Attempts
from worker.journey.authorise import Logins
from worker.journey.digests import CommandNames
from worker.journey.messages import Post, messages
from worker.journey.model import Answered
from worker.journey.pass_codes import PassCodes
from worker.kafka.delivery import Delivery
from worker.observability.metrics import Metrics
from worker.pipeline import Hold, Pipeline, Policy
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.resilience.circuit_breaker import Fuse

POST: Final = Post("results", "transitions", "dead-letters", "group", "worker")


@pytest.fixture
async def pipeline(database: DatabaseUnderTest) -> AsyncIterator[tuple[Pipeline, Hold]]:
    """The Postgres half of the journey, and a lane that has decided nothing yet."""
    pool = await Database.open(database.worker_dsn, connections=2)
    pass_codes = PassCodes()
    owner = uuid4()
    async with pool.connection() as connection:
        place = ("cluster", "group", "commands", 0)
        lane = await connection.fetchval(statement("lanes/take"), *place, owner, datetime.now(UTC))
        await connection.fetchval(statement("lanes/open"), lane, owner, 0)
    master = await asyncpg.connect(database.owner_dsn)
    await master.execute(
        "UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE authentication_code = $1", EFFECTIVE_CODE
    )
    await master.close()
    policy = Policy(MAX_BYTES, expiry_at_append=False, reveal_verification_code=False)
    logins = Logins([SECRET], time.time)
    yield (
        Pipeline(
            pool,
            logins,
            pass_codes,
            Attempts(b"key", Limits(), Metrics()),
            names=CommandNames((b"key",)),
            clock=time.time,
            policy=policy,
            fuse=Fuse(time.monotonic),
            beat=lambda: None,
        ),
        Hold(lane, "lane", owner, 0),
    )
    pass_codes.close()
    await pool.close()


def bad_batch() -> list[Delivery]:
    return [
        delivery(row.written(login_token, SECRET), row.headers, offset=offset) for offset, row in enumerate(BAD_INPUTS)
    ]


def replace_offset(record: Delivery, offset: int) -> Delivery:
    return replace(record, coordinates=replace(record.coordinates, offset=offset))


def value_of(answered: Answered) -> Any:
    return orjson.loads(messages(answered, POST)[0].value or b"")


async def states(dsn: str) -> list[tuple[str, str, str, int]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT organisation, id, life_cycle_state, version FROM access_token ORDER BY 1, 2"
        )
    finally:
        await connection.close()
    return [tuple(row) for row in rows]


async def test_each_bad_input_gets_its_status_and_changes_nothing(
    database: DatabaseUnderTest, pipeline: tuple[Pipeline, Hold]
) -> None:
    journey, hold = pipeline
    before = await states(database.owner_dsn)

    answers, _ = await decided(journey, hold, bad_batch())

    given = {row.name: answered.answer.code for row, answered in zip(BAD_INPUTS, answers, strict=True)}
    assert given == {row.name: row.status for row in BAD_INPUTS}
    assert await states(database.owner_dsn) == before


async def test_each_answer_is_a_result_that_says_what_is_wrong_and_no_secret(pipeline: tuple[Pipeline, Hold]) -> None:
    journey, hold = pipeline
    batch = bad_batch()
    secrets = [CANARY_TOKEN.encode(), CANARY_PASS_CODE.encode(), PASS_CODE.encode(), SECRET.encode()]

    answers, _ = await decided(journey, hold, batch)

    for row, answered in zip(BAD_INPUTS, answers, strict=True):
        result = Result.model_validate(value_of(answered))
        assert row.says in result.status.message, row.name
        for message in messages(answered, POST):
            shown = (message.value or b"").replace(b"\0", b"")
            assert not [secret for secret in secrets if secret in shown], row.name


async def test_a_good_command_among_bad_ones_succeeds(
    database: DatabaseUnderTest, pipeline: tuple[Pipeline, Hold]
) -> None:
    journey, hold = pipeline
    bad = bad_batch()
    middle = len(bad) // 2
    good = delivery(body(token=login_token()), offset=len(bad))
    batch = [replace_offset(each, offset) for offset, each in enumerate([*bad[:middle], good, *bad[middle:]])]
    before = await states(database.owner_dsn)

    answers, _ = await decided(journey, hold, batch)

    result = value_of(answers[middle])
    assert result["status"]["code"] == StatusCode.OK
    assert AccessToken.model_validate(result["data"]).authentication_code == CODE
    after = await states(database.owner_dsn)
    changed = [now for then, now in zip(before, after, strict=True) if then != now]
    assert [(organisation, state) for organisation, _, state, _ in changed] == [("ORG1", "EFFECTIVE")]
