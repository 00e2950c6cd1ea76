"""``effective-worker login-token``"""

import asyncio
import time
from typing import Annotated, Final

import jwt
import typer

from worker.cli.output import printable
from worker.cli.terminal import (
    LOGIN,
    Json,
    example,
    run_to_end,
    seconds_of,
    settings_from_environment,
    show,
    warn,
)
from worker.errors import OperatorError, WorkerError
from worker.journey.authorise import sign_login
from worker.postgres.connect import owner_connection
from worker.postgres.sql import statement
from worker.settings import Settings

LONG_SECONDS: Final = 2 * 60 * 60
LOOK_SECONDS: Final = 2.0
"""Seconds for the look at a user whose unit is given: nothing depends on it but a warning."""


class UnitNeeded(OperatorError):
    """The user's unit is not given and cannot be read from Postgres."""


def _seconds(text: str) -> int:
    whole = seconds_of(text)
    if not whole:
        raise typer.BadParameter("not a duration like 2h, 90m or 1h30m", param_hint="--ttl")
    return whole


def login_token(
    *,
    organisation: Annotated[str, typer.Option(help="The organisation's id.")],
    user: Annotated[str, typer.Option(help="The user's name.")],
    unit: Annotated[str | None, typer.Option(help="The unit's id; looked up in Postgres if not given.")] = None,
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="How long it is valid.")] = "2h",
    account: Annotated[str | None, typer.Option(help="For a consumer application: the account's id.")] = None,
    json: Json = False,
) -> None:
    """Sign a login token, for operators and for tests.

    The first of the configured secrets signs it. A user who is not active, if Postgres can be asked, and a login that
    lives for more than two hours are warned of.
    """
    seconds = _seconds(ttl)
    settings = settings_from_environment(needs_login=True)
    longest = settings.login.longest_seconds
    if seconds > longest:
        raise typer.BadParameter(
            f"longer than a login may live: {longest:g} seconds (WORKER_LOGIN__LONGEST_SECONDS)", param_hint="--ttl"
        )
    if seconds > LONG_SECONDS:
        warn(f"this login lives for {ttl}, and so long for whoever else gets hold of it: 2h are enough for most")
    token = sign_login(
        settings.login.secrets[0].get_secret_value(),
        organisation=organisation,
        user=user,
        unit=run_to_end(_unit(settings, organisation, user, unit)),
        issued=int(time.time()),
        seconds=seconds,
        account=account,
        audience=settings.login.audience,
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    show({"token": token, "claims": claims}, [token], as_json=json)


async def _unit(settings: Settings, organisation: str, user: str, given: str | None) -> str:
    """Return the unit that is given, or the user's own. Warns if the user is known, and not active."""
    row = None
    try:
        async with asyncio.timeout(None if given is None else LOOK_SECONDS):
            async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
                row = await connection.fetchrow(statement("login/user"), organisation, user)
    except (WorkerError, TimeoutError) as error:
        if given is None:
            raise UnitNeeded(f"the user's unit cannot be looked up, so --unit is needed ({error})") from error
    if row is not None and not row["active"]:
        warn(f"the user {printable(user)} is not active: whatever this login asks for is answered INVALID_TOKEN")
    if given is not None:
        return given
    if row is None or row["unit"] is None:
        raise UnitNeeded("no unit is known of that user in that organisation, so --unit is needed")
    return str(row["unit"])


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("login-token", epilog=example(LOGIN, f"{LOGIN} --ttl 30m"))(login_token)
