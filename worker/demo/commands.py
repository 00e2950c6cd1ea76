"""The commands that the demo sends, each with the status that it must get (CONTRACT, Result)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from effective_contract.headers import COMMAND_TYPE, SPEC_VERSION
from worker.journey.authorise import sign_login

FIXTURE: Final = "fixture.ndjson"
LOGIN_SECONDS: Final = 2 * 60 * 60


@dataclass(frozen=True, slots=True)
class Attempt:
    """One command under its own id. ``body`` is an object, or text that is no JSON."""

    name: str
    ce_id: str
    body: Mapping[str, Any] | str = field(repr=False)
    expected: str
    replayed: bool = False

    @property
    def value(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        return [
            ("ce_specversion", SPEC_VERSION.encode()),
            ("ce_id", self.ce_id.encode()),
            ("ce_source", b"/demo"),
            ("ce_type", COMMAND_TYPE.encode()),
        ]


def documented(name: str) -> Any:
    """Return ``command.json`` or ``result.json``: the source method's own sample."""
    return json.loads((files(__package__) / name).read_text(encoding="utf-8"))


def attempts(secret: str, now: int) -> list[Attempt]:
    """Return the golden command, its repetition, and commands to be refused. ``now``: seconds since the epoch."""
    golden = documented("command.json") | {"token": _login(secret, "mpadmin", now)}
    mistyped = golden | {"fields_set": "number,pass_code"}
    return [
        Attempt("the golden command", "golden", golden, "OK"),
        Attempt("the same, delivered again", "golden", golden, "OK", replayed=True),
        Attempt("the same, as a new command", "again", golden, "INVALID_LIFE_CYCLE_STATE"),
        Attempt(
            "an unknown code",
            "unknown",
            _named(golden, authentication_code="00000000000"),
            "ACCESS_TOKEN_NOT_FOUND",
        ),
        Attempt(
            "a wrong pass code",
            "pass-code",
            _named(golden, identifier="polina@example.com", pass_code="not this one"),  # noqa: S106 - a wrong one
            "INVALID_CREDENTIALS",
        ),
        Attempt(
            "a user without the right", "reader", golden | {"token": _login(secret, "reader", now)}, "ACCESS_DENIED"
        ),
        Attempt(
            "a login of yesterday",
            "expired",
            golden | {"token": _login(secret, "mpadmin", now - 86_400)},
            "EXPIRED_TOKEN",
        ),
        Attempt("a field that does not exist", "mistyped", mistyped, "INVALID_PARAMETER"),
        Attempt("no JSON at all", "not-json", "set effective, please", "MALFORMED_REQUEST"),
    ]


def _login(secret: str, user: str, now: int) -> str:
    return sign_login(secret, organisation="ORG1", user=user, unit="1", issued=now, seconds=LOGIN_SECONDS)


def _named(golden: Mapping[str, Any], **identifier: str) -> Mapping[str, Any]:
    return {**golden, "access_token_identifier": identifier}


def shown(body: Mapping[str, Any] | str, indent: int | None = None) -> str:
    """Return a command for display, with its secrets masked."""
    if isinstance(body, str):
        return body
    identifier = dict(body["access_token_identifier"])
    if "pass_code" in identifier:
        identifier["pass_code"] = "***"  # noqa: S105 - no password
    return json.dumps({**body, "token": "***", "access_token_identifier": identifier}, indent=indent)
