"""``effective-worker send``"""

import getpass
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from pydantic import BaseModel

from effective_contract.client import Answer, CommandRefused
from worker.cli import terminal
from worker.cli.login import LoginTokenCommand, LoginTokenFile, LoginTokenText, login_source
from worker.cli.output import printable
from worker.cli.terminal import (
    LOGIN,
    REFUSED,
    SIGNALLED,
    Json,
    complain,
    example,
    run_to_end,
    settings_from_environment,
    show,
    until_signalled,
)
from worker.operations.send import SOURCE, NoAnswer, Request, Sending

_OPTIONS: Final = {
    "authentication_code": "--code",
    "identifier": "--identifier",
    "pass_code": "--pass-code-file",
    "fields_set": "--fields",
    "ce_id": "--id",
    "ce_source": "--source",
    "key": "--key",
    "reply_to": "--reply-to",
}
"""The option of each member and header of the command."""
_STDIN: Final = Path("-")
_MOST_BYTES: Final = 4096
"""The most that is read of a file that should hold a pass code."""
_INDENT: Final = "  "


def send(
    *,
    code: Annotated[str | None, typer.Option(help="The access token's authentication code.")] = None,
    identifier: Annotated[str | None, typer.Option(help="Its identifier, which goes with a pass code.")] = None,
    pass_code_file: Annotated[
        Path | None,
        typer.Option(help="A file that holds the pass code; - is stdin. Without it, a terminal is asked."),
    ] = None,
    fields: Annotated[str, typer.Option(metavar="NAMES", help="Fields to return, comma-separated. Default: all.")] = "",
    login_token: LoginTokenText = None,
    login_token_file: LoginTokenFile = None,
    login_token_command: LoginTokenCommand = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The command's ce_id: once applied, it is not again.")
    ] = None,
    source: Annotated[str, typer.Option(help="The command's ce_source.")] = SOURCE,
    key: Annotated[
        str | None, typer.Option(help="The record's key: an opaque id of the access token, no code.")
    ] = None,
    reply_to: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Where the worker answers. Default: the results topic.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let it be judged, and change nothing.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer to each attempt.")] = 30,
    attempts: Annotated[int, typer.Option(min=1, help="How often to ask, under one id, until it is answered.")] = 1,
    json: Json = False,
) -> None:
    """Send one command, wait for its answer and print it.

    Exit 0 if it was OK, 3 if it was refused, 1 without an answer: the error then says whether the command may still be
    applied, and the id to ask again with, which is safe.
    """
    _require_one_shape(code, identifier, pass_code_file)
    if not math.isfinite(timeout):
        raise typer.BadParameter("not a number of seconds", param_hint="--timeout")
    login = login_source(login_token, login_token_file, login_token_command)
    if login is None:
        hint = "--login-token, --login-token-file, --login-token-command"
        raise typer.BadParameter("give one of them", param_hint=hint)
    pass_code = None if identifier is None else _pass_code(pass_code_file)
    request = Request(
        authentication_code=code,
        identifier=identifier,
        pass_code=pass_code,
        fields_set=fields,
        ce_id=uuid4().hex if id_ is None else id_,
        ce_source=source,
        key=key,
        reply_to=reply_to,
        dry_run=dry_run,
        timeout=timeout,
        attempts=attempts,
    )
    fault = request.fault()
    if fault is not None:
        raise typer.BadParameter(fault.message, param_hint=_OPTIONS.get(fault.member.rpartition(".")[2]))
    settings = settings_from_environment()
    if reply_to in settings.topics.own:
        raise typer.BadParameter("the worker answers in none of its own topics on request", param_hint="--reply-to")
    sending = Sending(settings, request, login)
    signalled, answer = run_to_end(until_signalled(sending.run()))
    if answer is None:
        raise typer.Exit(_stopped(sending.interrupted(), signalled, as_json=json))
    show(document(answer), list(lines(answer)), as_json=json)
    if isinstance(answer, CommandRefused):
        if answer.may_be_applied:
            complain("an attempt before this one was not answered: that one may still be applied")
        raise typer.Exit(REFUSED)


class Documented(terminal.Documented):
    """The command, whose document of an error says what may have come of it."""

    def document_of(self, what: str, error: BaseException) -> dict[str, Any]:
        """Return the error with the id that was sent; null: nothing was."""
        is_interrupted = isinstance(error, KeyboardInterrupt)
        return _document_of_error("interrupted before the command was sent" if is_interrupted else what, error)


def _stopped(error: NoAnswer, signalled: int, *, as_json: bool) -> int:
    """Tell what a signal has left open, and return the exit code."""
    if as_json:
        show(_document_of_error(str(error), error), (), as_json=True)
    complain(str(error))
    return SIGNALLED + signalled


# --- options ----------------------------------------------------------------------------------------------------------


def _require_one_shape(code: str | None, identifier: str | None, pass_code_file: Path | None) -> None:
    if (code is None) == (identifier is None):
        raise typer.BadParameter("give one of --code and --identifier", param_hint="--code")
    for option, text in (("--code", code), ("--identifier", identifier)):
        if text == "":
            raise typer.BadParameter("empty", param_hint=option)
    if code is not None and pass_code_file is not None:
        raise typer.BadParameter("goes with --identifier", param_hint="--pass-code-file")


def _pass_code(file: Path | None) -> str:
    """Return the pass code of a file, of stdin, or of the person at the terminal, who does not see it.

    The end of its line is not a part of it; white space is.
    """
    hint = "--pass-code-file"
    try:
        if file in {None, _STDIN} and sys.stdin.isatty():
            text = getpass.getpass("pass code: ")
        elif file is None:
            raise typer.BadParameter("--identifier needs it, where there is no terminal to ask", param_hint=hint)
        else:
            text = _read(file).decode()
    except EOFError:
        text = ""
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint=hint) from None
    except UnicodeDecodeError:
        raise typer.BadParameter("not UTF-8 text", param_hint=hint) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise typer.BadParameter("holds more than one line" if text else "holds no pass code", param_hint=hint)
    return text


def _read(file: Path) -> bytes:
    if file == _STDIN:
        return sys.stdin.buffer.read(_MOST_BYTES)
    with file.open("rb") as opened:
        return opened.read(_MOST_BYTES)


# --- output -----------------------------------------------------------------------------------------------------------


def document(answer: Answer) -> dict[str, Any]:
    """Return an answer for a JSON document."""
    found: dict[str, Any] = {
        "status": {"code": "OK", "description": "", "message": answer.message},
        "data": {},
        "command_id": answer.command_id,
        "replayed": False,
        "dry_run": answer.dry_run,
        "ce_id": answer.ce_id,
        "ce_source": answer.ce_source,
    }
    if isinstance(answer, CommandRefused):
        found["status"] |= {"code": str(answer.code), "description": answer.description}
        return found | {"may_be_applied": answer.may_be_applied}
    data = {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in answer.data.items()}
    return found | {"data": data, "replayed": answer.replayed}


def _document_of_error(what: str, error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {"error": what, "may_be_applied": False, "ce_id": None, "ce_source": None}
    if isinstance(error, NoAnswer):
        found |= {"may_be_applied": error.may_be_applied, "ce_id": error.ce_id, "ce_source": error.ce_source}
    return found


def lines(answer: Answer) -> Iterator[str]:
    """Yield an answer as lines for people: the status, the fields, the ids."""
    found = document(answer)
    status = found["status"]
    kinds = [kind for kind, is_so in (("dry run", found["dry_run"]), ("replayed", found["replayed"])) if is_so]
    parts = [status["description"].rstrip("."), status["message"]]
    head = f"{status['code']} ({', '.join(kinds)})" if kinds else status["code"]
    yield printable(": ".join([head, *filter(None, parts)]))
    yield from _fields(found["data"])
    yield ""
    yield from _fields({name: found[name] for name in ("command_id", "ce_id", "ce_source")})


def _fields(members: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the members of an object, one a line; those of an object in it follow its name, indented."""
    width = max((len(name) for name, value in members.items() if not isinstance(value, Mapping)), default=0)
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield f"{indent}{printable(name)}"
            yield from _fields(value, indent + _INDENT)
        else:
            shown = "null" if value is None else str(value) or '""'
            yield f"{indent}{printable(name):{width}}  {printable(shown)}"


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    login = f"--login-token-command 'effective-worker {LOGIN}'"
    sending = (
        f"send --code 99021047380 --fields number,life_cycle_state {login}",
        "send --identifier polina@example.com --pass-code-file - --login-token-file login --json < pass-code",
        "send --code 99021047380 --login-token-file login --dry-run",
    )
    app.command("send", cls=Documented, epilog=example(*sending))(send)
