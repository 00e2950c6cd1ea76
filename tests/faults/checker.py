"""Compare observed with expected: an independent model of the rules, run over the ledger.

It shares no code with the worker but the verification of hash chains.

See CONTRACT, Command, Result, Transition event and Dead letter.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from effective_contract.transition import verify_chain
from tests.faults.ledger import ORGANISATION, SOURCE, Command, Delivery, Evidence, Ledger, Sent, by_partition
from tests.faults.rules import EXPLAINS, Rule, Side, Verdict, verdict

DEAD_LETTERED: Final = frozenset({"MALFORMED_REQUEST", "INTERNAL_ERROR"})
SHOWN: Final = 5
"""Violations of one rule that are spelt out."""

T = TypeVar("T")

Judged = tuple[str, bool]
"""A status, and the replay flag."""
STALL_SECONDS: Final = 2.0
"""Seconds for which the machine may stand still at the end. A worker halted for longer is late with its heartbeats."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    rule: Rule
    what: str


@dataclass(slots=True)
class Report:
    """The findings of the checker, and the amount it checked."""

    commands: int = 0
    removed: int = 0
    """Commands that were removed from their log unread."""
    transitions: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    races: int = 0
    """Groups of commands that met in more than one lane, in an order that is unknown, but must have been one."""
    repeated: int = 0
    """Answers that were given again, where the delivery allows it."""
    violations: list[Violation] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return verdict(violation.rule for violation in self.violations)

    def counts(self, side: Side | None = None) -> dict[Rule, int]:
        """Return the number of violations of each rule; those of one side if it is named."""
        return dict(Counter(each.rule for each in self.violations if side in {None, each.rule.side}))

    def shown(self) -> Iterator[Violation]:
        """Yield the first few of each rule."""
        told: Counter[Rule] = Counter()
        for violation in self.violations:
            told[violation.rule] += 1
            if told[violation.rule] <= SHOWN:
                yield violation


class Model:
    """The rules, over commands unrelated to any others."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed: set[str] = set()
        self._bound: dict[str, tuple[str, frozenset[str]]] = {}

    def judge(self, command: Command) -> Judged:
        """Return the answer due to the command, after all those judged before it."""
        if command.flaw is not None:
            return command.flaw, False
        if command.code not in self._ledger.known:
            return "ACCESS_TOKEN_NOT_FOUND", False
        request = (command.code, frozenset(command.fields.split(",")))
        bound = None if command.identity is None else self._bound.get(command.identity)
        if bound is not None:
            return ("OK", True) if bound == request else ("DUPLICATE_REQUEST", False)
        if command.code in self._ledger.effective or command.code in self._changed:
            return "INVALID_LIFE_CYCLE_STATE", False
        if command.dry_run:
            return "OK", False
        self._changed.add(command.code)
        if command.identity is not None:
            self._bound[command.identity] = request
        return "OK", False


def check(ledger: Ledger, evidence: Evidence) -> Report:
    """Compare everything observed with everything asked, and with the promises of the delivery."""
    report = Report(len(ledger.commands), len(evidence.removed), len(evidence.history))
    report.statuses.update(f"{result.status}{' (replayed)' if result.replayed else ''}" for result in evidence.results)
    # Of every answer, also of a repeated one.
    report.violations += _data_right(ledger, evidence)
    if ledger.delivery is Delivery.AT_LEAST_ONCE:
        given = len(evidence.results)
        evidence = _without_repetitions(evidence, report)
        report.repeated = given - len(evidence.results)
    report.violations += [
        *_sent_once(ledger, evidence.sent),
        *_answered_once(ledger, evidence),
        *_rightly_answered(ledger, evidence, report),
        *_in_order(evidence),
        *_one_transition_each(ledger, evidence),
        *_chains_whole(evidence),
        *_losses_written_down(evidence),
        *_dead_letters_deserved(ledger, evidence),
        *_dry_runs_known(ledger, evidence),
        *_records_kept(ledger, evidence),
        *_all_consumed(evidence),
        *_readers_agree(evidence),
        *(Violation(Rule.UNTOLD, what) for what in evidence.untold),
        *(Violation(Rule.SETTLED, topic) for topic in evidence.unsettled),
        *(Violation(Rule.OWNER, what) for what in evidence.disturbed),
        *(Violation(Rule.LEFT, what) for what in evidence.left),
        *(Violation(Rule.IN_TROUBLE, what) for what in evidence.unkept),
        *(Violation(Rule.FORESEEN, what) for what in evidence.failed),
        *(Violation(Rule.READABLE, what) for what in evidence.unreadable),
        *_of_the_harness(evidence),
    ]
    report.violations += _stood_still(evidence, report)
    return report


def _of_the_harness(evidence: Evidence) -> Iterator[Violation]:
    """Yield the harness's observations of itself."""
    noticed = {
        Rule.SOUND: evidence.refused,
        Rule.PLACE: evidence.misread,
        Rule.SERVERS: evidence.fallen,
        Rule.FAULTS: evidence.bungled,
        Rule.IN_TIME: evidence.slow,
    }
    for rule, all_ in noticed.items():
        yield from (Violation(rule, what) for what in all_)


def _stood_still(evidence: Evidence, report: Report) -> Iterator[Violation]:
    """Report a machine that stood still, but only if it may have caused a violation."""
    if evidence.still_seconds > STALL_SECONDS and EXPLAINS[Rule.STEADY] & report.counts().keys():
        yield Violation(Rule.STEADY, f"it stood still for {evidence.still_seconds:.1f} s")


def _without_repetitions(evidence: Evidence, report: Report) -> Evidence:
    """Return the evidence without repetitions: the rest must keep the promises of ``exactly_once``."""
    results = sorted(evidence.results, key=lambda each: (each.partition, each.offset))
    events = sorted(evidence.events, key=lambda each: (each.partition, each.offset))
    letters = evidence.dead_letters
    return replace(
        evidence,
        results=_firsts(
            results,
            lambda each: f"answer to command {each.number}",
            # An unrecorded command may be judged otherwise when it is read again.
            lambda each: (each.event_id, each.command_id, each.dry_run or (each.status, each.replayed)),
            report,
        ),
        events=_firsts(events, lambda each: f"event {each.event_id}", lambda each: each.members, report),
        dead_letters=_firsts(letters, lambda each: f"dead letter {each.place}", lambda each: each.code, report),
    )


def _firsts(
    things: Iterable[T], name_of: Callable[[T], str], says: Callable[[T], object], report: Report
) -> Sequence[T]:
    """Return the first of each name. All of one name must say the same."""
    firsts: dict[str, T] = {}
    for thing in things:
        name = name_of(thing)
        first = firsts.setdefault(name, thing)
        if says(first) != says(thing):
            report.violations.append(Violation(Rule.SAME, f"{name}: {says(first)}, then {says(thing)}"))
    return list(firsts.values())


def _sent_once(ledger: Ledger, sent: Sequence[Sent]) -> Iterator[Violation]:
    """Check the load itself, without which the rest says nothing (``Rule.SOUND``)."""
    times = Counter(each.number for each in sent)
    for command in ledger.commands:
        if times.pop(command.number, 0) != 1:
            yield Violation(Rule.SOUND, f"command {command.number} does not stand in the log exactly once")
    for number in times:
        yield Violation(Rule.SOUND, f"the log holds a command {number} that nobody sent")
    for each in sent:
        if 0 <= each.number < len(ledger.commands) and ledger.commands[each.number].partition != each.partition:
            yield Violation(Rule.SOUND, f"command {each.number} stands in partition {each.partition}")


def _answered_once(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    """Check that each command has one answer.

    A command that was removed unread has none; the check of the losses verifies that.
    """
    results, removed = evidence.results, _numbers(evidence.removed)
    times = Counter(result.number for result in results)
    for command in ledger.commands:
        count = times.pop(command.number, 0)
        if count == 0 and command.number not in removed:
            yield Violation(Rule.LOST, f"command {command.number} of partition {command.partition}")
        elif count > 1:
            places = [f"{r.partition}@{r.offset} {r.status}" for r in results if r.number == command.number]
            yield Violation(Rule.REPEATED, f"command {command.number}: {', '.join(places)}")
    for number in times:
        yield Violation(Rule.UNASKED, f"number {number}")


def _rightly_answered(ledger: Ledger, evidence: Evidence, report: Report) -> Iterator[Violation]:
    """Check that every status follows the rules, in the order of the logs; lanes may have met in any order."""
    answers: dict[int, Judged] = {}
    for result in evidence.results:
        answers.setdefault(result.number, (result.status, result.replayed))
    removed = _numbers(evidence.removed)
    sent = sorted(evidence.sent, key=lambda each: each.partition)  # which leaves each partition's order as it is
    read = [each.number for each in sent if each.number not in removed]
    commands = [ledger.commands[number] for number in read if 0 <= number < len(ledger.commands)]
    for group in _related(commands, ledger.effective):
        lanes = _lanes(group)
        report.races += len(lanes) > 1
        given = {command.number: answers[command.number] for command in group if command.number in answers}
        expected = [_judged(Model(ledger), order) for order in _interleavings(lanes)]
        if any(all(verdict in each[number] for number, verdict in given.items()) for each in expected):
            continue
        told = ", ".join(f"{c.number} (partition {c.partition}): {answers.get(c.number)}" for c in group)
        yield Violation(Rule.STATUS, f"{told}; one that would be: {expected[0]}")


def _judged(model: Model, commands: Iterable[Command]) -> dict[int, set[Judged]]:
    """Return the possible answers. A dry run that is read again is judged again, possibly after other commands."""
    verdicts: dict[int, set[Judged]] = {}
    dry_runs: list[Command] = []
    for command in commands:
        verdicts[command.number] = {model.judge(command)}
        for dry_run in dry_runs:
            verdicts[dry_run.number].add(model.judge(dry_run))
        if command.dry_run:
            dry_runs.append(command)
    return verdicts


def _related(commands: Sequence[Command], settled: frozenset[str]) -> list[list[Command]]:
    """Return groups of commands that share a token or an id: only within one can the order matter.

    ``settled`` are tokens that no command changes.
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    def name_of(command: Command) -> str:
        alone = command.flaw is not None or command.code in settled
        return f"alone:{command.number}" if alone else f"code:{command.code}"

    for command in commands:
        if command.flaw is None and command.identity is not None:
            parents[root(name_of(command))] = root(f"id:{command.identity}")
    groups: dict[str, list[Command]] = defaultdict(list)
    for command in commands:
        groups[root(name_of(command))].append(command)
    return list(groups.values())


def _lanes(group: Sequence[Command]) -> list[list[Command]]:
    lanes: dict[int, list[Command]] = defaultdict(list)
    for command in group:
        lanes[command.partition].append(command)
    return list(lanes.values())


def _interleavings(lanes: Sequence[Sequence[Command]]) -> Iterator[list[Command]]:
    """Yield every order of all commands that keeps the order within each lane."""
    if not any(lanes):
        yield []
    for place, lane in enumerate(lanes):
        if lane:
            rest = [each[1:] if other == place else each for other, each in enumerate(lanes)]
            for order in _interleavings(rest):
                yield [lane[0], *order]


def _data_right(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    may_be_short = evidence.refused_as_too_large
    for result in evidence.results:
        if result.status != "OK" or not 0 <= result.number < len(ledger.commands):
            continue
        command = ledger.commands[result.number]
        due = {"authentication_code": command.code, "life_cycle_state": "EFFECTIVE"}
        if result.data == {} and may_be_short:
            may_be_short -= 1
        elif result.data != {name: due[name] for name in command.fields.split(",")}:
            yield Violation(Rule.SHOWN, f"command {command.number}: {result.data}")
        identity = command.identity
        if identity is not None and result.command_id != f"ce:{ORGANISATION}:{SOURCE.replace('/', '%2F')}:{identity}":
            yield Violation(Rule.NAMED, f"command {command.number}: {result.command_id}")


def _in_order(evidence: Evidence) -> Iterator[Violation]:
    """Check that within each partition of the results, the answers to one partition of commands are in its order."""
    places = {each.number: (each.partition, rank) for rank, each in enumerate(evidence.sent)}
    last: dict[tuple[int, int], int] = {}
    for result in sorted(evidence.results, key=lambda each: (each.partition, each.offset)):
        if result.number not in places:
            continue
        partition, rank = places[result.number]
        lane = (result.partition, partition)
        if rank < last.get(lane, -1):
            yield Violation(Rule.ORDER, f"command {result.number} was answered after a later one")
        last[lane] = max(rank, last.get(lane, -1))


def _one_transition_each(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    """Check that the transition topic, the table, the states and the answers tell the same story."""
    rule = Rule.AGREE
    published = sorted((event.members for event in evidence.events), key=_place)
    recorded = sorted(evidence.history, key=_place)
    if published != recorded:
        topic, table = (Counter(map(_place, events)) for events in (published, recorded))
        differing = [*((topic - table) + (table - topic))]
        differing = differing or [_place(p) for p, r in zip(published, recorded, strict=True) if p != r]
        yield Violation(rule, f"{len(published)} events, {len(recorded)} rows; they differ at {differing[:SHOWN]}")
    for name, events in (("topic", published), ("table", recorded)):
        for token, count in Counter(event["access_token_id"] for event in events).items():
            if count > 1:
                yield Violation(Rule.ONCE, f"{token} has {count} in the {name}")
    changed = {event["access_token_id"] for event in recorded}
    answered = {
        ledger.commands[result.number].code
        for result in evidence.results
        if result.status == "OK" and not result.dry_run and 0 <= result.number < len(ledger.commands)
    }
    for token in sorted(changed ^ answered)[:SHOWN]:
        yield Violation(rule, f"{token}: {'a transition' if token in changed else 'an OK'} without the other")
    for token in sorted(ledger.known):
        before = ("EFFECTIVE" if token in ledger.effective else "NOT_EFFECTIVE", 0)
        due = ("EFFECTIVE", 1) if token in changed else before
        if evidence.states.get(token) != due:
            yield Violation(rule, f"{token} is {evidence.states.get(token)}, and should be {due}")


def _place(event: Mapping[str, Any]) -> tuple[str, int]:
    return event["lane"], event["sequence"]


def _chains_whole(evidence: Evidence) -> Iterator[Violation]:
    for name, events in (("topic", [event.members for event in evidence.events]), ("table", evidence.history)):
        lanes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for members in sorted(events, key=_place):
            lanes[members["lane"]].append(members)
        for lane, chain in lanes.items():
            broken = verify_chain(chain)
            if broken is not None:
                yield Violation(Rule.CHAINS, f"{lane} in the {name}, event {broken.sequence}: {broken.reason}")
    last: dict[tuple[int, str], int] = {}
    for event in sorted(evidence.events, key=lambda each: (each.partition, each.offset)):
        place, sequence = (event.partition, event.members["lane"]), event.members["sequence"]
        if sequence < last.get(place, 0):
            yield Violation(Rule.ORDER, f"event {sequence} of {event.members['lane']} stands behind a later one")
        last[place] = sequence


def _losses_written_down(evidence: Evidence) -> Iterator[Violation]:
    """Check that exactly the commands removed unread were recorded, once each, and none was answered."""
    removed = Counter((each.partition, each.offset) for each in evidence.removed)
    written = Counter((partition, offset) for partition, lost in evidence.written_down for offset in lost)
    for what, places in (("removed, and not written down", removed - written), ("written down", written - removed)):
        for partition in sorted({partition for partition, _ in places}):
            offsets = sorted(offset for number, offset in places.elements() if number == partition)
            told = f"{len(offsets)} offsets {what}, from {offsets[0]} to {offsets[-1]}"
            yield Violation(Rule.LOSSES, f"partition {partition}: {told}")
    answered = {result.number for result in evidence.results}
    for each in evidence.removed:
        if each.number in answered:
            place = f"{each.partition}@{each.offset}"
            yield Violation(Rule.LOSSES, f"command {each.number}, removed from {place}, was answered")


def _numbers(sent: Iterable[Sent]) -> set[int]:
    return {each.number for each in sent}


def _dead_letters_deserved(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    """Check for a dead letter for every command that could not be read, and for no other."""
    numbers = {each.place: each.number for each in evidence.sent}
    removed = _numbers(evidence.removed)
    deserved = Counter(
        each.place
        for each in evidence.sent
        if 0 <= each.number < len(ledger.commands)
        and each.number not in removed
        and ledger.commands[each.number].flaw in DEAD_LETTERED
        and not ledger.commands[each.number].dry_run
    )
    given = Counter(letter.place for letter in evidence.dead_letters)
    for place, count in (given - deserved).items():
        yield Violation(Rule.DEAD_LETTERS, f"{count} too many for command {numbers.get(place)} at {place}")
    for place in deserved - given:
        yield Violation(Rule.DEAD_LETTERS, f"none for command {numbers.get(place)} at {place}")


def _dry_runs_known(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    """Check that the answer to a dry run says that it is one, and that no record was kept of it."""
    for result in evidence.results:
        if 0 <= result.number < len(ledger.commands) and result.dry_run != ledger.commands[result.number].dry_run:
            yield Violation(Rule.MARKED, f"command {result.number}: {result.dry_run}")
    for each in evidence.sent:
        is_dry_run = 0 <= each.number < len(ledger.commands) and ledger.commands[each.number].dry_run
        if is_dry_run and each.place in evidence.recorded:
            yield Violation(Rule.NO_RECORD, f"command {each.number}")


def _records_kept(ledger: Ledger, evidence: Evidence) -> Iterator[Violation]:
    """Check for a record of every answered command: no run is as long as records are kept."""
    answered = {result.number for result in evidence.results}
    for each in evidence.sent:
        is_real = 0 <= each.number < len(ledger.commands) and not ledger.commands[each.number].dry_run
        if is_real and each.number in answered and each.place not in evidence.recorded:
            yield Violation(Rule.RECORDED, f"command {each.number}, at offset {each.offset} of {each.partition}")


def _all_consumed(evidence: Evidence) -> Iterator[Violation]:
    yield from (Violation(Rule.CONSUMED, what) for what in evidence.stalled)
    for partition, end in evidence.ends.items():
        if evidence.committed.get(partition, 0) != end:
            committed = evidence.committed.get(partition)
            yield Violation(Rule.CONSUMED, f"partition {partition}: committed {committed}, the log ends at {end}")


def _readers_agree(evidence: Evidence) -> Iterator[Violation]:
    """Check that the reader during the faults saw, partition by partition, exactly the same as one afterwards."""
    for topic, after in evidence.after.items():
        then, now = by_partition(evidence.during.get(topic, ())), by_partition(after)
        for partition in sorted(then.keys() | now.keys()):
            one, other = then.get(partition, []), now.get(partition, [])
            if one != other:
                pairs = zip(one, other, strict=False)
                place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
                what = f"{len(one)} records then, {len(other)} now, different from number {place} on"
                yield Violation(Rule.READERS, f"{topic}-{partition}: {what}")
