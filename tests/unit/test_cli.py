"""The command line as a shell sees it: exit codes, streams, and no traceback for a user's mistake.

See CONTRACT, Command line.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jwt
import pytest

from tests.support import preloaded
from tests.support.logins import SECRET
from tests.support.waiting import output_of, run_to_end
from worker import cli
from worker.demo.servers.processes import free_port

ROOT: Final = Path(__file__).parents[2]
COMMANDS: Final = (
    ("run",),
    ("migrate",),
    ("topics",),
    ("topics", "plan"),
    ("topics", "apply"),
    ("check",),
    ("import",),
    ("login-token",),
    ("contract",),
    ("send",),
    ("submit",),
    ("history",),
    ("explain",),
    ("attempts",),
    ("attempts", "list"),
    ("attempts", "forgive"),
    ("reconcile",),
    ("audit",),
    ("audit", "verify"),
    ("audit", "anchor"),
    ("contact",),
    ("contact", "erase"),
    ("lanes",),
    ("lanes", "list"),
    ("lanes", "show"),
    ("lanes", "acknowledge"),
    ("lanes", "mend"),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("dead-letters", "replay"),
    ("config",),
    ("config", "show"),
    ("config", "schema"),
    ("completion",),
    ("help",),
)
GIVEN: Final = {"WORKER_LOGIN__SECRETS": SECRET}


@pytest.fixture
def nowhere() -> dict[str, str]:
    """Return settings under which neither Postgres nor a broker answers."""
    return GIVEN | {
        "WORKER_POSTGRES__DSN": f"postgresql://worker:canary@127.0.0.1:{free_port()}/effective",
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "WORKER_ADMIN__PORT": "0",
    }


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **settings}


def worker(*arguments: str, settings: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return preloaded.run_to_end(arguments, cwd=ROOT, env=environment(settings or {}))


def says_one_line(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert "canary" not in done.stdout + done.stderr


def test_help_names_every_command() -> None:
    done = worker("--help")
    assert done.returncode == 0
    assert all(command[0] in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_shows_an_example(command: Sequence[str]) -> None:
    # A fresh interpreter: the command imports what it needs, and relies on no import of another command.
    done = run_to_end([sys.executable, "-m", "worker", *command, "--help"], cwd=ROOT)
    assert done.returncode == 0
    assert f"Example:\n  effective-worker {command[0]}" in done.stdout.replace("    effective", "  effective").replace(
        "  Example", "Example"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("import",),
        ("import", "--yes"),
        ("import", "x.ndjson", "--mend"),
        ("import", "x.ndjson", "--yes"),
        ("import", "--mend", "--announce"),
        ("import", "--mend", "--no-events"),
        ("migrate", "--sideways"),
        ("login-token", "--organisation", "ORG1"),
        ("contract",),
        ("contract", "--check", "schemas"),
        ("lanes", "mend", "--yes"),
        ("lanes", "mend", "three"),
        ("lanes", "mend", "other-topic/3"),
        ("lanes", "mend", "--by", "magic"),
        ("dead-letters", "show"),
        ("dead-letters", "replay", "--yes"),
        ("dead-letters", "replay", "--login-token", "canary"),
        ("dead-letters", "list", "--since", "soon"),
        ("audit", "verify", "--json", "--json-lines"),
        ("audit", "verify", "--since", "soon"),
        ("reconcile", "--organisation", ""),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: Sequence[str]) -> None:
    done = worker(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [*COMMANDS[:2], *COMMANDS[3:5], ("import", "x.ndjson")], ids=" ".join)
def test_wrong_settings_exit_2_and_name_every_variable(command: Sequence[str]) -> None:
    done = worker(*command, settings=GIVEN | {"WORKER_MAX_BATCH": "many", "WORKER_KAFKA__GROUP": "g"})
    assert done.returncode == 2
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        "WORKER_KAFKA__GROUP",
        "WORKER_MAX_BATCH",
    ]


def test_a_worker_without_a_login_secret_does_not_start() -> None:
    done = worker("run")
    assert done.returncode == 2
    says_one_line(done, "WORKER_LOGIN__SECRETS")


@pytest.mark.parametrize("command", [("migrate",), ("migrate", "--check")], ids=" ".join)
def test_a_database_that_is_away_is_one_line_and_exit_1(command: Sequence[str], nowhere: dict[str, str]) -> None:
    done = worker(*command, settings=nowhere)
    assert done.returncode == 1
    says_one_line(done, "postgres", "refused")


@pytest.mark.parametrize("command", [("topics", "plan"), ("topics", "apply")], ids=" ".join)
def test_a_broker_that_is_away_is_one_line_and_exit_1(command: Sequence[str], nowhere: dict[str, str]) -> None:
    done = worker(*command, settings=nowhere)
    assert done.returncode == 1
    says_one_line(done, "kafka", "refused")


def test_dead_letters_without_a_broker_are_one_line_and_exit_1(nowhere: dict[str, str]) -> None:
    done = worker("dead-letters", "list", settings=nowhere)
    assert done.returncode == 1
    assert "error: kafka: " in done.stderr
    assert "Traceback" not in done.stderr


def test_lanes_without_a_broker_are_one_line_and_exit_1(nowhere: dict[str, str]) -> None:
    done = worker("lanes", "list", settings=nowhere)
    assert done.returncode == 1
    assert "error: kafka: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_one_line_and_exit_1(nowhere: dict[str, str]) -> None:
    done = worker("import", "no-such-file.ndjson", settings=nowhere)
    assert done.returncode == 1
    assert "error: no-such-file.ndjson cannot be read: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_line_by_line_what_is_missing(nowhere: dict[str, str]) -> None:
    done = worker("check", "--json", settings=nowhere)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    states = {each["name"]: each["state"] for each in report["checks"]}
    assert states == {
        "settings": "ok",
        "broker": "failed",
        "rights": "failed",
        "topics": "failed",
        "descriptors": "failed",
        "imports": "failed",
        "workers": "failed",
        "database": "failed",
        "sessions": "failed",
        "schema": "failed",
        "grants": "failed",
        "group": "failed",
        "login keys": "ok",
        "transit": "ok",
    }
    assert "canary" not in done.stdout + done.stderr


def test_a_login_token_is_signed_with_the_first_secret() -> None:
    settings = {"WORKER_LOGIN__SECRETS": f"{SECRET},{SECRET[::-1]}"}
    done = worker(
        "login-token", "--organisation", "ORG1", "--user", "mpadmin", "--unit", "1", "--ttl", "1h30m", settings=settings
    )
    assert (done.returncode, done.stderr) == (0, "")
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["org"], claims["usr"], claims["oun"]) == ("ORG1", "mpadmin", "1")
    assert claims["exp"] - claims["iat"] == 90 * 60
    assert claims["jti"]
    assert not {"cii", "acr"} & claims.keys()


def test_a_login_token_of_a_consumer_application_names_its_account() -> None:
    arguments = ("--organisation", "O", "--user", "u", "--unit", "1", "--account", "A1", "--json")
    document = json.loads(worker("login-token", *arguments, settings=GIVEN).stdout)
    claims = jwt.decode(document["token"], SECRET, algorithms=["HS256"])
    assert claims == document["claims"]
    assert (claims["acr"], bool(claims["cii"])) == ("A1", True)


def test_a_login_token_lives_no_longer_than_is_set() -> None:
    arguments = ("login-token", "--organisation", "O", "--user", "u", "--unit", "1", "--ttl")
    done = worker(*arguments, "2h1s", settings=GIVEN)
    assert done.returncode == 2
    assert "7200 seconds (WORKER_LOGIN__LONGEST_SECONDS)" in " ".join(done.stderr.split())
    longer = GIVEN | {"WORKER_LOGIN__LONGEST_SECONDS": "7201", "WORKER_LOGIN__AUDIENCE": "cards"}
    done = worker(*arguments, "2h1s", "--json", settings=longer)
    assert (done.returncode, json.loads(done.stdout)["claims"]["aud"]) == (0, "cards")


@pytest.mark.parametrize("ttl", ["", "soon", "0h", "-1h", "2 h"])
def test_a_login_token_needs_a_sensible_duration(ttl: str) -> None:
    arguments = ("--organisation", "O", "--user", "u", "--unit", "1", "--ttl", ttl)
    done = worker("login-token", *arguments, settings=GIVEN)
    assert done.returncode == 2
    assert "--ttl" in done.stderr


def test_a_login_token_asks_for_the_unit_where_it_cannot_be_looked_up(nowhere: dict[str, str]) -> None:
    done = worker("login-token", "--organisation", "O", "--user", "u", settings=nowhere)
    assert done.returncode == 1
    says_one_line(done, "--unit is needed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_its_dependencies_ends_well_when_told_to(
    number: signal.Signals, nowhere: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "worker", "run"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(nowhere), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("admin http://127.0.0.1:")
            process.send_signal(number)
            _, err = output_of(process, f"the worker ended after {number.name}")
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "canary" not in err


def test_the_contract_is_written_as_it_is_committed(tmp_path: Path) -> None:
    done = worker("contract", str(tmp_path / "new"), "--json")
    assert done.returncode == 0, done.stderr
    committed = ROOT / "schemas" / "pack"
    for name in json.loads(done.stdout)["files"]:
        assert (tmp_path / "new" / name).read_bytes() == (committed / name).read_bytes()


def test_the_contract_has_the_names_of_the_settings(tmp_path: Path) -> None:
    done = worker("contract", str(tmp_path), settings={"WORKER_TOPICS__COMMANDS": "mine"})
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "asyncapi.json").read_text(encoding="utf-8"))
    assert document["channels"]["commands"]["address"] == "mine"


def test_a_released_version_is_compared_with_from_anywhere(tmp_path: Path) -> None:
    done = run_to_end([sys.executable, "-m", "worker", "contract", "--check", "0.1.0"], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "breaks nothing that was written for 0.1.0\n")


def test_a_version_that_was_not_released_is_named() -> None:
    done = worker("contract", "--check", "0.0.1")
    assert done.returncode == 2
    assert "0.0.1 is neither a directory nor a released version (0.1.0)" in " ".join(done.stderr.split())


def test_a_running_worker_imports_no_generator_of_the_contract() -> None:
    program = (
        "import worker.cli.run, sys; print(*sorted(name for name in sys.modules if 'operations.contract' in name))"
    )
    ran = run_to_end([sys.executable, "-c", program], cwd=ROOT)
    assert ran.stdout.split() == [
        "worker.operations.contract",
        "worker.operations.contract.deployment",
        "worker.operations.contract.served",
    ]


def test_a_contract_that_breaks_nobody_exits_0() -> None:
    done = worker("contract", "--check", "schemas/pack", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"breaks": []})


def test_a_contract_that_breaks_someone_exits_1_and_names_every_break(tmp_path: Path) -> None:
    assert worker("contract", str(tmp_path)).returncode == 0
    older = tmp_path / "command.schema.json"
    schema = json.loads(older.read_text(encoding="utf-8"))
    schema["properties"]["token"]["maxLength"] = 8192
    schema["properties"]["colour"] = {"type": "string"}
    older.write_text(json.dumps(schema), encoding="utf-8")
    done = worker("contract", "--check", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "BREAKS  command.schema.json: colour: the member is gone",
        "BREAKS  command.schema.json: token: maxLength is 4096 now, and was 8192",
    ]


def test_a_contract_that_cannot_be_written_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = worker("contract", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    says_one_line(done, "cannot be written")


def test_a_command_that_is_called_is_imported_and_no_other() -> None:
    program = (
        "import sys; from worker.cli import application; application('migrate');"
        " print(*(name for name in sys.modules if name.startswith('worker.cli.')))"
    )
    ran = run_to_end([sys.executable, "-c", program], cwd=ROOT)
    parts = {"worker.cli.terminal", "worker.cli.output", "worker.cli.env_file"}
    assert set(ran.stdout.split()) == {*parts, "worker.cli.migrate"}


def test_help_imports_nothing_that_only_the_command_needs() -> None:
    """Importing clients and settings takes three times as long as the help itself."""
    dear = ("aiokafka", "asyncpg", "structlog", "uvloop", "worker.settings")
    program = (
        "import contextlib, sys; sys.argv[1:] = ['history', '--help']\n"
        "from worker.cli import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"print(*sys.modules.keys() & {set(dear)})"
    )
    ran = run_to_end([sys.executable, "-c", program], cwd=ROOT)
    assert ran.stdout.splitlines()[-1] == ""


def test_every_command_has_its_module_and_every_module_its_command() -> None:
    modules = {path.stem.strip("_").replace("_", "-") for path in (ROOT / "worker" / "cli").glob("*.py")}
    others = {"init", "terminal", "output", "env-file", "findings", "login", "moments", "progress"}
    assert modules - others == set(cli.COMMANDS)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_a_command_whose_standard_descriptors_are_closed_ends_as_any_other(
    closed: str, nowhere: dict[str, str]
) -> None:
    # libuv aborts the process that closes a socket with such a descriptor.
    called = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "worker", "lanes", "list"]
    done = run_to_end(called, cwd=ROOT, env=environment(nowhere))
    assert done.returncode == 1, done.stderr
    assert ("error: kafka" in done.stderr) == ("2>&-" not in closed)
