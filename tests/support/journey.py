"""The Postgres half of the journey without Kafka: lanes whose records a test writes itself."""

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import asyncpg

from effective_contract.codes import StatusCode
from effective_contract.methods import METHODS, Methods
from tests.support.builders import OUTGOING
from tests.support.logins import SECRET, login_token
from tests.support.seeded import CODE, EFFECTIVE_CODE, IDENTIFIER, PASS_CODE
from worker.journey.attempt_limits import DEFAULT_LIMITS, Limits
from worker.journey.attempts import Attempts
from worker.journey.authorise import Logins
from worker.journey.digests import attempt_keys, command_names
from worker.journey.messages import result_message
from worker.journey.model import Answered, Transition
from worker.journey.pass_codes import PassCodes
from worker.kafka.delivery import Coordinates, Delivery, Header
from worker.observability.metrics import Metrics
from worker.pipeline import Lease, Pipeline, Policy
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.resilience.circuit_breaker import CircuitBreaker
from worker.settings import read_settings

DIGEST_KEY: Final = "the key of the digests of all tests"
_KEYED: Final = read_settings({"WORKER_DIGEST_KEYS": DIGEST_KEY})
NAMES: Final = command_names(_KEYED)
"""The names by which transitions identify commands."""
[KEY] = attempt_keys(_KEYED)
"""The key of the digests of commands refused for their credentials."""

POLICY: Final = Policy(max_command_bytes=65_536, expiry_at_append=False, reveal_verification_code=False)


@dataclass(frozen=True)
class Sent:
    """A command as a sender writes it."""

    value: bytes | None
    headers: tuple[Header, ...] = ()
    key: bytes | None = None


def by_code(
    code: str = CODE,
    *,
    login: str | None = None,
    fields: str | None = "number",
    request_id: str | None = None,
    event: tuple[str, str] | None = None,
    headers: tuple[Header, ...] = (),
) -> Sent:
    """Return a command by code. ``event`` is the ``ce_source`` and the ``ce_id``."""
    return _sent({"authentication_code": code}, login, fields, request_id, event=event, headers=headers)


def by_identifier(
    identifier: str = IDENTIFIER,
    pass_code: str = PASS_CODE,
    *,
    login: str | None = None,
    fields: str | None = "number",
    request_id: str | None = None,
    event: tuple[str, str] | None = None,
) -> Sent:
    return _sent({"identifier": identifier, "pass_code": pass_code}, login, fields, request_id, event=event)


def _sent(
    named: dict[str, str],
    login: str | None,
    fields: str | None,
    request_id: str | None,
    *,
    event: tuple[str, str] | None,
    headers: tuple[Header, ...] = (),
) -> Sent:
    body = {
        "token": login or login_token(),
        "access_token_identifier": named,
        "fields_set": fields,
        "request_unique_identifier": request_id,
    }
    if event is not None:
        headers = (*headers, ("ce_source", event[0].encode()), ("ce_id", event[1].encode()))
    return Sent(json.dumps(body).encode(), headers)


def dry_run(sent: Sent) -> Sent:
    """Return the same command as a dry run."""
    return replace(sent, headers=(*sent.headers, ("dry_run", b"true")))


async def decided(pipeline: Pipeline, lease: Lease, batch: Sequence[Delivery]) -> tuple[list[Answered], Lease]:
    """Decide a batch as a lane does: with many pass codes in parts, each published before the next."""
    answered: list[Answered] = []
    while len(answered) < len(batch):
        rest = batch[len(answered) :]
        part, lease = await pipeline.run(lease, rest, rest[0].coordinates.offset)
        answered += part
    return answered, lease


@dataclass
class Partition:
    """A lane and the records of its partition so far."""

    journey: "Journey"
    partition: int
    lease: Lease
    log: list[Delivery] = field(default_factory=list)

    def deliver(self, *sent: Sent, timestamp: int | None = None, by_broker: bool = False) -> list[Delivery]:
        """Append records to the partition."""
        stamp = int(time.time() * 1000) if timestamp is None else timestamp
        new = [
            Delivery(
                Coordinates("cluster", "commands", self.partition, len(self.log) + position, stamp),
                each.key,
                each.value,
                each.headers,
                stamped_by_broker=by_broker,
            )
            for position, each in enumerate(sent)
        ]
        self.log += new
        return new

    async def take(self, batch: Sequence[Delivery]) -> list[Answered]:
        """Decide a batch, from its own first offset on, in as many parts as the pipeline makes of it."""
        answered, self.lease = await decided(self.journey.pipeline, self.lease, batch)
        return answered

    async def run(self, *sent: Sent) -> list[Answered]:
        """Deliver and decide in one batch."""
        return await self.take(self.deliver(*sent))

    async def one(self, sent: Sent) -> Answered:
        [answered] = await self.run(sent)
        return answered

    async def taken_over(self) -> "Partition":
        """Return the same partition with another owner, which begins where the row says that the last batch began."""
        lease = await self.journey.own(self.partition)
        return Partition(self.journey, self.partition, lease, self.log)


class Journey:
    """A pipeline over a database of the test's own."""

    def __init__(self, database: Database, pipeline: Pipeline, owner: asyncpg.Connection) -> None:
        self.database = database
        self.pipeline = pipeline
        self.owner = owner
        """A connection with all rights, to inspect and to damage the database."""

    async def own(self, partition: int) -> Lease:
        """Take the lane's row, as a worker that starts."""
        owner, now = uuid4(), datetime.fromtimestamp(time.time(), UTC)
        async with self.database.connection() as connection:
            row = await connection.fetchrow(
                statement("lanes/take"), "cluster", "group", "commands", partition, owner, now
            )
            assert row is not None
            if row["next_offset"] is None:
                assert await connection.fetchval(statement("lanes/open"), row["id"], owner, 0) == row["id"]
        return Lease(row["id"], f"cluster/group/commands/{partition}", owner, row["next_offset"] or 0)

    async def lane(self, partition: int = 0) -> Partition:
        return Partition(self, partition, await self.own(partition))

    async def token(self, code: str = CODE, organisation: str = "ORG1") -> asyncpg.Record:
        row = await self.owner.fetchrow(
            "SELECT * FROM access_token WHERE organisation = $1 AND authentication_code = $2", organisation, code
        )
        assert row is not None
        return row

    async def every_table(self) -> dict[str, list[str]]:
        """Return every row of every table as text, sorted."""
        tables = await self.owner.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        )
        return {
            name: [row for (row,) in await self.owner.fetch(f'SELECT whole::text FROM "{name}" AS whole ORDER BY 1')]
            for (name,) in tables
        }

    async def count(self, table: str) -> int:
        return int(await self.owner.fetchval(f"SELECT count(*) FROM {table}"))


@asynccontextmanager
async def journey(
    worker_dsn: str,
    owner_dsn: str,
    *,
    policy: Policy = POLICY,
    clock: Callable[[], float] = time.time,
    pass_codes: PassCodes | None = None,
    breaker: CircuitBreaker | None = None,
    connections: int = 4,
    limits: Limits = DEFAULT_LIMITS,
    metrics: Metrics | None = None,
    whole: bool = False,
    methods: Methods = METHODS,
) -> AsyncIterator[Journey]:
    """Yield a journey over a migrated database. ``clock`` is the worker's.

    Unless its histories must be ``whole``, an access token is effective without any.
    """
    guarding = Attempts(KEY, limits, metrics or Metrics())
    database = await Database.open(worker_dsn, connections=connections)
    compared = pass_codes or PassCodes()
    owner = await asyncpg.connect(owner_dsn)
    try:
        if not whole:
            await owner.execute(
                "UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE authentication_code = $1", EFFECTIVE_CODE
            )
        logins, unblown = Logins((SECRET,), clock), breaker or CircuitBreaker(time.monotonic)
        yield Journey(
            database,
            Pipeline(
                database,
                logins,
                compared,
                guarding,
                names=NAMES,
                clock=clock,
                policy=policy,
                breaker=unblown,
                beat=lambda: None,
                methods=methods,
            ),
            owner,
        )
    finally:
        await owner.close()
        compared.close()
        await database.close()


def codes(answered: Sequence[Answered]) -> list[StatusCode]:
    return [each.answer.code for each in answered]


def transitions(answered: Sequence[Answered]) -> list[Transition]:
    return [each.transition for each in answered if each.transition is not None]


def event_of(transition: Transition) -> dict[str, Any]:
    """Return the transition event that a reader sees."""
    return {**transition.members(), "hash": transition.hash.hex()}


def result_of(each: Answered) -> Any:
    """Return the result that the sender reads."""
    value = result_message(each, OUTGOING).value
    assert value is not None
    return json.loads(value)
