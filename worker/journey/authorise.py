"""Authorise callers: first the login token's signature, then what Postgres knows of them.

See CONTRACT, Result and Login token.
"""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

import jwt
import structlog

from effective_contract.codes import StatusCode
from worker.journey.attempt_limits import Series
from worker.journey.model import Caller, Claims, Refused
from worker.postgres.pool import Connection
from worker.postgres.sql import statement
from worker.values import Value

SKEW_SECONDS: Final = 60.0
"""The most seconds that ``iat`` and ``nbf`` may be ahead of the worker's clock (CONTRACT, Login token)."""
LONGEST_SECONDS: Final = 7200.0
"""The default for the longest life of a login, in seconds (CONTRACT, Login token)."""
CACHE_SECONDS: Final = 30.0
CACHED_LOGINS: Final = 4096
TOLD_SECONDS: Final = 60.0
"""Seconds between two warnings of logins that no key has signed."""
MOST_BRACKETS: Final = 64
"""The most objects and arrays in the head of a login token, and in its payload, whose claims are texts and numbers."""

_FINGERPRINT_DIGITS = 8
_UNVERIFIABLE = "the login token cannot be verified"
_LONGEST_CLAIM = 255
_NUMERIC = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)
_REQUIRED = ("jti", "usr", "org", "oun", "iat", "exp")
# PyJWT verifies signature and algorithm. The code below judges every claim, since it chooses the status and the text.
_OPTIONS: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}

log = structlog.get_logger(__name__)


class Logins:
    """The verifier of login tokens, which remembers for seconds which signatures were good.

    It remembers, by digest, only that the signature and the claims' types were right: expiry, revocation and rights are
    judged for every command. The raw token is never kept.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        clock: Callable[[], float],
        *,
        longest_seconds: float = LONGEST_SECONDS,
        audience: str | None = None,
    ) -> None:
        """``longest_seconds`` is the longest life of a login. With an ``audience``, every login must name it."""
        self._secrets = tuple(secrets)
        self._clock = clock
        self._longest_seconds = longest_seconds
        self._audience = audience
        self._verified: dict[bytes, tuple[Claims, float]] = {}
        self._unverified, self._told_at = 0, -math.inf

    def verify(self, token: str) -> Claims | Refused:
        """Return the claims of a good token; ``INVALID_TOKEN`` for any other, whatever is wrong with it."""
        now = self._clock()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        claims = self._verify(token, now)
        if isinstance(claims, Claims):
            if len(self._verified) >= CACHED_LOGINS:
                self._verified.clear()
            self._verified[digest] = (claims, now + CACHE_SECONDS)
        return claims

    def _verify(self, token: str, now: float) -> Claims | Refused:
        if _is_nested(token):
            return _invalid(_UNVERIFIABLE)
        for secret in self._secrets:
            try:
                payload = jwt.decode(token, secret, algorithms=["HS256"], options=_OPTIONS)
            except jwt.InvalidSignatureError:
                continue
            except Exception:  # noqa: BLE001 - whatever a hostile token makes the parsers raise, it is not verifiable
                break
            return self._judged(payload, now)
        else:
            self._tell(now)
        return _invalid(_UNVERIFIABLE)

    def _tell(self, now: float) -> None:
        """Warn of logins that no key has signed, once a minute at most: this worker's keys may be the wrong ones."""
        self._unverified += 1
        if now - self._told_at >= TOLD_SECONDS:
            keys = [key_fingerprint(each) for each in self._secrets]
            log.warning("logins_unverified", logins=self._unverified, keys=keys, check="WORKER_LOGIN__SECRETS")
            self._unverified, self._told_at = 0, now

    def _judged(self, payload: dict[str, Any], now: float) -> Claims | Refused:
        claims = _claims(payload, now)
        if isinstance(claims, Refused):
            return claims
        issued = _seconds(payload["iat"]) or 0.0
        if claims.expires_at - issued > self._longest_seconds:
            return _invalid(f"the login token lives for longer than {self._longest_seconds:g} seconds")
        if self._audience is not None and self._audience not in _audiences(payload.get("aud")):
            return _invalid("the login token is for another audience")
        return claims


def key_fingerprint(secret: str) -> str:
    """Return what tells a key from others where the key itself must not be seen: enough to compare two workers."""
    return hashlib.sha256(b"effective-worker login key\0" + secret.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def sign_login(
    secret: str,
    *,
    organisation: str,
    user: str,
    unit: str,
    issued: int,
    seconds: int,
    account: str | None = None,
    audience: str | None = None,
) -> str:
    """Sign a login token, for operators, tests and the demo. ``issued`` is in seconds since the epoch.

    An ``account`` makes it a consumer application's login. The token names ``audience``, if given.

    See CONTRACT, Login token.
    """
    claims: dict[str, Any] = {
        "jti": uuid4().hex,
        "usr": user,
        "org": organisation,
        "oun": unit,
        "iat": issued,
        "exp": issued + seconds,
    }
    if account is not None:
        claims |= {"cii": "effective-worker", "acr": account}
    if audience is not None:
        claims["aud"] = audience
    return jwt.encode(claims, secret, algorithm="HS256")


def _claims(payload: dict[str, Any], now: float) -> Claims | Refused:
    missing = [name for name in _REQUIRED if payload.get(name) is None]
    if missing:
        return _invalid(f"the login token lacks the claim {missing[0]}")
    texts = {name: payload.get(name) for name in ("jti", "usr", "org", "oun", "cii", "acr")}
    for name, text in texts.items():
        if text is not None and not _is_text(text):
            return _invalid(f"the login token's claim {name} is not a usable string")
    if (texts["cii"] is None) != (texts["acr"] is None):
        return _invalid("the login token's claims cii and acr go together")
    issued, expires = _seconds(payload["iat"]), _seconds(payload["exp"])
    if issued is None or expires is None:
        return _invalid(f"the login token's claim {'iat' if issued is None else 'exp'} is not a number of seconds")
    if issued > now + SKEW_SECONDS:
        return _invalid("the login token was issued in the future")
    if payload.get("nbf") is not None:
        begins = _seconds(payload["nbf"])
        if begins is None:
            return _invalid("the login token's claim nbf is not a number of seconds")
        if begins > now + SKEW_SECONDS:
            return _invalid("the login token is not valid yet")
    return Claims(
        jti=payload["jti"],
        username=payload["usr"],
        organisation=payload["org"],
        unit=payload["oun"],
        expires_at=expires,
        account=payload.get("acr"),
    )


def _audiences(claim: object) -> Sequence[object]:
    """Return the audiences of a claim, which holds one or a list of them (RFC 7519, 4.1.3)."""
    return claim if isinstance(claim, list) else [claim]


def _is_text(value: object) -> bool:
    """True if SQL can take a claim: a JSON string may hold U+0000 and lone surrogates, Postgres takes neither."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_CLAIM
        and "\0" not in value
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMERIC.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # No clock will ever show more than this, and an integer may be too large for a float.
    return float(value) if 0 <= value < 1e15 and math.isfinite(value) else None


def _is_nested(token: str) -> bool:
    """True if a head or a payload may nest so deeply that it depends on the version of Python if it can be parsed."""
    try:
        parts = [base64.urlsafe_b64decode(f"{part}===") for part in token.split(".")[:2]]
    except ValueError:
        return False  # PyJWT refuses it
    return any(part.count(b"[") + part.count(b"{") > MOST_BRACKETS for part in parts)


def _invalid(message: str) -> Refused:
    return Refused(StatusCode.INVALID_TOKEN, message)


class Authorisation(Value, frozen=True):
    """A verified login as Postgres sees it now.

    ``organisation`` is set once verified, and is a part of the command's id. So is ``account``, which only a consumer
    application's login has.
    """

    organisation: str | None
    caller: Caller | Refused
    account: str | None = None
    codes: Series | None = None
    """The caller's unknown codes in a row, if any."""
    pass_codes: Series | None = None
    """The caller's wrong pass codes in a row, if any."""


async def authorise(
    connection: Connection, logins: Sequence[Claims | Refused], rights: Sequence[str], judged_at: Sequence[float]
) -> list[Authorisation]:
    """Look up the callers of a batch, in the order of their logins.

    For each command, ``rights`` has the right that it takes, and ``judged_at`` the moment at which its login's expiry
    is judged, in seconds since the epoch.
    """
    pairs = list(zip(logins, rights, strict=True))
    distinct = [(login, right) for login, right in dict.fromkeys(pairs) if isinstance(login, Claims)]
    if not distinct:
        return [Authorisation(None, login) for login in logins if isinstance(login, Refused)]
    rows = await connection.fetch(
        statement("journey/authorise"),
        [login.organisation for login, _ in distinct],
        [login.username for login, _ in distinct],
        [login.unit for login, _ in distinct],
        [login.jti for login, _ in distinct],
        [right for _, right in distinct],
        [login.account or "" for login, _ in distinct],
    )
    # A batch has few logins and many commands. The moment decides only if a login has expired.
    found = {
        (login, right): (
            _authorisation(login, right, row, expired=False),
            _authorisation(login, right, row, expired=True),
        )
        for (login, right), row in zip(distinct, rows, strict=True)
    }
    return [
        Authorisation(None, login) if isinstance(login, Refused) else found[login, right][moment >= login.expires_at]
        for (login, right), moment in zip(pairs, judged_at, strict=True)
    ]


def _authorisation(login: Claims, right: str, row: Any, *, expired: bool) -> Authorisation:
    if not row["organisation_known"]:
        return Authorisation(None, _invalid("the login token's organisation is not known or not active"))
    if row["revoked"]:
        return Authorisation(None, _invalid("the login token was revoked"))
    if row["unit_id"] is None:
        return Authorisation(None, _invalid("the login token's unit is not known in its organisation or not active"))
    if row["user_id"] is None:
        return Authorisation(None, _invalid("the login token's user is not known or not active"))
    if expired:
        message = "log in again and send the command again"
        return Authorisation(login.organisation, Refused(StatusCode.EXPIRED_TOKEN, message), login.account)
    if not row["allowed"]:
        message = f"the user lacks the right {right}"
        return Authorisation(login.organisation, Refused(StatusCode.ACCESS_DENIED, message), login.account)
    return Authorisation(
        login.organisation,
        Caller(login.organisation, row["user_id"], row["unit_id"], login.account),
        login.account,
        Series(row["codes"], row["codes_since"]) if row["codes"] else None,
        Series(row["pass_codes"], row["pass_codes_since"]) if row["pass_codes"] else None,
    )
