"""Guessing at codes and pass codes is refused, reported, and ended by a person (CONTRACT, Result and Command line)."""

import json
from typing import Final

import pytest

from tests.acceptance.clients import Outgoing
from tests.acceptance.scene import Scene, body, status
from tests.acceptance.test_history_and_explain import run
from tests.support.logins import login_token
from tests.support.seeded import CODE_OF_IDENTIFIER, IDENTIFIER, PASS_CODE, USER_ID
from tests.support.waiting import wait_until

pytestmark = pytest.mark.real_kafka

GUESSES: Final = 40


def guess(pass_code: str) -> Outgoing:
    named = {"identifier": IDENTIFIER, "pass_code": pass_code}
    command = {"token": login_token(), "access_token_identifier": named, "fields_set": "number"}
    return Outgoing(json.dumps(command).encode(), b"a", (), 0)


def test_a_pass_code_cannot_be_found_by_trying_and_its_owner_is_let_in_by_a_person(scene: Scene) -> None:
    guesses = [guess(f"{number:04}") for number in range(GUESSES)]
    # Sent before the worker starts, so that the right one is decided with wrong ones before it.
    scene.send(*guesses, guess(PASS_CODE))
    with scene.worker() as worker:
        refused = [status(record)[0] for record in scene.results(GUESSES + 1)]
        # Ten, and one more for each of the first waits that goes by meanwhile: each is twice as long.
        assert refused.count("INVALID_CREDENTIALS") < 20
        assert set(refused) == {"INVALID_CREDENTIALS", "ACCESS_DENIED"}
        # The wait is one of seconds, and the next steps may take longer.
        scene.execute("UPDATE attempt SET last_at = last_at + interval '1 hour'")
        listed = json.loads(run(scene, "attempts", "list", "--json").stdout)["attempts"]
        shown = run(scene, "attempts", "list", "--organisation", "ORG1", "--identifier", IDENTIFIER)
        forgiving = ("attempts", "forgive", "--organisation", "ORG1", "--identifier", IDENTIFIER)
        planned, done = run(scene, *forgiving), run(scene, *forgiving, "--yes", "--json")
        scene.send(guess(PASS_CODE))
        assert status(scene.results(GUESSES + 2)[-1])[0] == "OK"
        logs = worker.logs()

    assert {each["kind"] for each in listed} == {"identifier", "pass_codes"}
    assert {(each["organisation"], each["user"]) for each in listed} == {("ORG1", USER_ID)}
    [of_identifier] = [each for each in listed if each["kind"] == "identifier"]
    assert of_identifier["failures"] == of_identifier["failed"] == refused.count("INVALID_CREDENTIALS")
    assert of_identifier["waits_until"] is not None
    assert USER_ID in shown.stdout
    assert shown.returncode == 1
    assert "nothing was changed" in planned.stdout
    assert json.loads(done.stdout)["done"] is True
    assert [each["kind"] for each in json.loads(done.stdout)["attempts"]] == ["identifier"]
    assert logs.count("attempts_limited") >= 1
    for text in (shown.stdout, logs, json.dumps(listed)):
        assert IDENTIFIER not in text
        assert PASS_CODE not in text
    assert scene.rows(
        "SELECT life_cycle_state FROM access_token WHERE authentication_code = $1", CODE_OF_IDENTIFIER
    ) == [{"life_cycle_state": "EFFECTIVE"}]


def test_a_caller_whose_codes_are_all_unknown_is_refused_and_explained(scene: Scene) -> None:
    [code] = scene.new_tokens(1)
    unknown = [Outgoing(body(f"none-{number}"), b"a", (), 0) for number in range(5)]
    scene.send(*unknown)
    with scene.worker(ATTEMPTS__CODES="3"):
        first = [status(record)[0] for record in scene.results(5)]
        waits = json.loads(run(scene, "attempts", "list", "--user", USER_ID, "--json").stdout)["attempts"]

        def listed() -> int:
            return run(scene, "attempts", "list").returncode

        wait_until(listed, lambda code: code == 0, what="the wait of a second was over")
        scene.send(Outgoing(body(code), b"a", (), 0))
        [*_, last] = scene.results(6)
        ended = run(scene, "attempts", "list")

    assert first == ["ACCESS_TOKEN_NOT_FOUND"] * 3 + ["ACCESS_DENIED"] * 2
    assert [(each["kind"], each["failures"], each["identifier_digest"]) for each in waits] == [("codes", 3, None)]
    assert status(last)[0] == "OK"
    assert ended.stdout == "no failed attempts are counted\n"
    assert run(scene, "attempts", "list", "--ended").stdout.count(USER_ID) == 1
    [row] = scene.rows("SELECT command_id, user_id, digest FROM command_record WHERE record_offset = 4")
    explained = run(scene, "explain", row["command_id"], "--no-topics").stdout
    assert f"tried by the user {USER_ID}, on what has the digest {row['digest'].hex()}" in explained


def test_wrong_usage_of_attempts_says_what_is_missing(scene: Scene) -> None:
    lists, forgives = (
        run(scene, "attempts", "list", "--identifier", "x"),
        run(scene, "attempts", "forgive", "--organisation", "ORG1"),
    )

    assert (lists.returncode, forgives.returncode) == (2, 2)
    assert "needs --organisation" in lists.stderr
    assert "give --user, --identifier or both" in forgives.stderr
