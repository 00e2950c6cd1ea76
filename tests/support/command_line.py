"""Every command of the command line, with what each needs to be called."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from tests.support.logins import login_token
from worker.cli import application

NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "import": ("lines.ndjson",),
    "send": ("--code", "99021047380", "--login-token", login_token()),
    "submit": ("commands.ndjson", "--token", "canary"),
    "history": ("T1",),
    "explain": ("rec:c/t/0/0/0",),
    "attempts forgive": ("--organisation", "ORG1", "--user", "mpadmin"),
    "contact erase": ("C1", "--organisation", "ORG1"),
    "login-token": ("--organisation", "ORG1", "--user", "mpadmin"),
    "contract": ("pack",),
    "lanes show": ("0",),
    "dead-letters show": ("0/0",),
    "completion": ("bash",),
}
"""Arguments that a command requires."""
STARTS_SERVERS: Final = {"demo"}
"""tests/acceptance/test_demo.py runs it."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its name."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not getattr(command, "commands", {}):
        yield " ".join(path), command


COMMANDS: Final = {
    name: command for name, command in leaves(typer.main.get_command(application())) if name not in STARTS_SERVERS
}


_TAKEN_AT: Final = "2026-03-05T00:00:00.000000Z"
_NO_HEADS: Final = {"taken_at": _TAKEN_AT, "heads": [], "format": 1}
ANCHOR: Final = json.dumps(_NO_HEADS | {"digest": hashlib.sha256(f'["{_TAKEN_AT}",[]]'.encode()).hexdigest()})
KEY: Final = "the auditor's own key of 32 bytes and more"
SIGNATURE: Final = hmac.new(KEY.encode(), json.loads(ANCHOR)["digest"].encode(), "sha256").hexdigest()
FILES: Final = {
    "lines.ndjson": "{}\n",
    "commands.ndjson": "{}\n",
    "table.csv": "authentication_code\nC1\n",
    "token": login_token(),
    "pass-code": "canary",
    "anchor.json": ANCHOR,
    "signed.json": json.dumps(json.loads(ANCHOR) | {"signature": SIGNATURE}),
    "key": KEY,
}


def write_files(directory: Path) -> Path:
    """Write the files that options name into a directory, and return it."""
    for name, content in FILES.items():
        (directory / name).write_text(content, encoding="utf-8")
    return directory
