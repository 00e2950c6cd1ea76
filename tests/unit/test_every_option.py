"""Every option of every command is accepted and leads to an answer, a short one since no server is there."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.support import preloaded
from tests.support.command_line import COMMANDS, NEEDED, write_files
from tests.support.logins import SECRET, login_token
from worker.demo.servers.processes import free_port

_BY_PASS_CODE: Final = (
    *("--identifier", "polina@example.com", "--pass-code-file", "pass-code"),
    *("--login-token", login_token()),
)
INSTEAD: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("import", "--announce"): ("--announce",),
    ("import", "--example"): ("--example",),
    ("import", "--mend"): ("--mend",),
    ("import", "--yes"): ("--mend", "--yes"),
    ("contract", "--check"): ("--check", str(preloaded.ROOT / "schemas" / "pack")),
    ("send", "--identifier"): (*_BY_PASS_CODE,),
    ("send", "--pass-code-file"): (*_BY_PASS_CODE,),
    ("send", "--login-token"): ("--code", "99021047380", "--login-token", login_token()),
    ("send", "--login-token-file"): ("--code", "99021047380", "--login-token-file", "token"),
    ("send", "--login-token-command"): ("--code", "99021047380", "--login-token-command", "cat token"),
    ("submit", "--token"): ("commands.ndjson", "--token", "canary"),
    ("submit", "--token-command"): ("commands.ndjson", "--token-command", "true"),
    ("submit", "--csv"): ("table.csv", "--csv", "--token", "canary"),
    ("attempts list", "--identifier"): ("--organisation", "ORG1", "--identifier", "polina@example.com"),
    ("attempts forgive", "--organisation"): ("--organisation", "ORG1", "--user", "mpadmin"),
    ("attempts forgive", "--user"): ("--organisation", "ORG1", "--user", "mpadmin"),
    ("contact erase", "--organisation"): ("C1", "--organisation", "ORG1"),
    ("contact erase", "--delete-records"): ("C1", "--organisation", "ORG1", "--yes", "--delete-records"),
    ("audit verify", "--key-file"): ("--anchor", "signed.json", "--key-file", "key"),
    ("login-token", "--organisation"): ("--organisation", "ORG1", "--user", "mpadmin"),
    ("login-token", "--user"): ("--user", "mpadmin", "--organisation", "ORG1"),
    ("lanes mend", "--by"): ("0", "--by", "redo"),
    ("lanes mend", "--yes"): ("0", "--by", "redo", "--yes"),
    ("dead-letters replay", "--login-token"): ("--login-token", login_token()),
    ("dead-letters replay", "--yes"): ("--login-token-command", "true", "--yes"),
}
"""Options that need others, or replace required arguments."""
VALUES: Final = {
    "--account": "A1",
    "--anchor": "anchor.json",
    "--at": "0/0",
    "--attempts": "2",
    "--by": "redo",
    "--code": "INTERNAL_ERROR",
    "--fields": "number",
    "--id": "order-7",
    "--identifier": "polina@example.com",
    "--journal": "journal",
    "--key": "card-1",
    "--key-file": "key",
    "--limit": "5",
    "--login-token-command": "true",
    "--login-token-file": "token",
    "--organisation": "ORG1",
    "--partition": "0",
    "--patience": "60",
    "--rate": "10",
    "--reason": "any",
    "--reply-to": "replies",
    "--reply-topic": "replies",
    "--since": "2h",
    "--source": "/shop",
    "--source-topic": "commands",
    "--timeout": "10",
    "--token-command": "true",
    "--topic": "commands",
    "--ttl": "2h",
    "--unit": "1",
    "--until": "1h",
    "--user": "mpadmin",
    "--window": "10",
}
EVERY: Final = [
    (name, way, bool(option.is_flag))
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option"
    for way in (option.opts[0], *option.secondary_opts)
]


def arguments_of(name: str, option: str, is_flag: bool) -> list[str]:
    special = INSTEAD.get((name, option))
    if special is not None:
        return [*name.split(), *special]
    return [*name.split(), *NEEDED.get(name, ()), option, *(() if is_flag else (VALUES[option],))]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with the files that options name."""
    return write_files(tmp_path)


@pytest.mark.parametrize(("name", "option", "is_flag"), EVERY)
def test_it_is_taken_and_answered(name: str, option: str, is_flag: bool, place: Path) -> None:
    away = f"127.0.0.1:{free_port('127.0.0.1')}"
    settings = {
        "WORKER_LOGIN__SECRETS": SECRET,
        "WORKER_POSTGRES__DSN": f"postgresql://worker:canary@{away}/effective",
        "WORKER_POSTGRES__OWNER_DSN": f"postgresql://owner:canary@{away}/effective",
        "WORKER_KAFKA__BOOTSTRAP_SERVERS": away,
        "PYTHONPATH": str(preloaded.ROOT),
    }
    done = preloaded.run_to_end(arguments_of(name, option, is_flag), cwd=place, env={**os.environ, **settings})
    said = done.stdout + done.stderr
    assert done.returncode in {0, 1}, said
    assert said
    assert "Traceback" not in said
    assert "Usage:" not in said
    assert "canary" not in said


def test_the_version_is_shown() -> None:
    done = preloaded.run_to_end(["--version"], cwd=preloaded.ROOT, env=os.environ)
    assert done.returncode == 0
    assert done.stdout.strip().replace(".", "").isalnum()
    assert done.stderr == ""
