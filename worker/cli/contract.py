"""``effective-worker contract``"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.terminal import FAILED, Json, example, settings_from_environment, show
from worker.errors import OperatorError
from worker.operations.contract.compatibility import Break, breaks
from worker.operations.contract.deployment import DEFAULT_TOPICS, Deployment, deployment
from worker.operations.contract.older import NotAPack, parsed, read, releases
from worker.operations.contract.pack import pack, write
from worker.values import counted


class PackUnwritable(OperatorError):
    """The directory cannot be written."""


def contract(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to write it; made if need be.", file_okay=False)
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(metavar="VERSION|DIR", help="A released version, or an older pack, to compare with."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the contract pack, or compare it with an older one.

    The pack has JSON Schemas, the AsyncAPI document, a sample for every status, and how to use them. With --check:
    compare it with a release or an older pack, name every change that breaks a sender or a reader written for that one,
    and exit 1 if there is any. Topics and limits are those of the settings.
    """
    if directory is None and check is None:
        raise typer.BadParameter("say where to write it, or what to compare it with (--check)", param_hint="DIR")
    here = deployment(settings_from_environment())
    files = pack(here)
    broken = [] if check is None else _broken(check, here)
    if directory is not None:
        try:
            write(directory, files)
        except OSError as error:
            raise PackUnwritable(f"{directory} cannot be written: {error.strerror}") from error
    document: dict[str, object] = {}
    lines: list[str] = []
    if directory is not None:
        document |= {"directory": str(directory), "files": list(files)}
        lines.append(f"{counted(len(files), 'file')} written to {directory}")
    if check is not None:
        document["breaks"] = [{"file": each.file, "path": each.path, "what": each.what} for each in broken]
        lines += [f"BREAKS  {each}" for each in broken] or [f"breaks nothing that was written for {check}"]
    show(document, lines, as_json=json)
    raise typer.Exit(FAILED if broken else 0)


def _broken(older: str, here: Deployment) -> list[Break]:
    """Return what breaks those of an older pack. A release has the default topics, whatever those here are called."""
    released = releases()
    directory = released.get(older) or Path(older)
    files = pack(here if older not in released else replace(here, **DEFAULT_TOPICS))
    if not directory.is_dir():
        known = ", ".join(released)
        raise typer.BadParameter(
            f"{older} is neither a directory nor a released version ({known})", param_hint="--check"
        )
    try:
        return breaks(read(directory), parsed(files))
    except NotAPack as error:
        raise typer.BadParameter(str(error), param_hint="--check") from error


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    writing = ("contract pack", "contract --check 0.1.0", "contract --check ../their/pack --json")
    app.command("contract", epilog=example(*writing))(contract)
