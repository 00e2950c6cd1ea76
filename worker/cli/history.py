"""``effective-worker history``"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.terminal import Json, example, run_to_end, settings_from_environment, show

if TYPE_CHECKING:
    from rich.table import Table

    from worker.operations.history import History


def history(
    access_token: Annotated[str, typer.Argument(metavar="ACCESS_TOKEN", help="The access token's id, or its number.")],
    *,
    organisation: Annotated[str | None, typer.Option(help="Where several organisations have one of that id.")] = None,
    json: Json = False,
) -> None:
    """Every transition of an access token: when, from what to what, by which user, by which command.

    Exit 1 if it is unknown.
    """
    from rich.console import Console

    from worker.operations.history import history as read_history

    dsn = settings_from_environment().postgres.dsn.get_secret_value()
    found = run_to_end(read_history(dsn, access_token, organisation))
    if json:
        show(asdict(found), [], as_json=True)
        return
    number = "no longer there" if found.number is None else f"{found.number}, {found.state}, version {found.version}"
    show({}, [f"access token {found.access_token} of {found.organisation}: {number}"], as_json=False)
    if found.changes:
        Console(file=sys.stdout).print(_table(found))
    else:
        show({}, ["no transition so far"], as_json=False)


def _table(found: "History") -> "Table":
    from rich.table import Table

    from worker.values import rfc3339

    table = Table()
    for column in ("version", "from → to", "when", "by", "command", "cause", "lane and sequence"):
        table.add_column(column, overflow="fold")
    for each in found.changes:
        user = each.username or each.user or "-"
        unit = each.unit_name or each.unit
        table.add_row(
            str(each.version),
            f"{each.from_state or '-'} → {each.to_state}",
            rfc3339(each.occurred_at),
            f"{user} in {unit}" if unit else user,
            each.called or each.command_id or "-",
            each.cause,
            f"{each.lane or '-'} #{each.sequence}",
        )
    return table


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    asking = ("history 4D1F0C6E9B7A4F5C8E2B7A90D3C61F55", "history AT0000000671 --organisation ORG1 --json")
    app.command("history", epilog=example(*asking))(history)
