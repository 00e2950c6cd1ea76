"""The help of every command: short sentences, the same by ``help`` and ``--help``, and plain characters."""

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from worker.cli import application

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
def test_a_help_is_plain_characters(path: tuple[str, ...]) -> None:
    """A console may show no others."""
    assert shown(*path, "--help").isascii()
