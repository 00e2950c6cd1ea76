"""The lanes in an audit: their names, the heads of their chains, and the stored hashes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from worker.journey.model import lane_name
from worker.postgres.pool import Row
from worker.postgres.sql import statement

UNPUBLISHED: Final = timedelta(minutes=10)
"""The longest time that a transition may wait to be published."""


async def all_lanes(connection: asyncpg.Connection, batch: int = 0) -> list[Row]:
    """Read the row of every lane, with the head of its chain.

    With ``batch``, the most commands in a batch, each row also tells how many of its last transitions may still wait to
    be published.
    """
    rows: list[Row] = await connection.fetch(statement("audit/lanes"), batch, UNPUBLISHED)
    return rows


async def stored_hashes(
    connection: asyncpg.Connection, places: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Return the stored hashes of transitions by lane id and sequence; a missing transition has no entry."""
    lanes, sequences = [lane for lane, _ in places], [sequence for _, sequence in places]
    rows = await connection.fetch(statement("audit/facts"), lanes, sequences)
    return {(row["lane"], row["sequence"]): row["hash"] for row in rows}


def name_of(lane: Row) -> str:
    """Return the lane's name in transition events, from a row with its cluster, group, topic and partition."""
    return lane_name(lane["cluster"], lane["consumer_group"], lane["topic"], lane["partition"])


def sequences(first: int, last: int) -> str:
    """Return a range of sequence numbers in words."""
    return f"sequence {first}" if first == last else f"sequence {first} to {last}"
