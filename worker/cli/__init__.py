"""The command line (CONTRACT, Command line): one module per command, put together here."""

import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.core import TyperCommand

from worker.cli.env_file import use_env_file
from worker.cli.output import set_up_streams
from worker.cli.terminal import (
    COMPLETION,
    FAILED,
    HELP,
    CommandGroup,
    Documented,
    complain,
    guarded_output,
    hold_standard,
)

COMMANDS: Final = (
    "demo",
    "run",
    "migrate",
    "topics",
    "check",
    "import",
    "login-token",
    "contract",
    "send",
    "submit",
    "history",
    "explain",
    "attempts",
    "contact",
    "audit",
    "lanes",
    "dead-letters",
    "reconcile",
    "config",
    "completion",
    "help",
)
"""In the order of the help. Each is a module here that adds the command, or group, of its name to an application."""
_WITHOUT_SETTINGS: Final = {"demo", "completion", "help"}
_MODULES: Final = {"import": "import_"}


def application(*called: str) -> typer.Typer:
    """Return the commands, each with an example in its help; if ``called`` are some of them, only those.

    A command is imported when it is called: importing all of them takes longer than most of them run.
    """
    app = _empty()
    for name in called if called and set(called) <= set(COMMANDS) else COMMANDS:
        _add(app, name)
    _document(app)
    return app


def completing(typed: Collection[str]) -> typer.Typer:
    """Return what a shell needs to complete a word behind those: of all other commands the names alone."""
    app = _empty()
    for name in COMMANDS:
        if name in typed:
            _add(app, name)
        else:
            app.command(name)(_nothing)
    return app


def main() -> None:
    """Run the console script. Ends the process with the exit code of CONTRACT, Command line."""
    hold_standard()
    set_up_streams(sys.argv)
    with guarded_output():
        _called()(prog_name="effective-worker")


def _called() -> typer.Typer:
    if COMPLETION not in os.environ:
        return application(*called_by(sys.argv[1:]))
    from worker.cli.completion import set_up_completion, typed_words

    set_up_completion()
    return completing(typed_words(os.environ))


def called_by(arguments: Sequence[str]) -> Sequence[str]:
    """Return the commands that the arguments call; none if all are needed to tell."""
    words = list(arguments)
    while words and words[0].startswith("--env-file"):
        words = words[1 if "=" in words[0] else 2 :]
    if not words or words[0].startswith("-") or words == ["help"]:
        return ()
    return words[: 2 if words[0] == "help" else 1]


def _empty() -> typer.Typer:
    return typer.Typer(
        cls=CommandGroup,
        callback=_everything,
        context_settings=HELP,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def _add(app: typer.Typer, name: str) -> None:
    import_module(f"worker.cli.{_MODULES.get(name, name.replace('-', '_'))}").add(app)


def _document(app: typer.Typer) -> None:
    """Let every command answer with a document where it was asked for one, whatever is wrong."""
    for command in app.registered_commands:
        if command.cls is TyperCommand:
            command.cls = Documented
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _document(group.typer_instance)


def _nothing() -> None: ...


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        sys.stdout.write(f"{version('effective-worker')}\n")
    except PackageNotFoundError:
        complain("not installed, so there is no version")
        raise typer.Exit(FAILED) from None
    raise typer.Exit


def _everything(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            envvar="WORKER_ENV_FILE", metavar="FILE", help="Read variables from it; the environment wins over them."
        ),
    ] = None,
) -> None:
    """Sets access tokens effective, exactly once.

    Commands come in from Kafka, results go out to Kafka, and the state is in Postgres.

    Settings come from the environment, and from a file if one is named.
    """
    asks_for_help = not {*HELP["help_option_names"]}.isdisjoint(sys.argv)
    if env_file is not None and context.invoked_subcommand not in _WITHOUT_SETTINGS and not asks_for_help:
        use_env_file(context, env_file)
