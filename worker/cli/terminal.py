"""What the commands have in common: settings, exit codes, and where which text goes (CONTRACT 8)."""

import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from worker.errors import WorkerError
from worker.observe import configure_logging
from worker.settings import Settings, SettingsError, read_settings

FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


class CommandGroup(TyperGroup):
    """Turns what a person can mend into a line and an exit code. Any other exception is a bug and shows itself."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for variable, what in error.faults:
                complain(f"{variable}: {what}")
            raise typer.Exit(WRONG_USAGE) from None
        except WorkerError as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def settings_from_environment(*, needs_login: bool = False) -> Settings:
    """The settings, with the logs set up as they say. Raises ``SettingsError``."""
    settings = read_settings(os.environ, needs_login=needs_login)
    configure_logging(settings.log.level, settings.log.format)
    return settings


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)


def complain(text: str) -> None:
    """One line to stderr."""
    sys.stderr.write(f"error: {' '.join(text.split())}\n")


def show(document: Any, lines: Sequence[str], *, as_json: bool) -> None:
    """The result on stdout: ``document`` as one JSON document, or ``lines`` for people."""
    if as_json:
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while the block runs. It is told how much of how much is done."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


def example(*commands: str) -> str:
    """The end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  effective-worker {command}" for command in commands)
