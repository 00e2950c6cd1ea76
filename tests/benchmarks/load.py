"""A backlog of commands, and the answers that it got.

The same for every subject: the golden command, each for an access token of its own that is a copy of the golden one,
with the headers that an upstream system would set. Sent and read with confluent-kafka, which no subject uses.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from uuid import uuid4

import asyncpg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from effective_contract.headers import (
    CE_ID,
    CE_SOURCE,
    CE_SPEC_VERSION,
    CE_TYPE,
    COMMAND_TYPE,
    CORRELATION_ID,
    SPEC_VERSION,
)
from tests.acceptance.clients import TooLate, log_ends, wait_settled
from tests.support.logins import login_token
from worker.demo.commands import documented

GOLDEN_CODE: Final = "99021047380"
LOGINS: Final = 100
"""The number of people that send the commands, each with a login of their own."""
POLL_SECONDS: Final = 0.2
"""Seconds between two looks at a subject's progress: rarely enough to take nothing from it."""
STALLED_SECONDS: Final = 60.0

Written = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""A command's key, value and headers."""

# The references of a copy are those of an access token that has passed every check.
_TOKENS: Final = """
INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code, accounts_receivable,
    rewards_participant, classification, created_date, created_by_user, created_by_unit)
SELECT organisation, name, name, 'NOT_EFFECTIVE', name, accounts_receivable, rewards_participant, classification,
    created_date, created_by_user, created_by_unit
FROM access_token, (SELECT $1::text || '-' || n AS name FROM generate_series(1, $2::integer) AS n) AS load
WHERE organisation = 'ORG1' AND authentication_code = $3
"""

_OWN: Final = (
    """
INSERT INTO contact (organisation, id, body)
SELECT t.organisation, t.id, (jsonb_build_object('id', t.id) || (c.body::jsonb - 'id'))::json
FROM access_token AS t
JOIN accounts_receivable AS a ON (a.organisation, a.id) = (t.organisation, t.accounts_receivable)
JOIN contact AS c ON (c.organisation, c.id) = (a.organisation, a.account_owner)
WHERE starts_with(t.id, $1 || '-')
""",
    """
INSERT INTO accounts_receivable (organisation, id, number, name, life_cycle_state, account_owner)
SELECT t.organisation, t.id, a.number, a.name, a.life_cycle_state, t.id
FROM access_token AS t
JOIN accounts_receivable AS a ON (a.organisation, a.id) = (t.organisation, t.accounts_receivable)
WHERE starts_with(t.id, $1 || '-')
""",
    """
INSERT INTO rewards_participant (organisation, id, number, life_cycle_state, accounts_receivable)
SELECT t.organisation, t.id, r.number, r.life_cycle_state, t.id
FROM access_token AS t
JOIN rewards_participant AS r ON (r.organisation, r.id) = (t.organisation, t.rewards_participant)
WHERE starts_with(t.id, $1 || '-')
""",
    "UPDATE access_token SET accounts_receivable = id, rewards_participant = id WHERE starts_with(id, $1 || '-')",
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """``count`` commands of ``run``, of which ``statuses`` gives the expected number of each status."""

    run: str
    count: int
    written: Iterable[Written]
    """Made as they are sent, once."""
    statuses: Mapping[str, int]

    @classmethod
    def of(
        cls, run: str, numbers: Sequence[int], *, statuses: Mapping[str, int] | None = None, **members: Any
    ) -> "Backlog":
        """Return the golden command for ``{run}-{number}`` each, all expected ``OK`` by default."""
        written = commands(run, numbers, **members)
        return cls(run, len(numbers), written, statuses or {"OK": len(numbers)})


@dataclass(frozen=True, slots=True)
class Answers:
    """The findings of a ``read_committed`` reader."""

    count: int
    """Records, duplicates included."""
    distinct: int
    """Commands that were answered."""
    last_ms: int
    """The time at which the broker took the last, in milliseconds since the epoch."""
    statuses: Mapping[str, int]

    def rate_since(self, began_ms: float) -> float:
        """Return commands per second from a moment before the first answer, by the same clock, to the last."""
        return self.distinct / (self.last_ms - began_ms) * 1000

    def check(self, commands: int, statuses: Mapping[str, int]) -> None:
        """Raise ``AssertionError`` unless each command has one answer, with so many of each status."""
        assert (self.count, self.distinct) == (commands, commands), f"{self} for {commands} commands"
        assert self.statuses == statuses, f"{self.statuses} for {commands} commands, and not {statuses}"


def mixed(found: int, count: int) -> list[int]:
    """Return the numbers up to ``count``, with those up to ``found`` evenly among the others.

    A caller whose codes are unknown very many times in a row is made to wait.
    """
    others, unknown = iter(range(found + 1, count + 1)), (count - found) // found
    spread = [number for first in range(1, found + 1) for number in (first, *islice(others, unknown))]
    return [*spread, *others]


def new_run() -> str:
    """Return a name that no other run has: of access tokens, and of the commands for them."""
    return f"run{uuid4().hex[:8]}"


async def give_accounts(owner_dsn: str, run: str) -> None:
    """Give each access token of a run an account, its owner and a rewards participant of its own: copies, too."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in _OWN:
            await connection.execute(statement, run)
        await connection.execute("ANALYZE access_token, contact, accounts_receivable, rewards_participant")
    finally:
        await connection.close()


async def make_tokens(owner_dsn: str, run: str, count: int) -> None:
    """Make so many access tokens ``{run}-1`` … of ORG1 that can be set effective: copies of the golden one."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(_TOKENS, run, count, GOLDEN_CODE)
        await connection.execute("ANALYZE access_token")  # as `import` does
    finally:
        await connection.close()


def commands(run: str, numbers: Iterable[int], **members: Any) -> Iterator[Written]:
    """Yield key, value and headers of each command. ``members`` replaces members of the golden command."""
    golden = documented("command.json")
    logins = [login_token() for _ in range(LOGINS)]
    constant = [(CE_SPEC_VERSION, SPEC_VERSION.encode()), (CE_SOURCE, b"/bench"), (CE_TYPE, COMMAND_TYPE.encode())]
    for number in numbers:
        code = f"{run}-{number}"
        body = {
            **golden,
            "token": logins[number % LOGINS],
            "access_token_identifier": {"authentication_code": code},
            **members,
        }
        name = code.encode()
        yield name, json.dumps(body).encode(), [*constant, (CE_ID, name), (CORRELATION_ID, name)]


def send_all(bootstrap: str, topic: str, written: Iterable[Written]) -> None:
    """Send commands by key over all partitions, in their order; return when the broker has them."""
    faults: list[str] = []

    def told(error: KafkaError | None, _: object) -> None:
        if error is not None:
            faults.append(str(error))

    options = {"linger.ms": 5, "batch.size": 512 * 1024, "queue.buffering.max.messages": 200_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **options})
    for key, value, headers in written:
        while True:
            try:
                producer.produce(topic, value, key, headers=[*headers], on_delivery=told)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    left = producer.flush(STALLED_SECONDS)
    assert not faults, faults[0]
    assert not left, f"{left} commands were not taken by the broker"


def wait_through(bootstrap: str, group: str, topic: str) -> None:
    """Wait until the group has committed every command of the topic. Raises ``TooLate`` if it stands still."""
    ends = log_ends(bootstrap, topic)
    options = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False, "log_level": 0}
    looker = Consumer({"bootstrap.servers": bootstrap, **options})
    try:
        places = [TopicPartition(topic, number) for number, end in ends.items() if end]
        before, moved = -1, time.monotonic()
        while True:
            offsets = {place.partition: max(place.offset, 0) for place in looker.committed(places, timeout=30)}
            if all(offset >= ends[number] for number, offset in offsets.items()):
                return
            if sum(offsets.values()) > before:
                before, moved = sum(offsets.values()), time.monotonic()
            elif time.monotonic() - moved > STALLED_SECONDS:
                raise TooLate(f"{group} stands still: {offsets} of {ends}")
            time.sleep(POLL_SECONDS)
    finally:
        looker.close()


def answered(bootstrap: str, topic: str, run: str) -> Answers:
    """Read the topic from its beginning to its end, and count the answers to the commands of ``run``."""
    wait_settled(bootstrap, topic)
    ours = f"{run}-".encode()
    names: set[bytes] = set()
    count, last = 0, 0
    statuses: Counter[str] = Counter()
    for headers, moment in read_headers(bootstrap, topic):
        name = headers.get(CORRELATION_ID, b"")
        if name.startswith(ours):
            names.add(name)
            count, last = count + 1, max(last, moment)
            statuses[headers.get("status_code", b"").decode()] += 1
    return Answers(count, len(names), last, statuses)


def read_headers(bootstrap: str, topic: str) -> Iterator[tuple[dict[str, bytes], int]]:
    """Yield headers and timestamp of every record that a ``read_committed`` reader sees."""
    options = {"isolation.level": "read_committed", "enable.partition.eof": True, "enable.auto.commit": False}
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": f"reader-{uuid4().hex}", "log_level": 0, **options})
    try:
        open_places = set(reader.list_topics(topic, timeout=30).topics[topic].partitions)
        reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in open_places])
        deadline = time.monotonic() + 10 * STALLED_SECONDS
        while open_places:
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in reader.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    headers: Any = message.headers()
                    yield dict(headers or ()), message.timestamp()[1]
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_places.discard(message.partition())
                else:
                    raise AssertionError(str(error))
    finally:
        reader.close()
