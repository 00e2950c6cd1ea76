"""The command line (CONTRACT, Command line): one module per command, put together here."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from worker.cli.output import set_up_streams
from worker.cli.terminal import FAILED, HELP, CommandGroup, complain, hold_standard

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
    return app


def main() -> None:
    """Run the console script. Ends the process with the exit code of CONTRACT, Command line."""
    hold_standard()
    set_up_streams(sys.argv)
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
    """Sets access tokens effective, exactly once.

    Commands come in from Kafka, results go out to Kafka, and the state is in Postgres.

    Settings come from the environment alone.
    """
