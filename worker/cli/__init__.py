"""The command line (CONTRACT, Command line): one module per command, put together here."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer
from typer.core import TyperCommand

from worker.cli.terminal import FAILED, HELP, CommandGroup, Documented, complain, guarded_output, hold_standard

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
)
"""In the order of the help. Each is a module here that adds the command, or group, of its name to an application."""
_MODULES: Final = {"import": "import_"}


def application(called: str | None = None) -> typer.Typer:
    """Return the commands, each with an example in its help; if ``called`` is one of them, only that.

    A command is imported when it is called: importing all of them takes longer than most of them run.
    """
    app = typer.Typer(
        cls=CommandGroup,
        callback=_everything,
        context_settings=HELP,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in (called,) if called in COMMANDS else COMMANDS:
        import_module(f"worker.cli.{_MODULES.get(name, name.replace('-', '_'))}").add(app)
    _document(app)
    return app


def _document(app: typer.Typer) -> None:
    """Let every command answer with a document where it was asked for one, whatever is wrong."""
    for command in app.registered_commands:
        if command.cls is TyperCommand:
            command.cls = Documented
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _document(group.typer_instance)


def main() -> None:
    """Run the console script. Ends the process with the exit code of CONTRACT, Command line."""
    hold_standard()
    with guarded_output():
        application(next(iter(sys.argv[1:]), None))(prog_name="effective-worker")


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
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Sets access tokens effective, exactly once: commands in from Kafka, results out to Kafka, state in Postgres.

    Settings come from the environment alone.
    """
