"""``effective-worker check``"""

from typing import Final

import typer

from worker.cli.output import fitted
from worker.cli.terminal import FAILED, WRONG_USAGE, Json, examined_environment, example, run_to_end, show
from worker.operations import check as checking

_DETAIL: Final = 22
"""The column of the details, under which what does not fit goes on."""


def check(json: Json = False) -> None:
    """Check settings, servers, topics, schema and rights.

    One line each for settings, broker, topics, database, schema, grants, login keys and more. Exit 1 if any fails.
    Where settings are wrong, what does not depend on them is checked, and the exit is 2.
    """
    settings, faults = examined_environment()
    checks = run_to_end(checking.check(settings, faults))
    well = all(each.state != "failed" for each in checks)
    document = {
        "ok": well,
        "checks": [{"name": each.name, "state": each.state, "detail": each.detail} for each in checks],
    }
    lines = fitted((f"{each.state:<7}  {each.name:<11}  {each.detail}" for each in checks), hanging=_DETAIL)
    show(document, list(lines), as_json=json)
    raise typer.Exit(WRONG_USAGE if faults else 0 if well else FAILED)


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("check", epilog=example("check", "check --json"))(check)
