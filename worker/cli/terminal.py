"""The common parts of the commands: settings, exit codes, and the use of stdout and stderr (CONTRACT, Command line).

Imports nothing at its top that a command's help can do without: it would take longer than the help itself.
"""

import errno
import gc
import io
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from worker.cli.env_file import EnvFile, env_file_of
from worker.cli.output import fitted

if TYPE_CHECKING:
    from worker.settings import Settings

FAILED: Final = 1
WRONG_USAGE: Final = 2
REFUSED: Final = 3
SIGNALLED: Final = 128
"""The number of the signal is added to it."""
INTERRUPTED: Final = SIGNALLED + signal.SIGINT
UNREAD: Final = SIGNALLED + signal.SIGPIPE
"""Whoever reads stdout has seen enough (``| head``): a shell says this of a tool that the signal ends."""

COMPLETION: Final = "_EFFECTIVE_WORKER_COMPLETE"
"""The variable by which a shell asks for completions."""
HELP: Final = {"help_option_names": ["-h", "--help"]}

_DURATION: Final = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)

_TYPE: Final = re.compile(r" <(?:list\[)?(\w+)\]?(?: range)?>")
_VALUES: Final = defaultdict(str, str=" TEXT", int=" N", float=" N", path=" FILE", file=" FILE")

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


class OutputLost(Exception):
    """Standard output takes no more; ``code`` is the exit code, and the text is empty where nothing is to be said."""

    def __init__(self, error: OSError) -> None:
        is_closed = error.errno == errno.EPIPE
        super().__init__("" if is_closed else f"standard output cannot be written: {error.strerror}")
        self.code = UNREAD if is_closed else FAILED


class Output(io.TextIOWrapper):
    """Standard output. What it cannot take is an error of its own, which no command mistakes for that of a server.

    The error comes again with every use: the library of the command line tries streams, and overlooks their errors.
    """

    lost: OutputLost | None = None

    def write(self, text: str) -> int:
        """Write it, or raise ``OutputLost``."""
        with self._losing():
            return super().write(text)

    def flush(self) -> None:
        """Write what is held back, or raise ``OutputLost``."""
        with self._losing():
            super().flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        if self.lost is None:
            try:
                yield
                return
            except OSError as error:
                self.lost = OutputLost(error)
                # The rest goes nowhere: otherwise Python would complain of it at the end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        raise self.lost


class Documented(TyperCommand):
    """A command that prints one JSON document where it was asked to, whatever is wrong: its usage, too.

    Its help names values by what they are, and not by a type of Python.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            records = [each.get_help_record(ctx) for each in self.get_params(ctx) if each.param_type_name == kind]
            named = _named if kind == "option" else ""
            rows = [(_TYPE.sub(named, each[0]), each[1]) for each in records if each is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def document_of(self, what: str, error: BaseException) -> dict[str, Any]:  # noqa: ARG002 - one may say more of it
        """Return the document of an error that keeps the command from its result."""
        return {"error": what}

    def make_context(self, info_name: Any, args: Any, *others: Any, **extra: Any) -> Any:
        with self._documented("--json" in args):
            return super().make_context(info_name, args, *others, **extra)

    def invoke(self, ctx: Any) -> Any:
        with self._documented(ctx.params.get("json", False)):
            return super().invoke(ctx)

    @contextmanager
    def _documented(self, wanted: bool) -> Iterator[None]:
        """Print the document of an error on its way to stderr."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            what = _said(error) if wanted else None
            if what is not None:
                with suppress(OutputLost):  # what is lost with it is told on stderr
                    show(self.document_of(what, error), (), as_json=True)
            raise


def _said(error: BaseException) -> str | None:
    """Return the text of an error that the user can mend; None for an exit and for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _is_of_the_worker(error):
        from worker.errors import WorkerError

        return str(error) if isinstance(error, WorkerError) else None
    # Wrong usage: the class that all of it has is not exported.
    shown = getattr(error, "format_message", None)
    return None if shown is None else str(shown())


def _named(shown: re.Match[str]) -> str:
    return _VALUES[shown[1]]


class CommandGroup(TyperGroup):
    """A command group that turns errors a user can mend into a line and an exit code. Any other exception is a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code = _told(error, env_file_of(ctx))
            if code is None:
                raise
            raise typer.Exit(code) from None


def _told(error: Exception, file: EnvFile | None) -> int | None:
    """Tell the user of an error that they can mend, and return the exit code; None for a bug."""
    if not _is_of_the_worker(error):
        return None
    from worker.errors import WorkerError
    from worker.settings import SettingsError

    if isinstance(error, SettingsError):
        for variable, what in error.faults:
            of_file = file is not None and variable in file.variables
            complain(f"{variable} (in {file.path}): {what}" if file and of_file else f"{variable}: {what}")
        return WRONG_USAGE
    if isinstance(error, WorkerError):
        complain(str(error))
        return FAILED
    return None


def _is_of_the_worker(error: BaseException) -> bool:
    """True unless it is an exit, wrong usage, or lost output: nothing is imported for those."""
    module = type(error).__module__
    return module.partition(".")[0] == "worker" and module != __name__


def hold_standard() -> None:
    """Open those of the standard descriptors that are closed, onto nothing.

    The next socket would get the number of one of them, and libuv aborts the process that closes such a number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "r" if name == "stdin" else "w"
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - held to the end


@contextmanager
def guarded_output() -> Iterator[None]:
    """Run the program; end it with a line, or silently, if standard output takes no more, help texts included."""
    given = sys.stdout
    assert isinstance(given, io.TextIOWrapper)
    out = sys.stdout = Output(
        given.buffer,
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.line_buffering,
        write_through=given.write_through,
    )
    try:
        try:
            yield
        finally:
            out.flush()
    except OutputLost as lost:
        out.lost = None  # Python flushes it once more at its end
        if str(lost):
            complain(str(lost))
        sys.exit(lost.code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def group(what: str) -> typer.Typer:
    """Return a group of commands under a common name."""
    return typer.Typer(help=what, context_settings=HELP, no_args_is_help=True, rich_markup_mode=None)


def settings_from_environment(*, needs_login: bool = False, is_worker: bool = False) -> "Settings":
    """Read the settings, and set up the logs accordingly. Raises ``SettingsError``.

    What libraries log is for a worker's log. A command says itself what went wrong, unless the level is ``debug``.
    """
    from worker.observability.logs import configure_logging
    from worker.settings import read_settings

    settings = read_settings(os.environ, needs_login=needs_login)
    configure_logging(settings.log.level, settings.log.format, of_libraries=is_worker)
    return settings


def examined_environment() -> "tuple[Settings, Mapping[str, str]]":
    """Return the settings, with defaults for what is wrong with them, and the faults by variable."""
    from worker.observability.logs import configure_logging
    from worker.settings import examine

    reading = examine(os.environ)
    configure_logging(reading.settings.log.level, reading.settings.log.format, of_libraries=False)
    return reading.settings, reading.faults


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, and return what it returns."""
    import uvloop

    return uvloop.run(work)


async def until_signalled(work: Coroutine[Any, Any, T]) -> tuple[int, T | None]:
    """Do the work until it ends or a signal comes. Returns the number of that signal, or 0 and what the work returns.

    Work that ends well in spite of a signal has not been interrupted.
    """
    import asyncio

    task, loop, seen = asyncio.ensure_future(work), asyncio.get_running_loop(), set[int]()

    def end(number: int) -> None:
        seen.add(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    await asyncio.wait({task})
    if task.cancelled() and seen:
        return min(seen), None
    return 0, await task


def seconds_of(duration: str) -> int:
    """Return the length of ``2h``, ``90m`` or ``1d12h`` in seconds; 0 if the text is no duration."""
    parts = _DURATION.fullmatch(duration)
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups()) if parts else (0, 0, 0, 0)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def spare_collector() -> None:
    """Run the cycle collector rarely: batches die by reference count, and it took a tenth of the worker's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def complain(text: str) -> None:
    """Write one line to stderr."""
    _tell(f"error: {text}")


def warn(text: str) -> None:
    """Write one line to stderr that ends nothing."""
    _tell(f"warning: {text}")


def _tell(text: str) -> None:
    with suppress(OSError):  # there is nowhere else to say it
        sys.stderr.write(f"{' '.join(text.split())}\n")


def show(document: Any, lines: Sequence[str], *, as_json: bool) -> None:
    """Print the result on stdout: ``document`` as one JSON document, or ``lines`` for people, folded on a terminal."""
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in fitted(lines))
    sys.stdout.flush()


LOGIN: Final = "login-token --organisation ORG1 --user mpadmin --unit 1"
"""The command of all examples that prints a login token."""


def example(*commands: str) -> str:
    """Return the end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  effective-worker {command}" for command in commands)
