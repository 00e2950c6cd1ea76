"""Record what was decided: coordinates, id, digest and answer, never the answer's data (DESIGN 2)."""

from collections.abc import Sequence

from worker.database import Connection
from worker.errors import BatchOvertaken
from worker.model import Answer, Coordinates, command_key
from worker.sql import statement


async def record(connection: Connection, lane: int, decided: Sequence[tuple[Coordinates, Answer]]) -> None:
    """Write the records of newly decided commands, all decided at one moment.

    Raises ``BatchOvertaken`` if another lane has bound one of the ids since it was looked up.
    """
    if not decided:
        return
    rows = sorted(
        ((answer.organisation or "", command_key(answer.command_id), where, answer) for where, answer in decided),
        key=lambda row: row[:2],
    )
    answers = [answer for _, _, _, answer in rows]
    status = await connection.execute(
        statement("record"),
        lane,
        answers[0].decided_at,
        [where.offset for _, _, where, _ in rows],
        [where.timestamp for _, _, where, _ in rows],
        [answer.organisation for answer in answers],
        [key for _, key, _, _ in rows],
        [answer.command_id for answer in answers],
        [answer.digest for answer in answers],
        [answer.code for answer in answers],
        [answer.message for answer in answers],
        [answer.replayed for answer in answers],
        [None if answer.token is None else answer.token.token for answer in answers],
        [answer.version for answer in answers],
        [answer.fields for answer in answers],
    )
    if status != f"INSERT 0 {len(rows)}":
        raise BatchOvertaken
