"""The cost of verifying a history: time and memory of ``audit verify``, without the topic and with it."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg
from confluent_kafka import Producer

from effective_contract.states import LifeCycleState
from tests.acceptance.worker_process import worker_settings
from tests.benchmarks.growth import only_tokens
from tests.benchmarks.meter import PROC, status_bytes
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage
from tests.providers.kafka import TopicNames
from worker.journey.apply import sealed, write_transitions
from worker.journey.messages import OutgoingTopics, transition_message
from worker.journey.model import Transition, lane_name
from worker.kafka.topics import PARTITIONS

TRANSITIONS: Final = 1_000_000
LONGEST_REASON: Final = 2_000
"""Characters."""
MEMORY_BAR: Final = 150
"""MiB."""
POLL_SECONDS: Final = 0.05
_CHUNK: Final = 10_000
_NOW: Final = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
_USER: Final = "6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01"
_UNIT: Final = "1"
_PLACE: Final = ("bench", "audited", "commands")
_LANE: Final = """
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)
VALUES ($1, $2, $3, $4, gen_random_uuid(), now(), $5, $5) RETURNING id
"""


async def auditing(stage: Stage, report: Report, quick: bool) -> None:
    """Store and publish a history of as many access tokens, dealt over the lanes, and verify it."""
    count = TRANSITIONS // (10 if quick else 1)
    topics = await stage.new_topics(PARTITIONS)
    run = await only_tokens(stage, count)
    began = time.monotonic()
    async with stage.owner() as connection:
        await connection.execute("SET session_replication_role = replica")
        # The fixture has one that was effective before there was any history, which an audit names.
        await connection.execute("UPDATE access_token SET life_cycle_state = 'NOT_EFFECTIVE'")
        await connection.execute(
            "UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = 1, updated_by_user = $2,"
            " updated_by_unit = $3, updated_date = $4 WHERE starts_with(id, $1 || '-')",
            run,
            _USER,
            _UNIT,
            _NOW.replace(tzinfo=None, microsecond=0),
        )
        for partition in range(PARTITIONS):
            names = [f"{run}-{number}" for number in range(1 + partition, count + 1, PARTITIONS)]
            await _chain(connection, stage, topics, partition, names)
        await connection.execute("VACUUM ANALYZE")
    report.say(f"{count:,} transitions were stored and published in {time.monotonic() - began:.0f} s")
    rows = [
        await asyncio.to_thread(_verify, stage, topics, label, count, options)
        for label, options in (("without the topic", ("--no-topic",)), ("with the topic", ()))
    ]
    columns = ("audit verify", "transitions", "s", "µs a transition", "peak MiB")
    report.table("What it takes to verify a history", columns, rows)
    memory = max(float(row[-1]) for row in rows)
    report.judge("memory to verify", f"<= {MEMORY_BAR} MiB", f"{memory:.0f} MiB", met=memory <= MEMORY_BAR)
    await stage.drop_topics(topics)


async def _chain(
    connection: asyncpg.Connection, stage: Stage, topics: TopicNames, partition: int, names: Sequence[str]
) -> None:
    """Write a lane, with one transition of each access token, as a worker would have left it."""
    lane = await connection.fetchval(_LANE, *_PLACE, partition, len(names))
    producer = Producer({"bootstrap.servers": stage.bootstrap, "linger.ms": 20})
    post = OutgoingTopics(topics.results, topics.transitions, topics.dead_letters, "audited", "bench")
    held: list[Transition] = []
    for transition in _facts(partition, names):
        held.append(transition)
        message = transition_message(transition, post)
        producer.produce(topics.transitions, message.value, message.key, partition, headers=list(message.headers))
        if len(held) == _CHUNK or transition.sequence == len(names):
            await write_transitions(connection, held, lane)
            producer.flush()
            held = []
    await connection.execute(
        "UPDATE lane SET chain_sequence = $2, chain_hash = $3 WHERE id = $1", lane, transition.sequence, transition.hash
    )


def _facts(partition: int, names: Sequence[str]) -> Iterator[Transition]:
    before, name = bytes(32), lane_name(*_PLACE, partition)
    for sequence, token in enumerate(names, 1):
        unsealed = Transition(
            organisation="ORG1",
            token=token,
            version=1,
            from_state=LifeCycleState.NOT_EFFECTIVE,
            to_state=LifeCycleState.EFFECTIVE,
            occurred_at=_NOW,
            user=_USER,
            unit=_UNIT,
            command_id=f"ce:ORG1:%2Fbench:{token}",
            cause="API",
            lane=name,
            sequence=sequence,
            previous_hash=before,
        )
        transition = sealed(unsealed)
        before = transition.hash
        yield transition


def _verify(
    stage: Stage, topics: TopicNames, label: str, count: int, options: Sequence[str]
) -> tuple[str, int, float, float, float]:
    settings = worker_settings(stage.bootstrap, topics, stage.dsn)
    began = time.monotonic()
    # Into a file: it is read only after the end, and a pipe would be full of findings.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(
            [sys.executable, "-m", "worker", "audit", "verify", *options],
            env={**os.environ, **settings},
            stdout=said,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        memory = 0
        while process.poll() is None:
            # A process that has ended and was not reaped yet reports no memory.
            status = (PROC / str(process.pid) / "status").read_text(encoding="utf-8")
            memory = max(memory, status_bytes(status).get("VmHWM", 0))
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        said.seek(0)
        told = said.read()
    assert process.returncode == 0, told[:LONGEST_REASON]
    assert told.startswith(f"{count} transitions"), told
    return label, count, seconds, seconds / count * 1e6, memory / 2**20
