"""Record what was decided: coordinates, id, digest and answer, never the data or quoted text (DESIGN 2)."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter

import msgspec
from msgspec.structs import astuple

from effective_contract.codes import StatusCode
from worker.journey.model import Answer, command_key
from worker.journey.refusals import unquoted
from worker.kafka.delivery import Coordinates
from worker.postgres.pool import Connection


class _RecordRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``command_record`` as it is copied in."""

    command_key: str
    organisation: str | None
    command_id: str
    digest: bytes | None
    status: StatusCode
    message: str
    replayed: bool
    access_token_id: str | None
    version: int | None
    fields: int
    decided_at: datetime
    lane: int
    record_offset: int
    record_timestamp: int
    user_id: str | None


async def record(connection: Connection, lane: int, decided: Sequence[tuple[Coordinates, Answer]]) -> None:
    """Write the records of newly decided commands, in the order of their keys, as every lane does: so none deadlock.

    Another lane may have bound one of the ids since it was looked up. Then Postgres refuses the batch, and
    ``worker.errors`` has it run again (``BatchConflict``).
    """
    if not decided:
        return
    records = sorted((astuple(_row(lane, *each)) for each in decided), key=itemgetter(0))
    await connection.copy_records_to_table("command_record", columns=_RecordRow.__struct_fields__, records=records)


def _row(lane: int, where: Coordinates, answer: Answer) -> _RecordRow:
    token = None if answer.token is None else answer.token.token
    return _RecordRow(
        command_key(answer.command_id),
        answer.organisation,
        answer.command_id,
        answer.digest,
        answer.code,
        unquoted(answer.message),
        answer.replayed,
        token,
        answer.version,
        answer.fields,
        answer.decided_at,
        lane,
        where.offset,
        where.timestamp,
        answer.user,
    )
