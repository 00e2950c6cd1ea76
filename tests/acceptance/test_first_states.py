"""The first states of imported access tokens are events: from the topic alone, a reader knows all states."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from effective_contract.replay import rebuilt
from tests.acceptance.scene import Load, Scene
from tests.acceptance.test_history_and_explain import run as run_as_worker
from worker.demo.servers.processes import free_port

pytestmark = pytest.mark.real_kafka

TOKENS: Final = 40
HOST: Final = "127.0.0.1"


def lines(path: Path, count: int, state: str = "NOT_EFFECTIVE", first: int = 1) -> Path:
    """Write a file of so many access tokens, called ``new-1`` and so on."""
    written = [
        {
            "kind": "access_token",
            "organisation": "ORG1",
            "id": f"new-{number}",
            "number": f"new-{number}",
            "life_cycle_state": state,
            "authentication_code": f"new-{number}",
        }
        for number in range(first, first + count)
    ]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in written))
    return path


def run(scene: Scene, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return run_as_worker(scene, *arguments, **{"POSTGRES__OWNER_DSN": scene.database.owner_dsn, **settings})


def imported(scene: Scene, *arguments: str, **settings: str) -> dict[str, Any]:
    done = run(scene, "import", *arguments, "--json", **settings)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def told(scene: Scene) -> dict[tuple[str, str], tuple[str, int]]:
    """Return the states of the access tokens that the topic alone tells."""
    states = rebuilt(record.value for record in scene.transitions() if record.value is not None)
    return {token: (str(reached.state), reached.version) for token, reached in states.items()}


def stored(scene: Scene) -> dict[tuple[str, str], tuple[str, int]]:
    """Return the states in the table, of the tokens that did not exist before first states were events."""
    rows = scene.rows("SELECT organisation, id, life_cycle_state, version FROM access_token WHERE version > 0")
    return {(row["organisation"], row["id"]): (row["life_cycle_state"], row["version"]) for row in rows}


def test_states_rebuilt_from_the_topic_equal_the_table(scene: Scene, tmp_path: Path) -> None:
    report = imported(scene, str(lines(tmp_path / "new.ndjson", TOKENS)))
    assert report["events"] == {"published": TOKENS, "waiting": 0, "reason": None}
    imported(scene, str(lines(tmp_path / "done.ndjson", 5, "EFFECTIVE", first=TOKENS + 1)))
    half = TOKENS // 2
    Load(scene, [f"new-{number}" for number in range(1, half + 1)]).send(1, half)
    with scene.worker():
        scene.wait_consumed()

    assert told(scene) == stored(scene)
    assert stored(scene)["ORG1", "new-1"] == ("EFFECTIVE", 2)
    assert stored(scene)["ORG1", f"new-{TOKENS}"] == ("NOT_EFFECTIVE", 1)
    for command in (("audit", "verify"), ("reconcile",)):
        done = run(scene, *command)
        assert done.returncode == 0, done.stdout
    shown = json.loads(run(scene, "history", "new-1", "--json").stdout)
    assert [each["cause"] for each in shown["changes"]] == ["IMPORT", "API"]


def test_an_access_token_that_is_there_makes_no_event(scene: Scene, tmp_path: Path) -> None:
    file = str(lines(tmp_path / "new.ndjson", 3))
    imported(scene, file)

    assert imported(scene, file)["events"]["published"] == 0
    assert len(scene.transitions()) == 3


def test_events_wait_for_a_broker_that_is_away(scene: Scene, tmp_path: Path) -> None:
    away = {"KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port('127.0.0.1')}"}
    done = run(scene, "import", str(lines(tmp_path / "new.ndjson", 3)), **away)

    assert (done.returncode, done.stdout) == (0, "3 lines read, 3 loaded, 0 bad\n")
    assert "3 first states loaded but not announced yet" in done.stderr
    assert run(scene, "import", "--announce", **away).returncode == 1
    waiting = json.loads(run(scene, "audit", "verify", "--json").stdout)
    assert (waiting["holds"], waiting["unpublished"]) == (True, 3)

    assert run(scene, "import", "--announce").stdout == "3 first states announced\n"
    assert told(scene) == stored(scene)
    assert run(scene, "import", "--announce").stdout == "0 first states announced\n"


def test_first_states_that_were_tampered_with_are_named(scene: Scene, tmp_path: Path) -> None:
    imported(scene, str(lines(tmp_path / "new.ndjson", 3)))
    scene.execute("ALTER TABLE access_token DISABLE TRIGGER ALL")
    scene.execute("UPDATE access_token SET life_cycle_state = 'EFFECTIVE' WHERE id = 'new-2'")

    done = run(scene, "audit", "verify")

    assert done.returncode == 1
    assert (
        "access token new-2 of ORG1: is EFFECTIVE, version 1; its last transition: NOT_EFFECTIVE, version 1"
        in done.stdout
    )
