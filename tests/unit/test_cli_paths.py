"""The output of a command that has no result: one document, one sentence, and no class of Python."""

import json
import operator
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from effective_contract.codes import StatusCode
from tests.support import preloaded
from tests.support.command_line import COMMANDS, NEEDED, write_files
from tests.support.logins import SECRET
from tests.support.waiting import output_of, run_to_end
from worker.cli import topics as topics_command
from worker.demo.servers.processes import free_port
from worker.kafka.topics import Difference, PlannedTopic, Tools, TopicPlan
from worker.operations.submit.journal import Journal, JournalError, Outcome
from worker.operations.submit.lines import source_of
from worker.operations.submit.report import Unwritten, write_refusals
from worker.settings import KafkaSettings

ROOT: Final = preloaded.ROOT
WITH_JSON: Final = sorted(
    name for name, command in COMMANDS.items() if any(option.name == "json" for option in command.params)
)
NEEDS_NO_SERVER: Final = {"contract", "completion", "help", "config show", "config schema"}
REPORTS: Final = {"check"}
"""Commands whose document of a failure is their report."""
WRONG: Final[dict[str, Callable[[Any], Any]]] = {
    "check": lambda document: document["checks"][0]["detail"],
    "config show": operator.itemgetter("faults"),
}
"""The faults, in the documents of those that go on with wrong settings."""
FULL: Final = Path("/dev/full")
CLASS_OF_PYTHON: Final = re.compile(r"\b[A-Z][a-z]\w*(Error|Exception)\b")
SERVED: Final = "127.0.0.1"

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with the files that commands are called with, and nothing else."""
    return write_files(tmp_path)


@pytest.fixture
def away() -> dict[str, str]:
    """Return an environment in which neither Postgres nor a broker answers."""
    return environment(f"{SERVED}:{free_port()}")


def environment(server: str) -> dict[str, str]:
    return {
        **os.environ,
        "WORKER_LOGIN__SECRETS": SECRET,
        "WORKER_POSTGRES__DSN": f"postgresql://worker:canary@{server}/effective?sslmode=disable",
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": server,
        "PYTHONPATH": f"{ROOT / 'schemas'}{os.pathsep}{ROOT}",
    }


def called(name: str, *more: str, cwd: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return preloaded.run_to_end([*name.split(), *NEEDED.get(name, ()), *more], cwd=cwd, env=env)


def only_document(done: "subprocess.CompletedProcess[str]") -> Any:
    """Return the document on stdout, which must be the only thing there."""
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def test_there_is_something_to_walk() -> None:
    assert len(WITH_JSON) > 20


@pytest.mark.parametrize("name", WITH_JSON)
def test_servers_that_are_away_are_one_document_and_one_line(name: str, place: Path, away: dict[str, str]) -> None:
    done = called(name, "--json", cwd=place, env=away)
    document = only_document(done)
    server = away["WORKER_KAFKA__BOOTSTRAP_SERVERS"]
    if name in NEEDS_NO_SERVER:
        assert done.returncode == 0
        return
    assert done.returncode == 1
    said = f"{done.stdout}{done.stderr}"
    assert f"at {server} (connection refused)" in said
    assert CLASS_OF_PYTHON.search(said) is None
    assert "canary" not in said.replace(str(place), "")
    if name in REPORTS:
        return
    assert isinstance(document["error"], str)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert document["error"] in line


@pytest.mark.parametrize("name", [*COMMANDS])
def test_servers_that_are_away_are_one_line(name: str, place: Path, away: dict[str, str]) -> None:
    if name in {*NEEDS_NO_SERVER, *REPORTS, "run"}:
        pytest.skip("it needs none, reports them, or waits for them")
    done = called(name, cwd=place, env=away)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: .*(kafka: no broker|postgres: no server) answers at \S+ \(connection refused\); check WORKER_\w+.*\n",
        done.stderr,
    ), done.stderr
    assert CLASS_OF_PYTHON.search(done.stderr) is None


@pytest.mark.parametrize("name", [*WITH_JSON, "demo"])
def test_wrong_usage_is_one_document(name: str, place: Path, away: dict[str, str]) -> None:
    done = called(name, "--no-such-option", "--json", cwd=place, env=away)
    assert done.returncode == 2
    assert "--no-such-option" in only_document(done)["error"]
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("name", WITH_JSON)
def test_wrong_settings_are_one_document(name: str, place: Path, away: dict[str, str]) -> None:
    done = called(name, "--json", cwd=place, env=away | {"WORKER_MAX_BATCH": "many"})
    document = only_document(done)
    assert done.returncode == 2
    assert "WORKER_MAX_BATCH" in WRONG.get(name, operator.itemgetter("error"))(document)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Return the socket of a server that lets everybody in, and never answers."""
    with socket.create_server((SERVED, 0)) as listening:
        yield listening


@pytest.mark.parametrize("name", ["history", "lanes list", "dead-letters list"])
def test_an_interruption_is_one_document_and_exit_130(name: str, place: Path, silent: socket.socket) -> None:
    command = [sys.executable, "-m", "worker", *name.split(), *NEEDED.get(name, ()), "--json"]
    env = environment(f"{SERVED}:{silent.getsockname()[1]}")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=place, env=env, **pipes) as process:
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = output_of(process, f"{name} ended")
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert json.loads(out)["error"] == "interrupted"
    assert err == ""


def test_several_files_have_an_entry_each(place: Path, away: dict[str, str]) -> None:
    done = called("submit", "no-such-file", "--json", cwd=place, env=away)
    assert done.returncode == 2
    assert [(each["file"], bool(each["error"])) for each in only_document(done)] == [
        ("commands.ndjson", True),
        ("no-such-file", True),
    ]


# --- stdout and files -------------------------------------------------------------------------------------------------

PRINTING: Final = (["--help"], ["--version"], ["check"], ["check", "--json"], ["lanes", "--help"])


@needs_full
@pytest.mark.parametrize("arguments", [*PRINTING, ["contract", "--check", "0.1.0"]], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_a_sentence_and_exit_1(
    arguments: list[str], unbuffered: str, place: Path, away: dict[str, str]
) -> None:
    with FULL.open("w") as out:
        env = away | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=place,
            env=env,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_seen_enough_ends_it_silently(
    arguments: list[str], place: Path, away: dict[str, str]
) -> None:
    # The last reader is gone before the first byte comes.
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=place,
            env=away,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")


@needs_full
def test_an_error_whose_document_cannot_be_written_is_told_all_the_same(place: Path, away: dict[str, str]) -> None:
    with FULL.open("w") as out:
        command = [sys.executable, "-m", "worker", "history", "T1", "--json"]
        done = subprocess.run(command, cwd=place, env=away, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("error: postgres: no server answers")
    assert second.startswith("error: standard output cannot be written")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("contract token", "is a file"),
        ("contract token/below", "cannot be written: Not a directory"),
        ("submit commands.ndjson --token canary --journal .", "the journal . cannot be written: Is a directory"),
        ("submit commands.ndjson --token canary --journal none/journal", "cannot be written: No such file"),
        ("submit . --token canary", ". is no file"),
        ("import .", "is not a regular file"),
        ("audit verify --anchor .", "cannot be read: Is a directory"),
        ("audit anchor --key-file .", "cannot be read: Is a directory"),
        ("send --identifier i --login-token-file token --pass-code-file .", "cannot be read: Is a directory"),
    ],
)
def test_a_path_that_cannot_be_used_is_told_with_its_reason(
    arguments: str, words: str, place: Path, away: dict[str, str]
) -> None:
    done = preloaded.run_to_end(arguments.split(), cwd=place, env=away)
    assert done.returncode in {1, 2}
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("directory", ["token", "token/below"])
def test_a_demonstration_that_cannot_write_says_where(directory: str, place: Path, away: dict[str, str]) -> None:
    done = preloaded.run_to_end(["demo", "--directory", directory], cwd=place, env=away)
    assert done.returncode == 1
    assert f"{directory} cannot be written: " in done.stderr
    assert "Traceback" not in done.stderr


REFUSED: Final = Outcome(1, str(StatusCode.ACCESS_DENIED), replayed=False, sent=True, latency=1, message="")


@pytest.mark.parametrize("outcomes", [[], [REFUSED]])
def test_a_directory_in_the_place_of_the_refusals_is_told(outcomes: list[Outcome], place: Path) -> None:
    there = place / "refusals"
    there.mkdir()
    source = source_of(place / "commands.ndjson", as_csv=False, max_bytes=1000)
    with pytest.raises(Unwritten, match="refusals cannot be written: "):
        write_refusals(there, source, iter(outcomes), own_logins=True)
    source.close()


@needs_full
def test_a_journal_on_a_full_disk_is_told() -> None:
    with pytest.raises(JournalError, match="the journal /dev/full cannot be used"):
        Journal(FULL)


# --- what can be checked with wrong settings --------------------------------------------------------------------------


def test_check_goes_on_with_wrong_settings_as_far_as_it_can(place: Path, away: dict[str, str]) -> None:
    wrong = {"WORKER_KAFKA__GROUP": "g", "WORKER_MAX_BATCH": "many"}
    done = called("check", "--json", cwd=place, env=away | wrong)
    checks = {each["name"]: each for each in only_document(done)["checks"]}
    assert (done.returncode, done.stderr) == (2, "")
    assert checks["settings"]["state"] == "failed"
    assert all(f"{name}: " in checks["settings"]["detail"] for name in wrong)
    for name in ("broker", "rights", "topics", "descriptors", "transit"):
        assert (checks[name]["state"], checks[name]["detail"]) == (
            "failed",
            "not checked: WORKER_KAFKA__GROUP is wrong",
        )
    assert "no server answers" in checks["database"]["detail"]
    assert checks["login keys"]["state"] == "ok"


@pytest.mark.parametrize(
    ("variable", "value", "unchecked"),
    [
        ("WORKER_POSTGRES__DSN", "mysql://canary", {"database", "sessions", "schema", "grants", "group", "transit"}),
        ("WORKER_LOGIN__SECRETS", "canary", {"login keys"}),
        ("WORKER_TOPICS__COMMANDS", "no topic", {"broker", "rights", "topics", "descriptors", "imports", "workers"}),
    ],
)
def test_what_depends_on_a_wrong_setting_is_not_checked(
    variable: str, value: str, unchecked: set[str], place: Path, away: dict[str, str]
) -> None:
    done = called("check", "--json", cwd=place, env=away | {variable: value})
    checks = only_document(done)["checks"]
    assert done.returncode == 2
    assert {each["name"] for each in checks if each["detail"] == f"not checked: {variable} is wrong"} == unchecked
    assert "canary" not in done.stdout


def test_a_server_that_is_away_is_said_once(place: Path, away: dict[str, str]) -> None:
    done = called("check", cwd=place, env=away)
    assert done.stdout.count("no server answers") == 1
    assert done.stdout.count("not checked: see database") == 4


# --- topics plan ------------------------------------------------------------------------------------------------------


def planned(*, exists: bool, harm: str = "", differs: bool = False) -> TopicPlan:
    tools = Tools(KafkaSettings(bootstrap_servers="kafka:9092"))
    found = (Difference("retention.ms", "-1", "1", harm, tools.configs("t", "retention.ms=-1")),)
    topic = PlannedTopic("results", "t", 3, 1, {"retention.ms": "-1"}, exists, found if differs else ())
    return TopicPlan((topic if exists else replace(topic, create=tools.creation(topic)),))


CREATE: Final = (
    "kafka-topics.sh --bootstrap-server kafka:9092 --create --topic t --partitions 3 --replication-factor 1"
    " --config retention.ms=-1"
)
CONFIGURE: Final = (
    "kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type topics --entity-name t"
    " --add-config retention.ms=-1"
)


@pytest.mark.parametrize(
    ("plan", "code", "command"),
    [
        (planned(exists=True), 0, None),
        (planned(exists=True, differs=True), 0, CONFIGURE),
        (planned(exists=True, differs=True, harm="the history gets lost"), 1, CONFIGURE),
        (planned(exists=False), 1, CREATE),
    ],
)
def test_a_plan_with_something_to_do_exits_1_with_the_commands(
    plan: TopicPlan,
    code: int,
    command: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def found(_: Any) -> TopicPlan:
        return plan

    monkeypatch.setattr("worker.kafka.topics.plan", found)
    monkeypatch.setattr(topics_command, "settings_from_environment", lambda: None)
    with pytest.raises(typer.Exit) as ended:
        topics_command.plan()
    assert ended.value.exit_code == code
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("kafka-")] == ([] if command is None else [command])


def test_the_tools_of_kafka_are_told_where_the_login_is_and_survive_a_shell() -> None:
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "a:1, b:2", "security_protocol": "SSL"})
    assert Tools(kafka).topics("--list") == (
        "kafka-topics.sh --bootstrap-server 'a:1, b:2' --command-config client.properties --list"
    )


# --- anywhere ---------------------------------------------------------------------------------------------------------


def test_a_release_is_compared_with_whatever_the_topics_here_are_called(tmp_path: Path, away: dict[str, str]) -> None:
    own = {f"WORKER_TOPICS__{name}": name.lower() for name in ("COMMANDS", "BULK_COMMANDS", "RESULTS", "TRANSITIONS")}
    done = run_to_end([sys.executable, "-m", "worker", "contract", "--check", "0.1.0"], cwd=tmp_path, env=away | own)
    assert (done.returncode, done.stdout) == (0, "breaks nothing that was written for 0.1.0\n")


def test_a_pack_of_this_installation_is_compared_by_its_topics(tmp_path: Path, away: dict[str, str]) -> None:
    assert preloaded.run_to_end(["contract", "pack"], cwd=tmp_path, env=away).returncode == 0
    renamed = away | {"WORKER_TOPICS__COMMANDS": "mine"}
    done = preloaded.run_to_end(["contract", "--check", "pack"], cwd=tmp_path, env=renamed)
    assert done.returncode == 1
    assert "channels.commands.address" in done.stdout


def test_the_example_is_found_anywhere(tmp_path: Path, away: dict[str, str]) -> None:
    done = preloaded.run_to_end(["import", "--example"], cwd=tmp_path, env=away)
    assert done.returncode == 1
    assert done.stderr.startswith("error: postgres: no server answers at ")


@pytest.mark.parametrize("also", [("x.ndjson",), ("--announce",), ("--mend",)], ids=" ".join)
def test_the_example_is_loaded_alone(also: tuple[str, ...], tmp_path: Path, away: dict[str, str]) -> None:
    done = preloaded.run_to_end(["import", "--example", *also], cwd=tmp_path, env=away)
    assert done.returncode == 2


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_a_login_token_that_lives_long_is_warned_of(tmp_path: Path, away: dict[str, str]) -> None:
    arguments = ["login-token", "--organisation", "O", "--user", "u", "--unit", "1", "--ttl"]
    env = away | {"WORKER_LOGIN__LONGEST_SECONDS": "86400"}
    long = preloaded.run_to_end([*arguments, "2h1s", "--json"], cwd=tmp_path, env=env)
    assert (long.returncode, long.stderr.count("\n")) == (0, 1)
    assert long.stderr.startswith("warning: this login lives for 2h1s")
    assert only_document(long)["token"]
    usual = preloaded.run_to_end([*arguments, "2h"], cwd=tmp_path, env=env)
    assert (usual.returncode, usual.stderr) == (0, "")
