"""e. Postgres alone: the worker's own journey from decoded command to answer, driven by asyncpg with no Kafka.

The deliveries are prepared and the statements warm before it reports ready; SIGCONT starts the work. The final figures
are its own: no broker has stamped anything.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import uvloop

from tests.benchmarks.load import commands
from tests.benchmarks.subjects.lifetime import until_terminated
from worker.journey.attempts import Attempts, limits_of
from worker.journey.authorise import Logins
from worker.journey.digests import attempt_keys, command_names
from worker.journey.pass_codes import PassCodes
from worker.kafka.delivery import Coordinates, Delivery
from worker.observability.metrics import Metrics
from worker.pipeline import Lease, Pipeline, Policy
from worker.postgres.pool import Database
from worker.postgres.sql import statement
from worker.resilience.circuit_breaker import CircuitBreaker
from worker.settings import Settings, read_settings


async def open_lane(database: Database, number: int) -> Lease:
    """Make a lane of its own in Postgres, with nothing decided in it."""
    owner, topic = uuid4(), uuid4().hex
    async with database.connection() as connection:
        row = await connection.fetchrow(
            statement("lanes/take"), "no-cluster", "alone", topic, number, owner, datetime.now(UTC)
        )
        assert row is not None
        await connection.fetchval(statement("lanes/open"), row["id"], owner, 0)
    return Lease(row["id"], f"no-cluster/alone/{topic}/{number}", owner, 0)


def deliveries(run: str, numbers: range, lane: int, offset: int) -> list[Delivery]:
    """Return the commands as Kafka would have delivered them, from ``offset`` on."""
    now = int(time.time() * 1000)
    return [
        Delivery(Coordinates("no-cluster", "commands", lane, offset + place, now), key, value, tuple(headers), False)
        for place, (key, value, headers) in enumerate(commands(run, numbers))
    ]


async def work(pipeline: Pipeline, lease: Lease, batches: Sequence[Sequence[Delivery]]) -> tuple[Lease, Counter[str]]:
    """Work one batch after the other, as a lane does."""
    statuses: Counter[str] = Counter()
    for batch in batches:
        answered, lease = await pipeline.run(lease, batch, batch[0].coordinates.offset)
        statuses.update(each.answer.code for each in answered)
    return lease, statuses


def pipeline_of(settings: Settings, database: Database, pass_codes: PassCodes) -> Pipeline:
    logins = Logins([secret.get_secret_value() for secret in settings.login.secrets], time.time)
    policy = Policy(settings.max_command_bytes, expiry_at_append=False, reveal_verification_code=False)
    breaker = CircuitBreaker(time.monotonic)
    attempts = Attempts(attempt_keys(settings)[0], limits_of(settings), Metrics())
    return Pipeline(
        database,
        logins,
        pass_codes,
        attempts,
        names=command_names(settings),
        clock=time.time,
        policy=policy,
        breaker=breaker,
        beat=lambda: None,
    )


async def run() -> None:
    settings = read_settings(os.environ)
    run_name, warm_name = os.environ["BENCH_RUN"], os.environ["BENCH_WARM_RUN"]
    count, warm, lanes = (int(os.environ[f"BENCH_{each}"]) for each in ("COUNT", "WARM", "LANES"))
    postgres = settings.postgres
    database = await Database.open(postgres.dsn.get_secret_value(), connections=postgres.connections)
    pipeline = pipeline_of(settings, database, PassCodes())
    starts, loads = [], []
    for lane in range(lanes):
        first = deliveries(warm_name, range(lane + 1, warm + 1, lanes), lane, 0)
        whole = deliveries(run_name, range(lane + 1, count + 1, lanes), lane, len(first))
        loads.append([whole[at : at + settings.max_batch] for at in range(0, len(whole), settings.max_batch)])
        starts.append(work(pipeline, await open_lane(database, lane), [first]))
    holds = [lease for lease, _ in await asyncio.gather(*starts)]
    go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, go.set)
    gc.freeze()  # the prepared objects would otherwise be scanned again and again
    say(event="prepared")
    await go.wait()
    began = time.perf_counter()
    done = await asyncio.gather(*(work(pipeline, *each) for each in zip(holds, loads, strict=True)))
    say(event="done", seconds=time.perf_counter() - began, statuses=sum((each for _, each in done), Counter()))
    await until_terminated()


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(run())
