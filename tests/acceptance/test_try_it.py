"""The final output of ``docker compose up``, with any broker and Postgres that the tests have."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.settings import variables_for
from worker.service import serve
from worker.settings import read_settings

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = "a-secret-of-this-test-long-enough-for-HS256"

Variables = dict[str, str]


@pytest.fixture
async def running_worker(
    kafka: KafkaServer, database: DatabaseUnderTest, topics: TopicNames
) -> AsyncIterator[Variables]:
    """Run a worker on the test's own topics and database; yield the variables that it was set up with."""
    variables = {
        **variables_for(kafka.bootstrap, topics),
        "WORKER_KAFKA__GROUP_ID": topics.commands,
        "WORKER_POSTGRES__DSN": database.worker_dsn,
        "WORKER_LOGIN__SECRETS": SECRET,
        "WORKER_ADMIN__PORT": "0",
    }
    stop = asyncio.Event()
    worker = asyncio.create_task(serve(read_settings(variables, needs_login=True), stop=stop))
    yield variables
    stop.set()
    assert await worker == 0


async def try_it(variables: Variables) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "deploy" / "try_it.py"),
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, output.decode()


async def test_a_stranger_who_tries_it_gets_the_golden_answer_and_the_refusals(running_worker: Variables) -> None:
    code, output = await try_it(running_worker)
    assert code == 0, output
    assert output.endswith("every answer is as documented\n")
    assert output.count("(replayed)") == 1, "the demo delivers one command twice"


async def test_trying_it_once_more_replays_the_golden_answer(running_worker: Variables) -> None:
    await try_it(running_worker)
    code, output = await try_it(running_worker)
    assert code == 0, output
    assert output.count("expected OK, got OK (replayed)") == 2
    assert "got OK\n" not in output


async def test_what_is_shown_holds_no_login_token(running_worker: Variables) -> None:
    _, output = await try_it(running_worker)
    assert '"token": "***"' in output
    assert "eyJ" not in output
