"""The file of variables that a command is given (CONTRACT, Settings)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import typer

_KEPT: Final = "worker.cli.env_file"


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file of variables, and those of them that are in force."""

    path: str
    variables: Mapping[str, str] = field(repr=False)


def use_env_file(context: typer.Context, path: Path) -> None:
    """Put the variables of a file into the environment, where programs that are started find them, too.

    The environment wins. Raises ``SettingsError``.
    """
    from worker.env_file import not_given, read_env_file

    variables = not_given(read_env_file(path), os.environ)
    os.environ.update(variables)
    context.meta[_KEPT] = EnvFile(str(path), variables)


def env_file_of(context: typer.Context) -> EnvFile | None:
    """Return the file that is in use."""
    found: EnvFile | None = context.meta.get(_KEPT)
    return found
