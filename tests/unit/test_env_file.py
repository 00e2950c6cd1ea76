"""Files of variables: their syntax, their faults, and the environment, which wins (CONTRACT, Settings)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support import preloaded
from tests.support.logins import SECRET
from worker.env_file import not_given, read_env_file
from worker.settings import SettingsError

CANARY: Final = "canary-of-a-secret"


def written(directory: Path, text: str) -> Path:
    file = directory / "worker.env"
    file.write_bytes(text.encode())
    return file


def faults_of(file: Path) -> dict[str, str]:
    with pytest.raises(SettingsError) as raised:
        read_env_file(file)
    assert CANARY not in str(raised.value)
    return dict(raised.value.faults)


def worker(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return preloaded.run_to_end(arguments, cwd=preloaded.ROOT, env={**os.environ, **variables})


# --- the syntax -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b", "b"),
        ("export A=b", "b"),
        ("  A=b  ", "b"),
        ("A=b\r", "b"),
        ("A=", ""),
        ("A=b c", "b c"),
        ("A=b#c", "b#c"),
        ("A=b # c", "b"),
        ("A=# c", ""),
        ("A=postgresql://u:p%40@h/d?sslmode=require", "postgresql://u:p%40@h/d?sslmode=require"),
        ("A='b # \\n $c'", "b # \\n $c"),
        ("A='' # c", ""),
        ('A="b # c"', "b # c"),
        ('A="b\\nc\\t\\"d\\" \\\\ \\$e" # f', 'b\nc\t"d" \\ $e'),
        ("A=${B}", "${B}"),
        ("A=ü", "ü"),
    ],
)
def test_a_line_gives_a_value(line: str, value: str, tmp_path: Path) -> None:
    assert read_env_file(written(tmp_path, f"\ufeff# a comment\n\n{line}\nB=1")) == {"A": value, "B": "1"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (CANARY, "neither NAME=VALUE nor a comment"),
        (f"1A={CANARY}", "neither NAME=VALUE nor a comment"),
        (f"A-B={CANARY}", "neither NAME=VALUE nor a comment"),
        (f"A: {CANARY}", "neither NAME=VALUE nor a comment"),
        (f"A='{CANARY}", "the quote does not end, or something stands behind it"),
        (f'A="{CANARY}\\"', "the quote does not end, or something stands behind it"),
        (f"A='b' {CANARY}", "the quote does not end, or something stands behind it"),
        (f'A="{CANARY}\\d"', "in double quotes a backslash is written"),
        (f"B={CANARY}", "B is given twice"),
        (f"A={CANARY}\0", "a NUL character"),
        (f"WORKER_ENV_FILE={CANARY}", "WORKER_ENV_FILE is for the environment"),
    ],
)
def test_a_line_that_is_none_is_a_fault_with_its_number_and_without_its_text(
    line: str, says: str, tmp_path: Path
) -> None:
    file = written(tmp_path, f"# one\nB=1\n{line}\nC=2\n")
    [(where, what)] = faults_of(file).items()
    assert where == f"{file}:3"
    assert what.startswith(says)


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    file = written(tmp_path, "one\nA=1\ntwo\n")
    assert list(faults_of(file)) == [f"{file}:1", f"{file}:3"]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    none, binary = tmp_path / "none", tmp_path / "binary"
    binary.write_bytes(b"A=\xff")
    assert faults_of(none) == {
        str(none): "the file of --env-file or WORKER_ENV_FILE cannot be read: No such file or directory"
    }
    assert faults_of(binary) == {
        str(binary): "the file of --env-file or WORKER_ENV_FILE cannot be read: not UTF-8 text"
    }


# --- the environment wins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [{"WORKER_LOGIN__SECRETS": "other"}, {"WORKER_LOGIN__SECRETS_FILE": "/other"}],
    ids=["itself", "by its file"],
)
@pytest.mark.parametrize("name", ["WORKER_LOGIN__SECRETS", "WORKER_LOGIN__SECRETS_FILE"])
def test_the_environment_wins(name: str, environ: dict[str, str]) -> None:
    assert not_given({name: "file", "WORKER_MAX_BATCH": "7"}, environ) == {"WORKER_MAX_BATCH": "7"}


def test_an_empty_variable_of_the_environment_counts_as_not_given() -> None:
    assert not_given({"WORKER_MAX_BATCH": "7"}, {"WORKER_MAX_BATCH": ""}) == {"WORKER_MAX_BATCH": "7"}


def test_a_command_reads_the_file_that_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, f"WORKER_LOGIN__SECRETS={SECRET}\nWORKER_LOGIN__AUDIENCE='cards'\n")
    asking = ("login-token", "--organisation", "O", "--user", "u", "--unit", "1", "--json")
    by_option, by_variable = worker("--env-file", str(file), *asking), worker(*asking, WORKER_ENV_FILE=str(file))
    environment_first = worker(f"--env-file={file}", *asking, WORKER_LOGIN__AUDIENCE="shops")
    for done, audience in ((by_option, "cards"), (by_variable, "cards"), (environment_first, "shops")):
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["claims"]["aud"] == audience


def test_the_option_comes_before_the_variable(tmp_path: Path) -> None:
    file = written(tmp_path, "WORKER_MAX_BATCH=7")
    done = worker("--env-file", str(file), "config", "show", WORKER_ENV_FILE=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    assert f"WORKER_MAX_BATCH\t7\tfile {file}\t500\t-" in done.stdout.splitlines()


def test_a_file_that_is_wrong_ends_a_command_with_2_and_leaves_help_alone(tmp_path: Path) -> None:
    file = written(tmp_path, f"WORKER_MAX_BATCH=7\n{CANARY}\n")
    done = worker("--env-file", str(file), "migrate")
    assert done.returncode == 2
    assert done.stderr == f"error: {file}:2: neither NAME=VALUE nor a comment\n"
    for asking in (("help", "migrate"), ("migrate", "--help"), ("topics", "-h")):
        assert worker(*asking, WORKER_ENV_FILE=str(file)).returncode == 0
    # It writes the file that other commands read.
    assert "no such option" in worker("demo", "--no-such", WORKER_ENV_FILE=str(file)).stderr.lower()


def test_a_fault_in_a_setting_of_the_file_names_the_variable(tmp_path: Path) -> None:
    file = written(tmp_path, "WORKER_BATCH=7")
    done = worker("--env-file", str(file), "migrate", WORKER_DRAIN_SECONDS="never")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: WORKER_BATCH (in {file}): no such setting; did you mean WORKER_MAX_BATCH?",
        "error: WORKER_DRAIN_SECONDS: not a number above 0 and up to 3600",
    ]
