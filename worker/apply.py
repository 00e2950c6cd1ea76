"""Apply the decided transitions: the state, the immutable fact, and the lane's hash chain, set-based."""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from schemas.transition import event_digest
from worker.database import Connection
from worker.model import Applied, Decision, Fact, Value
from worker.sql import statement


class Chain(Value, frozen=True):
    """The head of a lane's hash chain (CONTRACT 6)."""

    sequence: int
    hash: bytes


def chained(decisions: Sequence[Decision], chain: Chain, *, lane_name: str, now: datetime) -> list[Fact]:
    """The facts of a batch, one per applied decision, each linked to the one before it."""
    facts: list[Fact] = []
    for decision in decisions:
        if not isinstance(decision, Applied):
            continue
        fact = _link(decision, chain, lane_name, now)
        facts.append(fact)
        chain = Chain(fact.sequence, fact.hash)
    return facts


def _link(decision: Applied, chain: Chain, lane_name: str, now: datetime) -> Fact:
    asked = decision.presented
    fact = Fact(
        organisation=asked.token.organisation,
        token=asked.token.token,
        version=decision.version,
        from_state=decision.from_state,
        to_state=decision.to_state,
        occurred_at=now,
        user=asked.caller.user,
        unit=asked.caller.unit,
        command_id=asked.command_id,
        cause="API",
        lane=lane_name,
        sequence=chain.sequence + 1,
        previous_hash=chain.hash,
    )
    return replace(fact, hash=event_digest(fact.members()))


async def apply(connection: Connection, facts: Sequence[Fact], lane: int) -> None:
    """Write the transitions of a batch. The rows are locked, so a transition that does not fit is a bug and raises."""
    if not facts:
        return
    now = facts[0].occurred_at
    organisations = [fact.organisation for fact in facts]
    tokens = [fact.token for fact in facts]
    versions = [fact.version for fact in facts]
    users = [fact.user for fact in facts]
    units = [fact.unit for fact in facts]
    to_states = [fact.to_state for fact in facts]
    # Dates are shown to the second; Postgres would round half a second up, into the future.
    updated = now.replace(tzinfo=None, microsecond=0)
    changed = await connection.execute(
        statement("apply"), organisations, tokens, versions, users, units, updated, to_states
    )
    if changed != f"UPDATE {len(facts)}":
        raise RuntimeError(f"{len(facts)} transitions were decided under a lock, but Postgres says {changed}")
    await connection.execute(
        statement("write_history"),
        organisations,
        tokens,
        versions,
        [fact.from_state for fact in facts],
        to_states,
        users,
        units,
        [fact.command_id for fact in facts],
        [fact.sequence for fact in facts],
        now,
        lane,
        [fact.previous_hash for fact in facts],
        [fact.hash for fact in facts],
    )
    await connection.execute(statement("advance_chain"), lane, facts[-1].sequence, facts[-1].hash)
