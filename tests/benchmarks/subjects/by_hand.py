"""The handling of a message in b and c, as a capable user writes it: one transaction and one reply per message.

The same tables and the same answer as the worker's. It promises less: a crash between commit and reply loses the answer
(the next try finds the access token effective), there is no chain of transitions, and no transition event is published.
The body is parsed by a decoder of FastStream's and nothing is injected: an injected message would cost a thread's turn
each time.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import jwt
import orjson
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage
from pydantic import BaseModel

from worker.settings import Settings

POOL: Final = 16
RIGHT: Final = "ACCESS_TOKENS.SET_EFFECTIVE"
_NO_HASH: Final = b"\0" * 32

_LANE: Final = """
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)
VALUES ('by hand', $1, $2, $3, $4, now())
ON CONFLICT (cluster, consumer_group, topic, partition) DO UPDATE SET owner = EXCLUDED.owner RETURNING id
"""
_CALLER: Final = """
SELECT u.id AS user_id, n.id AS unit_id
FROM organisation AS o
JOIN app_user AS u ON u.organisation = o.id AND u.username = $2 AND u.active
JOIN unit AS n ON n.organisation = o.id AND n.id = $3 AND n.active
WHERE o.id = $1 AND o.active AND $4 = ANY (u.rights)
    AND NOT EXISTS (SELECT FROM revoked_login AS r WHERE r.organisation = o.id AND r.jti = $5)
"""
_TOKEN: Final = """
SELECT id, life_cycle_state, version FROM access_token
WHERE organisation = $1 AND authentication_code = $2 FOR NO KEY UPDATE
"""
_CHANGE: Final = """
UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = version + 1, updated_date = $3, updated_by_user = $4,
    updated_by_unit = $5
WHERE organisation = $1 AND id = $2
"""
_TRANSITION: Final = """
INSERT INTO transition (organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id,
    command_id, cause, lane, sequence, previous_hash, hash)
VALUES ($1, $2, $3, 'NOT_EFFECTIVE', 'EFFECTIVE', $4, $5, $6, $7, 'API', $8, $9, $10, $11)
"""
_RECORD: Final = """
INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id, digest,
    status, message, replayed, access_token_id, version, fields, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, false, $10, $11, 0, $12)
"""
_SHOWN: Final = """
SELECT t.number, v.id AS verifier_id, v.username, v.person_name, v.email,
    a.number AS account_number, a.name AS account_name, a.id AS account_id, a.life_cycle_state AS account_state,
    ao.body::text AS account_owner,
    r.number AS rewards_number, r.id AS rewards_id, r.life_cycle_state AS rewards_state,
    ra.number AS rewards_account_number, ra.name AS rewards_account_name, ra.id AS rewards_account_id,
    ra.life_cycle_state AS rewards_account_state, rao.body::text AS rewards_account_owner
FROM access_token AS t
LEFT JOIN app_user AS v ON v.organisation = t.organisation AND v.id = t.verified_by_user
LEFT JOIN accounts_receivable AS a ON a.organisation = t.organisation AND a.id = t.accounts_receivable
LEFT JOIN contact AS ao ON ao.organisation = a.organisation AND ao.id = a.account_owner
LEFT JOIN rewards_participant AS r ON r.organisation = t.organisation AND r.id = t.rewards_participant
LEFT JOIN accounts_receivable AS ra ON ra.organisation = r.organisation AND ra.id = r.accounts_receivable
LEFT JOIN contact AS rao ON rao.organisation = ra.organisation AND rao.id = ra.account_owner
WHERE t.organisation = $1 AND t.id = $2
"""


class Identifier(BaseModel):
    authentication_code: str


class Command(BaseModel):
    token: str
    access_token_identifier: Identifier
    fields_set: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the handlers."""

    command: Command
    message: KafkaMessage

    @property
    def record(self) -> Any:
        """Return the record as the client read it."""
        return self.message.raw_message


async def decoded(message: KafkaMessage) -> Asked:
    """Decode for both."""
    return Asked(Command.model_validate_json(message.body), message)


def connect(settings: Settings) -> KafkaBroker:
    """Return a broker whose handlers get the decoder's result."""
    kafka = settings.kafka
    return KafkaBroker(
        kafka.bootstrap_servers, request_timeout_ms=kafka.request_timeout_ms, apply_types=False, logger=None
    )


def reading(settings: Settings) -> dict[str, Any]:
    """Return the arguments of both subjects' subscribers."""
    kafka = settings.kafka
    return {
        "group_id": kafka.group_id,
        "session_timeout_ms": kafka.session_timeout_ms,
        "auto_offset_reset": "earliest",
        "decoder": decoded,
    }


@dataclass(frozen=True, slots=True)
class Reply:
    status: str
    data: dict[str, Any] = field(default_factory=dict)
    message: str = ""


class Handler:
    """Answers one command after the other, or many at once: it holds nothing but a pool."""

    def __init__(self, settings: Settings, broker: KafkaBroker, pool: asyncpg.Pool) -> None:
        self._settings = settings
        self._broker = broker
        self._pool = pool
        self._lanes: dict[int, int] = {}

    @classmethod
    async def open(cls, settings: Settings, broker: KafkaBroker) -> "Handler":
        pool = await asyncpg.create_pool(settings.postgres.dsn.get_secret_value(), min_size=1, max_size=POOL)
        return cls(settings, broker, pool)

    async def close(self) -> None:
        await self._pool.close()

    async def answer(self, asked: Asked) -> None:
        """Change the access token, commit, publish the reply and wait for the broker to have it."""
        message = asked.message
        command_id = f"ce:{message.headers.get('ce_source')}:{message.headers.get('ce_id')}"
        reply = await self._handled(asked.command, asked.record, command_id)
        status = {"code": reply.status, "description": "", "message": reply.message}
        headers = {
            "ce_specversion": "1.0",
            "ce_id": hashlib.sha256(command_id.encode()).hexdigest(),
            "ce_source": "/by-hand",
            "ce_type": "access_token.set_effective.result.v1",
            "ce_time": datetime.now(UTC).isoformat(),
            "command_id": command_id,
            "status_code": reply.status,
        }
        await self._broker.publish(
            orjson.dumps({"data": reply.data, "status": status}),
            self._settings.topics.results,
            key=asked.record.key,
            headers=headers,
            correlation_id=message.correlation_id,
        )

    async def _handled(self, command: Command, record: Any, command_id: str) -> Reply:
        try:
            login = jwt.decode(command.token, self._settings.login.secrets[0].get_secret_value(), algorithms=["HS256"])
        except jwt.InvalidTokenError:
            return Reply("INVALID_TOKEN")
        async with self._pool.acquire() as connection, connection.transaction():
            reply, version, token = await self._applied(connection, command, login, record, command_id)
            await connection.execute(
                _RECORD,
                await self._lane(connection, record),
                record.offset,
                record.timestamp,
                login["org"],
                UUID(bytes=hashlib.sha256(command_id.encode()).digest()[:16]),
                command_id,
                hashlib.sha256(record.value).digest(),
                reply.status,
                reply.message,
                token,
                version,
                datetime.now(UTC),
            )
        return reply

    async def _applied(
        self, connection: Any, command: Command, login: dict[str, Any], record: Any, command_id: str
    ) -> tuple[Reply, int | None, str | None]:
        organisation = login["org"]
        caller = await connection.fetchrow(_CALLER, organisation, login["usr"], login["oun"], RIGHT, login["jti"])
        if caller is None:
            return Reply("ACCESS_DENIED"), None, None
        token = await connection.fetchrow(_TOKEN, organisation, command.access_token_identifier.authentication_code)
        if token is None:
            return Reply("ACCESS_TOKEN_NOT_FOUND"), None, None
        if token["life_cycle_state"] != "NOT_EFFECTIVE":
            return Reply("INVALID_LIFE_CYCLE_STATE"), None, None
        now, who, version = datetime.now(UTC), (caller["user_id"], caller["unit_id"]), token["version"] + 1
        await connection.execute(_CHANGE, organisation, token["id"], now.replace(tzinfo=None, microsecond=0), *who)
        await connection.execute(
            _TRANSITION,
            organisation,
            token["id"],
            version,
            now,
            *who,
            command_id,
            await self._lane(connection, record),
            record.offset + 1,
            _NO_HASH,
            hashlib.sha256(command_id.encode()).digest(),
        )
        row = await connection.fetchrow(_SHOWN, organisation, token["id"])
        return Reply("OK", _shown(row, command.fields_set)), version, token["id"]

    async def _lane(self, connection: Any, record: Any) -> int:
        """Return the number that the tables know a partition by."""
        if record.partition not in self._lanes:
            group = self._settings.kafka.group_id
            self._lanes[record.partition] = await connection.fetchval(
                _LANE, group, record.topic, record.partition, uuid4()
            )
        return self._lanes[record.partition]


def _shown(row: Any, fields_set: str) -> dict[str, Any]:
    members = {
        "number": row["number"],
        "verified_by_user": _verifier(row),
        "accounts_receivable": _account(row, "account"),
        "rewards_participant": _rewards(row),
    }
    return {name: members[name] for name in fields_set.split(",") if name in members}


def _verifier(row: Any) -> dict[str, Any] | None:
    if row["verifier_id"] is None:
        return None
    return {"id": row["verifier_id"], **{name: row[name] for name in ("username", "person_name", "email")}}


def _account(row: Any, role: str) -> dict[str, Any] | None:
    if row[f"{role}_id"] is None:
        return None
    owner = row[f"{role}_owner"]
    return {
        "number": row[f"{role}_number"],
        "name": row[f"{role}_name"],
        "id": row[f"{role}_id"],
        "life_cycle_state": row[f"{role}_state"],
        "account_owner": None if owner is None else orjson.loads(owner),
    }


def _rewards(row: Any) -> dict[str, Any] | None:
    if row["rewards_id"] is None:
        return None
    return {
        "number": row["rewards_number"],
        "accounts_receivable": _account(row, "rewards_account"),
        "id": row["rewards_id"],
        "life_cycle_state": row["rewards_state"],
    }
