"""``effective-worker completion``"""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final

import typer

from worker.cli.terminal import COMPLETION, example

PROGRAM: Final = "effective-worker"


class Shell(StrEnum):
    """A shell that can be told how to complete commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="Your shell.", show_default=False)],
) -> None:
    """Print a script by which a shell completes commands.

    It completes commands, options and their values. For bash and zsh: source <(effective-worker completion bash). For
    fish: effective-worker completion fish | source.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETION, shell=shell)
    sys.stdout.write(f"{script}\n")


def typed_words(environ: Mapping[str, str]) -> Sequence[str]:
    """Return the words before the one to complete, without the program, as the shell hands them over."""
    if "COMP_WORDS" in environ:
        position = environ.get("COMP_CWORD", "")
        return environ["COMP_WORDS"].split()[1 : int(position) if position.isdecimal() else None]
    line = environ.get("_TYPER_COMPLETE_ARGS", "")
    words = line.split()[1:]
    return words if line.endswith(" ") else words[:-1]


def set_up_completion() -> None:
    """Let the shells of typer's scripts be answered."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    asking = ("completion bash > ~/.local/share/bash-completion/completions/effective-worker", "completion fish")
    app.command("completion", epilog=example(*asking))(completion)
