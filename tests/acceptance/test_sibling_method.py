"""A further method, as CONTRIBUTING's recipe adds it, through a broker and a database, to the auditor's reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from effective_contract.replay import Reached, rebuilt
from effective_contract.states import LifeCycleState
from tests.acceptance.clients import Headers, Outgoing, Record
from tests.acceptance.scene import Scene, answer, body, check_chains, event_id, status
from tests.acceptance.test_history_and_explain import run
from tests.support.logins import login_token
from tests.support.seeded import TOKEN_ID
from tests.support.sibling import BOTH, MIGRATION, SET_NOT_EFFECTIVE, WORKER
from worker.journey.decide import RETIRED

pytestmark = pytest.mark.real_kafka

ROOT: Final = Path(__file__).parents[2]
SEED: Final = ROOT / "tests" / "seed"
BACK: Final = [("ce_type", SET_NOT_EFFECTIVE.command_type.encode())]
NEW: Final = ("OK", "false")


@pytest.fixture
def both(scene: Scene) -> Scene:
    """Return a scene whose database knows the sibling, and whose users may carry it out."""
    scene.execute(MIGRATION)
    rights = [method.right for method in BOTH.all]
    scene.execute("UPDATE app_user SET rights = $1 WHERE username = 'mpadmin'", rights)
    return scene


def golden() -> bytes:
    return (SEED / "command.json").read_bytes().replace(b"{{token}}", login_token().encode())


def sent(value: bytes, *headers: Headers) -> Outgoing:
    return Outgoing(value, b"key", [each for some in headers for each in some], 0)


def types(records: Sequence[Record]) -> list[str]:
    return [(record.header("ce_type") or b"").decode() for record in records]


def test_the_sample_is_answered_by_either_method_and_the_auditor_finds_nothing(both: Scene) -> None:
    commands = [
        sent(golden(), event_id("1")),
        sent(golden(), event_id("2"), BACK),
        sent(golden(), event_id("2"), BACK),
        sent(golden(), event_id("3"), BACK),
        sent(golden(), event_id("4")),
    ]
    with both.worker(command=WORKER):
        both.send(*commands)
        results = both.results(len(commands))
        both.wait_consumed()

    refused = ("INVALID_LIFE_CYCLE_STATE", "false")
    assert list(map(status, results)) == [NEW, NEW, ("OK", "true"), refused, NEW]
    assert types(results) == [method.result_type for method in (BOTH.all[0], *[BOTH.all[1]] * 3, BOTH.all[0])]
    wanted = json.loads((SEED / "result.json").read_bytes())
    assert [answer(results[each]) for each in (0, 1, 4)] == [wanted] * 3
    assert answer(results[3])["status"]["description"] == "Only an effective access token can be set as not effective."
    events = both.transitions()
    check_chains(answer(event) for event in events)
    reached = rebuilt([event.value for event in events if event.value is not None])
    assert reached == {("ORG1", TOKEN_ID): Reached(LifeCycleState.EFFECTIVE, 3)}
    for report in (("audit", "verify"), ("reconcile",)):
        done = run(both, *report)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_old_command_is_applied_again_however_it_comes(both: Scene) -> None:
    by_id, by_place = both.new_tokens(2)
    commands = [
        sent(body(by_id), event_id("1")),
        sent(body(by_place)),
        sent(body(by_id), BACK),
        sent(body(by_place), BACK),
    ]
    with both.worker(command=WORKER) as worker:
        both.send(*commands)
        first = both.results(len(commands))
        assert worker.terminate() == 0
    assert list(map(status, first)) == [NEW] * 4
    both.execute("DELETE FROM command_record")
    both.set_offset(0, 0)
    with both.worker(command=WORKER):
        both.send(sent(body(by_id), event_id("1")))
        again = both.results(9)[4:]
        both.wait_consumed()

    # The two ways back are read again as well: their access tokens are where they led.
    assert [answer(record)["status"]["code"] for record in again] == ["DUPLICATE_REQUEST"] * 5
    assert {answer(record)["status"]["message"] for record in again} == {RETIRED}
    states = both.rows(
        "SELECT DISTINCT life_cycle_state, version FROM access_token WHERE id = ANY($1)", [by_id, by_place]
    )
    assert states == [{"life_cycle_state": "NOT_EFFECTIVE", "version": 2}]


def test_a_worker_refuses_a_method_that_it_does_not_carry_out(scene: Scene) -> None:
    with scene.worker():
        scene.send(sent(golden(), [("ce_type", b"access_token.set_aside.v1")]))
        [result] = scene.results(1)

    assert status(result) == ("INVALID_PARAMETER", "false")


def test_the_recipe_of_contributing_is_what_was_followed_here() -> None:
    chapter = (ROOT / "CONTRIBUTING.md").read_text().split("\n## A sibling method\n")[1].split("\n## ")[0]
    row, migration = (block.split("```", 1)[0].split("\n", 1)[1] for block in chapter.split("\n```")[1::2])

    assert row in (ROOT / "tests" / "support" / "sibling.py").read_text()
    assert migration.strip() == MIGRATION.strip()
