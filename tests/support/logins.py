"""Login tokens for tests, good ones and, through their claims, bad ones."""

import base64
import hmac
import time
from typing import Any, Final
from uuid import uuid4

import jwt

SECRET: Final = "a secret of the tests that is long enough for HS256"


def login_token(
    organisation: str = "ORG1", user: str = "mpadmin", unit: str = "1", *, secret: str = SECRET, **claims: Any
) -> str:
    """Return a signed login token of two hours.

    ``claims`` replaces or adds; a claim given as ``None`` is left out.
    """
    now = int(time.time())
    whole = {
        "jti": uuid4().hex,
        "usr": user,
        "org": organisation,
        "oun": unit,
        "iat": now,
        "exp": now + 2 * 60 * 60,
    } | claims
    return jwt.encode({name: claim for name, claim in whole.items() if claim is not None}, secret, algorithm="HS256")


def segment(part: bytes) -> str:
    """Return a part of a token in its written form."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(
    payload: bytes, head: bytes = b'{"alg":"HS256","typ":"JWT"}', *, secret: str = SECRET, digest: str = "sha256"
) -> str:
    """Sign a token of any parts, even ones that no library would sign."""
    text = f"{segment(head)}.{segment(payload)}"
    return f"{text}.{segment(hmac.digest(secret.encode(), text.encode(), digest))}"
