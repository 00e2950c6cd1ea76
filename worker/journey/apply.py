"""Apply the decided transitions, set-based: update the access tokens and append a chained, immutable fact for each."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import astuple, replace

from effective_contract.states import LifeCycleState
from worker.journey.digests import CommandNames
from worker.journey.model import Applied, Decision, Transition
from worker.postgres.pool import Connection
from worker.postgres.sql import statement
from worker.values import Value


class Chain(Value, frozen=True):
    """The head of a lane's hash chain (CONTRACT, Transition event)."""

    sequence: int
    hash: bytes


def chained(
    decisions: Sequence[Decision],
    offsets: Sequence[int],
    chain: Chain,
    *,
    lane_name: str,
    moment: datetime,
    names: CommandNames,
) -> list[Transition]:
    """Build the facts of a batch: one per applied decision, all of one moment, each linked to the one before it.

    ``offsets`` are those of the decided commands. ``names`` gives the names by which facts know them.
    """
    transitions: list[Transition] = []
    for decision, offset in zip(decisions, offsets, strict=True):
        if not isinstance(decision, Applied):
            continue
        presented = decision.presented
        transition = sealed(
            Transition(
                organisation=presented.token.organisation,
                token=presented.token.token,
                version=decision.version,
                from_state=decision.from_state,
                to_state=decision.to_state,
                occurred_at=moment,
                user=presented.caller.user,
                unit=presented.caller.unit,
                command_id=names.of(presented.command_id),
                cause="API",
                lane=lane_name,
                sequence=chain.sequence + 1,
                previous_hash=chain.hash,
                offset=offset,
            )
        )
        transitions.append(transition)
        chain = Chain(transition.sequence, transition.hash)
    return transitions


def head(chain: Chain, transitions: Sequence[Transition]) -> Chain:
    """Return the head of the chain once these facts are at its end."""
    return Chain(transitions[-1].sequence, transitions[-1].hash) if transitions else chain


def sealed(transition: Transition) -> Transition:
    """Return a fact that has its position in a chain, with its text and its hash."""
    text = transition.canonical()
    return replace(transition, text=text, hash=hashlib.sha256(text).digest())


class _TransitionRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``transition`` as it is copied in."""

    organisation: str
    access_token_id: str
    version: int
    from_state: LifeCycleState | None
    to_state: LifeCycleState
    occurred_at: datetime
    user_id: str | None
    unit_id: str | None
    command_id: str | None
    cause: str
    lane: int
    sequence: int
    previous_hash: bytes
    hash: bytes
    record_offset: int | None


async def apply(connection: Connection, transitions: Sequence[Transition], lane: int) -> None:
    """Write the facts of a batch and update its access tokens to match.

    The rows are locked, so a transition that does not fit is a bug: raises ``RuntimeError``.
    """
    if not transitions:
        return
    await write_transitions(connection, transitions, lane)
    first, last = transitions[0], transitions[-1]
    # Dates have whole seconds. Postgres would round half a second up, into the future.
    updated = first.occurred_at.replace(tzinfo=None, microsecond=0)
    changed = await connection.execute(statement("journey/apply"), lane, first.sequence, last.sequence, updated)
    if changed != f"UPDATE {len(transitions)}":
        raise RuntimeError(f"{len(transitions)} transitions were decided under a lock, but Postgres says {changed}")


async def write_transitions(connection: Connection, transitions: Sequence[Transition], lane: int) -> None:
    """Write facts of the lane with this id. Leaves the access tokens alone."""
    await connection.copy_records_to_table(
        "transition",
        columns=_TransitionRow.__struct_fields__,
        records=[astuple(_row(transition, lane)) for transition in transitions],
    )


def _row(transition: Transition, lane: int) -> _TransitionRow:
    return _TransitionRow(
        transition.organisation,
        transition.token,
        transition.version,
        transition.from_state,
        transition.to_state,
        transition.occurred_at,
        transition.user,
        transition.unit,
        transition.command_id,
        transition.cause,
        lane,
        transition.sequence,
        transition.previous_hash,
        transition.hash,
        transition.offset,
    )
