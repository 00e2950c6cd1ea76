"""The bad inputs in one batch over a real Postgres, with good commands among them."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from effective_contract.access_token import AccessToken
from effective_contract.codes import StatusCode
from effective_contract.result import Result
from tests.contract.bad_inputs import BAD_INPUTS, CANARY_PASS_CODE, CANARY_TOKEN, body
from tests.providers.postgres import DatabaseUnderTest
from tests.support.builders import OUTGOING, delivery
from tests.support.connections import connected
from tests.support.journey import decided, journey
from tests.support.logins import SECRET, login_token
from tests.support.seeded import CODE, PASS_CODE
from worker.journey.messages import messages
from worker.journey.model import Answered
from worker.kafka.delivery import Delivery
from worker.pipeline import Lease, Pipeline


@pytest.fixture
async def pipeline(database: DatabaseUnderTest) -> AsyncIterator[tuple[Pipeline, Lease]]:
    """Yield the Postgres half of the journey, and a lane that has decided nothing yet."""
    async with journey(database.worker_dsn, database.owner_dsn) as opened:
        yield opened.pipeline, await opened.own(0)


def bad_batch() -> list[Delivery]:
    return [
        delivery(row.written(login_token, SECRET), row.headers, offset=offset) for offset, row in enumerate(BAD_INPUTS)
    ]


def replace_offset(record: Delivery, offset: int) -> Delivery:
    return replace(record, coordinates=replace(record.coordinates, offset=offset))


def value_of(answered: Answered) -> Any:
    return orjson.loads(messages(answered, OUTGOING)[0].value or b"")


async def states(dsn: str) -> list[tuple[str, str, str, int]]:
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "SELECT organisation, id, life_cycle_state, version FROM access_token ORDER BY 1, 2"
        )
    return [tuple(row) for row in rows]


async def test_each_bad_input_gets_its_status_and_changes_nothing(
    database: DatabaseUnderTest, pipeline: tuple[Pipeline, Lease]
) -> None:
    decides, lease = pipeline
    before = await states(database.owner_dsn)

    answers, _ = await decided(decides, lease, bad_batch())

    given = {row.name: answered.answer.code for row, answered in zip(BAD_INPUTS, answers, strict=True)}
    assert given == {row.name: row.status for row in BAD_INPUTS}
    assert await states(database.owner_dsn) == before


async def test_each_answer_is_a_result_that_says_what_is_wrong_and_no_secret(pipeline: tuple[Pipeline, Lease]) -> None:
    decides, lease = pipeline
    batch = bad_batch()
    secrets = [CANARY_TOKEN.encode(), CANARY_PASS_CODE.encode(), PASS_CODE.encode(), SECRET.encode()]

    answers, _ = await decided(decides, lease, batch)

    for row, answered in zip(BAD_INPUTS, answers, strict=True):
        result = Result.model_validate(value_of(answered))
        assert row.says in result.status.message, row.name
        for message in messages(answered, OUTGOING):
            shown = (message.value or b"").replace(b"\0", b"")
            assert not [secret for secret in secrets if secret in shown], row.name


async def test_a_good_command_among_bad_ones_succeeds(
    database: DatabaseUnderTest, pipeline: tuple[Pipeline, Lease]
) -> None:
    decides, lease = pipeline
    bad = bad_batch()
    middle = len(bad) // 2
    good = delivery(body(token=login_token()), offset=len(bad))
    batch = [replace_offset(each, offset) for offset, each in enumerate([*bad[:middle], good, *bad[middle:]])]
    before = await states(database.owner_dsn)

    answers, _ = await decided(decides, lease, batch)

    result = value_of(answers[middle])
    assert result["status"]["code"] == StatusCode.OK
    assert AccessToken.model_validate(result["data"]).authentication_code == CODE
    after = await states(database.owner_dsn)
    changed = [now for then, now in zip(before, after, strict=True) if then != now]
    assert [(organisation, state) for organisation, _, state, _ in changed] == [("ORG1", "EFFECTIVE")]
