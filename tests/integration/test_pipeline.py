"""A batch of commands over a real Postgres, without Kafka: the answers, the changes, and all that never changes."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from effective_contract.access_token import ALL_FIELDS, FIELD_NAMES, AccessToken, field_names, fields_mask
from effective_contract.codes import StatusCode
from effective_contract.result import Result
from effective_contract.transition import TransitionEvent, verify_chain
from tests.providers.postgres import DatabaseUnderTest, until_waiting
from tests.support.journey import (
    NAMES,
    POLICY,
    Journey,
    Partition,
    Sent,
    by_code,
    by_identifier,
    codes,
    dry_run,
    event_of,
    journey,
    result_of,
    transitions,
)
from tests.support.logins import login_token
from tests.support.pace import in_milliseconds
from tests.support.seeded import (
    CARD_CODE,
    CODE,
    CODE_OF_IDENTIFIER,
    EFFECTIVE_CODE,
    IDENTIFIER,
    OTHER_TOKEN_ID,
    PENDING_CODE,
    TOKEN_ID,
    USER_ID,
)
from worker import pipeline
from worker.errors import BreakerOpen, DependencyUnavailable, LaneLost
from worker.journey.attempt_limits import Limits
from worker.journey.model import Answered, ReplyTo, TokenKey, command_key
from worker.journey.pass_codes import HASHER, PassCodeCheck, PassCodes, Question, hashes_of
from worker.journey.project import project
from worker.journey.reply_topics import Replies
from worker.postgres.migrate import apply_migrations
from worker.postgres.pool import SERVER_SETTINGS, Connection
from worker.postgres.schema import WorkerRole
from worker.resilience.circuit_breaker import FAILURES, CircuitBreaker

SEED: Final = Path(__file__).parents[1] / "seed"
S = StatusCode
GONE: Final = "the access token that this command has set effective is gone"


async def snapshot(j: Journey) -> list[asyncpg.Record]:
    """Return all access tokens and all history, to show that nothing changed."""
    tokens = await j.owner.fetch("SELECT * FROM access_token ORDER BY organisation, id")
    return tokens + await j.owner.fetch("SELECT * FROM transition ORDER BY lane, sequence")


async def chain(j: Journey, partition: Partition) -> list[dict[str, Any]]:
    """Return the lane's transition events as Postgres keeps them."""
    rows = await j.owner.fetch("SELECT * FROM transition WHERE lane = $1 ORDER BY sequence", partition.lease.lane)
    return [
        {
            "organisation": row["organisation"],
            "access_token_id": row["access_token_id"],
            "version": row["version"],
            "from_state": row["from_state"],
            "to_state": row["to_state"],
            "occurred_at": row["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "user_id": row["user_id"],
            "unit_id": row["unit_id"],
            "command_id": row["command_id"],
            "cause": row["cause"],
            "lane": partition.lease.name,
            "sequence": row["sequence"],
            "previous_hash": row["previous_hash"].hex(),
            "hash": row["hash"].hex(),
        }
        for row in rows
    ]


# --- the golden sample ------------------------------------------------------------------------------------------------


async def test_the_golden_command_is_answered_as_the_source_method_does(j: Journey, lane: Partition) -> None:
    command = (SEED / "command.json").read_bytes().replace(b"{{token}}", login_token().encode())

    answered = await lane.one(Sent(command))

    assert result_of(answered) == json.loads((SEED / "result.json").read_bytes())
    assert (await j.token())["life_cycle_state"] == "EFFECTIVE"


async def test_the_transition_changes_the_state_and_who_and_when_and_nothing_else(j: Journey, lane: Partition) -> None:
    before = dict(await j.token())

    [transition] = transitions([await lane.one(by_code())])

    after = dict(await j.token())
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"life_cycle_state", "version", "updated_date", "updated_by_user", "updated_by_unit"}
    assert (after["life_cycle_state"], after["version"]) == ("EFFECTIVE", 1)
    assert (after["updated_by_user"], after["updated_by_unit"]) == (USER_ID, "1")
    assert after["updated_date"] == transition.occurred_at.replace(tzinfo=None, microsecond=0)


async def test_the_fact_says_who_did_what_by_which_command(lane: Partition) -> None:
    answered = await lane.one(by_code(event=("/shop", "order:7")))

    [transition] = transitions([answered])
    event = event_of(transition)
    TransitionEvent.model_validate(event)
    assert answered.answer.command_id == "ce:ORG1:%2Fshop:order%3A7"
    assert {name: event[name] for name in event if name not in {"occurred_at", "hash"}} == {
        "organisation": "ORG1",
        "access_token_id": TOKEN_ID,
        "version": 1,
        "from_state": "NOT_EFFECTIVE",
        "to_state": "EFFECTIVE",
        "user_id": USER_ID,
        "unit_id": "1",
        "command_id": NAMES.of("ce:ORG1:%2Fshop:order%3A7"),
        "cause": "API",
        "lane": "cluster/group/commands/0",
        "sequence": 1,
        "previous_hash": "0" * 64,
    }


async def test_all_fields_are_those_of_the_schema_and_show_the_token_after_the_change(lane: Partition) -> None:
    result = result_of(await lane.one(by_code(CARD_CODE, fields=None)))

    Result.model_validate(result)
    token = AccessToken.model_validate(result["data"])
    assert list(result["data"]) == list(FIELD_NAMES)
    assert token.life_cycle_state == "EFFECTIVE"
    assert (token.udf_string_1, token.udf_float_1, token.udf_date_1) == ("gold card", 12.5, "2016-10-05T13:19:56")
    assert token.classification is not None
    assert token.classification.name == "Loyalty card"
    assert token.log_information.updated_by_user is not None
    assert token.log_information.updated_by_user.username == "mpadmin"
    assert token.log_information.updated_by_unit is not None
    assert token.log_information.updated_by_unit.name == "Admin Unit"


async def test_each_organisation_sees_its_own_token_under_one_code(j: Journey, lane: Partition) -> None:
    first, second = await lane.run(by_code(), by_code(login=login_token("ORG2")))

    assert codes([first, second]) == [S.OK, S.OK]
    assert [transition.organisation for transition in transitions([first, second])] == ["ORG1", "ORG2"]
    assert (await j.token(organisation="ORG2"))["updated_by_user"] == "0A5B7C3D9E1F42608B1C2D3E4F506172"


# --- every status -----------------------------------------------------------------------------------------------------

STATUSES: Final[dict[str, tuple[StatusCode, Sent, str]]] = {
    "a null value": (S.MALFORMED_REQUEST, Sent(None), ""),
    "no JSON": (S.MALFORMED_REQUEST, Sent(b"nonsense"), ""),
    "no login": (S.MISSING_PARAMETER, Sent(b'{"access_token_identifier":{"authentication_code":"1"}}'), "token"),
    "an unknown field": (S.INVALID_PARAMETER, by_code(fields="numbr"), "numbr"),
    "no JWT": (S.INVALID_TOKEN, by_code(login="nonsense"), ""),
    "an unknown organisation": (S.INVALID_TOKEN, by_code(login=login_token("ORG9")), "organisation"),
    "an unknown unit": (S.INVALID_TOKEN, by_code(login=login_token(unit="9")), "unit"),
    "an unknown user": (S.INVALID_TOKEN, by_code(login=login_token(user="nobody")), "user"),
    "a user who has left": (S.INVALID_TOKEN, by_code(login=login_token(user="leaver")), "user"),
    "a revoked login": (S.INVALID_TOKEN, by_code(login=login_token(jti="revoked-login-1")), "revoked"),
    "an expired login": (S.EXPIRED_TOKEN, by_code(login=login_token(exp=1)), ""),
    "a user without the right": (S.ACCESS_DENIED, by_code(login=login_token(user="reader")), "SET_EFFECTIVE"),
    "an unknown code": (S.ACCESS_TOKEN_NOT_FOUND, by_code("unknown"), ""),
    "another account's consumer": (S.ACCESS_TOKEN_NOT_FOUND, by_code(login=login_token(cii="a", acr="other")), ""),
    "an unknown identifier": (S.INVALID_CREDENTIALS, by_identifier("nobody@example.com"), ""),
    "a wrong pass code": (S.INVALID_CREDENTIALS, by_identifier(pass_code="wrong"), ""),
    "an identifier of another account": (
        S.INVALID_CREDENTIALS,
        by_identifier(login=login_token(cii="a", acr="other")),
        "",
    ),
    "an effective token": (S.INVALID_LIFE_CYCLE_STATE, by_code(EFFECTIVE_CODE), "EFFECTIVE"),
    "a pending token": (S.INVALID_LIFE_CYCLE_STATE, by_code(PENDING_CODE), "PENDING_VERIFICATION"),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_a_refused_command_changes_nothing(j: Journey, lane: Partition, name: str) -> None:
    code, sent, says = STATUSES[name]
    before = await snapshot(j)

    answered = await lane.one(sent)

    result = result_of(answered)
    Result.model_validate(result)
    assert result["status"]["code"] == code
    assert says in result["status"]["message"]
    assert answered.transition is None
    assert await snapshot(j) == before


async def test_refusals_and_a_good_command_do_not_touch_each_other(j: Journey, lane: Partition) -> None:
    refused = list(STATUSES.values())
    middle = len(refused) // 2

    answered = await lane.run(
        *(sent for _, sent, _ in refused[:middle]), by_code(), *(sent for _, sent, _ in refused[middle:])
    )

    expected = [code for code, _, _ in refused]
    assert codes(answered) == [*expected[:middle], S.OK, *expected[middle:]]
    assert await j.count("transition") == 1


async def test_every_status_of_the_contract_is_produced_here(lane: Partition) -> None:
    produced = {code for code, _, _ in STATUSES.values()}

    # The tests of ids and of the poison row below cover those two.
    assert produced | {S.OK, S.DUPLICATE_REQUEST, S.INTERNAL_ERROR} == set(StatusCode)


async def test_a_wrong_pass_code_and_an_unknown_identifier_are_told_alike(lane: Partition) -> None:
    wrong, unknown = await lane.run(by_identifier(pass_code="wrong"), by_identifier("nobody@example.com"))

    assert result_of(wrong) == result_of(unknown)


async def test_the_right_pass_code_opens_the_identifier(lane: Partition) -> None:
    answered = await lane.one(by_identifier(fields="number,identifier"))

    assert result_of(answered)["data"] == {"number": "AT0000000674", "identifier": IDENTIFIER}


async def test_a_consumer_login_sees_its_own_accounts_token(lane: Partition) -> None:
    own = login_token(cii="shop", acr="8C1E866074D743EE834E910A28C1E582")

    assert codes(await lane.run(by_code(login=own), by_identifier(login=own))) == [S.OK, S.OK]


async def test_checks_come_in_the_order_of_the_contract(lane: Partition) -> None:
    expired_reader = login_token(user="reader", exp=1)
    revoked_expired = login_token(jti="revoked-login-1", exp=1)
    answered = await lane.run(
        by_code(login=revoked_expired),
        by_code(login=expired_reader),
        by_code("unknown", login=login_token(user="reader")),
        by_code(fields="unknown", login="nonsense"),
    )

    assert codes(answered) == [S.INVALID_TOKEN, S.EXPIRED_TOKEN, S.ACCESS_DENIED, S.INVALID_PARAMETER]


@pytest.mark.parametrize(
    "deactivate",
    [
        "UPDATE organisation SET active = false WHERE id = 'ORG1'",
        "UPDATE unit SET active = false WHERE organisation = 'ORG1'",
        "UPDATE app_user SET active = false WHERE username = 'mpadmin'",
        "INSERT INTO revoked_login VALUES ('ORG1', 'login-1')",
    ],
)
async def test_a_login_seen_before_is_refused_as_soon_as_it_is_withdrawn(
    j: Journey, lane: Partition, deactivate: str
) -> None:
    login = login_token(jti="login-1")
    assert codes(await lane.run(by_code("unknown", login=login))) == [S.ACCESS_TOKEN_NOT_FOUND]

    await j.owner.execute(deactivate)

    assert codes(await lane.run(by_code(login=login))) == [S.INVALID_TOKEN]


async def test_a_login_seen_before_is_refused_as_soon_as_it_has_expired(database: DatabaseUnderTest) -> None:
    now = time.time()
    async with journey(database.worker_dsn, database.owner_dsn, clock=lambda: now) as j:
        lane = await j.lane()
        login = login_token(exp=int(now) + 5)
        assert codes(await lane.run(by_code("unknown", login=login))) == [S.ACCESS_TOKEN_NOT_FOUND]
        now = float(int(now) + 5)  # no leeway

        assert codes(await lane.run(by_code(login=login))) == [S.EXPIRED_TOKEN]


@pytest.mark.parametrize(("by_broker", "expected"), [(True, S.OK), (False, S.EXPIRED_TOKEN)])
async def test_expiry_may_be_judged_when_the_broker_took_the_record(
    database: DatabaseUnderTest, by_broker: bool, expected: StatusCode
) -> None:
    now = int(time.time())
    policy = replace(POLICY, expiry_at_append=True)
    async with journey(database.worker_dsn, database.owner_dsn, policy=policy) as j:
        lane = await j.lane()
        sent = by_code(login=login_token(iat=now - 7200, exp=now - 60))
        batch = lane.deliver(sent, timestamp=(now - 61) * 1000, by_broker=by_broker)

        assert codes(await lane.take(batch)) == [expected]


async def test_expiry_at_append_refuses_what_had_expired_by_then(database: DatabaseUnderTest) -> None:
    now = int(time.time())
    policy = replace(POLICY, expiry_at_append=True)
    async with journey(database.worker_dsn, database.owner_dsn, policy=policy) as j:
        lane = await j.lane()
        sent = by_code(login=login_token(iat=now - 7200, exp=now - 60))
        batch = lane.deliver(sent, timestamp=(now - 60) * 1000, by_broker=True)

        assert codes(await lane.take(batch)) == [S.EXPIRED_TOKEN]


# --- command ids ------------------------------------------------------------------------------------------------------


async def test_an_id_is_the_event_else_the_request_else_the_record(lane: Partition) -> None:
    answered = await lane.run(
        by_code(event=("/a:b", "c/ü"), request_id="r"),
        by_code(EFFECTIVE_CODE, request_id="r:1"),
        by_code(EFFECTIVE_CODE),
        by_code(login="nonsense", request_id="r"),
        by_code(login=login_token(exp=1), request_id="late"),
        by_code(login=login_token(user="nobody"), request_id="r"),
    )

    stamp = lane.log[0].coordinates.timestamp
    assert [each.answer.command_id for each in answered] == [
        "ce:ORG1:%2Fa%3Ab:c%2F%C3%BC",
        "req:ORG1:r%3A1",
        f"rec:cluster/commands/0/2@{stamp}",
        f"rec:cluster/commands/0/3@{stamp}",
        "req:ORG1:late",
        f"rec:cluster/commands/0/5@{stamp}",
    ]


@pytest.mark.parametrize("named", [{"event": ("/shop", "order 7")}, {"request_id": "order 7"}], ids=["ce", "req"])
async def test_a_consumers_login_takes_no_id_of_a_shops_command(lane: Partition, named: dict[str, Any]) -> None:
    account = "8C1E866074D743EE834E910A28C1E582"
    consumers = login_token(cii="app", acr=account)

    taken, shops, again = await lane.run(
        by_code(login=consumers, **named), by_code(CARD_CODE, **named), by_code(login=consumers, **named)
    )

    assert codes([taken, shops, again]) == [S.OK, S.OK, S.OK]
    assert (shops.answer.replayed, again.answer.replayed) == (False, True)
    kind, rest = shops.answer.command_id.split(":ORG1:")
    assert taken.answer.command_id == f"{kind}:ORG1:{account}:{rest}"


async def test_a_refused_consumers_command_has_the_same_id(lane: Partition) -> None:
    refused = [login_token(cii="app", acr="A:1", exp=1), login_token(cii="app", acr="A:1")]
    answered = await lane.run(*(by_code(login=login, request_id="7") for login in refused))

    assert [each.answer.command_id for each in answered] == ["req:ORG1:A%3A1:7"] * 2


# --- replays and conflicts (CONTRACT, Idempotency) ------------------------------------------------------------------

IDS: Final[dict[str, dict[str, Any]]] = {"ce": {"event": ("/shop", "1")}, "req": {"request_id": "1"}}
in_one_batch = pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
each_id = pytest.mark.parametrize("ids", IDS.values(), ids=IDS)


async def both(lane: Partition, first: Sent, second: Sent, *, together: bool) -> list[Answered]:
    if together:
        return await lane.run(first, second)
    return [await lane.one(first), await lane.one(second)]


@each_id
@in_one_batch
async def test_the_same_request_again_is_answered_ok_and_changes_nothing(
    j: Journey, lane: Partition, ids: dict[str, Any], together: bool
) -> None:
    first, again = await both(lane, by_code(**ids), by_code(login=login_token(), **ids), together=together)

    assert (first.answer.replayed, again.answer.replayed) == (False, True)
    assert result_of(again) == result_of(first)
    assert result_of(again)["status"]["code"] == "OK"
    assert again.transition is None
    assert (await j.token())["version"] == 1


@each_id
@in_one_batch
@pytest.mark.parametrize("other", [{"code": CARD_CODE}, {"fields": "id"}], ids=["other token", "other fields"])
async def test_another_request_under_an_applied_id_is_a_duplicate(
    j: Journey, lane: Partition, ids: dict[str, Any], together: bool, other: dict[str, Any]
) -> None:
    _, conflicting = await both(lane, by_code(**ids), by_code(**other, **ids), together=together)

    assert codes([conflicting]) == [S.DUPLICATE_REQUEST]
    assert (await j.token(CARD_CODE))["life_cycle_state"] == "NOT_EFFECTIVE"


async def test_the_same_fields_in_another_order_are_the_same_request(lane: Partition) -> None:
    first, again = await lane.run(
        by_code(fields="number,id", request_id="1"), by_code(fields=" id , number,id", request_id="1")
    )

    assert codes([first, again]) == [S.OK, S.OK]
    assert again.answer.replayed


async def test_all_fields_named_are_the_same_request_as_none_named(lane: Partition) -> None:
    named = ",".join(FIELD_NAMES)

    answered = await lane.run(by_code(fields=None, request_id="1"), by_code(fields=named, request_id="1"))

    assert [each.answer.replayed for each in answered] == [False, True]


async def test_a_token_named_by_its_code_and_by_its_identifier_are_two_requests(lane: Partition) -> None:
    answered = await lane.run(by_code(CODE_OF_IDENTIFIER, request_id="1"), by_identifier(request_id="1"))

    assert codes(answered) == [S.OK, S.DUPLICATE_REQUEST]


async def test_a_replay_may_carry_a_fresh_login_of_another_user(j: Journey, lane: Partition) -> None:
    await j.owner.execute("UPDATE app_user SET rights = '{ACCESS_TOKENS.SET_EFFECTIVE}' WHERE username = 'reader'")

    answered = await lane.run(by_code(request_id="1"), by_code(login=login_token(user="reader"), request_id="1"))

    assert [each.answer.replayed for each in answered] == [False, True]


@in_one_batch
async def test_an_id_belongs_to_its_organisation(lane: Partition, together: bool) -> None:
    other = by_code(login=login_token("ORG2"), request_id="1")

    answered = await both(lane, by_code(request_id="1"), other, together=together)

    assert codes(answered) == [S.OK, S.OK]
    assert [each.answer.replayed for each in answered] == [False, False]


async def test_ids_of_two_kinds_or_two_sources_do_not_meet(lane: Partition) -> None:
    answered = await lane.run(
        by_code(request_id="1"), by_code(event=("a", "1")), by_code(event=("b", "1")), by_code(request_id="a:1")
    )

    assert codes(answered) == [S.OK, *[S.INVALID_LIFE_CYCLE_STATE] * 3]


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        (by_identifier(pass_code="wrong", request_id="1"), S.INVALID_CREDENTIALS),
        (by_identifier(login=login_token(user="reader"), request_id="1"), S.ACCESS_DENIED),
        (by_identifier(login=login_token(exp=1), request_id="1"), S.EXPIRED_TOKEN),
        (by_identifier(login="nonsense", request_id="1"), S.INVALID_TOKEN),
        (by_identifier(login=login_token(cii="a", acr="other"), request_id="1"), S.INVALID_CREDENTIALS),
    ],
    ids=lambda value: value if isinstance(value, StatusCode) else "",
)
@in_one_batch
async def test_a_replay_lends_no_answer_to_a_caller_who_may_not_have_it(
    lane: Partition, again: Sent, expected: StatusCode, together: bool
) -> None:
    first, second = await both(lane, by_identifier(request_id="1"), again, together=together)

    assert codes([first, second]) == [S.OK, expected]
    assert result_of(second)["data"] == {}


@in_one_batch
async def test_a_refused_id_is_judged_afresh_when_it_comes_again(lane: Partition, together: bool) -> None:
    refused, good = await both(
        lane, by_identifier(pass_code="wrong", request_id="1"), by_identifier(request_id="1"), together=together
    )

    assert codes([refused, good]) == [S.INVALID_CREDENTIALS, S.OK]
    assert not good.answer.replayed
    assert good.transition is not None


async def test_a_refused_id_may_be_used_for_another_request(lane: Partition) -> None:
    answered = await lane.run(by_code(EFFECTIVE_CODE, request_id="1"), by_code(request_id="1"))

    assert codes(answered) == [S.INVALID_LIFE_CYCLE_STATE, S.OK]


async def test_a_replay_shows_the_data_as_it_is_now(j: Journey, lane: Partition) -> None:
    await lane.one(by_code(fields="udf_string_1,life_cycle_state", request_id="1"))
    await j.owner.execute("UPDATE access_token SET udf_string_1 = 'new' WHERE id = $1", TOKEN_ID)

    again = await lane.one(by_code(fields="udf_string_1,life_cycle_state", request_id="1"))

    assert result_of(again)["data"] == {"life_cycle_state": "EFFECTIVE", "udf_string_1": "new"}


async def test_a_replay_whose_code_has_moved_shows_no_other_tokens_data(j: Journey, lane: Partition) -> None:
    await lane.one(by_code(request_id="1"))
    await j.owner.execute("UPDATE access_token SET authentication_code = 'x' WHERE id = $1", TOKEN_ID)
    await j.owner.execute("UPDATE access_token SET authentication_code = $1 WHERE id = $2", CODE, OTHER_TOKEN_ID)

    again = await lane.one(by_code(request_id="1"))

    assert again.answer.replayed
    assert result_of(again) == {"data": {}, "status": {"code": "OK", "description": "", "message": GONE}}
    assert (await j.token())["life_cycle_state"] == "NOT_EFFECTIVE"


async def test_a_replay_of_a_token_that_is_gone_fails_the_check_of_the_code(j: Journey, lane: Partition) -> None:
    await lane.one(by_code(request_id="1"))
    await j.owner.execute("DELETE FROM access_token WHERE id = $1", TOKEN_ID)

    assert codes([await lane.one(by_code(request_id="1"))]) == [S.ACCESS_TOKEN_NOT_FOUND]


async def test_two_commands_for_one_token_in_one_batch_change_it_once(j: Journey, lane: Partition) -> None:
    answered = await lane.run(by_code(), by_code(), by_code(request_id="x"))

    assert codes(answered) == [S.OK, S.INVALID_LIFE_CYCLE_STATE, S.INVALID_LIFE_CYCLE_STATE]
    assert result_of(answered[1])["status"]["message"] == "the access token is EFFECTIVE"
    assert (await j.token())["version"] == await j.count("transition") == 1


# --- the same records again -------------------------------------------------------------------------------------------


async def test_records_read_again_after_a_lost_lane_get_the_same_answers_and_facts(j: Journey, lane: Partition) -> None:
    sent = [
        by_code(request_id="1"),
        by_code(request_id="1"),
        by_code(CARD_CODE),
        by_code(fields="id", request_id="1"),
        by_identifier(pass_code="wrong"),
        Sent(b"nonsense"),
        by_code(login=login_token("ORG2"), fields=None),
    ]
    first = await lane.run(*sent)
    before = await snapshot(j)
    successor = await lane.taken_over()

    again = await successor.take(lane.log)

    assert again == first
    assert [event_of(transition) for transition in transitions(again)] == [
        event_of(transition) for transition in transitions(first)
    ]
    assert [each.answer.replayed for each in again] == [False, True, False, False, False, False, False]
    assert await snapshot(j) == before
    assert await j.count("command_record") == len(sent)


async def test_a_recorded_outcome_comes_before_any_check(j: Journey, lane: Partition) -> None:
    first = await lane.run(by_code(), by_identifier(pass_code="wrong"))
    await j.owner.execute("UPDATE app_user SET active = false")
    await j.owner.execute("UPDATE access_token SET pass_code_hash = NULL")

    assert await (await lane.taken_over()).take(lane.log) == first


async def test_a_recorded_outcome_whose_reply_topic_has_vanished_goes_to_the_results_topic(
    j: Journey, lane: Partition
) -> None:
    topics = {"replies": 1}

    async def look(asked: Sequence[str]) -> dict[str, int]:
        return {topic: topics[topic] for topic in asked if topic in topics}

    j.pipeline._replies = Replies(["*"], look=look)
    [first] = await lane.run(Sent(by_code().value, (("reply_to", b"replies"),)))
    topics.clear()
    j.pipeline._replies = Replies(["*"], look=look)
    [again] = await (await lane.taken_over()).take(lane.log)

    assert (first.decoded.envelope.reply, again.decoded.envelope.reply) == (ReplyTo("reply_to", "replies", 0), None)
    assert (again.answer, again.transition) == (first.answer, first.transition)
    assert again.answer.code is S.OK


async def test_a_recorded_ok_whose_token_is_gone_says_so(j: Journey, lane: Partition) -> None:
    [first] = await lane.run(by_code())
    await j.owner.execute("DELETE FROM access_token WHERE id = $1", TOKEN_ID)

    [again] = await (await lane.taken_over()).take(lane.log)

    assert result_of(again) == {"data": {}, "status": {"code": "OK", "description": "", "message": GONE}}
    assert again.transition == first.transition
    assert not again.answer.replayed


async def test_a_batch_may_be_part_recalled_and_part_new(j: Journey, lane: Partition) -> None:
    first = await lane.run(by_code(request_id="1"), by_code(EFFECTIVE_CODE))
    lane.deliver(by_code(request_id="1"), by_code(CARD_CODE))
    successor = await lane.taken_over()

    again = await successor.take(lane.log)

    assert again[:2] == first
    assert codes(again) == [S.OK, S.INVALID_LIFE_CYCLE_STATE, S.OK, S.OK]
    assert [each.answer.replayed for each in again] == [False, False, True, False]
    assert [transition.sequence for transition in transitions(again)] == [1, 2]
    assert verify_chain(await chain(j, successor)) is None


async def test_offsets_set_back_by_hand_get_the_recorded_answers_and_no_second_transition(
    j: Journey, lane: Partition
) -> None:
    first = [await lane.one(by_code()), await lane.one(by_code(CARD_CODE)), await lane.one(by_code(EFFECTIVE_CODE))]
    successor = await lane.taken_over()

    again = [*await successor.take(lane.log[:1]), *await successor.take(lane.log[1:])]

    assert again == first
    assert successor.lease.next_offset == 3
    assert codes([await successor.one(by_code())]) == [S.INVALID_LIFE_CYCLE_STATE]
    assert await j.count("transition") == 2


async def test_a_record_of_a_recreated_topic_at_an_old_offset_is_a_new_command(lane: Partition) -> None:
    await lane.run(by_code())
    successor = await lane.taken_over()
    old = lane.log[0]
    new = replace(old, coordinates=replace(old.coordinates, timestamp=old.coordinates.timestamp + 1))

    assert codes(await successor.take([new])) == [S.INVALID_LIFE_CYCLE_STATE]


async def test_the_record_of_commands_holds_no_secret_and_no_data(j: Journey, lane: Partition) -> None:
    login = login_token()
    await lane.run(by_code(login=login, fields=None), by_identifier(login=login, fields=None))

    rows = await j.owner.fetch("SELECT r::text FROM command_record AS r UNION ALL SELECT t::text FROM transition AS t")

    text = " ".join(row[0] for row in rows)
    for secret in (login, "correct horse", "polina", "Polina", CODE, CODE_OF_IDENTIFIER):
        assert secret not in text


# --- ownership --------------------------------------------------------------------------------------------------------


async def test_a_lane_that_was_taken_writes_nothing(j: Journey, lane: Partition) -> None:
    await lane.taken_over()
    before, records = await snapshot(j), await j.count("command_record")

    with pytest.raises(LaneLost):
        await lane.run(by_code())

    assert await snapshot(j) == before
    assert await j.count("command_record") == records


async def test_a_lane_that_stands_elsewhere_than_its_row_is_lost(j: Journey, lane: Partition) -> None:
    stale = lane.lease
    await lane.run(by_code())
    lane.lease = stale

    with pytest.raises(LaneLost):
        await lane.run(by_code(CARD_CODE))
    assert await j.count("transition") == 1


async def test_a_batch_updates_its_lane_once_whatever_comes_of_it(j: Journey, lane: Partition) -> None:
    await j.owner.execute(
        "CREATE SEQUENCE lane_updates;"
        " CREATE FUNCTION count_update() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM nextval('lane_updates'); RETURN NEW; END $$;"
        " CREATE TRIGGER counted BEFORE UPDATE ON lane FOR EACH ROW EXECUTE FUNCTION count_update()"
    )

    await lane.run(by_code(), by_code(CARD_CODE))
    assert await j.owner.fetchval("SELECT last_value FROM lane_updates") == 1
    assert codes(await lane.run(by_code(EFFECTIVE_CODE))) == ["INVALID_LIFE_CYCLE_STATE"]
    assert await j.owner.fetchval("SELECT last_value FROM lane_updates") == 2


async def test_a_lane_passes_by_what_holds_no_command_and_what_it_decided_before_is_settled(
    j: Journey, lane: Partition
) -> None:
    await lane.run(by_code())
    lane.lease = await j.pipeline.pass_by(lane.lease, 1, 3)

    row = await j.owner.fetchrow("SELECT first_offset, next_offset FROM lane")
    assert row is not None
    assert (*row, lane.lease.next_offset) == (1, 3, 3)
    lane.log += lane.log[:1] * 2  # two markers
    assert codes(await lane.run(by_code(CARD_CODE))) == ["OK"]


async def test_a_lane_that_was_taken_passes_nothing_by(j: Journey, lane: Partition) -> None:
    await lane.taken_over()

    with pytest.raises(LaneLost):
        await j.pipeline.pass_by(lane.lease, 0, 3)

    assert await j.owner.fetchval("SELECT next_offset FROM lane") == 0


async def test_a_lane_taken_between_recall_and_transaction_writes_nothing(database: DatabaseUnderTest) -> None:
    class Takes(PassCodes):
        """Another worker that takes the lane while the pass codes are compared."""

        async def compare(self, lane: int, questions: Sequence[Question]) -> list[PassCodeCheck]:
            await opened.own(0)
            return await super().compare(lane, questions)

    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=Takes()) as opened:
        lane = await opened.lane()

        with pytest.raises(LaneLost):
            await lane.run(by_identifier())
        assert await opened.count("command_record") == await opened.count("transition") == 0


async def test_each_batch_moves_the_row_on(j: Journey, lane: Partition) -> None:
    await lane.run(by_code(), by_code())
    await lane.run(by_code())

    row = await j.owner.fetchrow("SELECT first_offset, next_offset FROM lane WHERE id = $1", lane.lease.lane)
    assert row is not None
    assert tuple(row) == (2, 3)
    assert lane.lease.next_offset == 3


# --- a poison row -----------------------------------------------------------------------------------------------------


async def poison(j: Journey, *names: str) -> None:
    """Make Postgres refuse the transitions of the tokens with these ids from now on."""
    listed = ", ".join(f"'{name}'" for name in names)
    await j.owner.execute(
        "ALTER TABLE access_token ADD CONSTRAINT poison"
        f" CHECK (id NOT IN ({listed}) OR life_cycle_state <> 'EFFECTIVE')"
    )


@pytest.mark.parametrize("place", [0, 1, 3, 6])
async def test_a_poison_row_costs_its_own_command_and_no_other(j: Journey, lane: Partition, place: int) -> None:
    await poison(j, OTHER_TOKEN_ID)
    sent = [
        by_code(),
        (with_pass_code := by_identifier()),
        by_code(login=login_token("ORG2")),
        by_code(EFFECTIVE_CODE),
        by_code("unknown"),
        Sent(b"nonsense"),
    ]
    expected = [S.OK, S.OK, S.OK, S.INVALID_LIFE_CYCLE_STATE, S.ACCESS_TOKEN_NOT_FOUND, S.MALFORMED_REQUEST]
    sent.insert(place, by_code(CARD_CODE, request_id="poison"))
    expected.insert(place, S.INTERNAL_ERROR)

    answered = await lane.run(*sent)

    assert codes(answered) == expected
    assert [each.decoded.delivery for each in answered] == lane.log
    bad = answered[place]
    assert bad.answer.message == "CheckViolationError of poison"
    assert bad.answer.command_id.startswith("rec:")
    assert bad.answer.organisation == "ORG1"
    assert (await j.token(CARD_CODE))["version"] == 0
    assert lane.lease.next_offset == len(sent)
    row = await j.owner.fetchrow("SELECT first_offset, next_offset FROM lane")
    assert row is not None
    # The pass code begins the last part of the batch.
    assert tuple(row) == (sent.index(with_pass_code), len(sent))
    assert verify_chain(await chain(j, lane)) is None


async def test_a_command_that_was_given_up_names_only_an_organisation_that_signed_it(
    j: Journey, lane: Partition
) -> None:
    await j.owner.execute("ALTER TABLE command_record ADD CONSTRAINT poison CHECK (status <> 'INVALID_TOKEN')")

    [bad] = await lane.run(by_code(login=login_token("ORG2", secret="somebody else's secret, long enough for it")))

    assert (codes([bad]), bad.answer.organisation) == ([S.INTERNAL_ERROR], None)


async def test_several_poison_rows_are_each_found(j: Journey, lane: Partition) -> None:
    await poison(j, OTHER_TOKEN_ID, TOKEN_ID)

    answered = await lane.run(by_code(CARD_CODE), by_code(), by_identifier(), by_code(CARD_CODE))

    assert codes(answered) == [S.INTERNAL_ERROR, S.INTERNAL_ERROR, S.OK, S.INTERNAL_ERROR]


async def test_an_applied_id_is_a_duplicate_also_where_the_other_row_would_be_refused(
    j: Journey, lane: Partition
) -> None:
    await poison(j, OTHER_TOKEN_ID)
    await lane.one(by_code(request_id="1"))

    answered = await lane.one(by_code(CARD_CODE, request_id="1"))

    assert codes([answered]) == [S.DUPLICATE_REQUEST]


async def test_a_trigger_that_raises_blames_its_row_too(j: Journey, lane: Partition) -> None:
    await j.owner.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " ASSERT NEW.command_id NOT LIKE 'req:%', 'no: ' || NEW.command_id; RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON command_record FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    bad, good = await lane.run(by_code(CARD_CODE, request_id="canary"), by_code())

    assert codes([bad, good]) == [S.INTERNAL_ERROR, S.OK]
    assert "canary" not in bad.answer.message


async def test_an_internal_error_is_recalled_by_its_record_and_binds_no_id(j: Journey, lane: Partition) -> None:
    await poison(j, OTHER_TOKEN_ID)
    first = await lane.run(by_code(CARD_CODE, request_id="1"), by_code())
    await j.owner.execute("ALTER TABLE access_token DROP CONSTRAINT poison")
    successor = await lane.taken_over()

    assert await successor.take(lane.log) == first
    [again] = await successor.run(by_code(CARD_CODE, request_id="1"))

    assert codes([again]) == [S.OK]
    assert not again.answer.replayed


async def test_a_decided_command_whose_token_cannot_be_shown_keeps_its_answer(
    lane: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await lane.run(by_code(), by_code(CARD_CODE))
    successor = await lane.taken_over()
    shown = project

    async def breaks(connection: Any, asked: Sequence[Any], **options: Any) -> Any:
        if any(token.token == TOKEN_ID for token, _ in asked):
            raise asyncpg.DataError
        return await shown(connection, asked, **options)

    monkeypatch.setattr(pipeline, "project", breaks)
    unshown, whole = await successor.take(lane.log)

    assert whole == first[1]
    assert unshown.answer == replace(first[0].answer, message=unshown.answer.message)
    assert (unshown.data, unshown.transition) == (None, first[0].transition)
    assert "cannot be shown: DataError" in unshown.answer.message


async def test_a_command_at_an_offset_that_was_used_before_is_not_answered_with_the_former_ones_answer(
    j: Journey, lane: Partition
) -> None:
    await lane.run(by_code(request_id="1"))
    successor = await lane.taken_over()
    await poison(j, OTHER_TOKEN_ID)
    former = lane.log[0]
    where = replace(former.coordinates, timestamp=former.coordinates.timestamp + 1)

    [given_up] = await successor.take([replace(former, coordinates=where, value=by_code(CARD_CODE).value)])

    assert codes([given_up]) == [S.INTERNAL_ERROR]
    assert given_up.answer.command_id == where.command_id


# --- races ------------------------------------------------------------------------------------------------------------


class Meanwhile(PassCodes):
    """Changes the database after the pass codes were compared, the first ``times`` times."""

    def __init__(self, statement: str, times: int) -> None:
        super().__init__()
        self.statement = statement
        self.times = times
        self.owner: asyncpg.Connection | None = None
        self.compared = 0
        self.questions: list[int] = []

    async def compare(self, lane: int, questions: Sequence[Question]) -> list[PassCodeCheck]:
        checks = await super().compare(lane, questions)
        self.compared += 1
        self.questions.append(len(questions))
        if self.compared <= self.times:
            assert self.owner is not None
            await self.owner.execute(self.statement)
        return checks


def new_hash(pass_code: str) -> str:
    return HASHER.hash(pass_code)


async def test_only_where_pass_codes_were_compared_are_hashes_asked_for_under_the_lock(
    j: Journey, lane: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[tuple[str, str]]] = []

    async def told(connection: Connection, named: Sequence[tuple[str, str]]) -> list[str | None]:
        asked.append(list(named))
        return await hashes_of(connection, named)

    monkeypatch.setattr("worker.journey.load.hashes_of", told)
    elsewhere = by_identifier("nobody@example.com")

    await lane.run(by_code(), by_code(EFFECTIVE_CODE))
    await lane.run(by_identifier(login=login_token(user="reader")))
    assert asked == []

    # A wrong pass code and an unknown identifier cost as much as a right one.
    await lane.run(by_identifier(), by_identifier(pass_code="wrong"), elsewhere)
    assert asked == [[("ORG1", IDENTIFIER), ("ORG1", "nobody@example.com")]]


async def test_a_pass_code_changed_after_it_was_compared_is_compared_again(database: DatabaseUnderTest) -> None:
    change = f"UPDATE access_token SET pass_code_hash = '{new_hash('new one')}' WHERE identifier = '{IDENTIFIER}'"
    meanwhile = Meanwhile(change, times=1)
    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=meanwhile) as j:
        meanwhile.owner = j.owner
        lane = await j.lane()

        answered = await lane.run(by_identifier(), by_code())

        assert codes(answered) == [S.INVALID_CREDENTIALS, S.OK]
        assert meanwhile.compared == 2
        assert (await j.token(CODE_OF_IDENTIFIER))["version"] == 0


@pytest.mark.parametrize("rehearsed", [False, True], ids=["real", "dry run"])
@pytest.mark.parametrize(
    ("refused", "code"),
    [
        ({"exp": 1}, S.EXPIRED_TOKEN),
        ({"jti": "revoked-login-1"}, S.INVALID_TOKEN),
        ({"user": "reader"}, S.ACCESS_DENIED),
        ({"user": "leaver"}, S.INVALID_TOKEN),
        ({"unit": "none"}, S.INVALID_TOKEN),
        ({"organisation": "none"}, S.INVALID_TOKEN),
        ({"secret": "another secret, as long as the right one"}, S.INVALID_TOKEN),
    ],
    ids=str,
)
async def test_no_pass_code_is_compared_for_who_is_refused_anyhow(
    database: DatabaseUnderTest, refused: dict[str, Any], code: StatusCode, rehearsed: bool
) -> None:
    meanwhile, limits = Meanwhile("", times=0), Limits(identifier=100)
    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=meanwhile, limits=limits) as j:
        lane = await j.lane()
        sent = [by_identifier(login=login_token(**refused)), by_identifier(pass_code="wrong")] * 20

        answered = await lane.run(*map(dry_run, sent) if rehearsed else sent)

        assert codes(answered) == [code, S.INVALID_CREDENTIALS] * 20
        # One caller, one identifier and one pass code, in each part of the batch.
        assert 1 <= sum(meanwhile.questions) <= len(meanwhile.questions)


async def test_who_is_allowed_after_all_has_its_pass_code_compared(database: DatabaseUnderTest) -> None:
    meanwhile = Meanwhile("UPDATE app_user SET rights = '{ACCESS_TOKENS.SET_EFFECTIVE}'", times=1)
    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=meanwhile) as j:
        meanwhile.owner = j.owner
        lane = await j.lane()
        reader = login_token(user="reader")

        answered = await lane.run(by_identifier(login=reader), by_identifier(pass_code="wrong", login=reader))

        assert codes(answered) == [S.OK, S.INVALID_CREDENTIALS]
        assert meanwhile.questions == [0, 2]


async def test_a_hash_that_costs_more_than_any_is_not_computed(j: Journey, lane: Partition) -> None:
    dear = "$argon2id$v=19$m=4194304,t=9,p=1$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ"
    await j.owner.execute("UPDATE access_token SET pass_code_hash = $1 WHERE identifier = $2", dear, IDENTIFIER)
    assert codes(await lane.run(by_identifier())) == [S.INVALID_CREDENTIALS]


async def test_an_identifier_moved_to_another_token_does_not_take_its_pass_code_along(
    database: DatabaseUnderTest,
) -> None:
    move = (
        f"UPDATE access_token SET identifier = NULL WHERE identifier = '{IDENTIFIER}';"
        f"UPDATE access_token SET identifier = '{IDENTIFIER}', pass_code_hash = '{new_hash('other')}'"
        f" WHERE organisation = 'ORG1' AND id = '{OTHER_TOKEN_ID}'"
    )
    meanwhile = Meanwhile(move, times=1)
    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=meanwhile) as j:
        meanwhile.owner = j.owner
        lane = await j.lane()

        assert codes(await lane.run(by_identifier())) == [S.INVALID_CREDENTIALS]
        assert meanwhile.compared == 2
        assert await j.count("transition") == 0


async def test_a_pass_code_that_changes_again_and_again_is_waited_out(database: DatabaseUnderTest) -> None:
    flip = (
        "UPDATE access_token SET pass_code_hash = CASE pass_code_hash"
        f" WHEN '{(one := new_hash('correct horse 7'))}' THEN '{new_hash('correct horse 7')}' ELSE '{one}' END"
        f" WHERE identifier = '{IDENTIFIER}'"
    )
    meanwhile = Meanwhile(flip, times=100)
    async with journey(database.worker_dsn, database.owner_dsn, pass_codes=meanwhile) as j:
        meanwhile.owner = j.owner
        lane = await j.lane()

        with pytest.raises(DependencyUnavailable):
            await lane.run(by_identifier())
        assert await j.count("command_record") == 0
        assert lane.lease.next_offset == 0


@pytest.mark.parametrize("turn", range(5))
async def test_lanes_with_the_same_ids_and_tokens_neither_deadlock_nor_apply_twice(
    database: DatabaseUnderTest, turn: int
) -> None:
    async with journey(database.worker_dsn, database.owner_dsn, connections=8) as j:
        lanes = [await j.lane(number) for number in range(4)]
        sent = [
            by_code(request_id="a"),
            by_code(CARD_CODE, request_id="b"),
            by_code(CODE_OF_IDENTIFIER, request_id="c"),
            by_code(login=login_token("ORG2"), request_id="d"),
        ]
        turned = [sent[(number + turn) % 4 :] + sent[: (number + turn) % 4] for number in range(4)]

        answered = await asyncio.gather(*(lane.run(*each) for lane, each in zip(lanes, turned, strict=True)))

        every = [each for batch in answered for each in batch]
        assert codes(every) == [S.OK] * 16
        assert sum(not each.answer.replayed for each in every) == 4
        assert sorted(each.answer.command_id for each in every if each.transition) == [
            "req:ORG1:a",
            "req:ORG1:b",
            "req:ORG1:c",
            "req:ORG2:d",
        ]
        assert await j.owner.fetchval("SELECT max(version) FROM access_token") == 1
        assert await j.count("transition") == 4
        for lane in lanes:
            assert verify_chain(await chain(j, lane)) is None


@pytest.mark.parametrize("turn", range(5))
async def test_one_id_for_two_requests_on_two_lanes_is_applied_once(j: Journey, turn: int) -> None:
    one, other = await j.lane(0), await j.lane(1)

    answered = await asyncio.gather(one.run(by_code(request_id="1")), other.run(by_code(CARD_CODE, request_id="1")))

    assert sorted(codes([each for batch in answered for each in batch])) == [S.DUPLICATE_REQUEST, S.OK]
    assert await j.count("transition") == 1


async def test_an_id_bound_by_another_lane_after_the_look_up_is_found_in_the_next_round(j: Journey) -> None:
    # The other lane has recorded its command and holds its transaction open: ours finds no id, and then must wait.
    one, other = await j.lane(0), await j.lane(1)
    transaction = j.owner.transaction()
    await transaction.start()
    await j.owner.execute(
        "INSERT INTO command_record"
        " SELECT $1, 0, 0, 'ORG1', $2, 'req:ORG1:1', '\\x00', 'OK', '', false, $3, 1, 1, now()",
        other.lease.lane,
        UUID(command_key("req:ORG1:1")),
        OTHER_TOKEN_ID,
    )
    waiting = asyncio.ensure_future(one.run(by_code(request_id="1")))
    await until_waiting(j.owner)

    await transaction.commit()

    assert codes(await waiting) == [S.DUPLICATE_REQUEST]
    assert (await j.token())["version"] == 0


async def test_a_lock_held_too_long_is_a_dependency_away_and_nothing_happened(j: Journey, lane: Partition) -> None:
    transaction = j.owner.transaction()
    await transaction.start()
    await j.owner.execute("SELECT FROM access_token WHERE id = $1 FOR UPDATE", TOKEN_ID)
    try:
        with pytest.raises(DependencyUnavailable) as away:
            await lane.run(by_code())
    finally:
        await transaction.rollback()
    assert "LockNotAvailableError" in away.value.reason
    assert await j.count("command_record") == 0

    assert codes(await lane.take(lane.log)) == [S.OK]


# --- the chain --------------------------------------------------------------------------------------------------------


async def test_the_facts_of_a_lane_form_one_chain_over_batches_and_owners(j: Journey, lane: Partition) -> None:
    answered = await lane.run(by_code(), by_code(EFFECTIVE_CODE), by_code(CARD_CODE))
    successor = await lane.taken_over()
    answered += await successor.run(by_identifier(), by_code(login=login_token("ORG2")))

    events = [event_of(transition) for transition in transitions(answered)]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert verify_chain(events) is None
    assert events == await chain(j, lane)
    row = await j.owner.fetchrow("SELECT chain_sequence, chain_hash FROM lane")
    assert row is not None
    assert (row["chain_sequence"], row["chain_hash"].hex()) == (4, events[-1]["hash"])


async def test_each_lane_has_a_chain_of_its_own(j: Journey) -> None:
    one, other = await j.lane(0), await j.lane(1)
    await one.run(by_code())
    await other.run(by_code(CARD_CODE))

    for lane in (one, other):
        [event] = await chain(j, lane)
        assert (event["sequence"], event["previous_hash"]) == (1, "0" * 64)


# --- displayed data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reveal", "shown"), [(False, None), (True, "731904")])
async def test_the_verification_code_is_shown_only_where_a_setting_reveals_it(
    database: DatabaseUnderTest, reveal: bool, shown: str | None
) -> None:
    policy = replace(POLICY, reveal_verification_code=reveal)
    await apply_migrations(database.owner_dsn, role=WorkerRole(reveals_verification_codes=reveal))
    async with journey(database.worker_dsn, database.owner_dsn, policy=policy) as j:
        await j.owner.execute("UPDATE access_token SET verification_code = '731904' WHERE id = $1", TOKEN_ID)
        lane = await j.lane()

        answered = await lane.one(by_code(fields="verification_code"))

        assert result_of(answered)["data"] == {"verification_code": shown}


async def test_commands_of_one_batch_see_exactly_the_fields_they_asked_for(lane: Partition) -> None:
    answered = await lane.run(
        by_code(fields="number", request_id="1"),
        by_code(fields="number", request_id="1"),
        by_code(CARD_CODE, fields="classification,id"),
        by_identifier(fields="accounts_receivable"),
    )

    assert [list(result_of(each)["data"]) for each in answered] == [
        ["number"],
        ["number"],
        ["id", "classification"],
        ["accounts_receivable"],
    ]


async def test_each_access_token_is_shown_with_its_own_account_and_its_participants(
    j: Journey, lane: Partition
) -> None:
    await j.owner.execute("INSERT INTO contact (organisation, id, body) VALUES ('ORG1', 'else', '{\"id\": \"else\"}')")
    await j.owner.execute(
        "INSERT INTO accounts_receivable (organisation, id, name, account_owner) VALUES ('ORG1', 'else', 'E', 'else')"
    )
    await j.owner.execute("INSERT INTO accounts_receivable (organisation, id, name) VALUES ('ORG1', 'nobody''s', 'N')")
    await j.owner.execute(
        "INSERT INTO rewards_participant (organisation, id, accounts_receivable)"
        " VALUES ('ORG1', 'theirs', 'else'), ('ORG1', 'none', NULL)"
    )
    for token, account, participant in ((TOKEN_ID, "nobody's", "theirs"), (OTHER_TOKEN_ID, "else", "none")):
        await j.owner.execute(
            "UPDATE access_token SET accounts_receivable = $2, rewards_participant = $3 WHERE id = $1",
            token,
            account,
            participant,
        )
    fields = fields_mask(["accounts_receivable", "rewards_participant"])
    async with j.database.connection() as connection:
        shown = await project(
            connection,
            [(TokenKey("ORG1", TOKEN_ID), fields), (TokenKey("ORG1", OTHER_TOKEN_ID), fields)],
            reveal_verification_code=False,
        )

    bare = {"number": None, "life_cycle_state": None}
    theirs = {"name": "E", "id": "else", "account_owner": {"id": "else"}, **bare}
    assert [json.loads(each) for each in shown.values()] == [
        {
            "accounts_receivable": {"name": "N", "id": "nobody's", "account_owner": None, **bare},
            "rewards_participant": {"id": "theirs", "accounts_receivable": theirs, **bare},
        },
        {
            "accounts_receivable": theirs,
            "rewards_participant": {"id": "none", "accounts_receivable": None, **bare},
        },
    ]


@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks=st.lists(st.integers(1, ALL_FIELDS), min_size=1, max_size=4))
async def test_any_projection_is_that_subset_of_the_whole(j: Journey, masks: list[int]) -> None:
    keys = [TokenKey("ORG1", TOKEN_ID), TokenKey("ORG1", OTHER_TOKEN_ID), TokenKey("ORG2", "gone")]
    await j.owner.execute("GRANT SELECT (verification_code) ON access_token TO effective_worker")
    async with j.database.connection() as connection:
        whole = await project(connection, [(key, ALL_FIELDS) for key in keys], reveal_verification_code=True)
        parts = await project(
            connection, [(key, mask) for key in keys for mask in masks], reveal_verification_code=True
        )

    assert parts.keys() == {(key, mask) for key in keys[:2] for mask in masks}
    for (key, mask), part in parts.items():
        of_whole = json.loads(whole[key, ALL_FIELDS])
        assert list(json.loads(part).items()) == [(name, of_whole[name]) for name in field_names(mask)]


# --- one that takes too long, and too many that fail ------------------------------------------------------------------


async def test_a_command_that_always_takes_too_long_is_given_up_and_its_neighbours_are_not(
    database: DatabaseUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than anything else here takes, and shorter than the slow statement; odd, since it is read back as written.
    monkeypatch.setitem(SERVER_SETTINGS, "statement_timeout", f"{int(in_milliseconds(1)) | 1}ms")
    async with journey(database.worker_dsn, database.owner_dsn) as j:
        await j.owner.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;"
            f"CREATE TRIGGER dawdle BEFORE UPDATE ON access_token FOR EACH ROW WHEN (OLD.id = '{OTHER_TOKEN_ID}')"
            " EXECUTE FUNCTION dawdle()"
        )
        lane = await j.lane()
        answered = await lane.run(by_identifier(), by_code(CARD_CODE), by_code())

        assert codes(answered) == [S.OK, S.INTERNAL_ERROR, S.OK]
        assert "QueryCanceledError" in answered[1].answer.message
        assert (await j.token(CARD_CODE))["version"] == 0


async def test_a_trouble_of_all_commands_is_not_taken_for_their_own(database: DatabaseUnderTest) -> None:
    breaker = CircuitBreaker(lambda: 0.0)
    async with journey(database.worker_dsn, database.owner_dsn, breaker=breaker) as j:
        await poison(j, OTHER_TOKEN_ID, TOKEN_ID)
        lane = await j.lane()
        with pytest.raises(BreakerOpen):
            await lane.run(*(by_code(CARD_CODE, request_id=str(number)) for number in range(FAILURES + 5)))

        assert await j.owner.fetchval("SELECT count(*) FROM command_record WHERE status = 'INTERNAL_ERROR'") == FAILURES
        await j.owner.execute("ALTER TABLE access_token DROP CONSTRAINT poison")
        successor = await lane.taken_over()
        answered = await successor.take(lane.log)
        assert codes(answered) == [S.INTERNAL_ERROR] * FAILURES + [S.OK] + [S.INVALID_LIFE_CYCLE_STATE] * 4
