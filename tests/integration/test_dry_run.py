"""Dry runs over a real Postgres: answered as the real command would be, and without effect (CONTRACT, Command)."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, Final

import pytest

from effective_contract.codes import StatusCode
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
from tests.support.seeded import CARD_CODE, CODE, EFFECTIVE_CODE, IDENTIFIER, OTHER_TOKEN_ID, PENDING_CODE
from worker import pipeline
from worker.errors import BreakerOpen
from worker.journey.messages import messages
from worker.journey.model import Answered
from worker.journey.recall import recall_by_id
from worker.resilience.circuit_breaker import FAILURES, CircuitBreaker

S = StatusCode
ANYTHING: Final[Sequence[Sent]] = (
    by_code(CODE, fields=None),
    by_code(CARD_CODE, request_id="1"),
    by_identifier(event=("/shop", "2")),
    by_code(EFFECTIVE_CODE),
    by_code(PENDING_CODE, request_id="3"),
    by_code("no such code"),
    by_identifier(IDENTIFIER, "wrong"),
    by_code(login=login_token(user="reader")),
    by_code(login="not a login"),
    by_code(fields="colour"),
    Sent(b"not JSON"),
    Sent(None),
)
"""Commands each for another access token, if for any."""


async def holdings(j: Journey) -> dict[str, list[str]]:
    """Return all rows of all tables but that of guesses, which dry runs make too; of the lanes, their chains' heads."""
    tables = {name: rows for name, rows in (await j.every_table()).items() if name != "attempt"}
    rows = await j.owner.fetch("SELECT id, chain_sequence, chain_hash FROM lane ORDER BY id")
    return tables | {"lane": [str(tuple(row)) for row in rows]}


def told(answered: Answered) -> Any:
    """Return the answer that a sender gets, without the parts that differ in every answer."""
    result = result_of(answered)
    if "log_information" in result["data"]:
        result["data"]["log_information"]["updated_date"] = None
    return result, answered.answer.replayed


# --- nothing comes of it ----------------------------------------------------------------------------------------------


async def test_dry_runs_change_no_row_and_publish_nothing_but_their_answers(j: Journey, lane: Partition) -> None:
    before = await holdings(j)

    answered = await lane.run(*map(dry_run, ANYTHING))

    assert await holdings(j) == before
    published = [message for each in answered for message in messages(each, OUTGOING)]
    assert [message.topic for message in published] == ["results"] * len(ANYTHING)
    assert all(("dry_run", b"true") in message.headers for message in published)
    assert lane.lease.next_offset == len(ANYTHING)


async def test_the_real_commands_that_follow_are_answered_as_the_dry_runs_were(lane: Partition) -> None:
    rehearsed = await lane.run(*map(dry_run, ANYTHING))
    real = await lane.run(*ANYTHING)

    assert list(map(told, rehearsed)) == list(map(told, real))
    assert {S.OK, S.INVALID_LIFE_CYCLE_STATE, S.INVALID_CREDENTIALS, S.MALFORMED_REQUEST} <= set(codes(rehearsed))
    own_ids = [n for n, each in enumerate(real) if not each.answer.command_id.startswith("rec:")]
    assert [rehearsed[n].answer.command_id for n in own_ids] == [real[n].answer.command_id for n in own_ids]
    assert len(own_ids) == 3


async def test_a_dry_run_of_an_applied_id_is_a_replay_and_one_for_another_request_a_duplicate(
    j: Journey, lane: Partition
) -> None:
    await lane.one(by_code(request_id="1"))
    before = await holdings(j)

    answered = await lane.run(
        dry_run(by_code(request_id="1")), dry_run(by_code(CARD_CODE, request_id="1")), dry_run(by_code(request_id="2"))
    )

    assert codes(answered) == [S.OK, S.DUPLICATE_REQUEST, S.INVALID_LIFE_CYCLE_STATE]
    assert [each.answer.replayed for each in answered] == [True, False, False]
    assert await holdings(j) == before


# --- as if it alone came now ------------------------------------------------------------------------------------------


async def test_a_token_or_an_id_named_again_and_again_is_answered_as_if_it_was_named_once(
    j: Journey, lane: Partition
) -> None:
    sent = [
        *(dry_run(by_code(request_id=f"{number}")) for number in range(3)),
        *[dry_run(by_code(CARD_CODE, request_id="0", fields="life_cycle_state"))] * 3,
    ]
    before = await holdings(j)

    answered = await lane.run(*sent)

    assert codes(answered) == [S.OK] * len(sent)
    assert not any(each.answer.replayed for each in answered)
    assert result_of(answered[-1])["data"] == {"life_cycle_state": "EFFECTIVE"}
    assert await holdings(j) == before


@pytest.mark.parametrize("cut", range(5))
async def test_an_answer_does_not_depend_on_where_batches_end(lane: Partition, cut: int) -> None:
    sent = [dry_run(by_code(request_id="1")), by_code(), dry_run(by_code(request_id="1")), dry_run(by_code(CARD_CODE))]

    answered = [*(await lane.run(*sent[:cut]) if cut else []), *(await lane.run(*sent[cut:]) if cut < 4 else [])]

    assert codes(answered) == [S.OK, S.OK, S.INVALID_LIFE_CYCLE_STATE, S.OK]


@pytest.mark.parametrize("order", sorted(set(permutations("ddrr"))), ids="".join)
async def test_a_dry_run_sees_the_real_commands_before_it_and_no_dry_ones(
    j: Journey, lane: Partition, order: Sequence[str]
) -> None:
    sent = [dry_run(by_code()) if each == "d" else by_code() for each in order]

    answered = await lane.run(*sent)

    first = order.index("r")
    expected = [S.OK if n < first or n == first else S.INVALID_LIFE_CYCLE_STATE for n in range(len(order))]
    assert codes(answered) == expected
    [transition] = transitions(answered)
    assert (transition.version, transition.sequence) == (1, 1)
    assert answered[first].transition == transition
    assert await j.count("command_record") == 2
    assert lane.lease.next_offset == 4


# --- refused by Postgres ----------------------------------------------------------------------------------------------


async def refuse(j: Journey, *, deferred: bool) -> None:
    """Make a trigger refuse the transition of one access token, at once or when the transaction commits."""
    when = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    await j.owner.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END $$;"
        f"CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON access_token {when}"
        f" FOR EACH ROW WHEN (OLD.id = '{OTHER_TOKEN_ID}') EXECUTE FUNCTION refuse()"
    )


@pytest.mark.parametrize("deferred", [False, True])
async def test_a_row_that_would_be_refused_is_told_so_and_its_neighbours_are_not(
    j: Journey, lane: Partition, deferred: bool
) -> None:
    await refuse(j, deferred=deferred)
    sent = [dry_run(by_code()), dry_run(by_code(CARD_CODE)), dry_run(by_identifier())]
    before = await holdings(j)

    answered = await lane.run(*sent)

    assert codes(answered) == [S.OK, S.INTERNAL_ERROR, S.OK]
    assert await holdings(j) == before
    assert [message.topic for message in messages(answered[1], OUTGOING)] == ["results"]
    assert lane.lease.next_offset == len(sent)
    assert codes(await lane.run(by_code(), by_code(CARD_CODE), by_identifier())) == codes(answered)


async def test_dry_runs_that_fail_do_not_blow_the_fuse_and_are_answered_by_a_blown_one(
    database: DatabaseUnderTest,
) -> None:
    breaker = CircuitBreaker(lambda: 0.0)
    async with journey(database.worker_dsn, database.owner_dsn, breaker=breaker) as j:
        await refuse(j, deferred=False)
        lane = await j.lane()

        answered = await lane.run(*[dry_run(by_code(CARD_CODE))] * (FAILURES + 1))

        assert set(codes(answered)) == {S.INTERNAL_ERROR}
        assert not breaker.is_open
        with pytest.raises(BreakerOpen):
            await lane.run(*[by_code(CARD_CODE)] * (FAILURES + 1))
        successor = await j.lane(1)
        assert codes(await successor.run(dry_run(by_code(CARD_CODE)), dry_run(by_code()))) == [S.INTERNAL_ERROR, S.OK]
        assert breaker.is_open


# --- read again -------------------------------------------------------------------------------------------------------


async def test_read_again_a_dry_run_is_judged_again_and_what_was_recorded_is_recalled(
    j: Journey, lane: Partition
) -> None:
    first = await lane.run(dry_run(by_code()), by_code(), dry_run(by_code(CARD_CODE)), dry_run(Sent(b"not JSON")))
    successor = await lane.taken_over()
    before = await holdings(j)

    again = await successor.take(lane.log)

    assert codes(first) == [S.OK, S.OK, S.OK, S.MALFORMED_REQUEST]
    assert codes(again) == [S.INVALID_LIFE_CYCLE_STATE, S.OK, S.OK, S.MALFORMED_REQUEST]
    assert again[1] == first[1]
    assert transitions(again) == transitions(first)
    assert await holdings(j) == before
    assert codes(await successor.run(by_code(CARD_CODE))) == [S.OK]


async def test_an_id_bound_by_another_lane_after_the_look_up_is_found_in_the_next_try(
    j: Journey, lane: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await j.lane(1)
    await other.one(by_code(request_id="1"))
    looks = 0
    look_up = recall_by_id

    async def late(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return {} if looks == 1 else await look_up(*arguments)

    monkeypatch.setattr(pipeline, "recall_by_id", late)

    answered = await lane.one(dry_run(by_code(CARD_CODE, request_id="1")))

    assert answered.answer.code is S.DUPLICATE_REQUEST
    assert looks == 2
