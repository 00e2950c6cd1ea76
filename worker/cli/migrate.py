"""``effective-worker migrate``"""

from typing import Annotated

import typer

from worker.cli.terminal import FAILED, Json, example, run_to_end, settings_from_environment, show
from worker.postgres.migrate import apply_migrations, pending
from worker.postgres.schema import WorkerRole

UP_TO_DATE = "the schema is up to date"


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if something is pending.")] = False,
    json: Json = False,
) -> None:
    """Bring the schema up to date. Safe to run twice, or by several at once."""
    settings = settings_from_environment()
    postgres = settings.postgres
    owner = postgres.owner.get_secret_value()
    if check:
        waiting = run_to_end(pending(owner))
        show({"pending": waiting}, [f"pending: {name}" for name in waiting] or [UP_TO_DATE], as_json=json)
        raise typer.Exit(FAILED if waiting else 0)
    role = WorkerRole(settings.postgres.role, settings.reveal_verification_code)
    applied = run_to_end(apply_migrations(owner, postgres.dsn.get_secret_value(), role=role))
    show({"applied": applied}, [f"applied: {name}" for name in applied] or [UP_TO_DATE], as_json=json)


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("migrate", epilog=example("migrate", "migrate --check"))(migrate)
