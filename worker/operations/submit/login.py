"""The login token that commands are sent with: given once, or fetched from a program whenever it is about to expire."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import jwt

from worker.operations.login_source import LoginFailed

SHARE_OF_LIFE: Final = 0.8
"""The share of a token's remaining life, as it was on arrival, after which the next one is fetched."""
RETRY_SECONDS: Final = 10.0

Clock = Callable[[], float]


class Login(Protocol):
    """A source of the login token. No implementation shows it in its ``repr``."""

    async def token(self) -> str | None:
        """Return the token to send with now; ``None`` leaves each command its own. Raises ``LoginFailed``."""

    def expired(self) -> None:
        """Take note that the worker has refused the present token as expired."""


class OwnLogins:
    """The login of commands that each bring their own."""

    async def token(self) -> str | None:
        return None

    def expired(self) -> None:
        """Ignore it: each command has its own login."""


class GivenLogin:
    """One token for all commands, until it expires."""

    def __init__(self, token: str, *, clock: Clock = time.time) -> None:
        self._token = token
        self._clock = clock
        self._ends = expiry(token)
        self._expired = False

    async def token(self) -> str | None:
        if self._expired or (self._ends is not None and self._clock() >= self._ends):
            raise LoginFailed("the login token has expired: go on with a fresh one, or with --token-command")
        return self._token

    def expired(self) -> None:
        self._expired = True


class CommandLogin:
    """The output of a program, which is run again when the last token has lived most of its life."""

    def __init__(
        self, run: Callable[[], Awaitable[str]], *, clock: Clock = time.time, warn: Callable[[str], None]
    ) -> None:
        """``run`` returns a token or raises ``LoginFailed``; ``warn`` gets its text while the old token is good."""
        self._run = run
        self._clock = clock
        self._warn = warn
        self._token: str | None = None
        self._ends: float | None = None
        self._due: float | None = None

    async def token(self) -> str | None:
        if self._token is None or (self._due is not None and self._clock() >= self._due):
            await self._renew()
        return self._token

    def expired(self) -> None:
        self._ends = self._due = self._clock()

    async def _renew(self) -> None:
        try:
            token = await self._run()
        except LoginFailed as failure:
            now = self._clock()
            if self._token is None or self._ends is None or now >= self._ends:
                raise
            self._due = now + RETRY_SECONDS
            self._warn(str(failure))
            return
        now = self._clock()
        self._token, self._ends = token, expiry(token)
        self._due = None if self._ends is None else now + max(1.0, (self._ends - now) * SHARE_OF_LIFE)


def expiry(token: str) -> float | None:
    """Return the end of the token in seconds since the epoch, from its own claims; ``None`` if they are unreadable."""
    try:
        return float(jwt.decode(token, options={"verify_signature": False, "verify_exp": False})["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return None
