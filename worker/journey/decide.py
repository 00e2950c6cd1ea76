"""The decision: pure, so that a batch decided at once equals the same commands decided one by one.

No clock, no I/O, no randomness: ``decide`` takes what was loaded and locked, and returns what must happen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from effective_contract.codes import StatusCode
from worker.journey.attempt_limits import (
    DEFAULT_LIMITS,
    Attempt,
    Limits,
    Series,
    Subject,
    is_failure,
    refused_unseen,
    seen,
)
from worker.journey.model import Applied, Decision, LockedToken, Presented, Refused, Replayed, TokenKey
from worker.values import Value

RETIRED: Final = "this id was applied before, and its record is kept no longer: a new command takes a new id"


class AppliedId(Value, frozen=True):
    """An id that was applied: it always answers the same request, and refuses any other (CONTRACT, Idempotency)."""

    digest: bytes | None
    """``None`` once the record is retired: only the history of the access token still names the command."""
    token: TokenKey


@dataclass(frozen=True, slots=True)
class State:
    """The state that a batch is decided on. ``bound`` is keyed by command id, which names the organisation."""

    tokens: Mapping[TokenKey, LockedToken]
    bound: Mapping[str, AppliedId]
    series: Mapping[Subject, Series] = field(default_factory=dict)
    """The known failures. Subjects without any may be missing."""


def decide(
    commands: Sequence[Presented | Refused],
    state: State,
    *,
    tried: Sequence[Attempt | None] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[list[Decision], State]:
    """Decide the commands in order, each on the state that the ones before it left.

    ``tried`` holds for each command the attempt that its credentials count as, if any. Returns one decision per
    command, and the state after the last of them.
    """
    tokens, bound, series = dict(state.tokens), dict(state.bound), dict(state.series)
    decisions: list[Decision] = []
    for command, attempt in zip(commands, tried or [None] * len(commands), strict=True):
        decision = refused_unseen(attempt, series, limits) or _decide_one(command, tokens, bound)
        if attempt is not None:
            seen(attempt, decision, series, limits)
        if isinstance(decision, Applied):
            key = decision.presented.token
            tokens[key] = replace(tokens[key], state=decision.to_state, version=decision.version)
            bound[decision.presented.command_id] = AppliedId(decision.presented.digest, key)
        decisions.append(decision)
    return decisions, State(tokens, bound, series)


def rehearse(
    commands: Sequence[Presented | Refused],
    state: State,
    *,
    tried: Sequence[Attempt | None] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[list[Decision], State]:
    """Decide each command as if it alone came now: the answer to a dry run (CONTRACT, Command).

    Guesses count as those of any command do, or dry runs would be a way to guess. No success of a dry run ends a
    series, since any number of them may succeed with one access token. Returns the decisions and the state after them,
    which has the same access tokens and ids.
    """
    tokens, bound, series = state.tokens, state.bound, dict(state.series)
    decisions: list[Decision] = []
    for command, attempt in zip(commands, tried or [None] * len(commands), strict=True):
        decision = refused_unseen(attempt, series, limits) or _decide_one(command, tokens, bound)
        if attempt is not None and is_failure(decision):
            seen(attempt, decision, series, limits)
        decisions.append(decision)
    return decisions, State(tokens, bound, series)


def rounds(decisions: Sequence[Decision]) -> list[list[int]]:
    """Group rehearsed decisions, by their positions, into rounds that can each be carried out at once.

    No access token and no id occurs twice in a round. A refusal changes nothing and is in the first.
    """
    dealt: list[list[int]] = []
    following: dict[TokenKey | str, int] = {}
    for position, decision in enumerate(decisions):
        names: tuple[TokenKey | str, ...] = ()
        if not isinstance(decision, Refused):
            names = (decision.presented.token, decision.presented.command_id)
        place = max((following.get(name, 0) for name in names), default=0)
        following |= dict.fromkeys(names, place + 1)
        if place == len(dealt):
            dealt.append([])
        dealt[place].append(position)
    return dealt


def shown_at_once(decisions: Sequence[Decision]) -> int:
    """Return the number of decisions, from the first on, whose answers show each access token in one state only.

    Data is read once, behind all changes of a batch. A change of an access token that an answer ahead shows must wait
    until that one is read.
    """
    shown: set[TokenKey] = set()
    for position, decision in enumerate(decisions):
        if isinstance(decision, Applied):
            if decision.presented.token in shown:
                return position
            shown.add(decision.presented.token)
        elif isinstance(decision, Replayed) and decision.token is not None:
            shown.add(decision.token)
    return len(decisions)


def needs_id_lookup(commands: Sequence[Presented | Refused], tokens: Mapping[TokenKey, LockedToken]) -> list[Presented]:
    """Return the commands that may not end applied: their token is in another state, or other commands name it as well.

    Their ids must be looked up. Every other command binds its id, or repeats one that the batch binds, and the record
    of commands refuses an id that was bound before.
    """
    presented, named = _named(commands)
    return [
        command
        for command in presented
        if named[command.token] > 1 or _refusal(command, tokens[command.token]) is not None
    ]


def needs_history(
    commands: Sequence[Presented | Refused], tokens: Mapping[TokenKey, LockedToken], returning: frozenset[str]
) -> list[Presented]:
    """Return the commands that may have been applied before and could be applied again once their record is retired.

    For that, other methods must have brought the access token back (``returning``, ``effective_contract.methods``): it
    has changed twice at least, or other commands of the batch change it. Then the history tells, which is kept forever.
    """
    if not returning:
        return []
    presented, named = _named(commands)
    return [
        command
        for command in presented
        if command.method.name in returning and (named[command.token] > 1 or tokens[command.token].version > 1)
    ]


def _named(commands: Sequence[Presented | Refused]) -> tuple[list[Presented], Counter[TokenKey]]:
    """Return the commands that are presented, and how many of them name each access token."""
    presented = [command for command in commands if isinstance(command, Presented)]
    return presented, Counter(command.token for command in presented)


def _decide_one(
    command: Presented | Refused,
    tokens: Mapping[TokenKey, LockedToken],
    bound: Mapping[str, AppliedId],
) -> Decision:
    if isinstance(command, Refused):
        return command
    former = bound.get(command.command_id)
    if former is not None:
        return _decide_again(command, former)
    token = tokens[command.token]
    refusal = _refusal(command, token)
    if refusal is not None:
        return refusal
    return Applied(command, token.state, command.method.to_state, token.version + 1)


def _refusal(command: Presented, token: LockedToken) -> Refused | None:
    """Return the reason why the access token may not be changed, as it is.

    Every such reason stands here: a command that it keeps from being applied needs a lookup of its id.
    """
    if token.state is not command.method.from_state:
        return Refused(StatusCode.INVALID_LIFE_CYCLE_STATE, f"the access token is {token.state}")
    return None


def _decide_again(command: Presented, former: AppliedId) -> Replayed | Refused:
    if former.digest is None:
        return Refused(StatusCode.DUPLICATE_REQUEST, RETIRED)
    if former.digest != command.digest:
        return Refused(StatusCode.DUPLICATE_REQUEST, "this id was applied for another access token or other fields")
    # A code may have moved to another token since, and a replay must not show the old token's data for it.
    return Replayed(command, former.token if former.token == command.token else None)
