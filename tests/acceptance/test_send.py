"""One command, sent from a shell, with a real broker and database (CONTRACT, Command line)."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.scene import Scene, history
from tests.acceptance.worker_process import ROOT
from tests.providers.kafka import create_topics, delete_topics
from tests.support import preloaded
from tests.support.logins import login_token
from tests.support.pace import patience
from tests.support.seeded import CODE_OF_IDENTIFIER, IDENTIFIER, PASS_CODE
from tests.support.waiting import output_of, run_to_end, wait_until
from worker.demo.servers.processes import free_port

pytestmark = pytest.mark.real_kafka

REPLIES: Final = "replies-of-one-shell"
LOGIN: Final = login_token()
WRONG_PASS_CODE: Final = "canary of a pass code"
SHOWN: Final = ("--fields", "number,life_cycle_state")
SHORT: Final = ("--timeout", "2")


class Sent:
    """The end of one ``send``: exit code, standard output and standard error, without secrets in either."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err
        assert not any(secret in out + err for secret in (LOGIN, PASS_CODE, WRONG_PASS_CODE, "Traceback"))

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def error(self) -> str:
        """The one line on standard error."""
        [line] = self.err.splitlines()
        return line.removeprefix("error: ")


def environment(scene: Scene, **changed: str) -> dict[str, str]:
    """Return the settings of a shell that knows the broker and the topics, and of Postgres and logins nothing."""
    names = [name for name in scene.settings if name.startswith(("WORKER_KAFKA__BOOTSTRAP", "WORKER_TOPICS__"))]
    own = {name: scene.settings[name] for name in names} | {f"WORKER_{name}": value for name, value in changed.items()}
    return {**os.environ, **own, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "schemas")))}


def send(scene: Scene, *arguments: str, given: str | None = None, **changed: str) -> Sent:
    whole = ["send", "--login-token", LOGIN, *arguments]
    env = environment(scene, **changed)
    if given is None:
        done = preloaded.run_to_end(whole, cwd=scene.directory, env=env)
    else:
        done = run_to_end([sys.executable, "-m", "worker", *whole], cwd=scene.directory, env=env, given=given)
    return Sent(done.returncode, done.stdout, done.stderr)


def changed_by(scene: Scene, code: str) -> int:
    """Return the number of transitions of an access token, which must be as effective as they say."""
    [row] = scene.rows(
        "SELECT id, life_cycle_state = 'EFFECTIVE' AS effective FROM access_token"
        " WHERE organisation = 'ORG1' AND authentication_code = $1",
        code,
    )
    count = sum(bool(event["access_token_id"] == row["id"]) for event in history(scene))
    assert row["effective"] == (count > 0)
    return count


@pytest.fixture(scope="module")
def working(shared_scene: Scene) -> Iterator[Scene]:
    """Yield the module's scene with a worker, which may answer on a topic of the shell's own."""
    own = f"{REPLIES}-{shared_scene.topics.results}"
    create_topics(shared_scene.kafka.bootstrap, own, f"un{own}")
    with shared_scene.worker(TOPICS__REPLY_TO_ALLOWED=f"{REPLIES}-*"):
        yield shared_scene
    delete_topics(shared_scene.kafka.bootstrap, own, f"un{own}")


def new_code(scene: Scene, name: str) -> str:
    [code] = scene.new_tokens(1, prefix=name)
    return code


def test_the_answer_is_shown_and_asked_for_again_it_is_the_same(working: Scene) -> None:
    code = new_code(working, "shown")
    command = ("--code", code, *SHOWN, "--id", "order-7", "--source", "/shop", "--key", "card-1")
    first, again = send(working, *command), send(working, *command)
    shown = [
        f"number            {code}",
        "life_cycle_state  EFFECTIVE",
        "",
        "command_id  ce:ORG1:%2Fshop:order-7",
        "ce_id       order-7",
        "ce_source   /shop",
    ]
    assert (first.code, first.err, first.lines) == (0, "", ["OK", *shown])
    assert (again.code, again.err, again.lines) == (0, "", ["OK (replayed)", *shown])
    assert changed_by(working, code) == 1


def test_all_fields_fit_a_terminal(working: Scene) -> None:
    done = send(working, "--code", new_code(working, "whole"))
    assert (done.code, done.err) == (0, "")
    members = [line.split()[0] for line in done.lines[1:] if line and not line.startswith(" ")]
    assert len(members) == 30 + 3
    assert max(map(len, done.lines)) <= 80
    assert done.lines[-1].split() == ["ce_source", "/effective-worker/send"]


def test_a_refusal_is_named_and_exits_3(working: Scene) -> None:
    code = new_code(working, "refused")
    assert send(working, "--code", code).code == 0
    done = send(working, "--code", code)
    assert (done.code, done.err) == (3, "")
    assert done.lines[0] == (
        "INVALID_LIFE_CYCLE_STATE: Only a not effective access token can be set as effective: "
        "the access token is EFFECTIVE"
    )
    assert changed_by(working, code) == 1


def test_a_dry_run_changes_nothing(working: Scene) -> None:
    code = new_code(working, "dry")
    done = send(working, "--code", code, *SHOWN, "--dry-run")
    assert (done.code, done.lines[0], done.lines[2]) == (0, "OK (dry run)", "life_cycle_state  EFFECTIVE")
    assert changed_by(working, code) == 0
    refused = send(working, "--code", "no such code", "--dry-run")
    assert refused.code == 3
    assert refused.lines[0].startswith("ACCESS_TOKEN_NOT_FOUND (dry run): ")


@pytest.mark.parametrize("as_json", [False, True])
def test_by_identifier_the_pass_code_comes_from_a_file_or_from_stdin(working: Scene, as_json: bool) -> None:
    options = ["--identifier", IDENTIFIER, "--dry-run", "--pass-code-file", *(["-", "--json"] if as_json else ["-"])]
    file = working.directory / "pass-code"
    file.write_text(f"{PASS_CODE}\n", encoding="utf-8")
    by_file = ["pass-code" if option == "-" else option for option in options]
    for done in (send(working, *options, given=PASS_CODE), send(working, *by_file)):
        assert (done.code, done.err) == (0, "")
    wrong = send(working, *options, given=f"{WRONG_PASS_CODE}\n")
    assert (wrong.code, wrong.err) == (3, "")
    assert "INVALID_CREDENTIALS" in (wrong.document["status"]["code"] if as_json else wrong.lines[0])
    assert changed_by(working, CODE_OF_IDENTIFIER) == 0


def test_one_document_has_the_whole_answer(working: Scene) -> None:
    code = new_code(working, "document")
    command = ("--code", code, *SHOWN, "--id", f"{code}'s", "--json")
    found = send(working, *command)
    assert (found.code, found.err) == (0, "")
    assert found.document == {
        "status": {"code": "OK", "description": "", "message": ""},
        "data": {"number": code, "life_cycle_state": "EFFECTIVE"},
        "command_id": f"ce:ORG1:%2Feffective-worker%2Fsend:{code}%27s",
        "replayed": False,
        "dry_run": False,
        "ce_id": f"{code}'s",
        "ce_source": "/effective-worker/send",
    }
    assert send(working, *command).document == found.document | {"replayed": True}
    refused = send(working, *command, "--fields", "number")
    assert (refused.code, refused.document["status"]["code"]) == (3, "DUPLICATE_REQUEST")
    assert (refused.document["data"], refused.document["may_be_applied"]) == ({}, False)


def test_an_answer_comes_on_a_topic_of_the_shell_if_the_worker_may(working: Scene) -> None:
    own, code = f"{REPLIES}-{working.topics.results}", new_code(working, "elsewhere")
    assert send(working, "--code", code, "--reply-to", own).code == 0
    assert [record.header("status_code") for record in working.seen(own)] == [b"OK"]
    # The worker refuses this one in the topic of results, which is read as well.
    done = send(working, "--code", code, "--reply-to", f"un{own}")
    assert done.code == 3
    assert "names a topic to which no answers may be sent" in done.out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_topic_that_is_missing_is_named(working: Scene, as_json: bool) -> None:
    options = ["--json"] if as_json else []
    done = send(working, "--code", "1", *options, TOPICS__COMMANDS="no-such-topic")
    assert done.code == 1
    assert done.error.startswith("kafka: the topic no-such-topic does not exist")
    assert done.document["error"] == done.error if as_json else done.out == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_broker_that_is_away_is_one_line(working: Scene, as_json: bool) -> None:
    away = f"127.0.0.1:{free_port()}"
    options = ["--json"] if as_json else []
    done = send(working, "--code", "1", *options, KAFKA__BOOTSTRAP_SERVERS=away)
    assert done.code == 1
    assert done.error.startswith(f"kafka: no broker answers at {away} (")
    if as_json:
        assert done.document == {"error": done.error, "may_be_applied": False, "ce_id": None, "ce_source": None}


def test_without_a_worker_it_says_how_to_ask_again_which_is_answered_once_there_is_one(scene: Scene) -> None:
    code = new_code(scene, "late")
    command = ("--code", code, *SHOWN)
    alone = send(scene, *command, *SHORT)
    assert (alone.code, alone.out) == (1, "")
    assert alone.error.startswith(
        "no answer from a worker within 2 s: is one running? The command may still be applied"
    )
    in_json = send(scene, "--code", "another", *SHORT, "--json", "--id", "one more")
    assert in_json.code == 1
    assert in_json.document == {
        "error": in_json.error,
        "may_be_applied": True,
        "ce_id": "one more",
        "ce_source": "/effective-worker/send",
    }
    rehearsed = send(scene, *command, *SHORT, "--json", "--dry-run")
    assert (rehearsed.code, rehearsed.document["may_be_applied"]) == (1, False)
    assert "ask again" not in rehearsed.error
    _, options = alone.error.split("the same options and ")
    with scene.worker():
        again = send(scene, *command, *shlex.split(options))
    assert (again.code, again.lines[0]) == (0, "OK (replayed)")
    assert changed_by(scene, code) == 1


def test_several_attempts_are_one_command(scene: Scene) -> None:
    code = new_code(scene, "patient")
    done = send(scene, "--code", code, "--timeout", "1", "--attempts", "3")
    assert (done.code, scene.count_sent()) == (1, 3)
    assert "no answer from a worker in 3 attempts" in done.error
    with scene.worker():
        scene.wait_consumed()
    assert changed_by(scene, code) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str)
@pytest.mark.parametrize("as_json", [False, True])
def test_who_stops_it_is_told_that_it_may_be_applied(
    scene: Scene, number: signal.Signals, code: int, as_json: bool
) -> None:
    command = [sys.executable, "-m", "worker", "send", "--code", "C1", "--login-token", LOGIN, "--id", "order-7"]
    with subprocess.Popen(
        [*command, "--timeout", f"{patience(600):.0f}", *(["--json"] if as_json else [])],
        env=environment(scene),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(scene.count_sent, what="the command was sent")
            process.send_signal(number)
            done = Sent(code, *output_of(process, "send ended"))
        finally:
            process.kill()
    assert process.returncode == code
    assert done.error.startswith("interrupted before the answer came. The command may still be applied")
    assert "--id order-7 --source /effective-worker/send" in done.error
    if as_json:
        assert (done.document["error"], done.document["may_be_applied"]) == (done.error, True)
    else:
        assert done.out == ""


def test_a_file_and_a_command_bring_the_login(working: Scene, tmp_path: Path) -> None:
    code = new_code(working, "login")
    (tmp_path / "login").write_text(f"{LOGIN}\n", encoding="utf-8")
    for options in (("--login-token-file", "login"), ("--login-token-command", "cat login")):
        command = ["send", "--code", code, "--id", code, *options]
        done = preloaded.run_to_end(command, cwd=tmp_path, env=environment(working))
        assert Sent(done.returncode, done.stdout, done.stderr).code == 0, done.stderr
    assert changed_by(working, code) == 1
