"""The decision is pure: a batch decided at once equals the same commands decided one by one."""

from collections.abc import Sequence
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from effective_contract.codes import StatusCode
from effective_contract.methods import Methods
from effective_contract.states import LifeCycleState
from tests.support.builders import COMMAND_ID, DIGEST, KEY, WRONG, locked, presented
from tests.support.sibling import BOTH, SET_NOT_EFFECTIVE
from worker.journey.decide import (
    RETIRED,
    AppliedId,
    State,
    decide,
    needs_history,
    needs_id_lookup,
    rehearse,
    rounds,
    shown_at_once,
)
from worker.journey.model import Applied, Decision, LockedToken, Presented, Refused, Replayed, TokenKey

NOT_EFFECTIVE, EFFECTIVE = LifeCycleState.NOT_EFFECTIVE, LifeCycleState.EFFECTIVE
KEYS: Final = (KEY, TokenKey("ORG1", "t2"), TokenKey("ORG1", "t3"))
IDS: Final = (COMMAND_ID, "ce:ORG1:s:2", "req:ORG1:3", "rec:c/t/0/4@5")
DIGESTS: Final = (DIGEST, b"second request")
REFUSALS: Final = (Refused(StatusCode.MALFORMED_REQUEST, "no value"), WRONG)


def state_of(*tokens: LockedToken, **bound: AppliedId) -> State:
    return State({token.key: token for token in tokens}, bound)


def one_by_one(asked: Sequence[Presented | Refused], state: State) -> tuple[list[Decision], State]:
    decisions: list[Decision] = []
    for command in asked:
        decided, state = decide([command], state)
        decisions += decided
    return decisions, state


def commands_of(methods: Methods) -> st.SearchStrategy[list[Presented | Refused]]:
    some, method = st.sampled_from, st.sampled_from(methods.all)
    asked = st.builds(presented, some(IDS), some(DIGESTS), some(KEYS), st.integers(1, 3), method=method)
    return st.lists(st.one_of(asked, some(REFUSALS)), max_size=12)


commands = commands_of(BOTH)
states = st.builds(
    State,
    st.fixed_dictionaries(
        {key: st.builds(locked, st.just(key), st.sampled_from(LifeCycleState), st.integers(0, 9)) for key in KEYS}
    ),
    st.dictionaries(
        st.sampled_from(IDS),
        st.builds(AppliedId, st.sampled_from((*DIGESTS, None)), st.sampled_from((*KEYS, TokenKey("o", "x")))),
    ),
)


@given(commands, states)
def test_a_batch_decided_at_once_equals_its_commands_decided_one_by_one(
    asked: list[Presented | Refused], state: State
) -> None:
    assert decide(asked, state) == one_by_one(asked, state)


@given(commands, states)
def test_rehearsed_each_command_is_decided_as_if_it_alone_came_now(
    asked: list[Presented | Refused], state: State
) -> None:
    alone = [decision for command in asked for decision in decide([command], state)[0]]

    assert rehearse(asked, state)[0] == alone


@given(commands, states)
def test_what_is_rehearsed_could_come_true_round_by_round(asked: list[Presented | Refused], state: State) -> None:
    decisions, _ = rehearse(asked, state)

    dealt = rounds(decisions)

    assert sorted(position for each in dealt for position in each) == list(range(len(asked)))
    for number, positions in enumerate(dealt):
        changing = [n for n in positions if not isinstance(decisions[n], Refused)]
        assert number == 0 or changing == positions
        assert decide([asked[n] for n in changing], state)[0] == [decisions[n] for n in changing]


def test_commands_that_do_not_meet_are_one_round() -> None:
    first, other, again = presented(IDS[0]), presented(IDS[1], token=KEYS[1]), presented(IDS[2])
    asked: list[Presented | Refused] = [first, REFUSALS[0], other, again]

    assert rounds(rehearse(asked, state_of(locked(KEYS[0]), locked(KEYS[1])))[0]) == [[0, 1, 2], [3]]
    assert rounds([]) == []


@given(commands, states)
def test_without_the_ids_that_need_no_lookup_it_decides_the_same_or_binds_a_bound_id(
    asked: list[Presented | Refused], state: State
) -> None:
    looked_up = {command.command_id for command in needs_id_lookup(asked, state.tokens)}
    known = {command_id: bound for command_id, bound in state.bound.items() if command_id in looked_up}

    decisions, _ = decide(asked, State(state.tokens, known))

    binds = {decision.presented.command_id for decision in decisions if isinstance(decision, Applied)}
    assert binds & state.bound.keys() or decisions == decide(asked, state)[0]


@given(commands, states, st.integers(0, 12))
def test_a_batch_may_be_cut_anywhere(asked: list[Presented | Refused], state: State, cut: int) -> None:
    left, between = decide(asked[:cut], state)
    right, after = decide(asked[cut:], between)

    assert (left + right, after) == decide(asked, state)


@given(commands, states)
def test_a_decision_changes_nothing_it_was_given(asked: list[Presented | Refused], state: State) -> None:
    tokens, bound, given_commands = dict(state.tokens), dict(state.bound), list(asked)

    decide(asked, state)

    assert (state.tokens, state.bound, asked) == (tokens, bound, given_commands)


@given(commands_of(Methods()), states)
def test_each_token_is_applied_at_most_once_and_only_from_not_effective(
    asked: list[Presented | Refused], state: State
) -> None:
    decisions, after = decide(asked, state)

    applied = [decision for decision in decisions if isinstance(decision, Applied)]
    changed = [decision.presented.token for decision in applied]
    assert len(set(changed)) == len(changed)
    assert all(state.tokens[key].state is NOT_EFFECTIVE for key in changed)
    assert all(
        (decision.from_state, decision.to_state) == (NOT_EFFECTIVE, EFFECTIVE)
        and decision.version == state.tokens[decision.presented.token].version + 1
        for decision in applied
    )
    assert {key for key in KEYS if after.tokens[key] != state.tokens[key]} == set(changed)


@given(commands, states)
def test_each_id_is_bound_at_most_once_and_never_rebound(asked: list[Presented | Refused], state: State) -> None:
    decisions, after = decide(asked, state)

    applied = [decision.presented.command_id for decision in decisions if isinstance(decision, Applied)]
    assert len(set(applied)) == len(applied)
    assert not set(applied) & state.bound.keys()
    assert after.bound.keys() == state.bound.keys() | set(applied)
    assert all(after.bound[known] == state.bound[known] for known in state.bound)


@given(commands, states)
def test_there_is_one_decision_per_command_about_that_command(asked: list[Presented | Refused], state: State) -> None:
    decisions, _ = decide(asked, state)

    assert len(decisions) == len(asked)
    for command, decision in zip(asked, decisions, strict=True):
        if isinstance(command, Refused):
            assert decision is command
        elif isinstance(decision, Applied | Replayed):
            assert decision.presented is command


def test_of_two_commands_for_one_token_the_first_applies_and_the_second_sees_effective() -> None:
    first, second = presented(IDS[0]), presented(IDS[1])

    decisions, after = decide([first, second], state_of(locked(KEYS[0])))

    assert decisions == [
        Applied(first, NOT_EFFECTIVE, EFFECTIVE, 1),
        Refused(StatusCode.INVALID_LIFE_CYCLE_STATE, "the access token is EFFECTIVE"),
    ]
    assert (after.tokens[KEYS[0]].state, after.tokens[KEYS[0]].version) == (EFFECTIVE, 1)


def test_the_same_id_and_request_twice_in_a_batch_is_a_replay() -> None:
    decisions, after = decide([presented(), presented()], state_of(locked(KEYS[0], version=4)))

    assert decisions == [Applied(presented(), NOT_EFFECTIVE, EFFECTIVE, 5), Replayed(presented(), KEYS[0])]
    assert after.tokens[KEYS[0]].version == 5


def test_the_same_id_for_another_request_in_a_batch_is_a_duplicate_and_changes_nothing() -> None:
    other = presented(digest=DIGESTS[1], token=KEYS[1])

    decisions, after = decide([presented(), other], state_of(locked(KEYS[0]), locked(KEYS[1])))

    assert isinstance(decisions[0], Applied)
    assert isinstance(decisions[1], Refused)
    assert decisions[1].code is StatusCode.DUPLICATE_REQUEST
    assert after.tokens[KEYS[1]] == locked(KEYS[1])


def test_a_refused_command_does_not_bind_its_id() -> None:
    refused, good = presented(token=KEYS[0]), presented(digest=DIGESTS[1], token=KEYS[1])

    decisions, after = decide([refused, good], state_of(locked(KEYS[0], EFFECTIVE), locked(KEYS[1])))

    assert isinstance(decisions[0], Refused)
    assert isinstance(decisions[1], Applied)
    assert after.bound == {IDS[0]: AppliedId(DIGESTS[1], KEYS[1])}


def test_a_duplicate_is_told_before_the_state_is_looked_at() -> None:
    bound = State({KEYS[0]: locked(KEYS[0], EFFECTIVE)}, {IDS[0]: AppliedId(DIGESTS[1], KEYS[1])})

    [decision], _ = decide([presented()], bound)

    assert isinstance(decision, Refused)
    assert decision.code is StatusCode.DUPLICATE_REQUEST


def test_a_replay_whose_code_has_moved_to_another_token_shows_neither() -> None:
    bound = State({KEYS[0]: locked(KEYS[0])}, {IDS[0]: AppliedId(DIGESTS[0], KEYS[1])})

    [decision], after = decide([presented()], bound)

    assert decision == Replayed(presented(), None)
    assert after == bound


def test_the_refusal_names_the_state() -> None:
    for state in (EFFECTIVE, LifeCycleState.PENDING_VERIFICATION):
        [decision], _ = decide([presented()], state_of(locked(KEYS[0], state)))

        assert decision == Refused(StatusCode.INVALID_LIFE_CYCLE_STATE, f"the access token is {state.value}")


def test_each_command_is_decided_by_its_own_method() -> None:
    back, forth = presented(IDS[0], method=SET_NOT_EFFECTIVE), presented(IDS[1])

    decisions, after = decide([back, forth, back], state_of(locked(KEYS[0], EFFECTIVE, 7)))

    assert decisions == [
        Applied(back, EFFECTIVE, NOT_EFFECTIVE, 8),
        Applied(forth, NOT_EFFECTIVE, EFFECTIVE, 9),
        Replayed(back, KEYS[0]),
    ]
    assert after.tokens[KEYS[0]].state is EFFECTIVE


def test_an_id_that_only_the_history_knows_is_refused_in_any_state() -> None:
    for state in LifeCycleState:
        [decision], _ = decide([presented()], State({KEY: locked(KEY, state, 2)}, {COMMAND_ID: AppliedId(None, KEY)}))

        assert decision == Refused(StatusCode.DUPLICATE_REQUEST, RETIRED)


@given(commands, states)
def test_answers_that_are_read_at_once_show_each_access_token_as_their_command_left_it(
    asked: list[Presented | Refused], state: State
) -> None:
    decisions, _ = decide(asked, state)
    most = shown_at_once(decisions)
    _, read = decide(asked[:most], state)

    now = state
    for command, decision in zip(asked[:most], decisions, strict=False):
        _, now = decide([command], now)
        token = decision.presented.token if isinstance(decision, Applied) else getattr(decision, "token", None)
        assert token is None or token not in state.tokens or now.tokens[token] == read.tokens[token]
    assert most > 0 or not decisions
    assert most == len(decisions) or isinstance(decisions[most], Applied)


@given(commands_of(Methods()), states)
def test_one_method_alone_shows_no_access_token_in_two_states(asked: list[Presented | Refused], state: State) -> None:
    without = State(state.tokens, {})

    decisions, _ = decide(asked, without)

    assert shown_at_once(decisions) == len(decisions)


@given(commands, commands)
def test_no_command_is_applied_again_once_its_record_is_retired(
    asked: list[Presented | Refused], again: list[Presented | Refused]
) -> None:
    decisions, before = decide(asked, state_of(*map(locked, KEYS)))
    facts = {_fact(each.presented) for each in decisions if isinstance(each, Applied)}
    named = {(command_id, token) for command_id, token, _ in facts}

    looked_up = needs_history(again, before.tokens, BOTH.returning)
    known = {
        each.command_id: AppliedId(None, each.token) for each in looked_up if (each.command_id, each.token) in named
    }
    decided, _ = decide(again, State(before.tokens, known))

    assert facts.isdisjoint(_fact(each.presented) for each in decided if isinstance(each, Applied))


def _fact(command: Presented) -> tuple[str, TokenKey, str]:
    return command.command_id, command.token, command.method.name


def test_no_history_is_read_where_no_method_leads_back() -> None:
    asked = [presented(), presented(IDS[1])]

    assert needs_history(asked, {KEY: locked(KEY, version=9)}, Methods().returning) == []
    assert needs_history(asked[:1], {KEY: locked(KEY, version=1)}, BOTH.returning) == []
