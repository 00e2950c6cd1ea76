"""Guesses are counted where they are decided, and a caller who makes too many must wait (CONTRACT, Attempts)."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from tests.providers.postgres import DatabaseUnderTest
from tests.support.journey import KEY, Journey, by_code, by_identifier, codes, dry_run, journey
from tests.support.logins import login_token
from tests.support.seeded import CARD_CODE, CODE, EFFECTIVE_CODE, IDENTIFIER, PASS_CODE, USER_ID
from tests.support.waiting import in_time
from worker.journey.attempt_limits import Limits
from worker.journey.digests import digest
from worker.journey.pass_codes import PassCodeCheck, PassCodes, Question
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.operations.retention import Retention

LIMITS: Final = Limits(codes=5, pass_codes=6, identifier=3, all_callers=7, longest_wait=600.0)
WRONG: Final = by_identifier(pass_code="not this one")
UNKNOWN: Final = by_code("00000000000")
INVALID, DENIED, NOT_FOUND = "INVALID_CREDENTIALS", "ACCESS_DENIED", "ACCESS_TOKEN_NOT_FOUND"


class Counting(PassCodes):
    """Counts the pass codes that are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.compared = 0

    async def compare(self, lane: int, questions: Sequence[Question]) -> list[PassCodeCheck]:
        self.compared += len(questions)
        return await super().compare(lane, questions)


class Watched:
    """A journey with tight limits, and its observable state."""

    def __init__(self, opened: Journey, metrics: Metrics, pass_codes: Counting) -> None:
        self.j = opened
        self.metrics = metrics
        self.pass_codes = pass_codes

    async def series(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return failures in a row and in all, by kind and user."""
        rows = await self.j.owner.fetch("SELECT kind, user_id, failures, failed FROM attempt ORDER BY 1, 2")
        return {(row["kind"], row["user_id"]): (row["failures"], row["failed"]) for row in rows}

    async def let_go_by(self, seconds: float) -> None:
        await self.j.owner.execute("UPDATE attempt SET last_at = last_at - $1::interval", timedelta(seconds=seconds))

    def counted(self, name: str) -> dict[str, float]:
        """Return a counter's values above zero, by its labels as they are written."""
        lines = self.metrics.text().decode().splitlines()
        values = [line.rpartition(" ") for line in lines if line.startswith(f"effective_worker_{name}")]
        return {
            labels.removeprefix(f"effective_worker_{name}"): float(value) for labels, _, value in values if float(value)
        }


@pytest.fixture
async def w(database: DatabaseUnderTest) -> AsyncIterator[Watched]:
    metrics, pass_codes = Metrics(), Counting()
    async with journey(
        database.worker_dsn, database.owner_dsn, limits=LIMITS, metrics=metrics, pass_codes=pass_codes
    ) as opened:
        yield Watched(opened, metrics, pass_codes)


async def add_user(w: Watched, name: str) -> str:
    """Add another user with the right, and return a login of it."""
    await w.j.owner.execute(
        "INSERT INTO app_user (organisation, id, username, unit, rights)"
        " VALUES ('ORG1', $1, $1, '1', '{ACCESS_TOKENS.SET_EFFECTIVE}')",
        name,
    )
    return login_token(user=name)


async def test_past_the_limit_the_right_pass_code_is_refused_and_nothing_is_hashed_for_it(w: Watched) -> None:
    lane = await w.j.lane()
    assert codes(await lane.run(WRONG, WRONG, WRONG)) == [INVALID] * 3
    spent = w.pass_codes.compared

    refused = await lane.one(by_identifier())

    assert (refused.answer.code, w.pass_codes.compared) == (DENIED, spent)
    assert refused.answer.message == "too many attempts have failed, and this one was not checked: wait 1 s"
    assert (await w.j.token(code="99021047383"))["life_cycle_state"] == "NOT_EFFECTIVE"
    assert await w.series() == {("identifier", USER_ID): (3, 3), ("pass_codes", USER_ID): (3, 3)}


async def test_after_the_wait_it_is_looked_at_and_a_right_one_ends_the_series(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(WRONG, WRONG, WRONG)
    await w.let_go_by(1.0)

    assert codes(await lane.run(by_identifier(), WRONG, WRONG)) == ["OK", INVALID, INVALID]
    assert await w.series() == {("identifier", USER_ID): (2, 5), ("pass_codes", USER_ID): (2, 5)}


async def test_the_wait_doubles_with_every_failure_after_it(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(WRONG, WRONG, WRONG)
    for seconds in (1, 2, 4):
        await w.let_go_by(seconds - 0.5)
        assert codes(await lane.run(WRONG)) == [DENIED]
        await w.let_go_by(0.5)
        assert codes(await lane.run(WRONG)) == [INVALID]


async def test_in_one_batch_no_more_are_looked_at_than_one_by_one(w: Watched) -> None:
    lane = await w.j.lane()

    assert codes(await lane.run(*[WRONG] * 5, by_identifier())) == [INVALID] * 3 + [DENIED] * 3
    assert codes(await lane.run(*[UNKNOWN] * 7, by_code())) == [NOT_FOUND] * 5 + [DENIED] * 3


async def test_one_caller_cannot_lock_another_out(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(*[WRONG] * 10)
    other = await add_user(w, "other")

    assert codes(await lane.run(by_identifier(login=other))) == ["OK"]


async def test_an_identifier_that_many_callers_guess_at_waits_for_all_of_them(w: Watched) -> None:
    lane = await w.j.lane()
    logins = [await add_user(w, f"user {number}") for number in range(4)]
    with capture_logs() as lines:
        for login in logins[:3]:
            await lane.run(*[by_identifier(pass_code="no", login=login)] * 5)

    told = [line for line in lines if line["event"] == "attempts_limited"]
    assert [(line["kind"], line["user_id"]) for line in told] == [
        ("identifier", "user 0"),
        ("identifier", "user 1"),
        ("all_callers", None),
    ]
    assert told[-1]["wait_seconds"] == LIMITS.longest_wait
    assert codes(await lane.run(by_identifier(login=logins[3]))) == [DENIED]
    await w.let_go_by(LIMITS.longest_wait)
    assert codes(await lane.run(by_identifier(login=logins[3]))) == ["OK"]


async def test_an_unknown_identifier_is_counted_as_a_known_one(w: Watched) -> None:
    lane = await w.j.lane()
    nobody = by_identifier("nobody@example.com")

    assert codes(await lane.run(*[nobody] * 4)) == [INVALID] * 3 + [DENIED]


async def test_unknown_codes_are_counted_and_a_code_that_is_found_ends_their_series(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(*[UNKNOWN] * 4)
    assert await w.series() == {("codes", USER_ID): (4, 4)}

    await lane.run(by_code(EFFECTIVE_CODE), UNKNOWN)

    assert await w.series() == {("codes", USER_ID): (1, 5)}
    assert codes(await lane.run(*[UNKNOWN] * 4, by_code())) == [NOT_FOUND] * 4 + [DENIED]


async def test_what_was_applied_before_is_not_told_to_who_must_wait(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(by_code(request_id="1"))
    await lane.run(*[UNKNOWN] * 5)

    assert codes(await lane.run(by_code(request_id="1"))) == [DENIED]
    await w.let_go_by(1.0)
    [again] = await lane.run(by_code(request_id="1"))
    assert (again.answer.code, again.answer.replayed) == ("OK", True)


async def test_dry_runs_count_as_guesses_and_end_no_series(w: Watched) -> None:
    lane = await w.j.lane()

    assert codes(await lane.run(dry_run(WRONG), dry_run(by_identifier()), dry_run(WRONG), dry_run(WRONG), WRONG)) == [
        INVALID,
        "OK",
        INVALID,
        INVALID,
        DENIED,
    ]
    assert await w.series() == {("identifier", USER_ID): (3, 3), ("pass_codes", USER_ID): (3, 3)}
    assert await w.j.count("command_record") == 1


async def test_records_that_are_read_again_count_once(w: Watched) -> None:
    lane = await w.j.lane()
    first = await lane.run(WRONG, UNKNOWN)

    assert await (await lane.taken_over()).take(lane.log) == first
    assert await w.series() == {
        ("identifier", USER_ID): (1, 1),
        ("pass_codes", USER_ID): (1, 1),
        ("codes", USER_ID): (1, 1),
    }


async def test_lanes_that_count_at_once_count_everything(w: Watched) -> None:
    w.j.pipeline._attempts.limits = Limits()
    lanes = [await w.j.lane(number) for number in range(4)]
    sent = [by_identifier("a@example.com"), by_identifier("b@example.com"), by_code("1"), by_code("2")]

    ran = [lane.run(*sent) if number % 2 else lane.run(*reversed(sent)) for number, lane in enumerate(lanes)]
    await in_time(asyncio.gather(*ran), "all lanes had decided")

    assert await w.series() == {
        ("codes", USER_ID): (8, 8),
        ("pass_codes", USER_ID): (8, 8),
        ("identifier", USER_ID): (4, 4),
    }
    assert await w.j.count("attempt") == 4


async def test_lanes_cannot_look_at_more_guesses_of_one_access_token_together_than_one_could(w: Watched) -> None:
    lanes = [await w.j.lane(number) for number in range(4)]

    answered = await in_time(asyncio.gather(*(lane.run(WRONG, WRONG) for lane in lanes)), "all lanes had decided")

    assert sorted(code for each in answered for code in codes(each)) == [DENIED] * 5 + [INVALID] * 3


async def test_what_had_to_wait_when_it_was_verified_is_verified_when_it_need_no_longer(
    w: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = await w.j.lane()
    await lane.run(WRONG, WRONG, WRONG)
    verify = w.j.pipeline._verify
    times = 0

    async def slow(number: int, items: Any) -> Any:
        nonlocal times
        verified = await verify(number, items)
        times += 1
        await w.let_go_by(1.0)
        return verified

    monkeypatch.setattr(w.j.pipeline, "_verify", slow)

    assert codes(await lane.run(by_identifier())) == ["OK"]
    assert times == 2


async def test_the_record_keeps_who_was_refused_and_a_keyed_digest_of_what_for(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(WRONG, UNKNOWN, by_code(), by_code(EFFECTIVE_CODE), *[WRONG] * 3)

    rows = await w.j.owner.fetch("SELECT status, user_id, digest FROM command_record ORDER BY record_offset")

    identifier, code = (
        digest(KEY, what, "ORG1", name) for what, name in (("identifier", IDENTIFIER), ("code", "00000000000"))
    )
    assert [(row["status"], row["user_id"]) for row in rows] == [
        (INVALID, USER_ID),
        (NOT_FOUND, USER_ID),
        ("OK", None),
        ("INVALID_LIFE_CYCLE_STATE", None),
        (INVALID, USER_ID),
        (INVALID, USER_ID),
        (DENIED, USER_ID),
    ]
    assert [row["digest"] for row in rows if row["user_id"]] == [identifier, code, *[identifier] * 3]
    for row in [*rows, *await w.j.owner.fetch("SELECT * FROM attempt")]:
        assert IDENTIFIER not in str(row)
        assert IDENTIFIER.encode() not in b"".join(value for value in row.values() if isinstance(value, bytes))


async def test_at_each_threshold_a_line_and_a_metric_say_who_and_how_long_but_not_on_whom(w: Watched) -> None:
    lane = await w.j.lane()
    with capture_logs() as lines:
        await lane.run(WRONG, WRONG)
        assert [line for line in lines if line["event"] == "attempts_limited"] == []
        await lane.run(WRONG, WRONG, UNKNOWN)

    [line] = [line for line in lines if line["event"] == "attempts_limited"]
    assert line == {
        "event": "attempts_limited",
        "log_level": "warning",
        "kind": "identifier",
        "organisation": "ORG1",
        "user_id": USER_ID,
        "account": None,
        "identifier_digest": digest(KEY, "identifier", "ORG1", IDENTIFIER).hex()[:16],
        "failures": 3,
        "wait_seconds": 1.0,
    }
    assert w.counted("attempts_failed_total") == {'{kind="pass_codes"}': 3.0, '{kind="codes"}': 1.0}
    assert w.counted("attempts_limited_total") == {'{kind="identifier"}': 1.0}
    assert w.counted("attempts_refused_total") == {"": 1.0}
    assert not any(secret in str(lines) for secret in (IDENTIFIER, PASS_CODE, "not this one", CODE))


async def test_a_batch_that_postgres_refuses_has_counted_nothing(w: Watched) -> None:
    lane = await w.j.lane()
    await w.j.owner.execute(
        "ALTER TABLE command_record ADD CONSTRAINT refused CHECK (record_offset <> 1 OR status = 'INTERNAL_ERROR')"
    )

    await lane.run(UNKNOWN, by_code(CARD_CODE), UNKNOWN)

    assert await w.series() == {("codes", USER_ID): (2, 2)}


async def test_a_series_is_forgotten_with_the_records_of_its_time(w: Watched) -> None:
    lane = await w.j.lane()
    await lane.run(WRONG)
    retention = Retention(w.j.database, days=30, clock=time.time, metrics=w.metrics, health=Health())
    await w.let_go_by(29.9 * 86400)
    await retention.retire(asyncio.Event())
    assert await w.j.count("attempt") == 2

    await w.let_go_by(0.2 * 86400)
    await retention.retire(asyncio.Event())

    assert await w.j.count("attempt") == 0
