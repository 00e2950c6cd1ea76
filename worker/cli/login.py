"""The options by which a command gets its login token."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from worker.operations.login_source import LoginSource, NotALogin, from_command, from_file, read_login

LoginTokenText = Annotated[
    str | None, typer.Option("--login-token", metavar="TOKEN", help="To send with. Others may see it in `ps`.")
]
LoginTokenFile = Annotated[
    Path | None, typer.Option(help="A file that holds it; read again before it expires.", dir_okay=False, exists=True)
]
LoginTokenCommand = Annotated[
    str | None, typer.Option(metavar="COMMAND", help="A shell command that prints it; run again before it expires.")
]


def login_source(token: str | None, file: Path | None, command: str | None) -> LoginSource | None:
    """Return the source that was asked for, if any. Raises wrong usage for several, and for what is no login token."""
    if sum(each is not None for each in (token, file, command)) > 1:
        raise typer.BadParameter("give one of them", param_hint="--login-token, --login-token-file, --…-command")
    if token is not None:
        try:
            text = read_login(token).text
        except NotALogin as error:
            raise typer.BadParameter(str(error), param_hint="--login-token") from None

        async def given() -> str:
            return text

        return LoginSource(given, clock=time.time, renewable=False)
    if file is not None:
        return LoginSource(partial(from_file, file), clock=time.time, renewable=True)
    return None if command is None else LoginSource(partial(from_command, command), clock=time.time, renewable=True)
