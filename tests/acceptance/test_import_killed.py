"""An import that is killed, again and again, ends as one that was let be (CONTRACT 8, ``import``)."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.scene import Scene
from tests.acceptance.test_first_states import run, stored, told
from tests.waiting import output_of, wait_until

pytestmark = pytest.mark.real_kafka

TOKENS: Final = 1000
KILLED_AFTER: Final = (1, 300, 700)
"""Lines that are read, at least."""
# In small steps, so that there are many moments to be killed at.
PROCESS: Final = (
    "import sys; from worker import announce, cli, importing; importing.CHUNK = 40; announce.PAGE = 40; cli.main()"
)
HELD: Final = (
    "SELECT id, number, life_cycle_state, version, udf_string_1, accounts_receivable, created_by_user, updated_date"
    " FROM access_token WHERE organisation = $1 ORDER BY id",
    "SELECT id, name, account_owner FROM accounts_receivable WHERE organisation = $1 ORDER BY id",
    "SELECT id, body::text FROM contact WHERE organisation = $1 ORDER BY id",
    "SELECT access_token_id, version, to_state, cause FROM transition WHERE organisation = $1 ORDER BY 1, 2",
)


def lines(path: Path, organisation: str) -> Path:
    """Access tokens that share accounts, some named twice and some bad, for this reason or that."""
    written: list[dict[str, Any]] = [{"kind": "organisation", "id": organisation, "name": "Imported"}]
    for number in range(TOKENS):
        account = {"id": f"A{number // 3}", "name": f"{number}", "account_owner": {"id": f"O{number // 3}"}}
        token = {
            "kind": "access_token",
            "organisation": organisation,
            "id": f"T{number}",
            "number": f"N{number}",
            "life_cycle_state": "NOT_EFFECTIVE",
            "accounts_receivable": account,
            "log_information": {"created_by_user": "U1", "updated_date": "2016-10-05T13:19:56"},
        }
        if number % 100 == 50:
            token["number"] = f"N{number - 1}"
        elif number % 100 == 75:
            token["colour"] = "red"
        elif number % 100 == 90:
            token |= {"id": f"T{number - 85}", "number": f"N{number - 85}", "life_cycle_state": "EFFECTIVE"}
        written.append(token)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in written))
    return path


@contextmanager
def importing(scene: Scene, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    owner = {"WORKER_POSTGRES__OWNER_DSN": scene.database.owner_dsn}
    command = [sys.executable, "-c", PROCESS, "import", *arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, **scene.settings, **owner},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def imported(scene: Scene, file: Path) -> tuple[dict[str, Any], list[str]]:
    """What an import says that is let be: its report, and what it complains of."""
    with importing(scene, str(file), "--no-events", "--json") as process:
        out, err = output_of(process, "the import ended")
    assert process.returncode == 1, err
    report: dict[str, Any] = json.loads(out)
    return report, err.splitlines()


def killed(scene: Scene, progress: str, until: int, *arguments: str) -> None:
    """Start ``import`` and kill it once ``progress``, a query, has come so far."""
    with importing(scene, *arguments) as process:

        def done() -> int:
            assert process.poll() is None, f"it ended before it could be killed: {process.communicate()}"
            return int(scene.rows(progress)[0]["done"] or 0)

        try:
            wait_until(done, lambda far: far >= until, what=f"the import had come to {until}", pause=0.01)
        finally:
            process.kill()


def held(scene: Scene, organisation: str) -> list[list[dict[str, Any]]]:
    return [scene.rows(query, organisation) for query in HELD]


def bad(report: dict[str, Any]) -> list[tuple[int, str]]:
    return [(each["line"], each["what"]) for each in report["bad"]]


def test_an_import_that_is_killed_again_and_again_ends_as_one_that_is_not(scene: Scene, tmp_path: Path) -> None:
    expected, complaints = imported(scene, lines(tmp_path / "whole.ndjson", "WHOLE"))
    file = lines(tmp_path / "killed.ndjson", "KILLED")
    for read in KILLED_AFTER:
        killed(scene, "SELECT max(read) AS done FROM import_run", read, str(file), "--no-events")
    report, (resumed, *others) = imported(scene, file)

    told = re.fullmatch(rf"going on after line (\d+) of {file}, where an import of these files was stopped", resumed)
    assert told is not None, resumed
    assert KILLED_AFTER[-1] <= int(told[1]) < TOKENS
    assert [line.partition(":")[2] for line in others] == [line.partition(":")[2] for line in complaints]
    assert (report["read"], report["loaded"]) == (expected["read"], expected["loaded"]) == (TOKENS + 1, TOKENS - 19)
    assert bad(report) == bad(expected)
    assert (report["bad_count"], len(bad(report))) == (20, 20)
    assert held(scene, "KILLED") == held(scene, "WHOLE")
    assert scene.rows("SELECT count(*) FROM import_run") == [{"count": 0}]


def test_first_states_are_announced_to_the_end_by_whoever_comes_after_one_that_was_killed(
    scene: Scene, tmp_path: Path
) -> None:
    imported(scene, lines(tmp_path / "new.ndjson", "NEW"))
    lane = "SELECT first_offset AS done, next_offset AS written FROM lane WHERE topic = 'import'"
    killed(scene, lane, 200, "--announce")
    [row] = scene.rows(lane)
    assert 200 <= row["done"] < row["written"]

    assert run(scene, "import", "--announce").returncode == 0
    assert told(scene) == stored(scene)
    verified = run(scene, "audit", "verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["unpublished"]) == (0, 0)
