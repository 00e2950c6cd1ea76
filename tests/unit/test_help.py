"""The help of every command, and the completion of what is typed (CONTRACT, Command line)."""

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from tests.support.preloaded import ROOT
from tests.support.waiting import run_to_end
from worker.cli import COMMANDS, application, called_by
from worker.cli.completion import typed_words

LONGEST: Final = 60
"""Characters of the first sentence: what a list of commands has room for at 80 columns."""


def every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and every group, with its path."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from every(inner, (*path, name))


EVERY: Final = dict(every(typer.main.get_command(application())))


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(application(), arguments, env={"COLUMNS": "80"}, prog_name="effective-worker")
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_the_first_sentence_of_a_help_is_short(path: tuple[str, ...]) -> None:
    text = " ".join((EVERY[path].help or "").split())
    first = re.match(r".*?\.(?= |$)", text)
    assert first is not None, text
    assert len(first[0]) <= LONGEST, first[0]


@pytest.mark.parametrize("path", [path for path in EVERY if hasattr(EVERY[path], "commands")], ids=" ".join)
def test_a_list_of_commands_has_whole_sentences(path: tuple[str, ...]) -> None:
    _, _, listed = shown(*path, "--help").partition("Commands:\n")
    lines = [line for line in listed.split("\n\n")[0].splitlines() if line]
    assert len(lines) == len(EVERY[path].commands)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...") or len(line) > 80] == []


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_a_help_names_values_by_what_they_are(path: tuple[str, ...]) -> None:
    """A type of Python tells a user nothing."""
    shapes, _, _ = shown(*path, "--help").partition("Example:")
    assert not re.search(r"<(list\[)?(str|int|float|path|Path|file)\b", shapes)
    assert not re.search(r"^  [a-z_]+  ", shapes.partition("Arguments:")[2].partition("Options:")[0], re.MULTILINE)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_a_help_is_plain_characters(path: tuple[str, ...]) -> None:
    """A console may show no others."""
    assert shown(*path, "--help").isascii()


# --- effective-worker help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_of_a_command_is_that_of_its_option(path: tuple[str, ...]) -> None:
    assert shown("help", *path) == shown(*path, "--help")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("hstory",), "No such command 'hstory'. Did you mean 'history'?"),
        (("help", "hstory"), "No such command 'hstory'. Did you mean 'history'?"),
        (("lanes", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("help", "lanes", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("help", "history", "list"), "effective-worker history has no commands."),
    ],
    ids=lambda arguments: " ".join(arguments) if isinstance(arguments, tuple) else "",
)
def test_an_unknown_command_suggests_the_nearest_one(arguments: tuple[str, ...], says: str) -> None:
    done = run_to_end([sys.executable, "-m", "worker", *arguments], cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ((), ()),
        (("--help",), ()),
        (("-h", "lanes"), ()),
        (("lanes", "list"), ("lanes",)),
        (("help",), ()),
        (("help", "lanes", "list"), ("help", "lanes")),
    ],
    ids=" ".join,
)
def test_a_command_is_known_before_the_others_are_imported(arguments: tuple[str, ...], called: tuple[str, ...]) -> None:
    assert tuple(called_by(arguments)) == called


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose PATH has the program."""
    place = tmp_path / "effective-worker"
    place.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worker "$@"\n', encoding="utf-8")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": os.pathsep.join((str(tmp_path), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "schemas"), str(ROOT))),
    }


TYPED: Final = [
    ("hist", {"history"}),
    ("", set(COMMANDS)),
    ("lanes ", {"list", "show", "acknowledge", "mend"}),
    ("lanes mend --b", {"--by"}),
    ("lanes mend --by ", {"redo", "skip", "from-start", "from-end"}),
    ("send --dry", {"--dry-run"}),
    ("help au", {"audit"}),
    ("help audit ", {"verify", "anchor"}),
    ("completion ", {"bash", "zsh", "fish"}),
    ("--vers", {"--version"}),
]
COMPLETE: Final = """
source <(effective-worker completion bash)
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_effective_worker_completion effective-worker
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(("typed", "offered"), TYPED, ids=[typed for typed, _ in TYPED])
def test_bash_completes(typed: str, offered: set[str], program: dict[str, str]) -> None:
    words = f"effective-worker {typed}".split(" ")
    done = run_to_end(["bash", "-c", COMPLETE, "bash", *words], cwd=ROOT, env=program)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(("typed", "offered"), [TYPED[0], TYPED[2], TYPED[3]], ids=["hist", "lanes", "by"])
def test_zsh_and_fish_are_answered(shell: str, typed: str, offered: set[str]) -> None:
    asked = {"_EFFECTIVE_WORKER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": f"effective-worker {typed}"}
    environment = {**os.environ, **asked, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = run_to_end([sys.executable, "-m", "worker"], cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_by_the_variable_that_is_answered(shell: str) -> None:
    script = shown("completion", shell)
    assert "effective-worker" in script
    assert f"_EFFECTIVE_WORKER_COMPLETE=complete_{shell}" in script


def test_a_command_that_completes_imports_no_other() -> None:
    environment = {**os.environ, "_EFFECTIVE_WORKER_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    program = (
        "import atexit, sys; from worker.cli import main\n"
        "atexit.register(lambda: print(*(name for name in sys.modules if name.startswith('worker.cli.'))))\n"
        "main()"
    )
    asked = environment | {"COMP_WORDS": "effective-worker\ncontact\n"}
    done = run_to_end([sys.executable, "-c", program], cwd=ROOT, env=asked)
    assert done.stdout.splitlines()[0] == "erase"
    assert "worker.cli.contact" in done.stdout.split()
    assert "worker.cli.lanes" not in done.stdout.split()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"COMP_WORDS": "effective-worker\nlanes\nli", "COMP_CWORD": "2"}, ["lanes"]),
        ({"COMP_WORDS": "effective-worker\nlanes\n", "COMP_CWORD": "2"}, ["lanes"]),
        ({"_TYPER_COMPLETE_ARGS": "effective-worker lanes li"}, ["lanes"]),
        ({"_TYPER_COMPLETE_ARGS": "effective-worker lanes "}, ["lanes"]),
        ({"_TYPER_COMPLETE_ARGS": "effective-worker"}, []),
        ({}, []),
    ],
)
def test_the_word_to_complete_is_none_of_those_before_it(environ: dict[str, str], words: list[str]) -> None:
    assert typed_words(environ) == words
