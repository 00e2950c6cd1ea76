"""The recalls (CONTRACT, Idempotency): answers that these very records had, and ids that were applied before."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from effective_contract.codes import StatusCode
from effective_contract.states import LifeCycleState
from worker.journey.decide import AppliedId
from worker.journey.digests import CommandNames
from worker.journey.model import Answer, Outcome, Presented, Refused, TokenKey, Transition, command_key
from worker.postgres.pool import Connection, Row
from worker.postgres.sql import statement


async def recall_by_coordinates(
    connection: Connection, lane: int, lane_name: str, first: int, last: int
) -> dict[tuple[int, int], Outcome]:
    """Return the recorded outcomes of the offsets ``first`` to ``last``, keyed by offset and timestamp.

    An answer that was decided and perhaps never seen is given again before any check (CONTRACT, Idempotency).
    """
    rows = await connection.fetch(statement("journey/recall_by_coordinates"), lane, first, last)
    return {(row["record_offset"], row["record_timestamp"]): _recalled(row, lane_name) for row in rows}


def _recalled(row: Row, lane_name: str) -> Outcome:
    organisation, token = row["organisation"], row["access_token_id"]
    answer = Answer(
        command_id=row["command_id"],
        code=StatusCode(row["status"]),
        message=row["message"],
        decided_at=row["decided_at"],
        replayed=row["replayed"],
        token=None if token is None else TokenKey(organisation, token),
        version=row["version"],
        fields=row["fields"],
        organisation=organisation,
        digest=row["digest"],
        user=row["refused_user"],
    )
    return Outcome(answer, None if row["sequence"] is None else _transition(row, lane_name))


def _transition(row: Row, lane_name: str) -> Transition:
    transition = Transition(
        organisation=row["organisation"],
        token=row["access_token_id"],
        version=row["version"],
        from_state=LifeCycleState(row["from_state"]),
        to_state=LifeCycleState(row["to_state"]),
        occurred_at=row["occurred_at"],
        user=row["user_id"],
        unit=row["unit_id"],
        command_id=row["fact_command_id"],
        cause=row["cause"],
        lane=lane_name,
        sequence=row["sequence"],
        previous_hash=row["previous_hash"],
        hash=row["hash"],
        offset=row["record_offset"],
    )
    return replace(transition, text=transition.canonical())


async def recall_by_id(connection: Connection, commands: Iterable[Presented | Refused]) -> dict[str, AppliedId]:
    """Return those of these commands' ids that were applied before, keyed by command id."""
    ids = {command.command_id: command.caller.organisation for command in commands if isinstance(command, Presented)}
    if not ids:
        return {}
    rows = await connection.fetch(
        statement("journey/recall_by_id"), list(ids.values()), [command_key(command_id) for command_id in ids]
    )
    return _applied_ids(rows)


async def recall_from_history(
    connection: Connection, commands: Sequence[Presented], names: CommandNames
) -> dict[str, AppliedId]:
    """Return those of these commands' ids that a fact in the history of their access token names, by command id.

    Facts outlive the record of commands, and the key that named them must be one of ``names``.
    """
    if not commands:
        return {}
    pairs = dict.fromkeys((command.token, command.command_id) for command in commands)
    named = [(token, command_id, name) for token, command_id in pairs for name in names.all_of(command_id)]
    rows = await connection.fetch(
        statement("journey/recall_from_history"),
        [token.organisation for token, _, _ in named],
        [token.token for token, _, _ in named],
        [command_id for _, command_id, _ in named],
        [name for _, _, name in named],
    )
    return _applied_ids(rows)


def _applied_ids(rows: Iterable[Row]) -> dict[str, AppliedId]:
    return {
        row["command_id"]: AppliedId(row["digest"], TokenKey(row["organisation"], row["access_token_id"]))
        for row in rows
    }
