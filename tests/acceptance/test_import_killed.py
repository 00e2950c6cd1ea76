"""An import that is killed, again and again, ends like an undisturbed one (CONTRACT, Command line, ``import``)."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.import_in_steps import KILLED_AFTER, STEP
from tests.acceptance.scene import Scene
from tests.acceptance.test_first_states import run, stored, told
from tests.support.waiting import output_of

pytestmark = pytest.mark.real_kafka

TOKENS: Final = 1000
LINES: Final = (1, 300, 700)
"""Lines that are read, at least."""
PROCESS: Final = "tests.acceptance.import_in_steps"
HELD: Final = (
    "SELECT id, number, life_cycle_state, version, udf_string_1, accounts_receivable, created_by_user, updated_date"
    " FROM access_token WHERE organisation = $1 ORDER BY id",
    "SELECT id, name, account_owner FROM accounts_receivable WHERE organisation = $1 ORDER BY id",
    "SELECT id, body::text FROM contact WHERE organisation = $1 ORDER BY id",
    "SELECT access_token_id, version, to_state, cause FROM transition WHERE organisation = $1 ORDER BY 1, 2",
)


def lines(path: Path, organisation: str) -> Path:
    """Write access tokens that share accounts, some named twice and some bad, for this reason or that."""
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


def ended(scene: Scene, *arguments: str, killed_after: int | None = None) -> tuple[int, str, str]:
    """Run ``import`` to its end; return its exit code, and its output on both of its pipes."""
    owner = {"WORKER_POSTGRES__OWNER_DSN": scene.database.owner_dsn}
    at = {} if killed_after is None else {KILLED_AFTER: str(killed_after)}
    with subprocess.Popen(
        [sys.executable, "-m", PROCESS, "import", *arguments],
        env={**os.environ, **scene.settings, **owner, **at},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = output_of(process, "the import ended")
    return process.returncode, out, err


def imported(scene: Scene, file: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the output of an undisturbed import: its report, and its complaints."""
    code, out, err = ended(scene, str(file), "--no-events", "--json")
    assert code == 1, err
    report: dict[str, Any] = json.loads(out)
    return report, err.splitlines()


def killed(scene: Scene, after: int, *arguments: str) -> None:
    code, out, err = ended(scene, *arguments, killed_after=after)
    assert code == -signal.SIGKILL, (out, err)


def held(scene: Scene, organisation: str) -> list[list[dict[str, Any]]]:
    return [scene.rows(query, organisation) for query in HELD]


def bad(report: dict[str, Any]) -> list[tuple[int, str]]:
    return [(each["line"], each["what"]) for each in report["bad"]]


def test_an_import_that_is_killed_again_and_again_ends_as_one_that_is_not(scene: Scene, tmp_path: Path) -> None:
    expected, complaints = imported(scene, lines(tmp_path / "whole.ndjson", "WHOLE"))
    file = lines(tmp_path / "killed.ndjson", "KILLED")
    for read in LINES:
        killed(scene, read, str(file), "--no-events")
    [stopped] = scene.rows("SELECT read FROM import_run")
    report, (resumed, *others) = imported(scene, file)

    told = re.fullmatch(rf"going on after line (\d+) of {file}, where an import of these files was stopped", resumed)
    assert told is not None, resumed
    assert LINES[-1] <= int(told[1]) == stopped["read"] < LINES[-1] + STEP
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
    killed(scene, 200, "--announce")
    [row] = scene.rows("SELECT first_offset AS recorded, next_offset AS written FROM lane WHERE topic = 'import'")
    assert (row["recorded"], row["written"]) == (200, TOKENS - 20)
    assert len(scene.transitions()) == 200 + STEP

    assert run(scene, "import", "--announce").returncode == 0
    assert told(scene) == stored(scene)
    verified = run(scene, "audit", "verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["unpublished"]) == (0, 0)
