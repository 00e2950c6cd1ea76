"""``effective-worker history``"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.output import print_table
from worker.cli.terminal import Json, example, run_to_end, settings_from_environment, show

if TYPE_CHECKING:
    from worker.operations.history import Change

COLUMNS: Final = ("version", "from → to", "when", "by", "command", "cause", "lane and sequence")


def history(
    access_token: Annotated[str, typer.Argument(metavar="ACCESS_TOKEN", help="The access token's id, or its number.")],
    *,
    organisation: Annotated[str | None, typer.Option(help="Where several organisations have one of that id.")] = None,
    json: Json = False,
) -> None:
    """Show every transition of an access token.

    Each has when it was, from what to what, by which user and by which command. Exit 1 if it is unknown.
    """
    from worker.operations.history import history as read_history

    dsn = settings_from_environment().postgres.dsn.get_secret_value()
    found = run_to_end(read_history(dsn, access_token, organisation))
    if json:
        show(asdict(found), [], as_json=True)
        return
    number = "no longer there" if found.number is None else f"{found.number}, {found.state}, version {found.version}"
    show({}, [f"access token {found.access_token} of {found.organisation}: {number}"], as_json=False)
    if found.changes:
        print_table(COLUMNS, map(row, found.changes))
    else:
        show({}, ["no transition so far"], as_json=False)


def row(change: "Change") -> Sequence[str]:
    """Return a transition for people, member by member of ``COLUMNS``."""
    from worker.values import rfc3339

    user, unit = change.username or change.user or "-", change.unit_name or change.unit
    return (
        str(change.version),
        f"{change.from_state or '-'} → {change.to_state}",
        rfc3339(change.occurred_at),
        f"{user} in {unit}" if unit else user,
        change.called or change.command_id or "-",
        change.cause,
        f"{change.lane or '-'} #{change.sequence}",
    )


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    asking = ("history 4D1F0C6E9B7A4F5C8E2B7A90D3C61F55", "history AT0000000671 --organisation ORG1 --json")
    app.command("history", epilog=example(*asking))(history)
