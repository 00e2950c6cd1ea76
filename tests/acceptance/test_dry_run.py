"""Dry runs on real servers: answered as the real commands that follow are, and without effect."""

import signal
from collections import Counter
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.acceptance.clients import Headers, Outgoing, Record
from tests.acceptance.scene import Scene, answer, body, event_id, status
from tests.faults.worker import faulty
from tests.support.logins import login_token

pytestmark = pytest.mark.real_kafka

EACH: Final = 25
"""Commands of every kind."""
DRY_RUN: Final = ("dry_run", b"true")
NUMBER: Final = "correlation_id"
DUE: Final = {
    ("OK", "false"): 3 * EACH,
    ("OK", "true"): EACH,
    **dict.fromkeys(
        [
            ("INVALID_LIFE_CYCLE_STATE", "false"),
            ("DUPLICATE_REQUEST", "false"),
            ("INTERNAL_ERROR", "false"),
            ("ACCESS_TOKEN_NOT_FOUND", "false"),
            ("INVALID_TOKEN", "false"),
            ("EXPIRED_TOKEN", "false"),
            ("ACCESS_DENIED", "false"),
            ("MALFORMED_REQUEST", "false"),
            ("MISSING_PARAMETER", "false"),
            ("INVALID_PARAMETER", "false"),
            ("INVALID_CREDENTIALS", "false"),
        ],
        EACH,
    ),
}


def the_commands(scene: Scene) -> list[tuple[bytes, Headers, int]]:
    """Return commands of every status, none of which affects another: value, headers and partition."""
    fresh, poisoned = scene.new_tokens(3 * EACH, prefix="fresh"), scene.new_tokens(EACH, prefix="poisoned")
    applied = scene.new_tokens(EACH, prefix="applied")
    scene.execute(
        "ALTER TABLE access_token ADD CONSTRAINT poison"
        " CHECK (NOT starts_with(id, 'poisoned') OR life_cycle_state <> 'EFFECTIVE')"
    )
    good, bad = login_token(), login_token(secret="another secret, long enough for HS256")
    expired, denied = login_token(iat=1_700_000_000, exp=1_700_007_200), login_token(user="reader")
    named = {"identifier": "polina@example.com", "pass_code": "wrong"}
    commands: list[tuple[bytes, Headers]] = []
    for n, code in enumerate(applied):
        commands.append((body(code, token=good), event_id(f"applied {n}")))  # a replay
        commands.append((body(fresh[n], token=good), event_id(f"applied {n}")))  # a duplicate
        commands.append((body(code, token=good), ()))
        commands += [(body(each, token=good), event_id(each)) for each in fresh[3 * n : 3 * n + 3]]
        commands.append((body(poisoned[n], token=good), ()))
        commands.append((body("nobody", token=good), ()))
        commands += [(body(fresh[n], token=login), ()) for login in (bad, expired, denied)]
        commands.append((b"not JSON", ()))
        commands.append((b"{}", event_id(f"nothing {n}")))
        commands.append((body(fresh[n], token=good, fields_set="colour"), ()))
        commands.append((body("", token=good, access_token_identifier=named), ()))
    scene.send(*(Outgoing(body(code), b"k", event_id(f"applied {n}"), 0) for n, code in enumerate(applied)))
    return [(value, headers, n % 4) for n, (value, headers) in enumerate(commands)]


def numbered(commands: list[tuple[bytes, Headers, int]], *marks: tuple[str, bytes]) -> list[Outgoing]:
    return [
        Outgoing(value, b"k", [*headers, (NUMBER, str(number).encode()), *marks], partition)
        for number, (value, headers, partition) in enumerate(commands)
    ]


def told(records: list[Record]) -> dict[int, Any]:
    """Return status and data by the number of the command, without the time at which the access token changed."""
    answers = {}
    for record in records:
        whole = answer(record)
        if whole["data"]:
            whole["data"]["log_information"]["updated_date"] = None
        answers[int(record.header(NUMBER) or b"-1")] = (status(record), whole)
    return answers


def test_the_real_run_is_answered_as_its_rehearsal_was_and_only_it_changes_anything(scene: Scene) -> None:
    commands = the_commands(scene)
    with scene.worker(MAX_BATCH="100", ATTEMPTS__IDENTIFIER="1000"):
        scene.wait_consumed()
        others = len(scene.seen(scene.topics.results))
        before, events = scene.every_table(), len(scene.transitions())

        scene.send(*numbered(commands, DRY_RUN))
        scene.wait_consumed()
        rehearsed = [record for record in scene.seen(scene.topics.results) if record.header("dry_run") == b"true"]
        after, events_after, letters_after = scene.every_table(), len(scene.transitions()), scene.dead_letters()

        scene.send(*numbered(commands))
        scene.wait_consumed()
        results = scene.seen(scene.topics.results)
    real = [record for record in results if record.header(NUMBER) and record.header("dry_run") is None]

    assert Counter(map(status, rehearsed)) == DUE
    assert told(rehearsed) == told(real)
    assert len(results) == others + 2 * len(commands)
    places = [
        {name: row for name, row in table.items() if name not in {"lane", "attempt"}} for table in (before, after)
    ]
    assert places[0] == places[1]
    heads = [
        [(row["id"], row["chain_sequence"], row["chain_hash"]) for row in table["lane"]] for table in (before, after)
    ]
    assert heads[0] == heads[1]
    assert (events_after, letters_after) == (events, [])
    assert len(scene.transitions()) == events + 3 * EACH
    assert len(scene.dead_letters()) == 2 * EACH
    ids = Counter(record.header("ce_id") for record in rehearsed)
    assert set(ids.values()) == {1}
    assert not ids.keys() & {record.header("ce_id") for record in real}


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(
            "with_the_first_commit_under_way:3",
            marks=pytest.mark.slow(
                why="the same commit as :6, of another batch: 6 s",
                instead="tests/acceptance/test_dry_run.py"
                "::test_a_worker_killed_in_a_mixed_batch_answers_each_command_once",
            ),
        ),
        "with_the_first_commit_under_way:6",
        pytest.param(
            "between_the_commits:2",
            marks=pytest.mark.slow(
                why="the same story at another point: 8 s",
                instead="tests/acceptance/test_dry_run.py::test_a_worker_killed_in_a_mixed_batch_answers_each_command_once",
            ),
        ),
        pytest.param(
            "before_the_end:2",
            marks=pytest.mark.slow(
                why="a transaction that is left open has to time out: 17 s",
                instead="tests/acceptance/test_dry_run.py"
                "::test_a_worker_killed_in_a_mixed_batch_answers_each_command_once",
            ),
        ),
    ],
)
def test_a_worker_killed_in_a_mixed_batch_answers_each_command_once(scene: Scene, point: str) -> None:
    codes, login = scene.new_tokens(60), login_token()
    sent = []
    for number, code in enumerate(codes):
        value = body(code, token=login, fields_set="life_cycle_state")
        sent += [
            Outgoing(value, b"k", [(NUMBER, f"{number * 3 + place}".encode()), *marks], 0)
            for place, marks in enumerate(([DRY_RUN], [], [DRY_RUN]) if number % 2 else ([], [DRY_RUN], [DRY_RUN]))
        ]
    scene.send(*sent)
    settings = {"KAFKA__GROUP_INSTANCE_ID": "the only one", "MAX_BATCH": "20"}
    worker = scene.worker(command=faulty(f"{point}:SIGKILL"), **settings)
    with ExitStack() as alive:
        alive.callback(worker.kill)
        assert worker.start().wait_end() == -signal.SIGKILL
    assert scene.count_consumed() < len(sent)
    with scene.worker(**settings):
        scene.wait_consumed()

    results = scene.seen(scene.topics.results)
    numbers = [int(record.header(NUMBER) or b"-1") for record in results]
    assert numbers == list(range(len(sent)))
    for record, number in zip(results, numbers, strict=True):
        is_dry_run = DRY_RUN in sent[number].headers
        assert (record.header("dry_run") == b"true") == is_dry_run
        assert is_dry_run or status(record) == ("OK", "false")
    assert len(scene.transitions()) == len(codes)
    assert scene.dead_letters() == []
    assert scene.rows("SELECT count(*) FROM command_record")[0]["count"] == len(codes)
