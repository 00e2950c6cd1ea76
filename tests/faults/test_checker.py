"""The checker notices every broken promise, each planted into otherwise clean evidence."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import pytest

from effective_contract.transition import FIRST_PREVIOUS_HASH, event_hash
from tests.faults.checker import Model, Report, check
from tests.faults.holdings import too_much
from tests.faults.kinds import KINDS, kinds_of
from tests.faults.ledger import Command, DeadLetter, Delivery, Event, Evidence, Ledger, Result, Seen, Sent
from tests.faults.mutants import MUTANTS
from tests.faults.rules import Rule, Side, Verdict

FIELDS: Final = "authentication_code,life_cycle_state"
RESULTS: Final = "results"


def command(number: int, partition: int, code: str, identity: str | None = None, **members: Any) -> Command:
    return Command(number, partition, code, members.pop("fields", FIELDS), identity, **members)


# Partition 0 tells every story in one lane; 1 and 2 are rivals for one token, 2 and 3 for one id.
COMMANDS: Final = (
    command(0, 0, "a", "id-a"),
    command(1, 0, "a", "id-a"),
    command(2, 0, "a", "id-a", fields="life_cycle_state"),
    command(3, 0, "a", "id-late"),
    command(4, 0, "nobody", "id-nobody"),
    command(5, 0, "already", "id-already"),
    command(6, 0, "b", flaw="MALFORMED_REQUEST"),
    command(7, 0, "b", flaw="INVALID_TOKEN"),
    command(8, 0, "b", "id-b"),
    command(9, 1, "c", "id-c"),
    command(10, 2, "c", "id-c-too"),
    command(11, 2, "d", "id-d"),
    command(12, 3, "d", "id-d"),
    command(13, 0, "b", "id-dry", dry_run=True),
    command(14, 0, "untouched", "id-dry", dry_run=True),
    command(15, 0, "b", flaw="MALFORMED_REQUEST", dry_run=True),
)
ANSWERS: Final = (
    ("OK", False),
    ("OK", True),
    ("DUPLICATE_REQUEST", False),
    ("INVALID_LIFE_CYCLE_STATE", False),
    ("ACCESS_TOKEN_NOT_FOUND", False),
    ("INVALID_LIFE_CYCLE_STATE", False),
    ("MALFORMED_REQUEST", False),
    ("INVALID_TOKEN", False),
    ("OK", False),
    # The later partition came first in both races.
    ("INVALID_LIFE_CYCLE_STATE", False),
    ("OK", False),
    ("OK", True),
    ("OK", False),
    ("INVALID_LIFE_CYCLE_STATE", False),
    ("OK", False),
    ("MALFORMED_REQUEST", False),
)
LANES: Final = {"a": "0", "b": "0", "c": "2", "d": "3"}


@dataclass
class Case:
    """A run that kept every promise, to be spoilt."""

    ledger: Ledger
    evidence: Evidence

    def report(self) -> Report:
        return check(self.ledger, self.evidence)

    def rules(self) -> set[Rule]:
        return {violation.rule for violation in self.report().violations}


def events() -> list[dict[str, Any]]:
    heads: dict[str, tuple[int, str]] = {}
    written = []
    for token, lane in LANES.items():
        sequence, previous = heads.get(lane, (0, FIRST_PREVIOUS_HASH))
        event: dict[str, Any] = {
            "access_token_id": token,
            "version": 1,
            "lane": lane,
            "sequence": sequence + 1,
            "previous_hash": previous,
        }
        event["hash"] = event_hash(event)
        heads[lane] = (event["sequence"], event["hash"])
        written.append(event)
    return written


def published(event: dict[str, Any]) -> Event:
    return Event(int(event["lane"]), event["sequence"] * 2, f"{event['access_token_id']}/{event['version']}", event)


def placed() -> list[Sent]:
    ends: dict[int, int] = {}
    sent = []
    for each in COMMANDS:
        offset = ends.get(each.partition, 0)
        ends[each.partition] = offset + 1
        sent.append(Sent(each.partition, offset, each.number))
    return sent


def results() -> list[Result]:
    whole = {"life_cycle_state": "EFFECTIVE"}
    answered = []
    for each, (status, replayed), at in zip(COMMANDS, ANSWERS, placed(), strict=True):
        data = {"authentication_code": each.code, **whole} if status == "OK" else None
        named = f"ce:ORG1:%2Ffaults:{each.identity}"
        own = named if status == "OK" and not each.dry_run else f"{each.partition}/{at.offset}"
        told = (status, replayed, named, own, data, each.dry_run)
        answered.append(Result(each.partition, at.offset * 2, each.number, *told))
    return answered


@pytest.fixture
def case() -> Case:
    known = frozenset({"a", "b", "c", "d", "untouched", "already"})
    states = dict.fromkeys(LANES, ("EFFECTIVE", 1))
    states |= {"untouched": ("NOT_EFFECTIVE", 0), "already": ("EFFECTIVE", 0)}
    saw = {RESULTS: [Seen(each.partition, each.offset, b"same") for each in results()]}
    evidence = Evidence(
        sent=placed(),
        results=results(),
        events=[published(event) for event in events()],
        dead_letters=[DeadLetter(0, 6, "MALFORMED_REQUEST")],
        history=events(),
        recorded={at.place for at in placed() if not COMMANDS[at.number].dry_run},
        states=states,
        committed={0: 12, 1: 1, 2: 2, 3: 1},
        ends={0: 12, 1: 1, 2: 2, 3: 1},
        during=deepcopy(saw),
        after=saw,
    )
    return Case(Ledger(list(COMMANDS), known, frozenset({"already"})), evidence)


def without(things: Sequence[Any], place: int) -> list[Any]:
    return [*things[:place], *things[place + 1 :]]


def changed(things: Sequence[Any], place: int, **members: Any) -> list[Any]:
    return [*things[:place], replace(things[place], **members), *things[place + 1 :]]


def test_a_run_that_kept_every_promise_is_clean(case: Case) -> None:
    report = case.report()
    assert report.violations == []
    assert report.commands == len(COMMANDS)
    assert report.races == 2


def test_a_race_may_be_won_by_either_lane(case: Case) -> None:
    case.evidence.results = changed(case.evidence.results, 11, replayed=False)
    case.evidence.results = changed(case.evidence.results, 12, replayed=True)
    assert case.rules() == set()


def test_an_answer_that_was_called_too_large_may_come_without_its_data(case: Case) -> None:
    case.evidence.refused_as_too_large = 1
    case.evidence.results = changed(case.evidence.results, 0, data={})
    assert case.rules() == set()


def remove_unread(evidence: Evidence) -> None:
    """Remove a rival and an unreadable command: neither is decided, and both are recorded."""
    gone = {6, 9}
    evidence.removed = [each for each in evidence.sent if each.number in gone]
    evidence.written_down = [(each.partition, range(each.offset, each.offset + 1)) for each in evidence.removed]
    evidence.results = [each for each in evidence.results if each.number not in gone]
    evidence.dead_letters = []


def test_what_was_removed_unread_and_written_down_is_not_answered(case: Case) -> None:
    remove_unread(case.evidence)
    report = case.report()
    assert report.violations == []
    assert report.removed == 2


def lose_a_loss(evidence: Evidence) -> None:
    remove_unread(evidence)
    evidence.written_down = without(evidence.written_down, 1)


def write_a_loss_down_twice(evidence: Evidence) -> None:
    remove_unread(evidence)
    evidence.written_down = [*evidence.written_down, evidence.written_down[0]]


def write_down_what_was_answered(evidence: Evidence) -> None:
    evidence.written_down = [(0, range(3, 5))]


def write_down_too_much(evidence: Evidence) -> None:
    remove_unread(evidence)
    evidence.written_down = [(0, range(5, 7)), *evidence.written_down[1:]]


def answer_what_is_lost(evidence: Evidence) -> None:
    answered = evidence.results[9]
    remove_unread(evidence)
    evidence.results = [*evidence.results, answered]


def put_aside_what_is_lost(evidence: Evidence) -> None:
    letters = evidence.dead_letters
    remove_unread(evidence)
    evidence.dead_letters = letters


def decide_what_is_lost(evidence: Evidence) -> None:
    """Answer its repetition as if the first had come before."""
    first = {0}
    evidence.removed = [each for each in evidence.sent if each.number in first]
    evidence.written_down = [(0, range(1))]
    evidence.results = [each for each in evidence.results if each.number not in first]


def tell_nobody(evidence: Evidence) -> None:
    evidence.untold = ["lanes list should say that commands/0 has lost offsets 3 to 4"]


@pytest.fixture
def again(case: Case) -> Case:
    """Begin the log of partition 0 again: other records take the offsets of a malformed one and a dry run."""
    case.ledger.commands += [
        command(16, 0, "already", "id-anew"),
        command(17, 0, "b", flaw="MALFORMED_REQUEST"),
    ]
    anew = [Sent(0, 6, 16, 1), Sent(0, 9, 17, 1)]
    told = ("INVALID_LIFE_CYCLE_STATE", "MALFORMED_REQUEST")
    case.evidence.sent = [*case.evidence.sent, *anew]
    case.evidence.results = [
        *case.evidence.results,
        *(
            Result(0, 50 + at.offset, at.number, status, False, "ce:ORG1:%2Ffaults:id-anew", f"{at.place}")
            for at, status in zip(anew, told, strict=True)
        ),
    ]
    case.evidence.dead_letters = [*case.evidence.dead_letters, DeadLetter(0, 9, "MALFORMED_REQUEST", 1)]
    case.evidence.recorded = {*case.evidence.recorded, *(at.place for at in anew)}
    return case


def test_a_log_that_begins_again_holds_other_commands(again: Case) -> None:
    assert again.rules() == set()


@pytest.mark.parametrize("delivery", Delivery)
def test_dead_letters_of_two_logs_are_not_each_other_s(again: Case, delivery: Delivery) -> None:
    again.ledger.delivery = delivery
    letters = again.evidence.dead_letters
    again.evidence.dead_letters = [letters[0], replace(letters[1], offset=6)]
    assert again.rules() == {Rule.DEAD_LETTERS}


def test_the_answers_to_a_new_log_stand_behind_those_to_the_former(again: Case) -> None:
    again.evidence.results = changed(again.evidence.results, 16, offset=1)
    assert again.rules() == {Rule.ORDER}


def lose_an_answer(evidence: Evidence) -> None:
    evidence.results = without(evidence.results, 3)


def repeat_an_answer(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[3], offset=99)]


def answer_nobody(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[3], number=77)]


def apply_a_repetition(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 1, replayed=False)


def replay_the_first(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 0, replayed=True)


def let_both_rivals_win(evidence: Evidence) -> None:
    data = {"authentication_code": "c", "life_cycle_state": "EFFECTIVE"}
    evidence.results = changed(evidence.results, 9, status="OK", data=data)


def let_no_rival_win(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 10, status="INVALID_LIFE_CYCLE_STATE", data=None)


def let_a_stranger_in(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 7, status="OK", data={"authentication_code": "b"})


def blame_an_outage(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 8, status="INTERNAL_ERROR", data=None)


def contradict_itself(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 8, status="CONTRADICTS_ITSELF", data=None)


def show_too_much(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 0, data={**(evidence.results[0].data or {}), "number": "1"})


def show_the_state_before(evidence: Evidence) -> None:
    data = {"authentication_code": "a", "life_cycle_state": "NOT_EFFECTIVE"}
    evidence.results = changed(evidence.results, 0, data=data)


def name_another_command(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 0, command_id="ce:ORG1:%2Ffaults:id-b")


def answer_out_of_order(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 4, offset=1)


def lose_an_event(evidence: Evidence) -> None:
    evidence.events = without(evidence.events, 3)


def repeat_an_event(evidence: Evidence) -> None:
    evidence.events = [*evidence.events, evidence.events[0]]


def transition_twice(evidence: Evidence) -> None:
    again = {**evidence.history[3], "version": 2, "sequence": 2, "previous_hash": evidence.history[3]["hash"]}
    again["hash"] = event_hash(again)
    evidence.events = [*evidence.events, published(again)]
    evidence.history = [*evidence.history, again]


def break_a_chain(evidence: Evidence) -> None:
    broken = [{**event, "hash": "0" * 64} if event["access_token_id"] == "b" else event for event in events()]
    evidence.events = [published(event) for event in broken]
    evidence.history = broken


def publish_out_of_order(evidence: Evidence) -> None:
    evidence.events = changed(evidence.events, 1, offset=0)


def show_nothing(evidence: Evidence) -> None:
    evidence.refused_as_too_large = 1
    evidence.results = changed(evidence.results, 0, data={})
    evidence.results = changed(evidence.results, 1, data={})


def change_a_state_without_a_transition(evidence: Evidence) -> None:
    evidence.states = {**evidence.states, "untouched": ("EFFECTIVE", 1)}


def forget_a_change(evidence: Evidence) -> None:
    evidence.states = {**evidence.states, "a": ("NOT_EFFECTIVE", 0)}


def lose_a_transition_everywhere(evidence: Evidence) -> None:
    evidence.events = without(evidence.events, 3)
    evidence.history = without(evidence.history, 3)
    evidence.states = {**evidence.states, "d": ("NOT_EFFECTIVE", 0)}


def put_an_innocent_aside(evidence: Evidence) -> None:
    evidence.dead_letters = [*evidence.dead_letters, DeadLetter(0, 8, "INTERNAL_ERROR")]


def lose_a_dead_letter(evidence: Evidence) -> None:
    evidence.dead_letters = []


def repeat_a_dead_letter(evidence: Evidence) -> None:
    evidence.dead_letters = [*evidence.dead_letters, evidence.dead_letters[0]]


def lag(evidence: Evidence) -> None:
    evidence.committed = {**evidence.committed, 2: 1}


def commit_too_far(evidence: Evidence) -> None:
    evidence.committed = {**evidence.committed, 2: 3}


def take_back_what_was_seen(evidence: Evidence) -> None:
    evidence.after = {RESULTS: without(evidence.after[RESULTS], 2)}


def show_late_what_was_hidden(evidence: Evidence) -> None:
    evidence.during = {RESULTS: without(evidence.during[RESULTS], 2)}


def show_something_else(evidence: Evidence) -> None:
    evidence.during = {RESULTS: changed(evidence.during[RESULTS], 2, digest=b"other")}


def leave_a_transaction_open(evidence: Evidence) -> None:
    evidence.unsettled = [RESULTS]


def throw_an_owner_back(evidence: Evidence) -> None:
    evidence.disturbed = ["worker 1, partition 0: kafka: ProducerFenced"]


def leave_a_session(evidence: Evidence) -> None:
    evidence.left = ["1 sessions idle in transaction"]


def lose_a_command(evidence: Evidence) -> None:
    evidence.sent = without(evidence.sent, 12)


def misplace_a_command(evidence: Evidence) -> None:
    evidence.sent = changed(evidence.sent, 12, partition=1, offset=1)


def send_a_command_twice(evidence: Evidence) -> None:
    """Send a command twice. The worker is right to answer the second, as another command."""
    evidence.sent = [*evidence.sent, Sent(1, 1, 9)]
    evidence.results = [*evidence.results, replace(evidence.results[9], offset=2)]
    evidence.recorded = {*evidence.recorded, (1, 1, 0)}
    evidence.committed, evidence.ends = ({**ends, 1: 2} for ends in (evidence.committed, evidence.ends))


def lose_the_load(evidence: Evidence) -> None:
    evidence.refused = ["12 commands were not taken"]
    lose_a_command(evidence)


def lose_the_place(evidence: Evidence) -> None:
    evidence.misread = ["Local: Offset out of range"]
    show_late_what_was_hidden(evidence)


def kill_a_server(evidence: Evidence) -> None:
    evidence.fallen = ["broker 1 ended with -9"]
    leave_a_transaction_open(evidence)
    throw_an_owner_back(evidence)


def leave_a_fault_behind(evidence: Evidence) -> None:
    evidence.bungled = ["locks held: TimeoutError: "]
    lag(evidence)


def be_impatient(evidence: Evidence) -> None:
    evidence.slow = ["commands-2 comes on, with 1 to go"]
    evidence.committed = {**evidence.committed, 3: 0}
    evidence.results = without(evidence.results, 12)


def stand_still(evidence: Evidence) -> None:
    evidence.still_seconds = 7.0
    throw_an_owner_back(evidence)


def stall(evidence: Evidence) -> None:
    evidence.stalled = ["commands-2 stands still with 1 to go"]


def fail_unforeseen(evidence: Evidence) -> None:
    evidence.failed = ["lane_failed: KeyError"]


def publish_what_nobody_can_read(evidence: Evidence) -> None:
    evidence.unreadable = [f"{RESULTS}-0@4: JSONDecodeError"]


def take_a_rehearsal_for_real(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 13, dry_run=False)


def take_a_real_one_for_a_rehearsal(evidence: Evidence) -> None:
    evidence.results = changed(evidence.results, 3, dry_run=True)


def record_a_rehearsal(evidence: Evidence) -> None:
    evidence.recorded = {*evidence.recorded, (0, 10, 0)}


def put_a_rehearsal_aside(evidence: Evidence) -> None:
    evidence.dead_letters = [*evidence.dead_letters, DeadLetter(0, 11, "MALFORMED_REQUEST")]


def retire_a_record(evidence: Evidence) -> None:
    evidence.recorded = {each for each in evidence.recorded if each[:2] != (0, 8)}


def keep_partitions_in_trouble(evidence: Evidence) -> None:
    evidence.unkept = ["postgres away for one worker: worker 1 kept its partitions"]


PLANTED: Final[dict[Callable[[Evidence], None], Rule]] = {
    lose_an_answer: Rule.LOST,
    repeat_an_answer: Rule.REPEATED,
    answer_nobody: Rule.UNASKED,
    apply_a_repetition: Rule.STATUS,
    replay_the_first: Rule.STATUS,
    let_both_rivals_win: Rule.STATUS,
    let_no_rival_win: Rule.STATUS,
    let_a_stranger_in: Rule.STATUS,
    blame_an_outage: Rule.STATUS,
    contradict_itself: Rule.STATUS,
    show_too_much: Rule.SHOWN,
    show_the_state_before: Rule.SHOWN,
    name_another_command: Rule.NAMED,
    answer_out_of_order: Rule.ORDER,
    lose_an_event: Rule.AGREE,
    repeat_an_event: Rule.AGREE,
    transition_twice: Rule.ONCE,
    break_a_chain: Rule.CHAINS,
    publish_out_of_order: Rule.ORDER,
    show_nothing: Rule.SHOWN,
    change_a_state_without_a_transition: Rule.AGREE,
    forget_a_change: Rule.AGREE,
    lose_a_transition_everywhere: Rule.AGREE,
    lose_a_loss: Rule.LOSSES,
    write_a_loss_down_twice: Rule.LOSSES,
    write_down_what_was_answered: Rule.LOSSES,
    write_down_too_much: Rule.LOSSES,
    answer_what_is_lost: Rule.LOSSES,
    put_aside_what_is_lost: Rule.DEAD_LETTERS,
    decide_what_is_lost: Rule.STATUS,
    tell_nobody: Rule.UNTOLD,
    put_an_innocent_aside: Rule.DEAD_LETTERS,
    lose_a_dead_letter: Rule.DEAD_LETTERS,
    repeat_a_dead_letter: Rule.DEAD_LETTERS,
    lag: Rule.CONSUMED,
    commit_too_far: Rule.CONSUMED,
    take_back_what_was_seen: Rule.READERS,
    show_late_what_was_hidden: Rule.READERS,
    show_something_else: Rule.READERS,
    leave_a_transaction_open: Rule.SETTLED,
    throw_an_owner_back: Rule.OWNER,
    leave_a_session: Rule.LEFT,
    stall: Rule.CONSUMED,
    fail_unforeseen: Rule.FORESEEN,
    publish_what_nobody_can_read: Rule.READABLE,
    take_a_rehearsal_for_real: Rule.MARKED,
    take_a_real_one_for_a_rehearsal: Rule.MARKED,
    record_a_rehearsal: Rule.NO_RECORD,
    put_a_rehearsal_aside: Rule.DEAD_LETTERS,
    retire_a_record: Rule.RECORDED,
    keep_partitions_in_trouble: Rule.IN_TROUBLE,
}
"""Promises broken by the product."""
SPOILT: Final[dict[Callable[[Evidence], None], Rule]] = {
    lose_a_command: Rule.SOUND,
    misplace_a_command: Rule.SOUND,
    send_a_command_twice: Rule.SOUND,
    lose_the_load: Rule.SOUND,
    lose_the_place: Rule.PLACE,
    kill_a_server: Rule.SERVERS,
    leave_a_fault_behind: Rule.FAULTS,
    be_impatient: Rule.IN_TIME,
    stand_still: Rule.STEADY,
}
"""Evidence spoilt by the harness, with the rules that then look broken."""
NOT_OF_THE_CHECKER: Final = {Rule.RUN, Rule.TIDY}
"""Rules judged where a run is carried out (``test_verdict``)."""


@pytest.mark.parametrize(("plant", "rule"), PLANTED.items(), ids=[plant.__name__ for plant in PLANTED])
def test_a_broken_promise_is_noticed(case: Case, plant: Callable[[Evidence], None], rule: Rule) -> None:
    plant(case.evidence)
    report = case.report()
    assert rule in report.counts()
    assert rule.side is Side.PRODUCT
    assert report.counts(Side.HARNESS) == {}
    assert report.verdict is Verdict.BROKEN


@pytest.mark.parametrize(("plant", "rule"), SPOILT.items(), ids=[plant.__name__ for plant in SPOILT])
def test_a_failure_of_the_harness_is_not_the_product_s(
    case: Case, plant: Callable[[Evidence], None], rule: Rule
) -> None:
    plant(case.evidence)
    report = case.report()
    assert rule.side is Side.HARNESS
    assert report.counts(Side.HARNESS).keys() == {rule}
    assert report.verdict is Verdict.NOT_CHECKED


@pytest.mark.parametrize("plant", SPOILT)
def test_a_failure_of_the_harness_hides_nothing_that_it_cannot_have_caused(
    case: Case, plant: Callable[[Evidence], None]
) -> None:
    plant(case.evidence)
    break_a_chain(case.evidence)
    assert case.report().verdict is Verdict.BROKEN


def test_every_rule_is_planted() -> None:
    assert {*PLANTED.values(), *UNFAITHFUL.values()} == {rule for rule in Rule if rule.side is Side.PRODUCT}
    assert {*SPOILT.values()} | NOT_OF_THE_CHECKER == {rule for rule in Rule if rule.side is Side.HARNESS}


def test_a_command_that_was_not_answered_needs_no_record(case: Case) -> None:
    lose_an_answer(case.evidence)
    case.evidence.recorded = {each for each in case.evidence.recorded if each[:2] != (0, 3)}
    assert Rule.RECORDED not in case.rules()


@pytest.mark.parametrize("seconds", [0.0, 1.9, 7.0])
def test_a_machine_that_stood_still_spoils_nothing_where_nothing_is_amiss(case: Case, seconds: float) -> None:
    case.evidence.still_seconds = seconds
    assert case.report().verdict is Verdict.KEPT


def test_a_short_stop_of_the_machine_explains_nothing(case: Case) -> None:
    stand_still(case.evidence)
    case.evidence.still_seconds = 1.9
    assert case.report().verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("dry_first", "status", "right"),
    [
        (True, "OK", True),
        (True, "INVALID_LIFE_CYCLE_STATE", True),
        (False, "INVALID_LIFE_CYCLE_STATE", True),
        (False, "OK", False),
    ],
)
def test_a_dry_run_may_be_judged_again_later_but_never_before_its_turn(
    dry_first: bool, status: str, right: bool
) -> None:
    asked = [command(0, 0, "a", dry_run=dry_first), command(1, 0, "a", dry_run=not dry_first)]
    verdicts = (status, "OK") if dry_first else ("OK", status)
    told = [Result(0, n, n, verdict, False, "", "", None, asked[n].dry_run) for n, verdict in enumerate(verdicts)]
    evidence = Evidence(sent=[Sent(0, 0, 0), Sent(0, 1, 1)], results=told)

    report = check(Ledger(asked, frozenset({"a"})), evidence)

    assert (Rule.STATUS not in report.counts()) == right


# --- the other delivery -----------------------------------------------------------------------------------------------


@pytest.fixture
def looser(case: Case) -> Case:
    """Return the same run, of workers that promise less."""
    case.ledger.delivery = Delivery.AT_LEAST_ONCE
    return case


def repeat_all_in_order(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, *(replace(each, offset=each.offset + 50) for each in evidence.results)]
    evidence.events = [*evidence.events, *(replace(each, offset=each.offset + 50) for each in evidence.events)]
    repeat_a_dead_letter(evidence)


REPETITIONS: Final = (repeat_an_answer, repeat_an_event, repeat_a_dead_letter, repeat_all_in_order)


@pytest.mark.parametrize("repeat", REPETITIONS)
def test_at_least_once_may_repeat_itself(looser: Case, repeat: Callable[[Evidence], None]) -> None:
    repeat(looser.evidence)
    assert looser.rules() == set()


def test_repetitions_are_counted(looser: Case) -> None:
    repeat_all_in_order(looser.evidence)
    assert looser.report().repeated == len(COMMANDS)


def repeat_with_another_status(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[3], offset=99, status="INTERNAL_ERROR")]


def repeat_as_another_event(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[3], offset=99, event_id="another")]


def repeat_a_transition_otherwise(evidence: Evidence) -> None:
    otherwise = {**evidence.events[3].members, "user_id": "somebody else"}
    evidence.events = [*evidence.events, replace(evidence.events[3], offset=99, members=otherwise)]


def repeat_a_transition_as_another_event(evidence: Evidence) -> None:
    evidence.events = [*evidence.events, replace(evidence.events[3], offset=99, event_id="another")]


def repeat_a_dead_letter_otherwise(evidence: Evidence) -> None:
    evidence.dead_letters = [*evidence.dead_letters, replace(evidence.dead_letters[0], code="INTERNAL_ERROR")]


def repeat_without_the_data(evidence: Evidence) -> None:
    evidence.results = [*evidence.results, replace(evidence.results[0], offset=99, data={})]


UNFAITHFUL: Final[dict[Callable[[Evidence], None], Rule]] = {
    repeat_with_another_status: Rule.SAME,
    repeat_as_another_event: Rule.SAME,
    repeat_a_transition_otherwise: Rule.SAME,
    repeat_a_transition_as_another_event: Rule.ONCE,
    repeat_a_dead_letter_otherwise: Rule.SAME,
    repeat_without_the_data: Rule.SHOWN,
}
STILL_BROKEN: Final = {plant: rule for plant, rule in PLANTED.items() if plant not in REPETITIONS} | UNFAITHFUL


@pytest.mark.parametrize(("plant", "rule"), STILL_BROKEN.items(), ids=[plant.__name__ for plant in STILL_BROKEN])
def test_at_least_once_keeps_every_other_promise(looser: Case, plant: Callable[[Evidence], None], rule: Rule) -> None:
    plant(looser.evidence)
    assert rule in looser.rules()


@pytest.mark.parametrize("plant", UNFAITHFUL)
def test_exactly_once_allows_none_of_it(case: Case, plant: Callable[[Evidence], None]) -> None:
    plant(case.evidence)
    assert case.rules()


def test_every_mutant_breaks_a_rule_that_the_checker_knows() -> None:
    known = set(chain(PLANTED.values(), UNFAITHFUL.values()))
    assert {spec.breaks for spec in MUTANTS.values()} <= known


def test_the_faults_that_caught_a_mutant_are_kinds_of_the_harness() -> None:
    assert {name for spec in MUTANTS.values() for name in spec.kinds} <= KINDS.keys()


@pytest.mark.parametrize("delivery", Delivery)
def test_no_kind_waits_for_a_moment_of_the_other_delivery(delivery: Delivery) -> None:
    other = next(each for each in Delivery if each is not delivery)
    chosen = kinds_of(delivery)
    assert chosen
    assert all(kind.delivery is not other for kind in chosen)


# --- holdings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "count"), [("producers", 4), ("tasks", 64), ("sockets", 43)])
def test_a_leak_is_noticed(what: str, count: int) -> None:
    healthy: dict[str, Any] = {"lanes": 3, "producers": 3, "tasks": 48, "sockets": 23, "most": {}}
    assert list(too_much(healthy)) == []
    (told,) = too_much({**healthy, what: count})
    assert told.startswith(f"{count} {what}")


# --- the model --------------------------------------------------------------------------------------------------------


def test_a_refused_id_is_judged_afresh(case: Case) -> None:
    model = Model(case.ledger)
    assert model.judge(command(0, 0, "nobody", "id")) == ("ACCESS_TOKEN_NOT_FOUND", False)
    assert model.judge(command(1, 0, "a", "id")) == ("OK", False)
    assert model.judge(command(2, 0, "b", "id")) == ("DUPLICATE_REQUEST", False)
    assert model.judge(command(3, 0, "nobody", "id")) == ("ACCESS_TOKEN_NOT_FOUND", False)
    assert model.judge(command(4, 0, "a", "id", fields="life_cycle_state,authentication_code")) == ("OK", True)
