"""``effective-worker run``"""

import asyncio
import sys

import typer

from effective_contract.methods import METHODS, Methods
from worker.cli.terminal import example, run_to_end, settings_from_environment, spare_collector
from worker.observability.tracing import configure_tracing
from worker.resilience.deadline import ends_within, hold_signals
from worker.service import serve
from worker.settings import Settings


def run() -> None:
    """Work until SIGTERM or SIGINT, then drain. Exits 0 when clean, 1 on a failure, 2 on bad settings."""
    settings = settings_from_environment(needs_login=True, is_worker=True)
    hold_signals()
    configure_tracing()
    spare_collector()
    raise typer.Exit(run_to_end(work(settings)))


async def work(settings: Settings, methods: Methods = METHODS) -> int:
    """Carry out ``methods`` until a signal says stop, and return the exit code."""
    stop = asyncio.Event()

    def listening(port: int) -> None:
        sys.stdout.write(f"admin http://{settings.admin.host}:{port}/\n")
        sys.stdout.flush()

    with ends_within(settings.drain_seconds, stop):
        return await serve(settings, stop=stop, on_ready=listening, methods=methods)


def add(app: typer.Typer) -> None:
    """Add the command, with an example in its help."""
    app.command("run", epilog=example("run"))(run)
