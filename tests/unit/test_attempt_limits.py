"""Guesses are counted in order: a batch counts like its commands one by one."""

from collections.abc import Sequence
from dataclasses import replace as replaced
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effective_contract.codes import StatusCode
from effective_contract.states import LifeCycleState
from tests.support.builders import KEY, WRONG, locked, presented
from worker.journey.attempt_limits import Attempt, Kind, Limits, Series, Subject, attempt_of, wait_after, wait_of
from worker.journey.decide import State, decide, rehearse
from worker.journey.model import Applied, Caller, Decision, Presented, Refused

LIMITS: Final = Limits(codes=3, pass_codes=4, identifier=2, all_callers=5, longest_wait=60.0)
SHOP, OTHER = Caller("ORG1", "shop", "1", None), Caller("ORG1", "other", "1", None)
APP: Final = tuple(Caller("ORG1", "app", "1", account) for account in ("A1", "A2"))
UNKNOWN: Final = Refused(StatusCode.ACCESS_TOKEN_NOT_FOUND, "no access token of yours has this authentication_code")
FIRST, SECOND = b"first identifier", b"second identifier"
WAITS: Final = "ACCESS_DENIED"

Asked = Presented | Refused


def state(token: LifeCycleState = LifeCycleState.NOT_EFFECTIVE) -> State:
    return State({KEY: locked(KEY, token)}, {})


def right(caller: Caller = SHOP, command_id: str = "rec:1") -> Presented:
    return presented(command_id, caller=caller)


def tried(caller: Caller = SHOP, identifier: bytes | None = FIRST) -> Attempt:
    return attempt_of(caller, identifier)


def outcomes(asked: Sequence[Asked], attempts: Sequence[Attempt | None], before: State | None = None) -> list[str]:
    decisions, _ = decide(asked, before or state(), tried=attempts, limits=LIMITS)
    return list(map(outcome, decisions))


def outcome(decision: Decision) -> str:
    return decision.code.value if isinstance(decision, Refused) else "OK"


def test_a_right_pass_code_is_not_looked_at_after_as_many_wrong_ones() -> None:
    asked: list[Asked] = [WRONG, WRONG, right()]

    assert outcomes(asked, [tried()] * 3) == ["INVALID_CREDENTIALS", "INVALID_CREDENTIALS", WAITS]
    assert outcomes(asked[1:], [tried()] * 2) == ["INVALID_CREDENTIALS", "OK"]


def test_what_is_not_looked_at_changes_nothing_and_is_not_counted() -> None:
    _, after = decide([WRONG] * 2, state(), tried=[tried()] * 2, limits=LIMITS)

    assert decide([right(), WRONG], after, tried=[tried()] * 2, limits=LIMITS)[1] == after


def test_the_refusal_names_no_more_than_the_seconds() -> None:
    decisions, _ = decide([WRONG, WRONG, right()], state(), tried=[tried()] * 3, limits=LIMITS)

    assert decisions[2] == Refused(
        StatusCode.ACCESS_DENIED, "too many attempts have failed, and this one was not checked: wait 1 s"
    )


def test_a_callers_wrong_pass_codes_do_not_keep_another_out() -> None:
    asked: list[Asked] = [WRONG, WRONG, right(OTHER)]

    assert outcomes(asked, [tried(), tried(), tried(OTHER)])[2] == "OK"


def test_consumers_of_one_application_are_callers_of_their_own() -> None:
    asked: list[Asked] = [WRONG, WRONG, right(APP[1]), right(APP[0])]

    assert outcomes(asked, [tried(APP[0]), tried(APP[0]), tried(APP[1]), tried(APP[0])])[2:] == ["OK", WAITS]


def test_an_identifier_waits_only_for_several_callers_each_of_whom_counts_no_more_than_makes_it_wait() -> None:
    callers = [Caller("ORG1", f"user {number}", "1", None) for number in range(4)]
    persistent = State(state().tokens, {}, {tried(callers[0]).everybody: Series(2, 0.0)})  # type: ignore[dict-item]
    each_twice = [caller for caller in callers[:3] for _ in range(2)]

    guessed: list[Asked] = [*[WRONG] * 6, right(OTHER)]
    assert outcomes(guessed[-2:], [tried(callers[0]), tried(OTHER)], persistent)[1] == "OK"
    assert outcomes(guessed, [*map(tried, each_twice), tried(OTHER)])[5:] == [WAITS, WAITS]


def test_a_right_pass_code_ends_the_series_of_its_caller_and_identifier() -> None:
    asked: list[Asked] = [WRONG, right(), WRONG, right(command_id="rec:2")]

    assert outcomes(asked, [tried()] * 4) == [
        "INVALID_CREDENTIALS",
        "OK",
        "INVALID_CREDENTIALS",
        "INVALID_LIFE_CYCLE_STATE",
    ]


def test_who_knows_one_pass_code_cannot_guess_at_others_for_ever() -> None:
    others = [tried(identifier=bytes([number])) for number in range(4)]
    effective = state(LifeCycleState.EFFECTIVE)
    asked: list[Asked] = [WRONG, WRONG, right(), WRONG, WRONG, WRONG]

    attempts = [others[0], others[1], tried(), others[2], others[3], tried(identifier=SECOND)]
    assert outcomes(asked, attempts, effective)[-1] == WAITS
    assert outcomes(asked, attempts)[-1] == "INVALID_CREDENTIALS"


def test_a_code_that_is_found_ends_the_series_of_its_callers_codes_whatever_comes_of_it() -> None:
    attempts = [tried(identifier=None)] * 6
    asked: list[Asked] = [UNKNOWN, UNKNOWN, right(), UNKNOWN, UNKNOWN, right(command_id="rec:2")]

    assert outcomes(asked, attempts, state(LifeCycleState.EFFECTIVE))[-1] == "INVALID_LIFE_CYCLE_STATE"
    assert outcomes([UNKNOWN] * 3 + [right()], attempts[:4])[-1] == WAITS


def test_codes_and_pass_codes_are_counted_apart() -> None:
    asked: list[Asked] = [*[UNKNOWN] * 3, right()]

    assert outcomes(asked, [*[tried(identifier=None)] * 3, tried()])[-1] == "OK"


def test_dry_runs_are_guesses_and_end_no_series() -> None:
    asked: list[Asked] = [WRONG, right(), WRONG, right()]

    decisions, after = rehearse(asked, state(), tried=[tried()] * 4, limits=LIMITS)

    assert list(map(outcome, decisions)) == ["INVALID_CREDENTIALS", "OK", "INVALID_CREDENTIALS", WAITS]
    assert after.series[tried().own].failures == 2


@pytest.mark.parametrize(
    ("kind", "failures", "seconds"),
    [
        (Kind.IDENTIFIER, 1, 0.0),
        (Kind.IDENTIFIER, 2, 1.0),
        (Kind.IDENTIFIER, 3, 2.0),
        (Kind.IDENTIFIER, 7, 32.0),
        (Kind.IDENTIFIER, 8, 60.0),
        (Kind.IDENTIFIER, 10_000, 60.0),
        (Kind.CODES, 3, 1.0),
        (Kind.PASS_CODES, 3, 0.0),
        (Kind.ALL_CALLERS, 4, 0.0),
        (Kind.ALL_CALLERS, 5, 60.0),
    ],
)
def test_every_failure_at_a_limit_doubles_the_wait(kind: Kind, failures: int, seconds: float) -> None:
    assert wait_after(kind, failures, LIMITS) == seconds


def test_the_wait_is_over_when_it_has_gone_by() -> None:
    own = Subject("ORG1", Kind.PASS_CODES, "shop")

    assert wait_of(tried(), {own: Series(5, 1.5)}, LIMITS) == 0.5
    assert wait_of(tried(), {own: Series(5, 2.0)}, LIMITS) == 0.0
    # Another lane may have counted after this one's statement began.
    assert wait_of(tried(), {own: Series(4, -0.5)}, LIMITS) == 1.5
    assert wait_of(tried(), {own: Series(3, -0.5)}, LIMITS) == 0.0


attempts = st.one_of(
    st.none(), st.builds(tried, st.sampled_from((SHOP, OTHER)), st.sampled_from((None, FIRST, SECOND)))
)
commands = st.lists(st.tuples(st.sampled_from((WRONG, UNKNOWN, right(), right(OTHER, "rec:2"))), attempts), max_size=20)
tokens = st.builds(state, st.sampled_from(LifeCycleState))


@given(commands, tokens)
def test_a_batch_counts_as_its_commands_one_by_one(
    batch: list[tuple[Presented | Refused, Attempt | None]], before: State
) -> None:
    one_by_one: list[Decision] = []
    now = before
    for command, attempt in batch:
        decided, now = decide([command], now, tried=[attempt], limits=LIMITS)
        one_by_one += decided

    assert decide([each for each, _ in batch], before, tried=[each for _, each in batch], limits=LIMITS) == (
        one_by_one,
        now,
    )


@given(commands, tokens)
def test_what_is_added_and_reset_in_a_batch_makes_the_series_whatever_others_count_meanwhile(
    batch: list[tuple[Presented | Refused, Attempt | None]], before: State
) -> None:
    known = {tried().own: Series(1, 9.0), tried(identifier=None).own: Series(2, 9.0)}

    _, after = decide(
        [each for each, _ in batch],
        replaced(before, series=known),
        tried=[each for _, each in batch],
        limits=LIMITS,
    )

    for subject, series in after.series.items():
        if subject.kind is not Kind.ALL_CALLERS:
            former = 0 if series.reset else known.get(subject, Series()).failures
            assert series.failures == former + series.added
            assert series.failed >= series.added


def test_only_one_that_becomes_effective_is_a_success_of_a_callers_pass_codes() -> None:
    decisions, after = decide([WRONG, right()], state(), tried=[tried(identifier=SECOND), tried()], limits=LIMITS)

    assert isinstance(decisions[1], Applied)
    assert after.series[tried().own].failures == 0
    assert after.series[tried(identifier=SECOND).identifier].failures == 1  # type: ignore[index]
