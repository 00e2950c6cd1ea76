"""Anchors: the heads of all chains at one moment. A copy kept elsewhere proves later what was there.

See CONTRACT, Transition event.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from worker.errors import OperatorError
from worker.operations.audit.lanes import all_lanes, name_of, stored_hashes
from worker.values import rfc3339


class AnchorError(OperatorError):
    """The text is no anchor, or was changed since it was printed."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last transition of a chain. ``hash`` is lower-case hex."""

    lane: str
    sequence: int
    hash: str


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All chain heads at one moment, with a digest of them."""

    taken_at: str
    heads: tuple[Head, ...]
    digest: str
    """Lower-case hex SHA-256 of the compact JSON of ``taken_at`` and ``heads``."""
    format: int
    signature: str | None = None
    """Lower-case hex HMAC-SHA256 of the digest as it is written, under a key that no worker has."""


async def take_anchor(connection: asyncpg.Connection, *, now: datetime, key: bytes | None = None) -> Anchor:
    """Return the heads of all chains that have begun, signed with ``key`` if there is one.

    Raises ``AnchorError`` if a chain does not end at its lane's head.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = [row for row in await all_lanes(connection) if row["chain_sequence"]]
        ends = await stored_hashes(connection, [(row["id"], row["chain_sequence"]) for row in rows])
    for row in rows:
        if ends.get((row["id"], row["chain_sequence"])) != row["chain_hash"]:
            raise AnchorError(f"the head of lane {name_of(row)} is not in its chain: see audit verify")
    heads = tuple(Head(name_of(row), row["chain_sequence"], row["chain_hash"].hex()) for row in rows)
    digest = _digest(rfc3339(now), heads)
    return Anchor(rfc3339(now), heads, digest, 1, None if key is None else _signature(key, digest))


def read_anchor(text: bytes, *, key: bytes | None = None) -> Anchor:
    """Read the JSON of an anchor that :func:`take_anchor` made; with a ``key`` it must be signed with that key.

    Raises ``AnchorError``.
    """
    try:
        anchor = msgspec.json.decode(text, type=Anchor)
    except msgspec.MsgspecError as error:
        raise AnchorError(f"this is no anchor: {error}") from None
    if anchor.format != 1:
        raise AnchorError(f"the anchor is of format {anchor.format}, and only 1 is known")
    if _digest(anchor.taken_at, anchor.heads) != anchor.digest:
        raise AnchorError("the anchor was changed: its digest is not that of its time and heads")
    if key is not None and anchor.signature is None:
        raise AnchorError("the anchor is not signed: it may be anybody's")
    if key is not None and not hmac.compare_digest(anchor.signature or "", _signature(key, anchor.digest)):
        raise AnchorError("the anchor was not signed with this key")
    return anchor


def _signature(key: bytes, digest: str) -> str:
    return hmac.new(key, digest.encode(), "sha256").hexdigest()


def _digest(taken_at: str, heads: Sequence[Head]) -> str:
    return hashlib.sha256(msgspec.json.encode([taken_at, heads])).hexdigest()
