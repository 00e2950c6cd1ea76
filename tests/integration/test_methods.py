"""Two methods in one worker: each command is judged, decided and answered by its own.

See CONTRIBUTING, A sibling method.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import asyncpg
import pytest

from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE, Method
from tests.providers.postgres import DatabaseUnderTest
from tests.support.builders import OUTGOING
from tests.support.journey import (
    Journey,
    Partition,
    Sent,
    by_code,
    by_identifier,
    codes,
    dry_run,
    journey,
    result_of,
    transitions,
)
from tests.support.logins import login_token
from tests.support.seeded import CARD_CODE, CODE_OF_IDENTIFIER, EFFECTIVE_CODE, PENDING_CODE
from tests.support.sibling import BOTH, MIGRATION, SET_NOT_EFFECTIVE
from worker.journey.decide import RETIRED
from worker.journey.digests import CommandNames
from worker.journey.messages import result_message
from worker.journey.model import Answered

S = StatusCode
IDS: Final[dict[str, dict[str, Any]]] = {"event": {"event": ("/shop", "1")}, "request": {"request_id": "1"}}
each_id = pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())


@pytest.fixture
async def j(database: DatabaseUnderTest) -> AsyncIterator[Journey]:
    async with journey(database.worker_dsn, database.owner_dsn, methods=BOTH) as opened:
        await opened.owner.execute(MIGRATION)
        await allow(opened, SET_EFFECTIVE, SET_NOT_EFFECTIVE)
        yield opened


async def allow(j: Journey, *methods: Method) -> None:
    rights = [method.right for method in methods]
    await j.owner.execute("UPDATE app_user SET rights = $1 WHERE username = 'mpadmin'", rights)


async def retire(j: Journey) -> None:
    """Remove every record, as retention does after thirty days."""
    await j.owner.execute("DELETE FROM command_record")


def back(sent: Sent) -> Sent:
    """Return the same command, of the other method."""
    return of_type(SET_NOT_EFFECTIVE.command_type, sent)


def of_type(command_type: str, sent: Sent) -> Sent:
    return replace(sent, headers=(*sent.headers, ("ce_type", command_type.encode())))


def result_type(answered: Answered) -> str:
    return (dict(result_message(answered, OUTGOING).headers)["ce_type"] or b"").decode()


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
async def test_an_access_token_goes_there_and_back_and_there_again(j: Journey, lane: Partition, together: bool) -> None:
    sent = [by_code(), back(by_code()), by_code()]
    answered = await lane.run(*sent) if together else [await lane.one(each) for each in sent]

    assert codes(answered) == [S.OK] * 3
    assert list(map(result_type, answered)) == [
        SET_EFFECTIVE.result_type,
        SET_NOT_EFFECTIVE.result_type,
        SET_EFFECTIVE.result_type,
    ]
    assert [(each.from_state, each.to_state, each.version) for each in transitions(answered)] == [
        ("NOT_EFFECTIVE", "EFFECTIVE", 1),
        ("EFFECTIVE", "NOT_EFFECTIVE", 2),
        ("NOT_EFFECTIVE", "EFFECTIVE", 3),
    ]
    token = await j.token()
    assert (token["life_cycle_state"], token["version"]) == ("EFFECTIVE", 3)


async def test_each_answer_shows_the_access_token_as_its_command_left_it(lane: Partition) -> None:
    there = by_code(fields="life_cycle_state", request_id="1")
    way_back = back(by_code(fields="life_cycle_state"))

    answered = await lane.run(there, there, way_back, there, by_code(CARD_CODE))

    assert [result_of(each)["data"].get("life_cycle_state") for each in answered] == [
        "EFFECTIVE",
        "EFFECTIVE",
        "NOT_EFFECTIVE",
        "NOT_EFFECTIVE",
        None,
    ]
    assert codes(answered) == [S.OK] * 5


async def test_an_answer_that_is_recalled_shows_no_change_of_a_command_behind_it(lane: Partition) -> None:
    await lane.run(by_code(fields="life_cycle_state"))
    lane.deliver(back(by_code(fields="life_cycle_state")))

    answered = await (await lane.taken_over()).take(lane.log)

    assert [result_of(each)["data"] for each in answered] == [
        {"life_cycle_state": "EFFECTIVE"},
        {"life_cycle_state": "NOT_EFFECTIVE"},
    ]


async def test_by_identifier_and_pass_code_it_is_the_same(lane: Partition) -> None:
    answered = [await lane.one(by_identifier()), await lane.one(back(by_identifier()))]

    assert codes(answered) == [S.OK, S.OK]


async def test_each_method_takes_its_own_right(j: Journey, lane: Partition) -> None:
    await allow(j, SET_NOT_EFFECTIVE)
    denied, done = await lane.run(by_code(), back(by_code(EFFECTIVE_CODE)))
    await allow(j, SET_EFFECTIVE)
    by_pass_code, denied_back = await lane.run(by_identifier(), back(by_code()))

    assert codes([denied, done, by_pass_code, denied_back]) == [S.ACCESS_DENIED, S.OK, S.OK, S.ACCESS_DENIED]
    assert result_of(denied)["status"] == {
        "code": "ACCESS_DENIED",
        "description": "The user is not allowed to set access tokens as effective.",
        "message": "the user lacks the right ACCESS_TOKENS.SET_EFFECTIVE",
    }
    assert result_of(denied_back)["status"] == {
        "code": "ACCESS_DENIED",
        "description": "The user is not allowed to set access tokens as not effective.",
        "message": "the user lacks the right ACCESS_TOKENS.SET_NOT_EFFECTIVE",
    }


async def test_each_method_takes_its_own_state(lane: Partition) -> None:
    there, again = await lane.run(by_code(EFFECTIVE_CODE), back(by_code()))

    assert result_of(there)["status"] == {
        "code": "INVALID_LIFE_CYCLE_STATE",
        "description": "Only a not effective access token can be set as effective.",
        "message": "the access token is EFFECTIVE",
    }
    assert result_of(again)["status"] == {
        "code": "INVALID_LIFE_CYCLE_STATE",
        "description": "Only an effective access token can be set as not effective.",
        "message": "the access token is NOT_EFFECTIVE",
    }


async def test_an_access_token_that_is_gone_is_told_in_the_words_of_the_method(j: Journey, lane: Partition) -> None:
    await lane.one(back(by_code(EFFECTIVE_CODE, request_id="1")))
    rename = "UPDATE access_token SET authentication_code = $1 WHERE authentication_code = $2 AND organisation = 'ORG1'"
    await j.owner.execute(rename, "x", EFFECTIVE_CODE)
    await j.owner.execute(rename, EFFECTIVE_CODE, CARD_CODE)

    again = await lane.one(back(by_code(EFFECTIVE_CODE, request_id="1")))

    assert result_of(again)["status"]["message"] == "the access token that this command has set not effective is gone"


@each_id
async def test_an_id_belongs_to_the_method_that_it_was_applied_by(lane: Partition, ids: dict[str, Any]) -> None:
    there, again, other = await lane.run(by_code(**ids), by_code(**ids), back(by_code(**ids)))

    assert codes([there, again, other]) == [S.OK, S.OK, S.DUPLICATE_REQUEST]
    assert again.answer.replayed


async def test_what_the_worker_cannot_read_is_answered_in_the_type_of_its_method(lane: Partition) -> None:
    unreadable, unknown = await lane.run(
        Sent(b"{", back(by_code()).headers), of_type("access_token.delete.v1", by_code())
    )

    assert codes([unreadable, unknown]) == [S.MALFORMED_REQUEST, S.INVALID_PARAMETER]
    assert [result_type(unreadable), result_type(unknown)] == [SET_NOT_EFFECTIVE.result_type, SET_EFFECTIVE.result_type]
    assert result_of(unknown)["status"]["message"] == (
        'the header ce_type must be "access_token.set_effective.v1" or "access_token.set_not_effective.v1", '
        'not "access_token.delete.v1"'
    )


async def test_a_whole_event_is_of_the_method_that_it_names(lane: Partition) -> None:
    command = by_code(EFFECTIVE_CODE)
    assert command.value is not None
    event = (
        b'{"specversion":"1.0","id":"1","source":"/shop","type":"access_token.set_not_effective.v1","data":%b}'
        % command.value
    )

    answered = await lane.one(Sent(event, (("content-type", b"application/cloudevents+json"),)))

    assert (codes([answered]), result_type(answered)) == ([S.OK], SET_NOT_EFFECTIVE.result_type)


async def test_the_database_refuses_every_other_change(j: Journey) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="is PENDING_VERIFICATION and may not become EFFECTIVE"):
        await j.owner.execute(
            "UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE authentication_code = $1", PENDING_CODE
        )


# --- commands that come again after their record is gone --------------------------------------------------------------


@each_id
@pytest.mark.parametrize("together", [False, True], ids=["alone", "behind the way back"])
async def test_an_old_command_is_not_applied_again(
    j: Journey, lane: Partition, ids: dict[str, Any], together: bool
) -> None:
    await lane.one(by_code(**ids))
    if together:
        await retire(j)
        _, again = await lane.run(back(by_code()), by_code(**ids))
    else:
        await lane.one(back(by_code()))
        await retire(j)
        again = await lane.one(by_code(**ids))

    assert (again.answer.code, again.answer.message) == (S.DUPLICATE_REQUEST, RETIRED)
    assert (await j.token())["life_cycle_state"] == "NOT_EFFECTIVE"


@each_id
async def test_an_old_command_of_the_way_back_is_not_applied_again_either(
    j: Journey, lane: Partition, ids: dict[str, Any]
) -> None:
    await lane.run(by_code(), back(by_code(**ids)), by_code())
    await retire(j)

    again = await lane.one(back(by_code(**ids)))

    assert (again.answer.code, again.answer.message) == (S.DUPLICATE_REQUEST, RETIRED)
    assert (await j.token())["life_cycle_state"] == "EFFECTIVE"


async def test_a_dry_run_of_an_old_command_is_answered_as_the_command_would_be(j: Journey, lane: Partition) -> None:
    await lane.run(by_code(request_id="1"), back(by_code()))
    await retire(j)

    again = await lane.one(dry_run(by_code(request_id="1")))

    assert (again.answer.code, again.answer.message) == (S.DUPLICATE_REQUEST, RETIRED)


async def test_an_old_command_is_known_by_the_names_that_earlier_keys_made(j: Journey, lane: Partition) -> None:
    await lane.run(by_code(request_id="1"), back(by_code()))
    await retire(j)
    names = j.pipeline._names
    j.pipeline._names = CommandNames((b"a newer key", *names.keys))

    again = await lane.one(by_code(request_id="1"))

    assert (again.answer.code, again.answer.message) == (S.DUPLICATE_REQUEST, RETIRED)


async def test_as_long_as_its_record_is_kept_it_is_answered_as_before(j: Journey, lane: Partition) -> None:
    await lane.run(by_code(request_id="1"), back(by_code()))

    again, other = await lane.run(by_code(request_id="1"), by_code(request_id="1", fields="id"))

    assert (again.answer.code, again.answer.replayed) == (S.OK, True)
    assert (other.answer.code, other.answer.message) != (S.DUPLICATE_REQUEST, RETIRED)
    assert other.answer.code is S.DUPLICATE_REQUEST


async def test_a_new_command_under_a_new_id_is_applied(j: Journey, lane: Partition) -> None:
    await lane.run(by_code(request_id="1"), back(by_code(request_id="2")))
    await retire(j)

    again = await lane.one(by_code(request_id="3"))

    assert again.answer.code is S.OK
    assert (await j.token())["version"] == 3


async def test_an_id_is_old_for_the_access_token_that_it_changed_and_its_organisation(
    j: Journey, lane: Partition
) -> None:
    await lane.run(by_code(request_id="1"), back(by_code()), by_code(CARD_CODE), back(by_code(CARD_CODE)))
    await retire(j)
    of_other = by_code(login=login_token("ORG2"), request_id="1")

    card, other = await lane.run(by_code(CARD_CODE, request_id="1"), of_other)
    old, new = await lane.run(by_code(request_id="1"), by_code(CODE_OF_IDENTIFIER, request_id="2"))

    assert codes([card, other, new]) == [S.OK, S.OK, S.OK]
    assert old.answer.code is S.DUPLICATE_REQUEST
