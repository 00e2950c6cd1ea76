"""``effective-worker demo``"""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from worker.cli.progress import tracked
from worker.cli.terminal import FAILED, SIGNALLED, Json, example, run_to_end, show
from worker.demo.commands import FIXTURE, LOGIN_SECONDS, attempts
from worker.demo.exchange import ask
from worker.demo.load import Answers, LoadReport, make_tokens, send_backlog
from worker.demo.process import Running, running_worker
from worker.demo.report import Report
from worker.demo.servers.stack import Stack, embedded_stack
from worker.journey.authorise import sign_login
from worker.kafka.topics import apply
from worker.observability.logs import configure_logging
from worker.observability.terminals import console_on
from worker.operations.imports.load import import_files
from worker.operations.imports.publish import announce
from worker.postgres.migrate import apply_migrations
from worker.settings import Settings, read_settings

TERMINATED: Final = SIGNALLED + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class House:
    """Everything that the demo has started and created."""

    stack: Stack
    variables: dict[str, str]
    """The worker's environment."""
    settings: Settings
    secret: str


def demo(
    *,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave everything up until Ctrl-C, and write a file for --env-file."),
    ] = False,
    commands: Annotated[
        int, typer.Option("--commands", min=0, max=5_000_000, metavar="N", help="Drive a load of N commands as well.")
    ] = 0,
    directory: Annotated[
        Path | None, typer.Option(help="Keep the data of broker and Postgres there; a temporary place if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the worker on a broker and a Postgres of its own.

    It starts both, runs the worker on the golden command and a few to refuse, shows them, and stops. Its broker is for
    trying out: it is not Apache Kafka.
    """
    configure_logging("error", of_libraries=False)
    try:
        code = run_to_end(_demo(keep=keep, commands=commands, directory=directory, as_json=json))
    except asyncio.CancelledError:
        if json:
            show({"error": "interrupted"}, (), as_json=True)
        code = TERMINATED
    raise typer.Exit(code)


async def _demo(*, keep: bool, commands: int, directory: Path | None, as_json: bool) -> int:
    _end_on_sigterm()
    told = console_on(sys.stderr)
    began = time.monotonic()
    async with _house(directory, told) as house:
        log = house.stack.directory / "worker.log"
        made = attempts(house.secret, int(time.time()))
        async with running_worker(house.variables, log) as worker:
            report = Report(made, await ask(house.settings, made), time.monotonic() - began)
            if not commands:
                report.show(as_json=as_json)
                await _stay(house, worker, told, keep=keep)
        if commands:
            answers = await _backlog(house, commands)
            async with running_worker(house.variables, log) as worker:
                report = report.with_load(await _watched(answers, commands), worker.peak_memory())
                report.show(as_json=as_json)
                await _stay(house, worker, told, keep=keep)
    return 0 if report.as_documented else FAILED


def _end_on_sigterm() -> None:
    """End the demo on SIGTERM as on Ctrl-C: nothing stays behind."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def _house(directory: Path | None, told: Console) -> AsyncIterator[House]:
    with told.status("starting an embedded broker and Postgres") as status:
        async with embedded_stack(directory) as stack:
            secret = token_hex(32)
            variables = {
                "WORKER_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
                "WORKER_POSTGRES__DSN": stack.worker_dsn,
                "WORKER_LOGIN__SECRETS": secret,
                "WORKER_TOPICS__REPLY_TO_ALLOWED": "*.submit",
                "WORKER_ADMIN__PORT": "0",
            }
            settings = read_settings(variables, needs_login=True)
            status.update("migrating, making topics, loading the fixture")
            await apply_migrations(stack.owner_dsn, stack.worker_dsn)
            await apply(settings)
            with as_file(files("worker.demo") / FIXTURE) as fixture:
                await import_files(stack.owner_dsn, [fixture], on_progress=lambda _: None)
            await announce(read_settings(variables | {"WORKER_POSTGRES__OWNER_DSN": stack.owner_dsn}))
            status.stop()
            yield House(stack, variables, settings, secret)


async def _backlog(house: House, count: int) -> Answers:
    """Send the commands that wait for a worker, and return a reader positioned before their answers."""
    run = f"LOAD-{token_hex(4)}"
    login = sign_login(
        house.secret, organisation="ORG1", user="mpadmin", unit="1", issued=int(time.time()), seconds=LOGIN_SECONDS
    )
    await make_tokens(house.stack.owner_dsn, run, count)
    with tracked("sending") as advance:
        await send_backlog(house.settings, login, run, count, lambda done: advance(done, count))
    answers = Answers(house.settings)
    await answers.open()
    return answers


async def _watched(answers: Answers, count: int) -> LoadReport:
    try:
        with tracked("answered") as advance:
            await answers.arrived(count, lambda done: advance(done, count))
        return await answers.report(count)
    finally:
        await answers.close()


async def _stay(house: House, worker: Running, told: Console, *, keep: bool) -> None:
    """Leave everything up until Ctrl-C, if ``keep`` says so."""
    if not keep:
        return
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with _settings_file(house) as file:
        for name, where in _addresses(house, worker, file).items():
            told.print(f"{name:10} {where}", highlight=False, soft_wrap=True)
        command = f"export WORKER_ENV_FILE={shlex.quote(str(file))}"
        told.print(f"in another shell: {command}; effective-worker check", highlight=False, soft_wrap=True)
        told.print("everything stays up until Ctrl-C", highlight=False)
        await stop.wait()


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


@contextmanager
def _settings_file(house: House) -> Iterator[Path]:
    """Yield a file for ``--env-file``, as long as the servers are there: they get other ports the next time."""
    path = house.stack.directory / "worker.env"
    variables = house.variables | {"WORKER_POSTGRES__OWNER_DSN": house.stack.owner_dsn}
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=_for_its_owner) as file:
        file.writelines(f"{name}='{value}'\n" for name, value in variables.items())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _addresses(house: House, worker: Running, settings: Path) -> dict[str, Any]:
    # The passwords belong to this demo, and its user needs them to try something.
    return {
        "kafka": house.stack.bootstrap_servers,
        "postgres": house.stack.owner_dsn,
        "admin": worker.admin,
        "directory": house.stack.directory,
        "settings": settings,
    }


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("demo", epilog=example("demo", "demo --commands 50000", "demo --keep --directory here"))(demo)
