"""Command-line commands against a real database and broker, as a shell sees them (CONTRACT, Command line)."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import jwt
import pytest

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.logins import SECRET
from tests.support.settings import variables_for
from tests.support.waiting import in_time, until_answered
from worker.postgres.connect import owner_connection

ROOT: Final = Path(__file__).parents[2]
FIXTURE: Final = ROOT / "tests" / "seed" / "fixture.ndjson"


@pytest.fixture
def environment(database: DatabaseUnderTest) -> dict[str, str]:
    return {
        **os.environ,
        "WORKER_POSTGRES__DSN": database.worker_dsn,
        "WORKER_POSTGRES__OWNER_DSN": database.owner_dsn,
        "WORKER_LOGIN__SECRETS": SECRET,
    }


async def worker(*arguments: str, environment: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await in_time(process.communicate(), f"{' '.join(arguments)} ended")
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def test_a_migrated_database_has_nothing_pending(environment: dict[str, str]) -> None:
    assert await worker("migrate", environment=environment) == (0, "the schema is up to date\n", "")
    code, out, _ = await worker("migrate", "--check", "--json", environment=environment)
    assert (code, json.loads(out)) == (0, {"pending": []})


async def test_importing_good_lines_exits_0_and_bad_ones_1(environment: dict[str, str], tmp_path: Path) -> None:
    code, out, _ = await worker("import", str(FIXTURE), environment=environment)
    assert (code, out) == (0, "15 lines read, 15 loaded, 0 bad\n")
    bad = tmp_path / "bad.ndjson"
    bad.write_text('{"kind": "organisation", "id": "X", "name": "x"}\nnonsense\n')
    code, out, err = await worker("import", str(FIXTURE), str(bad), "--json", environment=environment)
    report = json.loads(out)
    assert (code, report["read"], report["loaded"]) == (1, 17, 16)
    assert [(each["file"], each["line"]) for each in report["bad"]] == [(str(bad), 2)]
    assert f"{bad}:2: not JSON" in err


async def test_a_pass_code_is_never_shown(environment: dict[str, str], tmp_path: Path) -> None:
    lines = tmp_path / "lines.ndjson"
    whole = {"kind": "access_token", "organisation": "ORG1", "id": "T", "number": "AT0000000671", "pass_code": "canary"}
    lines.write_text(json.dumps(whole | {"life_cycle_state": "EFFECTIVE"}) + "\n" + json.dumps(whole) + "\n")
    code, out, err = await worker("import", str(lines), environment=environment | {"WORKER_LOG__LEVEL": "debug"})
    assert code == 1
    assert "canary" not in out + err


async def test_a_login_token_takes_the_users_own_unit(environment: dict[str, str]) -> None:
    arguments = ("login-token", "--organisation", "ORG1", "--user")
    code, out, _ = await worker(*arguments, "mpadmin", environment=environment)
    assert (code, jwt.decode(out.strip(), SECRET, algorithms=["HS256"])["oun"]) == (0, "1")
    code, _, err = await worker(*arguments, "nobody", environment=environment)
    assert (code, "--unit is needed" in err) == (1, True)


async def test_the_example_is_loaded_in_any_directory(environment: dict[str, str]) -> None:
    code, out, _ = await worker("import", "--example", environment=environment)
    assert (code, out) == (0, "15 lines read, 15 loaded, 0 bad\n")


@pytest.mark.parametrize("unit", [(), ("--unit", "1")], ids=" ".join)
async def test_a_login_token_of_an_inactive_user_is_warned_of(
    unit: tuple[str, ...], environment: dict[str, str], database: DatabaseUnderTest
) -> None:
    arguments = ("login-token", "--organisation", "ORG1", "--user", "mpadmin", *unit)
    assert (await worker(*arguments, environment=environment))[2] == ""
    async with owner_connection(database.owner_dsn) as owner:
        await owner.execute("UPDATE app_user SET active = false WHERE username = 'mpadmin'")
    code, out, err = await worker(*arguments, environment=environment)
    assert (code, err.count("\n"), bool(out)) == (0, 1, True)
    assert err.startswith("warning: the user mpadmin is not active: ")


async def test_topics_are_planned_and_applied(
    environment: dict[str, str], kafka: KafkaServer, topics: TopicNames
) -> None:
    here = environment | variables_for(kafka.bootstrap, topics)
    code, out, _ = await worker("topics", "plan", environment=here)
    assert code == 1
    assert f"kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter" in out
    assert f"{topics.transitions}: differs" in out
    assert "  retention.ms is 604800000, should be -1: WRONG, the history of the access tokens gets lost" in out
    code, out, _ = await worker("topics", "apply", "--json", environment=here)
    document = json.loads(out)
    assert (code, [each["role"] for each in document["topics"]]) == (
        1,
        ["commands", "results", "transitions", "dead_letters"],
    )


async def test_an_import_that_is_interrupted_says_nothing_and_exits_130(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lines = tmp_path / "many.ndjson"
    one = {"kind": "access_token", "organisation": "ORG1", "life_cycle_state": "EFFECTIVE", "pass_code": "slow to hash"}
    lines.write_text("".join(json.dumps(one | {"id": f"T{n}", "number": f"N{n}"}) + "\n" for n in range(2000)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from worker import cli; from worker.operations.imports import load; load.CHUNK = 1; cli.main()",
        "import",
        str(lines),
        cwd=ROOT,
        env=environment | {"WORKER_LOG__FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with owner_connection(environment["WORKER_POSTGRES__OWNER_DSN"]) as connection:
            begun = "SELECT EXISTS (SELECT FROM access_token WHERE id = 'T0')"
            await until_answered(lambda: connection.fetchval(begun), what="the import had begun")
        process.send_signal(signal.SIGINT)
        out, err = await in_time(process.communicate(), "the import ended after SIGINT")
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
