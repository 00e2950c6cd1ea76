"""The cost of a dry run beside the real run that follows it, the equality of their answers, and traces left behind."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

from effective_contract.headers import CORRELATION_ID, DRY_RUN, REPLAYED, STATUS_CODE, TRUE
from tests.acceptance.clients import log_ends, wait_settled
from tests.acceptance.worker_process import WorkerProcess
from tests.benchmarks.load import Written, commands, make_tokens, new_run, read_headers, send_all, wait_through
from tests.benchmarks.meter import Meter
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY, process
from tests.providers.kafka import TopicNames
from tests.support.logins import login_token
from worker.kafka.topics import PARTITIONS

COMMANDS: Final = 100_000
KINDS: Final = 20
"""One command in so many is of each kind of ``mixed``; the rest must be applied."""
_TABLES: Final = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'commit_latency' ORDER BY 1
"""


async def rehearsing(stage: Stage, report: Report, quick: bool) -> None:
    """Send commands of many kinds, as a dry run and then for real; compare every table before and after the dry run."""
    count, run, topics = COMMANDS // (10 if quick else 1), new_run(), await stage.new_topics(PARTITIONS)
    await make_tokens(stage.owner_dsn, run, count)
    async with stage.owner() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = 1"
            " WHERE starts_with(id, $1 || '-') AND split_part(id, '-', 2)::integer % $2 IN (2, 3)",
            run,
            KINDS,
        )
    worker = process(EXACTLY, stage, topics, group=f"group-{uuid4().hex[:12]}")
    with ExitStack() as running:
        worker.start()
        running.callback(worker.kill)
        applied = [number for number in range(1, count + 1) if number % KINDS in (0, 1)]
        await asyncio.to_thread(send_all, stage.bootstrap, topics.commands, commands(run, applied))
        await asyncio.to_thread(wait_through, stage.bootstrap, worker.group, topics.commands)
        before = await digests(stage)
        rows = [("dry", count, *await _work_off(stage, topics, worker, marked(mixed(run, count))))]
        after = await digests(stage)
        rows.append(("real", count, *await _work_off(stage, topics, worker, mixed(run, count))))
    report.table("What a dry run costs", ("run", "commands", "per s", "µs worker", "µs postgres"), rows)
    rehearsed, answered = await asyncio.to_thread(_answers, stage, topics)
    statuses = Counter(" ".join(each) for each in rehearsed.values())
    report.table("How dry runs were answered", ("status, replayed", "commands"), statuses.most_common())
    alike = sum(answered.get(name) == told for name, told in rehearsed.items())
    is_alike = alike == len(rehearsed) == len(answered) == count
    report.judge("answers of the dry run that the real run gave as well", f"{count:,}", f"{alike:,}", met=is_alike)
    same = sum(before[name] == after[name] for name in before)
    report.judge("tables the same after the dry run", f"{len(before)}", f"{same}", met=same == len(before))
    await stage.drop_topics(topics)


def marked(written: Iterable[Written]) -> Iterator[Written]:
    """Yield the same commands as dry runs."""
    for key, value, headers in written:
        yield key, value, [*headers, (DRY_RUN, TRUE.encode())]


def mixed(run: str, count: int) -> Iterator[Written]:
    """Yield mixed commands: of twenty, thirteen will be applied.

    Of the others, one is sent again, one bears an id that was applied, two are for effective access tokens, one is for
    none, one has a login with an invalid signature, and one is no JSON.
    """
    stranger = login_token(secret="another secret that is long enough for HS256")
    special = {
        1: {"fields_set": "number"},
        4: {"access_token_identifier": {"authentication_code": "nobody's"}},
        5: {"token": stranger},
    }
    for number, (key, golden, headers) in enumerate(commands(run, range(1, count + 1)), 1):
        value, kind = golden, number % KINDS
        if kind in special:
            value = json.dumps(json.loads(golden) | special[kind]).encode()
        yield key, b"not JSON" if kind == 6 else value, headers


async def digests(stage: Stage) -> dict[str, str]:
    """Return digests of all rows of every table; of the lanes, their chains' heads: a lane that works moves on."""
    found = {}
    async with stage.owner() as connection:
        for (name,) in await connection.fetch(_TABLES):
            digest, rows = hashlib.sha256(), "whole::text"
            if name == "lane":
                rows = "(id, chain_sequence, chain_hash)::text"

            async def take(chunk: bytes, digest: Any = digest) -> None:
                digest.update(chunk)

            await connection.copy_from_query(f'SELECT {rows} FROM "{name}" AS whole ORDER BY 1', output=take)
            found[name] = digest.hexdigest()
    return found


async def _work_off(
    stage: Stage, topics: TopicNames, worker: WorkerProcess, written: Iterable[Written]
) -> tuple[float, float, float]:
    """Return commands per second of a waiting backlog, and a command's cost for worker and Postgres, in µs of CPU."""
    worker.pause()
    counted = log_ends(stage.bootstrap, topics.commands)
    await asyncio.to_thread(send_all, stage.bootstrap, topics.commands, written)
    count = sum(log_ends(stage.bootstrap, topics.commands).values()) - sum(counted.values())
    await stage.settle()
    meter = Meter({"worker": [worker.pid], "postgres": [stage.postgres_pid]})
    began = time.monotonic()
    worker.resume()
    await asyncio.to_thread(wait_through, stage.bootstrap, worker.group, topics.commands)
    seconds, usage = time.monotonic() - began, meter.stop()
    return count / seconds, usage.cpu["worker"] / count * 1e6, usage.cpu["postgres"] / count * 1e6


def _answers(stage: Stage, topics: TopicNames) -> tuple[dict[bytes, tuple[str, str]], dict[bytes, tuple[str, str]]]:
    """Return status and replay flag, of the dry run and of the real one, by command."""
    wait_settled(stage.bootstrap, topics.results)
    rehearsed: dict[bytes, tuple[str, str]] = {}
    answered: dict[bytes, tuple[str, str]] = {}
    for headers, _ in read_headers(stage.bootstrap, topics.results):
        told = headers[STATUS_CODE].decode(), headers[REPLAYED].decode()
        (rehearsed if DRY_RUN in headers else answered)[headers[CORRELATION_ID]] = told
    return rehearsed, answered
