"""``effective-worker login-token``"""

import time
from typing import Annotated

import jwt
import typer

from worker.cli.terminal import Json, example, run_to_end, seconds_of, settings_from_environment, show
from worker.errors import OperatorError, WorkerError
from worker.journey.authorise import sign_login
from worker.postgres.connect import owner_connection
from worker.settings import Settings


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

    The first of the configured secrets signs it.
    """
    seconds = _seconds(ttl)
    settings = settings_from_environment(needs_login=True)
    longest = settings.login.longest_seconds
    if seconds > longest:
        raise typer.BadParameter(
            f"longer than a login may live: {longest:g} seconds (WORKER_LOGIN__LONGEST_SECONDS)", param_hint="--ttl"
        )
    token = sign_login(
        settings.login.secrets[0].get_secret_value(),
        organisation=organisation,
        user=user,
        unit=unit if unit is not None else run_to_end(_unit_of(settings, organisation, user)),
        issued=int(time.time()),
        seconds=seconds,
        account=account,
        audience=settings.login.audience,
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    show({"token": token, "claims": claims}, [token], as_json=json)


async def _unit_of(settings: Settings, organisation: str, user: str) -> str:
    try:
        async with owner_connection(settings.postgres.dsn.get_secret_value()) as connection:
            unit = await connection.fetchval(
                "SELECT unit FROM app_user WHERE organisation = $1 AND username = $2", organisation, user
            )
    except WorkerError as error:
        raise UnitNeeded(f"the user's unit cannot be looked up, so --unit is needed ({error})") from error
    if unit is None:
        raise UnitNeeded("no unit is known of that user in that organisation, so --unit is needed")
    return str(unit)


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    caller = "login-token --organisation ORG1 --user mpadmin"
    app.command("login-token", epilog=example(caller, f"{caller} --unit 1 --ttl 30m"))(login_token)
