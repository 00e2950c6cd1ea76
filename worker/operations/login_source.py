"""A source of login tokens for work that outlasts one: given once, or fetched again before it expires."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt

from effective_contract.command import LONGEST_TOKEN
from worker.errors import OperatorError
from worker.observability.logs import mask_secrets

MARGIN_SECONDS: Final = 60.0
"""Seconds before its end at which a login token is fetched again: a command may wait for its turn."""
COMMAND_SECONDS: Final = 60.0
SHOWN_CHARACTERS: Final = 200


class LoginFailed(OperatorError):
    """There is no login token to go on with. The text never holds a token."""


class NotALogin(LoginFailed):
    """The given text is no login token."""


class LoginExpired(LoginFailed):
    """The login token has expired, and there is no other."""


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A login token and its claims, which are not verified. ``expires_at``: seconds since the epoch."""

    text: str = field(repr=False)
    organisation: str
    expires_at: float
    account: str | None = None
    """The consumer application's login, if the token is of one."""


def read_login(text: str) -> LoginToken:
    """Read the login token in a text, which may have space around it. Raises ``NotALogin``."""
    token = text.strip()
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        organisation, expires_at = claims["org"], float(claims["exp"])
    except Exception:  # noqa: BLE001 - whatever the error is, its text may quote the token
        raise NotALogin("this is no login token: it has no organisation and no expiry that can be read") from None
    if not isinstance(organisation, str):
        raise NotALogin("this is no login token: its organisation is not a string")
    account = claims.get("acr")
    return LoginToken(token, organisation, expires_at, account if isinstance(account, str) else None)


class LoginSource:
    """A source of a login token that has not expired."""

    def __init__(self, fetch: Callable[[], Awaitable[str]], *, clock: Callable[[], float], renewable: bool) -> None:
        """``fetch`` returns a login token; if ``renewable``, it is called again before that one expires.

        ``clock`` gives seconds since the epoch.
        """
        self._fetch = fetch
        self._clock = clock
        self._renewable = renewable
        self._login: LoginToken | None = None

    async def current(self) -> LoginToken:
        """Return the login token to use now. Raises ``NotALogin``, ``LoginExpired``, and the errors of ``fetch``."""
        login, now = self._login, self._clock()
        if login is None or (self._renewable and login.expires_at - MARGIN_SECONDS <= now):
            login = self._login = read_login(await self._fetch())
        if login.expires_at <= now:
            raise LoginExpired("the login token has expired")
        return login


async def from_file(path: Path) -> str:
    """Return the text of a file. Raises ``NotALogin`` if it cannot be read."""
    try:
        return await asyncio.to_thread(path.read_text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise NotALogin(f"the login token's file cannot be read: {reason}") from None


async def from_command(command: str) -> str:
    """Return the output of the shell command, which must be a single login token. Raises ``LoginFailed``."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        raise LoginFailed(f"the login token's command has not ended within {COMMAND_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LoginFailed(f"the login token's command ended with {process.returncode}: {_last_line(err)}")
    token = out.decode(errors="replace").strip()
    if not token or len(token) > LONGEST_TOKEN or len(token.split()) != 1:
        raise LoginFailed("the login token's command has printed no login token, or more than one")
    return token


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return str(mask_secrets(None, "", {"said": lines[-1]})["said"])[:SHOWN_CHARACTERS]
