"""The rules of the checker, the side that each belongs to, and the verdict on the broken ones."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, Self


class Side(StrEnum):
    """The side that promises a rule."""

    PRODUCT = "product"
    HARNESS = "harness"


class Verdict(StrEnum):
    """All possible outcomes of a run."""

    KEPT = "kept"
    BROKEN = "broken"
    """Broken by the product."""
    NOT_CHECKED = "not checked"
    """The harness failed, which may have caused the other findings."""


class Unkept(Exception):
    """A promise that a fault has seen broken, and that could not be judged afterwards."""


EXIT_CODES: Final[Mapping[Verdict, int]] = {Verdict.KEPT: 0, Verdict.BROKEN: 1, Verdict.NOT_CHECKED: 2}
USAGE: Final = 64
"""The exit code for an invalid command line (``EX_USAGE`` of sysexits): none of the verdicts."""


class Rule(StrEnum):
    """Every rule, and the side that must keep it."""

    side: Side

    def __new__(cls, text: str, side: Side) -> Self:
        rule = str.__new__(cls, text)
        rule._value_ = text
        rule.side = side
        return rule

    LOST = "no answer is lost", Side.PRODUCT
    REPEATED = "no answer is repeated", Side.PRODUCT
    UNASKED = "nothing is answered that was not asked", Side.PRODUCT
    STATUS = "every status is right", Side.PRODUCT
    SHOWN = "every answer shows what was asked", Side.PRODUCT
    NAMED = "every answer names its command", Side.PRODUCT
    SAME = "a repetition says the same", Side.PRODUCT
    ORDER = "order is kept", Side.PRODUCT
    AGREE = "topic, table, states and answers agree", Side.PRODUCT
    ONCE = "one transition per token", Side.PRODUCT
    CHAINS = "chains are whole", Side.PRODUCT
    LOSSES = "what is removed unread is written down as lost", Side.PRODUCT
    UNTOLD = "people are told what needs them, until they have seen to it", Side.PRODUCT
    DEAD_LETTERS = "dead letters are deserved", Side.PRODUCT
    MARKED = "dry runs are marked", Side.PRODUCT
    NO_RECORD = "dry runs leave no record", Side.PRODUCT
    READABLE = "all that is published can be read", Side.PRODUCT
    CONSUMED = "all is consumed", Side.PRODUCT
    READERS = "both readers saw the same", Side.PRODUCT
    SETTLED = "no transaction is open", Side.PRODUCT
    OWNER = "an owner keeps its lane", Side.PRODUCT
    FORESEEN = "no lane ends with an error that nobody foresaw", Side.PRODUCT
    LEFT = "nothing is left behind", Side.PRODUCT
    RECORDED = "no record is retired before its time", Side.PRODUCT
    IN_TROUBLE = "a worker in trouble says so and makes way", Side.PRODUCT

    SOUND = "the load is sound", Side.HARNESS
    """Every command of the ledger is in the log once, in its place, and nothing else is."""
    PLACE = "the reader along the way keeps its place", Side.HARNESS
    SERVERS = "servers end only when the schedule ends them", Side.HARNESS
    FAULTS = "every fault is carried out and undone", Side.HARNESS
    IN_TIME = "the machine is fast enough to bring evidence", Side.HARNESS
    """Workers that make progress finish before the patience ends."""
    STEADY = "the machine does not stand still at the end", Side.HARNESS
    RUN = "the run comes to its end", Side.HARNESS
    TIDY = "what the run started is taken away again", Side.HARNESS


_BY_THE_LEDGER: Final = frozenset(
    {
        Rule.LOST,
        Rule.REPEATED,
        Rule.UNASKED,
        Rule.STATUS,
        Rule.SHOWN,
        Rule.NAMED,
        Rule.SAME,
        Rule.ORDER,
        Rule.AGREE,
        Rule.LOSSES,
        Rule.DEAD_LETTERS,
        Rule.MARKED,
        Rule.NO_RECORD,
        Rule.RECORDED,
    }
)
"""Rules that compare observations with the ledger, by the number of a command."""
_AT_THE_END: Final = frozenset(
    {
        Rule.LOST,
        Rule.AGREE,
        Rule.LOSSES,
        Rule.UNTOLD,
        Rule.DEAD_LETTERS,
        Rule.CONSUMED,
        Rule.READERS,
        Rule.SETTLED,
        Rule.OWNER,
        Rule.LEFT,
    }
)
"""Rules that faultless workers break if they are stopped before they are at the end, or are disturbed there."""

EXPLAINS: Final[Mapping[Rule, frozenset[Rule]]] = {
    Rule.SOUND: _BY_THE_LEDGER,
    Rule.PLACE: frozenset({Rule.READERS}),
    # Servers may die at any moment, and faults come in any mixture: that excuses no wrong action.
    Rule.SERVERS: _AT_THE_END,
    Rule.FAULTS: _AT_THE_END,
    Rule.IN_TIME: _AT_THE_END,
    # Sessions and the patience with a drain count seconds, in which the machine may have halted every process.
    Rule.STEADY: frozenset({Rule.OWNER, Rule.LEFT}),
    Rule.RUN: frozenset(rule for rule in Rule if rule.side is Side.PRODUCT),
    Rule.TIDY: frozenset(),
}
"""By rule of the harness, the promises of the product that may seem broken because of it. All others were broken."""


def explained(broken: Iterable[Rule]) -> frozenset[Rule]:
    """Return the promises whose breach proves nothing, given the failures of the harness."""
    return frozenset[Rule]().union(*(EXPLAINS[rule] for rule in broken if rule.side is Side.HARNESS))


def verdict(broken: Iterable[Rule]) -> Verdict:
    """Return the verdict on these broken rules."""
    rules = frozenset(broken)
    if any(rule.side is Side.PRODUCT for rule in rules - explained(rules)):
        return Verdict.BROKEN
    return Verdict.NOT_CHECKED if rules else Verdict.KEPT
