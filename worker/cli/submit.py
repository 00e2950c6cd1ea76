"""``effective-worker submit``"""

import asyncio
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from worker.cli.progress import screen
from worker.cli.terminal import (
    FAILED,
    LOGIN,
    REFUSED,
    SIGNALLED,
    WRONG_USAGE,
    Json,
    complain,
    example,
    run_to_end,
    settings_from_environment,
    show,
    spare_collector,
)
from worker.errors import WorkerError
from worker.operations.login_source import from_command
from worker.operations.submit.lines import UnusableFile
from worker.operations.submit.login import CommandLogin, GivenLogin, Login, OwnLogins
from worker.operations.submit.report import Report
from worker.operations.submit.run import DEFAULTS, Interrupted, Job, Stop, Submission
from worker.operations.submit.session import Limits
from worker.operations.submit.session import Progress as Now
from worker.settings import Settings

_GRAVITY: Final = (0, REFUSED, FAILED, WRONG_USAGE, SIGNALLED)


def submit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", show_default=False, help="NDJSON or CSV.")],
    *,
    token: Annotated[
        str | None, typer.Option(show_default=False, help="The login token of all commands; others can see it in `ps`.")
    ] = None,
    token_command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="A shell command that prints a login token; run as often as needed."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The files are CSV, whatever they are called.")] = False,
    topic: Annotated[
        str | None, typer.Option(help="Where to; default: the bulk commands topic, else the commands topic.")
    ] = None,
    reply_topic: Annotated[
        str | None,
        typer.Option(help="Where the worker answers; made if need be. Default: the results topic's name and .submit"),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Commands per second, at most.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Commands without an answer, at most.")] = DEFAULTS.window,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds without any answer until one is asked for again.")
    ] = DEFAULTS.patience,
    journal: Annotated[Path | None, typer.Option(help="Default: FILE.journal.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let everything be judged, and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Send the commands of files, and wait for every answer.

    Writes a report. Started again, it goes on where it was. NDJSON holds a command per line; CSV has a header with some
    of authentication_code, identifier, pass_code, fields_set, request_unique_identifier, and needs a login token.
    Beside FILE stand FILE.journal, FILE.report.json, and FILE.refusals.ndjson or .csv, which can be mended and
    submitted. Exit 0 if all were OK, 3 if some were refused.
    """
    if token is not None and token_command is not None:
        raise typer.BadParameter("give one of --token and --token-command", param_hint="--token")
    if journal is not None and len(files) > 1:
        raise typer.BadParameter("several files need a journal each", param_hint="--journal")
    if token == "":
        raise typer.BadParameter("empty", param_hint="--token")
    if token is None and token_command is None and any(csv or file.suffix.lower() == ".csv" for file in files):
        raise typer.BadParameter("CSV holds no login tokens: give --token or --token-command", param_hint="--token")
    settings = settings_from_environment()
    topics, limits = settings.topics, Limits(window, rate, patience)
    jobs = [
        Job(
            file,
            topic or topics.bulk_commands or topics.commands,
            reply_topic or f"{topics.results}.submit",
            journal,
            csv,
            dry_run,
            limits,
        )
        for file in files
    ]
    spare_collector()
    raise typer.Exit(run_to_end(_all(jobs, settings, token, token_command, as_json=json)))


async def _all(
    jobs: Sequence[Job], settings: Settings, token: str | None, token_command: str | None, *, as_json: bool
) -> int:
    """Submit one file after the other. Returns the gravest exit code."""
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask, number)
    codes: list[int] = []
    documents: list[dict[str, object]] = []
    for job in jobs:
        try:
            report, before = await _submitted(job, settings, token, token_command, stop)
        except WorkerError as error:
            codes.append(_failed(error, job, stop))
            documents.append({"error": str(error), "file": str(job.path)})
            if isinstance(error, Interrupted):
                break
            continue
        codes.append(REFUSED if report.refused else 0)
        documents.append(report.document())
        if not as_json:
            show(None, _lines(report, job, before=before), as_json=False)
    if as_json:
        show(documents[0] if len(jobs) == 1 else documents, (), as_json=True)
    return max(codes, key=lambda code: _GRAVITY.index(min(code, SIGNALLED)))


async def _submitted(
    job: Job, settings: Settings, token: str | None, token_command: str | None, stop: Stop
) -> tuple[Report, bool]:
    with _screen(job.path.name) as (on_progress, say):
        login: Login = OwnLogins()
        if token is not None:
            login = GivenLogin(token)
        elif token_command is not None:
            login = CommandLogin(partial(from_command, token_command), warn=lambda text: say(f"warning: {text}"))
        return await Submission(job, settings, login, stop=stop, on_progress=on_progress).run()


def _failed(error: WorkerError, job: Job, stop: Stop) -> int:
    """Tell why a file has no report, and return the exit code."""
    if isinstance(error, Interrupted):
        complain(f"{job.path}: {error}; go on with: {_same_again()}")
        return SIGNALLED + stop.signal
    if isinstance(error, UnusableFile):
        complain(str(error))
        return WRONG_USAGE
    complain(f"{job.path}: {error}")
    return FAILED


def _lines(report: Report, job: Job, *, before: bool) -> list[str]:
    lines = [*report.summary(), f"  report: {job.report}"]
    return [f"finished before: all was answered by {report.last}, and nothing is sent", *lines] if before else lines


def _same_again() -> str:
    """Return the command line, without the login token."""
    words, hidden = ["effective-worker", *sys.argv[1:]], False
    for place, word in enumerate(words):
        if hidden:
            words[place] = "TOKEN"
        elif word.startswith("--token="):
            words[place] = "--token=TOKEN"
        hidden = word == "--token"
    return shlex.join(words)


# --- the screen -------------------------------------------------------------------------------------------------------


@contextmanager
def _screen(name: str) -> Iterator[tuple[Callable[[Now], None], Callable[[str], None]]]:
    """Yield a callback for the progress of a file, and one for other lines."""
    noted = ""

    with screen() as (advance, say):

        def show_progress(now: Now) -> None:
            nonlocal noted
            if now.note and now.note != noted:  # a narrow bar has no room for it
                say(f"{name}: {now.note}")
            noted = now.note
            said = f"{now.ok:,} OK, {now.done - now.ok:,} refused, {now.waiting:,} waiting"
            advance(name, now.done, now.total, said)

        yield show_progress, say


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    submitting = (
        f"submit migration.ndjson --token-command 'effective-worker {LOGIN}'",
        'submit cards.csv --token "$TOKEN" --rate 500',
        "submit migration.ndjson.refusals.ndjson --token-command ./login.sh",
    )
    app.command("submit", epilog=example(*submitting))(submit)
