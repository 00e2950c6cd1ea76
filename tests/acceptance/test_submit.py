"""A file of commands, submitted: its report equals the counts of an independent reader (CONTRACT, Command line)."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.clients import Record, log_ends
from tests.acceptance.scene import Scene, body, check_chains, history, status
from tests.acceptance.worker_process import ROOT, WorkerProcess
from tests.support.logins import login_token
from tests.support.pace import stretched
from tests.support.waiting import SECONDS, output_of, wait_until

pytestmark = pytest.mark.real_kafka

COMMANDS: Final = 6000
KILLS: Final = 3
CANARY: Final = "canary-pass-code"


class Submit:
    """``effective-worker submit`` as a process of its own, with the scene's settings."""

    def __init__(self, scene: Scene, *arguments: object, login: str | None = None) -> None:
        self._directory = scene.directory
        login_arguments = [] if login is None else ["--token", login]
        self.command = [sys.executable, "-m", "worker", "submit", *map(str, arguments), *login_arguments]
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env={**os.environ, **scene.settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def end(self, seconds: float = SECONDS) -> tuple[int, str, str]:
        """Wait until it ends, and return exit code, standard output and standard error."""
        out, err = output_of(self._process, "submit ended", seconds)
        assert "Traceback" not in err, err
        return self._process.returncode, out, err

    def __enter__(self) -> "Submit":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def submit(scene: Scene, *arguments: object, login: str | None = None) -> tuple[int, str, str]:
    with Submit(scene, *arguments, login=login) as process:
        return process.end()


def count_sent(scene: Scene) -> int:
    return sum(log_ends(scene.kafka.bootstrap, scene.topics.commands).values())


def wait_sent(scene: Scene, count: int) -> None:
    wait_until(lambda: count_sent(scene), lambda sent: sent >= count, what=f"{count} commands were sent")


def replies_of(scene: Scene) -> str:
    return f"{scene.topics.results}.submit"


@contextmanager
def allowing_worker(scene: Scene, **settings: str) -> Iterator[WorkerProcess]:
    with scene.worker(TOPICS__REPLY_TO_ALLOWED=replies_of(scene), **settings) as worker:
        yield worker


def report_of(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.with_name(f"{file.name}.report.json").read_text())
    return document


def by_code(code: str, **members: str) -> str:
    return json.dumps({"access_token_identifier": {"authentication_code": code}, "fields_set": "number", **members})


def outcomes(records: Sequence[Record]) -> dict[int, str]:
    """Return the answer to each line, by the ids that the worker returns: OK if ever, else the last."""
    found: dict[int, str] = {}
    for record in records:
        line = int((record.header("causation_id") or b"").rsplit(b":", 1)[1])
        if found.get(line) != "OK":
            found[line] = status(record)[0]
    return found


def test_the_report_is_what_an_independent_reader_counts(scene: Scene, tmp_path: Path) -> None:
    codes = scene.new_tokens(1500)
    lines = [by_code(code) for code in codes]
    lines += [by_code(f"nobody-{number}") for number in range(300)]
    lines += [by_code(code) for code in codes[:200]]
    lines += ["", "no JSON", "[]", by_code("x", fields_set="nothing_of_this_name"), '{"fields_set": "number"}', "   "]
    lines += [by_code("y", pass_code=CANARY), '{"access_token_identifier": {"identifier": "a@b.example"}}']
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(lines), encoding="utf-8")
    with allowing_worker(scene):
        code, out, err = submit(scene, file, login=(login := login_token()))
    assert (code, err) == (3, "")

    report = report_of(file)
    records = scene.seen(replies_of(scene))
    assert report["statuses"] == Counter(status(record)[0] for record in records)
    assert report["statuses"] == {"OK": 1500, "ACCESS_TOKEN_NOT_FOUND": 300, "INVALID_LIFE_CYCLE_STATE": 200}
    assert report["not_sent"] == {"INVALID_PARAMETER": 2, "MALFORMED_REQUEST": 2, "MISSING_PARAMETER": 2}
    assert (report["commands"], report["ok"], report["refused"], report["replayed"]) == (2006, 1500, 506, 0)
    assert report["lines"] == len(lines)
    assert scene.seen(scene.topics.results) == []
    assert Counter(event["access_token_id"] for event in history(scene)) == Counter(codes)
    assert "2,006 commands, 1,500 OK, 506 refused" in out
    # Each line is found in the file of the refusals, by its number and as it was.
    refusals = [json.loads(line) for line in (tmp_path / "migration.ndjson.refusals.ndjson").read_text().splitlines()]
    assert len(refusals) == 506
    answered = outcomes(records)
    for refusal in refusals:
        line = lines[refusal["line"] - 1]
        assert refusal["command"] == json.loads(line) if "command" in refusal else refusal["text"] == line
        assert refusal["status"]["code"] == answered.get(refusal["line"], refusal["status"]["code"])
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if "refusals" not in path.name and path != file)
    assert CANARY.encode() not in written
    assert login.encode() not in written + b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / "migration.ndjson.refusals.ndjson").stat().st_mode & 0o777 == 0o600


def test_killed_over_and_over_with_its_worker_it_ends_with_one_transition_for_each_token(
    scene: Scene, tmp_path: Path
) -> None:
    codes = scene.new_tokens(COMMANDS)
    lines = [by_code(code) for code in codes]
    # Refused at any time of judging.
    for place in range(7, COMMANDS, 10):
        lines[place] = by_code(f"nobody-{place}")
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    chance, login = random.Random(4), login_token()
    # Slow enough that the last life finds work left, even with a late killer.
    options = ("--rate", round(1000 / stretched(1)), "--window", 1500, "--patience", 1)
    settings = {"KAFKA__GROUP_INSTANCE_ID": "the only one", "MAX_BATCH": "50"}
    with allowing_worker(scene, **settings) as worker:
        for life in range(2 * KILLS):
            with Submit(scene, file, *options, login=login) as process:
                before = count_sent(scene)
                wait_sent(scene, before + 1)
                time.sleep(chance.uniform(0.0, 0.3))  # a random moment
                assert process.exit_code is None, process.end()
                if life % 2:
                    worker.kill()
                    worker.start()
                process.signal(signal.SIGKILL)
        code, out, err = submit(scene, file, *options, login=login)
        assert code == 3, err
    report = report_of(file)
    refused = COMMANDS // 10
    assert report["statuses"] == {"ACCESS_TOKEN_NOT_FOUND": refused, "OK": COMMANDS - refused}, out
    assert (report["commands"], report["not_sent"]) == (COMMANDS, {})
    # One that is killed very early has not begun a session yet.
    assert KILLS < report["sessions"] <= 2 * KILLS + 1
    answered = outcomes(scene.seen(replies_of(scene)))
    assert Counter(answered.values()) == report["statuses"]
    assert sorted(answered) == list(range(1, COMMANDS + 1))
    effective = Counter(event["access_token_id"] for event in history(scene))
    assert effective == Counter(code for place, code in enumerate(codes) if place % 10 != 7)
    check_chains(history(scene))


def test_a_table_is_submitted_and_its_mended_refusals_again(scene: Scene, tmp_path: Path) -> None:
    codes = scene.new_tokens(40)
    file = tmp_path / "cards.csv"
    rows = [[code, "number"] for code in codes[:30]]
    rows += [[f"typo-{code}", "number"] for code in codes[30:35]] + [[code, "nummer"] for code in codes[35:]]
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([["authentication_code", "fields_set"], *rows])
    asking = f"{sys.executable} -c 'from tests.support.logins import login_token; print(login_token())'"
    with allowing_worker(scene):
        code, out, err = submit(scene, file, "--token-command", asking, "--json")
        assert (code, err) == (3, "")
        assert json.loads(out) == report_of(file)
        refusals = tmp_path / "cards.csv.refusals.csv"
        text = refusals.read_text(encoding="utf-8")
        assert text.count("ACCESS_TOKEN_NOT_FOUND") == text.count("INVALID_PARAMETER") == 5
        refusals.write_text(text.replace("typo-", "").replace("nummer", "number"), encoding="utf-8")
        # Asking again only for the report does not lose the repaired lines.
        mended = refusals.read_text(encoding="utf-8")
        assert submit(scene, file, login=login_token())[0] == 3
        assert refusals.read_text(encoding="utf-8") == mended
        code, out, err = submit(scene, refusals, login=login_token())
        assert (code, err) == (0, "")
    assert not (tmp_path / "cards.csv.refusals.csv.refusals.csv").exists()
    assert report_of(refusals)["statuses"] == {"OK": 10}
    assert Counter(event["access_token_id"] for event in history(scene)) == Counter(codes)


def test_a_worker_that_may_not_answer_there_is_found_out_by_one_command(scene: Scene, tmp_path: Path) -> None:
    codes = scene.new_tokens(50)
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(map(by_code, codes)), encoding="utf-8")
    login = login_token()
    with scene.worker():
        code, out, err = submit(scene, file, login=login)
    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert f"WORKER_TOPICS__REPLY_TO_ALLOWED={replies_of(scene)}" in line
    assert (count_sent(scene), history(scene)) == (1, [])
    with allowing_worker(scene):
        assert submit(scene, file, login=login)[0] == 0
    assert report_of(file)["statuses"] == {"OK": 50}

    # A finished submission says so again and sends nothing; one without its journal is told that all had been applied.
    sent = count_sent(scene)
    code, out, _ = submit(scene, file, login=login)
    assert (code, count_sent(scene)) == (0, sent)
    assert out.startswith("finished before")
    (tmp_path / "migration.ndjson.journal").unlink()
    with allowing_worker(scene):
        code, out, _ = submit(scene, file, login=login)
    assert (code, report_of(file)["replayed"]) == (0, 50)
    assert "50 had been applied before" in out
    assert len(history(scene)) == 50


def test_answers_are_found_among_others_in_the_results_topic_where_that_is_asked_for(
    scene: Scene, tmp_path: Path
) -> None:
    codes = scene.new_tokens(30)
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(map(by_code, codes[:20])), encoding="utf-8")
    with scene.worker():
        scene.send(*map(body, codes[20:]))
        code, _, err = submit(scene, file, "--reply-topic", scene.topics.results, login=login_token())
    assert (code, err) == (0, "")
    assert report_of(file)["statuses"] == {"OK": 20}
    assert len(scene.seen(scene.topics.results)) == 30


@pytest.mark.parametrize(
    ("which", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(
            signal.SIGTERM,
            143,
            marks=pytest.mark.slow(
                why="the other signal, which is heard by the same few lines: 9 s",
                instead="tests/acceptance/test_submit.py::test_who_stops_it_is_told_how_to_go_on",
            ),
        ),
    ],
    ids=str,
)
def test_who_stops_it_is_told_how_to_go_on(scene: Scene, tmp_path: Path, which: signal.Signals, code: int) -> None:
    codes = scene.new_tokens(3000)
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(map(by_code, codes)), encoding="utf-8")
    login = login_token()
    with allowing_worker(scene):
        with Submit(scene, file, "--rate", 200, login=login) as process:
            wait_sent(scene, 100)
            # A second one is not let in meanwhile.
            second, _, refused = submit(scene, file, login=login)
            assert (second, "in use: another submit" in refused) == (1, True)
            process.signal(which)
            ended, out, err = process.end()
        assert (ended, out) == (code, "")
        assert "go on with: effective-worker submit" in err
        assert login not in err
        sent = count_sent(scene)
        assert sent < 3000
        file.write_text(file.read_text() + "\n" + by_code("another"))
        changed, _, why = submit(scene, file, login=login)
        assert (changed, "has changed since" in why) == (1, True)
        file.write_text("\n".join(map(by_code, codes)), encoding="utf-8")
        assert submit(scene, file, login=login)[0] == 0
    report = report_of(file)
    assert (report["statuses"], report["sessions"]) == ({"OK": 3000}, 2)
    assert Counter(event["access_token_id"] for event in history(scene)) == Counter(codes)


def test_a_dry_run_tells_what_the_real_run_then_does_and_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    codes = scene.new_tokens(20)
    file = tmp_path / "migration.ndjson"
    file.write_text("\n".join(map(by_code, [*codes, "nobody"])), encoding="utf-8")
    with allowing_worker(scene):
        rehearsed = submit(scene, file, "--dry-run", "--json", login=login_token())
        unchanged = history(scene)
        done = submit(scene, file, "--json", login=login_token())
    assert (rehearsed[0], unchanged, done[0]) == (3, [], 3)
    told, real = json.loads(rehearsed[1]), json.loads(done[1])
    assert (told["dry_run"], real["dry_run"]) == (True, False)
    assert told["statuses"] == real["statuses"] == {"ACCESS_TOKEN_NOT_FOUND": 1, "OK": 20}
    assert real["replayed"] == 0
    assert Counter(event["access_token_id"] for event in history(scene)) == Counter(codes)
    assert (tmp_path / "migration.ndjson.dry-run.journal").exists()
    assert (tmp_path / "migration.ndjson.journal").exists()


def test_several_files_end_with_the_gravest_exit_code(scene: Scene, tmp_path: Path) -> None:
    [code] = scene.new_tokens(1)
    good, bad, none = (tmp_path / name for name in ("good.ndjson", "bad.ndjson", "none.ndjson"))
    good.write_text(by_code(code))
    bad.write_text(by_code("nobody"))
    none.write_text("")
    with allowing_worker(scene):
        ended, out, err = submit(scene, bad, good, none, "--json", login=login_token())
    assert (ended, err) == (3, "")
    assert [(each["ok"], each["refused"]) for each in json.loads(out)] == [(0, 1), (1, 0), (0, 0)]
