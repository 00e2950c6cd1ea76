"""The cost of submitting a file: beside the same commands waiting in the topic, and while all processes are killed."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import uuid4

from effective_contract.headers import CAUSATION_ID, CE_SUBJECT, CONTENT_TYPE, JSON_CONTENT, REPLY_TO, STATUS_CODE
from tests.acceptance.clients import log_ends, wait_settled
from tests.acceptance.worker_process import WorkerProcess, worker_settings
from tests.benchmarks.growth import only_tokens
from tests.benchmarks.load import (
    POLL_SECONDS,
    STALLED_SECONDS,
    Backlog,
    Written,
    answered,
    make_tokens,
    new_run,
    read_headers,
    send_all,
    wait_through,
)
from tests.benchmarks.meter import PROC, Meter, status_bytes
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import WARM
from tests.benchmarks.stage import Stage
from tests.benchmarks.subjects import EXACTLY, process
from tests.providers.kafka import TopicNames, create_topics, delete_topics
from tests.support.logins import login_token
from worker.demo.commands import documented
from worker.kafka.topics import PARTITIONS

COMMANDS: Final = 1_000_000
QUICK: Final = 10
"""So many times fewer commands."""
KILLS: Final = 20
"""Kills of submit, and as many of the worker."""
RATE_BAR: Final = 0.8
CPU_BAR: Final = 25.0
"""Microseconds a command, on a machine on which the worker takes some 60."""
MEMORY_BAR: Final = 150
"""MiB."""
_STAMPED: Final = {"message.timestamp.type": "LogAppendTime"}
_TRANSITIONS: Final = """
SELECT count(*) AS transitions, count(DISTINCT access_token_id) AS tokens
FROM transition WHERE starts_with(access_token_id, $1)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """The cost of a submission. CPU in microseconds per command, memory in bytes."""

    report: dict[str, Any]
    wall: float
    """Seconds from its start to its end, the first pass over the file included."""
    cpu: float
    memory: int
    others: Mapping[str, float]


async def submitting(stage: Stage, report: Report, quick: bool, *, rounds: int) -> None:
    """Measure the worker alone on a backlog and the same from a file, in turn; then with both killed."""
    count = COMMANDS // (QUICK if quick else 1)
    # The broker compiles its code as it runs, and each scene runs some of its own.
    await _waiting(stage, count // 10)
    await _submitted(stage, count // 10)
    pairs = [(await _waiting(stage, count), await _submitted(stage, count)) for _ in range(rounds)]
    rows: list[tuple[str | float | None, ...]] = []
    for number, ((waiting, waiting_cpu), done) in enumerate(pairs, 1):
        rate, memory = done.report["rate"], done.memory / 2**20
        rows += [
            (f"waiting in the topic, round {number}", count, waiting, 1.0, None, *waiting_cpu.values(), None),
            ("from a file", count, rate, rate / waiting, done.cpu, *done.others.values(), memory),
        ]
        latency = ", ".join(f"{name} {value} ms" for name, value in done.report["latency_ms"].items())
        report.say(f"round {number}: from start to end {done.wall:.1f} s; from sending to answer {latency}")
    columns = (
        "",
        "commands",
        "per s",
        "beside the first",
        "µs submit",
        "µs worker",
        "µs postgres",
        "µs kafka",
        "MiB submit",
    )
    report.table("What it takes to submit a file", columns, rows)
    ratio = median(done.report["rate"] / waiting for (waiting, _), done in pairs)
    report.judge("the rate of submit, median", f">= {RATE_BAR:g} x", f"{ratio:.2f} x", met=ratio >= RATE_BAR)
    cpu = median(done.cpu for _, done in pairs)
    report.judge("CPU of submit a command, median", f"<= {CPU_BAR:g} µs", f"{cpu:.1f} µs", met=cpu <= CPU_BAR)
    most = max(done.memory for _, done in pairs) / 2**20
    report.judge("memory of submit", f"<= {MEMORY_BAR} MiB", f"{most:.0f} MiB", met=most <= MEMORY_BAR)
    await _killed(stage, report, count)


# --- the scenes -------------------------------------------------------------------------------------------------------


async def _waiting(stage: Stage, count: int) -> tuple[float, dict[str, float]]:
    """Return the worker's rate on waiting commands, answered in their sender's topic, and CPU by process."""
    run = await only_tokens(stage, count)
    topics = await _topics(stage)
    with ExitStack() as running:
        worker = await _worker(stage, topics, running)
        worker.pause()
        await asyncio.to_thread(send_all, stage.bootstrap, topics.commands, _redirected(run, count, topics))
        await stage.settle()
        meter, began_ms = Meter(_pids(stage, worker)), time.time() * 1000
        worker.resume()
        await asyncio.to_thread(wait_through, stage.bootstrap, worker.group, topics.commands)
        usage = meter.stop()
        await asyncio.to_thread(worker.terminate)
    answers = await asyncio.to_thread(answered, stage.bootstrap, _replies(topics), run)
    answers.check(count, {"OK": count})
    await _drop(stage, topics)
    return answers.rate_since(began_ms), {name: seconds / count * 1e6 for name, seconds in usage.cpu.items()}


async def _submitted(stage: Stage, count: int) -> Done:
    run = await only_tokens(stage, count)
    topics = await _topics(stage)
    file = _written(stage.directory, run, count)
    with ExitStack() as running:
        worker = await _worker(stage, topics, running)
        await stage.settle()
        meter, began = Meter(_pids(stage, worker)), time.monotonic()
        submit = _submit(stage, topics, file)
        running.callback(submit.kill)
        watching = asyncio.create_task(_peak(submit.pid))
        _, status, usage = await asyncio.to_thread(os.wait4, submit.pid, 0)
        wall, others = time.monotonic() - began, meter.stop()
        submit.returncode = os.waitstatus_to_exitcode(status)
        memory = await watching
        assert submit.returncode == 0, _log(file).read_text(encoding="utf-8")
        await asyncio.to_thread(worker.terminate)
    report = await _checked(stage, topics, file, run, count)
    await _drop(stage, topics)
    cpu = (usage.ru_utime + usage.ru_stime) / count * 1e6
    return Done(report, wall, cpu, memory, {name: s / count * 1e6 for name, s in others.cpu.items()})


async def _killed(stage: Stage, report: Report, count: int) -> None:
    """Kill both again and again, at random moments that are the same in every run."""
    run = await only_tokens(stage, count)
    topics = await _topics(stage)
    file, chance, began = _written(stage.directory, run, count), random.Random(20), time.monotonic()
    victims = chance.sample(["submit", "worker"] * KILLS, 2 * KILLS)
    # The number of commands in the topic by then: resent ones count too, so that no kill comes after the end.
    moments = sorted(chance.sample(range(1, count * 9 // 10), len(victims)))
    with ExitStack() as running:
        settings = {"WORKER_KAFKA__GROUP_INSTANCE_ID": "the only one", **_allowed(topics)}
        worker = WorkerProcess(worker_settings(stage.bootstrap, topics, stage.dsn) | settings, stage.directory)
        worker.start()
        running.callback(worker.kill)
        await asyncio.to_thread(worker.wait_ready)
        submit = _submit(stage, topics, file)
        running.callback(lambda: submit.kill())  # noqa: PLW0108 - the process running by then
        for victim, moment in zip(victims, moments, strict=True):
            await asyncio.to_thread(_wait_sent, stage.bootstrap, topics.commands, moment)
            assert submit.poll() is None, f"it ended before it could be killed:\n{_log(file).read_text()}"
            if victim == "submit":
                submit.kill()
                submit.wait()
                submit = _submit(stage, topics, file)
            else:
                worker.kill()
                worker.start()
        assert await asyncio.to_thread(submit.wait) == 0, _log(file).read_text(encoding="utf-8")
        await asyncio.to_thread(worker.terminate)
    document = await _checked(stage, topics, file, run, count, once=False)
    rows = [(count, KILLS, KILLS, document["sessions"], document["ok"], document["replayed"], time.monotonic() - began)]
    columns = ("commands", "submit killed", "worker killed", "sessions", "OK", "of them replayed", "s")
    report.table("Everybody is killed: one transition for each token, totals right to one", columns, rows)
    await _drop(stage, topics)


def _wait_sent(bootstrap: str, topic: str, count: int) -> None:
    deadline = time.monotonic() + STALLED_SECONDS
    while sum(log_ends(bootstrap, topic).values()) < count:
        assert time.monotonic() < deadline, f"nothing comes: {count} commands were to be in {topic}"
        time.sleep(POLL_SECONDS)


async def _checked(
    stage: Stage, topics: TopicNames, file: Path, run: str, count: int, *, once: bool = True
) -> dict[str, Any]:
    """Check the report against an independent reader. ``once``: there was one session, undisturbed."""
    report: dict[str, Any] = json.loads(file.with_name(f"{file.name}.report.json").read_text(encoding="utf-8"))
    await asyncio.to_thread(wait_settled, stage.bootstrap, _replies(topics))
    found = await asyncio.to_thread(_outcomes, stage.bootstrap, _replies(topics), count)
    assert report["statuses"] == found == {"OK": count}, f"{report} where a reader finds {found}"
    assert (report["commands"], report["not_sent"]) == (count, {}), report
    assert not once or (report["sessions"], report["replayed"]) == (1, 0), report
    async with stage.owner() as connection:
        row = await connection.fetchrow(_TRANSITIONS, f"{run}-")
    assert row is not None
    assert (row["transitions"], row["tokens"]) == (count, count), row
    await asyncio.to_thread(wait_settled, stage.bootstrap, topics.transitions)
    events, tokens = await asyncio.to_thread(_events, stage.bootstrap, topics.transitions, run)
    assert (events, tokens) == (count, count), f"{events} events of {tokens} tokens"
    return report


def _outcomes(bootstrap: str, topic: str, count: int) -> dict[str, int]:
    """Return the number of lines by their answer, OK if ever, by reading the topic from its beginning."""
    ok = bytearray(count + 1)
    others: dict[int, str] = {}
    for headers, _ in read_headers(bootstrap, topic):
        line = int(headers[CAUSATION_ID].rpartition(b":")[2])
        if headers[STATUS_CODE] == b"OK":
            ok[line] = 1
        else:
            others[line] = headers[STATUS_CODE].decode()
    refused = Counter(code for line, code in others.items() if not ok[line])
    return {"OK": ok.count(1), **refused}


def _events(bootstrap: str, topic: str, run: str) -> tuple[int, int]:
    """Return the number of transition events of the run, and of their access tokens."""
    ours = f":{run}-".encode()
    subjects = [headers[CE_SUBJECT] for headers, _ in read_headers(bootstrap, topic) if ours in headers[CE_SUBJECT]]
    return len(subjects), len(set(subjects))


# --- helpers ----------------------------------------------------------------------------------------------------------


async def _worker(stage: Stage, topics: TopicNames, running: ExitStack) -> WorkerProcess:
    """Run a worker that is already warm."""
    worker = process(EXACTLY, stage, topics, group=f"group-{uuid4().hex[:12]}", variables=_allowed(topics))
    worker.start()
    running.callback(worker.kill)
    await asyncio.to_thread(worker.wait_ready)
    warm = new_run()
    await make_tokens(stage.owner_dsn, warm, WARM)
    await asyncio.to_thread(send_all, stage.bootstrap, topics.commands, Backlog.of(warm, range(1, WARM + 1)).written)
    await asyncio.to_thread(wait_through, stage.bootstrap, worker.group, topics.commands)
    return worker


async def _topics(stage: Stage) -> TopicNames:
    topics = await stage.new_topics(PARTITIONS)
    place = stage.bootstrap, _replies(topics)
    await asyncio.to_thread(create_topics, *place, partitions=PARTITIONS, settings=_STAMPED)
    return topics


async def _drop(stage: Stage, topics: TopicNames) -> None:
    await asyncio.to_thread(delete_topics, stage.bootstrap, _replies(topics))
    await stage.drop_topics(topics)


def _replies(topics: TopicNames) -> str:
    """Return the topic in which submit wants its answers by default."""
    return f"{topics.results}.submit"


def _allowed(topics: TopicNames) -> dict[str, str]:
    return {"WORKER_TOPICS__REPLY_TO_ALLOWED": _replies(topics)}


def _redirected(run: str, count: int, topics: TopicNames) -> Iterator[Written]:
    more = [(REPLY_TO, _replies(topics).encode()), (CONTENT_TYPE, JSON_CONTENT.encode())]
    for key, value, headers in Backlog.of(run, range(1, count + 1)).written:
        yield key, value, [*headers, *more]


def _written(directory: Path, run: str, count: int) -> Path:
    """Write the golden command without its login, for each access token of the run."""
    file = directory / f"{run}.ndjson"
    fields = documented("command.json")["fields_set"]
    with file.open("w", encoding="utf-8") as lines:
        for number in range(1, count + 1):
            code = {"authentication_code": f"{run}-{number}"}
            lines.write(json.dumps({"access_token_identifier": code, "fields_set": fields}) + "\n")
    return file


def _submit(stage: Stage, topics: TopicNames, file: Path) -> "subprocess.Popen[bytes]":
    with _log(file).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "worker", "submit", str(file), "--token", login_token()],
            env={**os.environ, **worker_settings(stage.bootstrap, topics, stage.dsn)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _peak(pid: int) -> int:
    """Return the peak memory of one of our processes. The kernel's own figure includes the process it forked from."""
    most = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        while True:
            most = max(most, status_bytes((PROC / str(pid) / "status").read_text(encoding="utf-8")).get("VmHWM", 0))
            await asyncio.sleep(POLL_SECONDS)
    return most


def _log(file: Path) -> Path:
    return file.with_suffix(".log")


def _pids(stage: Stage, worker: WorkerProcess) -> Mapping[str, Sequence[int]]:
    return {"worker": [worker.pid], "postgres": [stage.postgres_pid], "kafka": [stage.kafka_pid]}
