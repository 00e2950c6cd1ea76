"""``effective-worker attempts list`` and ``forgive``"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer

from worker.cli.output import print_table
from worker.cli.terminal import FAILED, Json, example, group, run_to_end, settings_from_environment, show
from worker.operations import attempts
from worker.operations.attempts import Guesses
from worker.values import rfc3339

COLUMNS: Final = ("organisation", "user", "account", "of", "identifier", "in a row", "in all", "last", "waits until")
_DIGITS: Final = 16

Identifier = Annotated[
    str | None, typer.Option(help="An access token's identifier; Postgres has only its digest.", show_default=False)
]


def list_(
    *,
    organisation: Annotated[str | None, typer.Option(help="Only of this organisation.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Only of the user with this id.", show_default=False)] = None,
    identifier: Identifier = None,
    ended: Annotated[bool, typer.Option("--ended", help="Show series that a success has ended, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many series, the longest first.")] = 100,
    json: Json = False,
) -> None:
    """List the callers with wrong codes and pass codes.

    How often in a row they failed, and until when they must wait. Exit 1 if a caller must wait.
    """
    if identifier is not None and organisation is None:
        raise typer.BadParameter("needs --organisation: an identifier is one of its own", param_hint="--identifier")
    found = run_to_end(
        attempts.guesses(
            settings_from_environment(),
            organisation=organisation,
            user=user,
            identifier=identifier,
            ended=ended,
            limit=limit,
        )
    )
    if json:
        show({"attempts": list(map(asdict, found))}, [], as_json=True)
    elif not found:
        show({}, ["no failed attempts are counted"], as_json=False)
    else:
        _print(found)
    raise typer.Exit(FAILED if any(each.waits_until for each in found) else 0)


def forgive(
    *,
    organisation: Annotated[str, typer.Option(help="The organisation's id.")],
    user: Annotated[str | None, typer.Option(help="The user's id.", show_default=False)] = None,
    identifier: Identifier = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only show which.")] = False,
    json: Json = False,
) -> None:
    """End the wait of callers who failed.

    The series of a user, those on an identifier, or those of that user on it, end. What failed stays counted.
    """
    if user is None and identifier is None:
        raise typer.BadParameter("give --user, --identifier or both", param_hint="attempts forgive")
    settings = settings_from_environment()
    found = run_to_end(attempts.forgive(settings, organisation, user=user, identifier=identifier, carry_out=yes))
    if json or not found:
        nothing = ["there is no series to end"]
        show({"done": yes, "attempts": list(map(asdict, found))}, nothing, as_json=json)
        return
    _print(found)
    show({}, ["ended" if yes else "nothing was changed; end them with --yes"], as_json=False)


def _print(found: Sequence[Guesses]) -> None:
    print_table(COLUMNS, (tuple(_row(each)) for each in found), numbers=("in a row", "in all"))


def _row(each: Guesses) -> Iterator[str]:
    yield each.organisation
    yield each.user
    yield each.account or "-"
    yield each.kind.replace("_", " ")
    yield (each.identifier_digest or "-")[:_DIGITS]
    yield str(each.failures)
    yield str(each.failed)
    yield rfc3339(each.last_at)
    yield "-" if each.waits_until is None else rfc3339(each.waits_until)


def add(app: typer.Typer) -> None:
    """Add the commands, with examples in their help."""
    attempts = group("Codes and pass codes that were wrong, and who tried them.")
    listing = "attempts list"
    forgiving = "attempts forgive --organisation ORG1 --user 1B7A"
    attempts.command("list", epilog=example(listing, "attempts list --organisation ORG1 --json"))(list_)
    attempts.command("forgive", epilog=example(forgiving, f"{forgiving} --yes"))(forgive)
    app.add_typer(attempts, name="attempts", epilog=example(listing, forgiving))
