"""Apply the decided transitions, set-based: update the access tokens and append a chained, immutable fact for each."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from effective_contract.states import LifeCycleState
from worker.journey.digests import CommandNames
from worker.journey.model import Applied, Decision, Fact
from worker.postgres.pool import Connection
from worker.postgres.sql import statement
from worker.values import Value


class Chain(Value, frozen=True):
    """The head of a lane's hash chain (CONTRACT 6)."""

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
) -> list[Fact]:
    """Build the facts of a batch: one per applied decision, all of one moment, each linked to the one before it.

    ``offsets`` are those of the decided commands. ``names`` gives the names by which facts know them.
    """
    facts: list[Fact] = []
    for decision, offset in zip(decisions, offsets, strict=True):
        if not isinstance(decision, Applied):
            continue
        asked = decision.presented
        fact = sealed(
            Fact(
                organisation=asked.token.organisation,
                token=asked.token.token,
                version=decision.version,
                from_state=decision.from_state,
                to_state=decision.to_state,
                occurred_at=moment,
                user=asked.caller.user,
                unit=asked.caller.unit,
                command_id=names.of(asked.command_id),
                cause="API",
                lane=lane_name,
                sequence=chain.sequence + 1,
                previous_hash=chain.hash,
                offset=offset,
            )
        )
        facts.append(fact)
        chain = Chain(fact.sequence, fact.hash)
    return facts


def head(chain: Chain, facts: Sequence[Fact]) -> Chain:
    """Return the head of the chain once these facts are at its end."""
    return Chain(facts[-1].sequence, facts[-1].hash) if facts else chain


def sealed(fact: Fact) -> Fact:
    """Return a fact that has its position in a chain, with its text and its hash."""
    text = fact.canonical()
    return replace(fact, text=text, hash=hashlib.sha256(text).digest())


class _TransitionRow(NamedTuple):
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


async def apply(connection: Connection, facts: Sequence[Fact], lane: int) -> None:
    """Write the facts of a batch and update its access tokens to match.

    The rows are locked, so a transition that does not fit is a bug: raises ``RuntimeError``.
    """
    if not facts:
        return
    await write_facts(connection, facts, lane)
    first, last = facts[0], facts[-1]
    # Dates have whole seconds. Postgres would round half a second up, into the future.
    updated = first.occurred_at.replace(tzinfo=None, microsecond=0)
    changed = await connection.execute(statement("journey/apply"), lane, first.sequence, last.sequence, updated)
    if changed != f"UPDATE {len(facts)}":
        raise RuntimeError(f"{len(facts)} transitions were decided under a lock, but Postgres says {changed}")


async def write_facts(connection: Connection, facts: Sequence[Fact], lane: int) -> None:
    """Write facts of the lane with this id. Leaves the access tokens alone."""
    await connection.copy_records_to_table(
        "transition", columns=_TransitionRow._fields, records=[_row(fact, lane) for fact in facts]
    )


def _row(fact: Fact, lane: int) -> _TransitionRow:
    return _TransitionRow(
        fact.organisation,
        fact.token,
        fact.version,
        fact.from_state,
        fact.to_state,
        fact.occurred_at,
        fact.user,
        fact.unit,
        fact.command_id,
        fact.cause,
        lane,
        fact.sequence,
        fact.previous_hash,
        fact.hash,
        fact.offset,
    )
