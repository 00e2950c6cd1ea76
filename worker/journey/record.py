"""Record what was decided: coordinates, id, digest and answer, never its data or what it quotes (DESIGN 2)."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from worker.journey.model import Answer, command_key
from worker.journey.refusals import unquoted
from worker.kafka.delivery import Coordinates
from worker.postgres.pool import Connection

_COLUMNS: Final = (
    *("command_key", "organisation", "command_id", "digest", "status", "message", "replayed", "access_token_id"),
    *("version", "fields", "decided_at", "lane", "record_offset", "record_timestamp", "user_id"),
)


async def record(connection: Connection, lane: int, decided: Sequence[tuple[Coordinates, Answer]]) -> None:
    """Write the records of newly decided commands, in the order of their ids, as every lane does: so none deadlock.

    Another lane may have bound one of the ids since it was looked up. Postgres refuses the batch then, and
    ``worker.errors`` has it run again (``BatchOvertaken``).
    """
    if not decided:
        return
    records = sorted((_record(lane, *each) for each in decided), key=itemgetter(0))
    await connection.copy_records_to_table("command_record", columns=_COLUMNS, records=records)


def _record(lane: int, where: Coordinates, answer: Answer) -> tuple[object, ...]:
    token = None if answer.token is None else answer.token.token
    return (
        *(command_key(answer.command_id), answer.organisation, answer.command_id, answer.digest, answer.code),
        *(unquoted(answer.message), answer.replayed, token, answer.version, answer.fields, answer.decided_at),
        *(lane, where.offset, where.timestamp, answer.user),
    )
