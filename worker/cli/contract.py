"""``effective-worker contract``"""

from pathlib import Path
from typing import Annotated

import typer

from schemas.compatibility import Break, breaks
from schemas.older import NotAPack, parsed, read
from schemas.pack import pack, write
from worker.cli.terminal import FAILED, Json, example, settings_from_environment, show
from worker.errors import WorkerError
from worker.operations.contract import deployment


class PackUnwritable(WorkerError):
    """The directory cannot be written."""


def contract(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to write it; made if need be.", file_okay=False)
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="OLD_DIR", help="An older pack, to be compared.", exists=True, file_okay=False),
    ] = None,
    json: Json = False,
) -> None:
    """Write the contract pack: JSON Schemas, the AsyncAPI document, a sample for every status, and how to use them.

    With --check: compare it with an older pack, name every change that breaks a sender or a reader written for that
    one, and exit 1 if there is any. Topics and limits are those of the settings.
    """
    if directory is None and check is None:
        raise typer.BadParameter("say where to write it, or what to compare it with (--check)", param_hint="DIR")
    files = pack(deployment(settings_from_environment()))
    broken = [] if check is None else _broken(check, files)
    if directory is not None:
        try:
            write(directory, files)
        except OSError as error:
            raise PackUnwritable(f"{directory} cannot be written: {error.strerror}") from error
    document: dict[str, object] = {}
    lines: list[str] = []
    if directory is not None:
        document |= {"directory": str(directory), "files": list(files)}
        lines.append(f"{len(files)} files written to {directory}")
    if check is not None:
        document["breaks"] = [{"file": each.file, "path": each.path, "what": each.what} for each in broken]
        lines += [f"BREAKS  {each}" for each in broken] or [f"breaks nobody who was written for {check}"]
    show(document, lines, as_json=json)
    raise typer.Exit(FAILED if broken else 0)


def _broken(older: Path, files: dict[str, str]) -> list[Break]:
    try:
        return breaks(read(older), parsed(files))
    except NotAPack as error:
        raise typer.BadParameter(str(error), param_hint="--check") from error


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    writing = ("contract pack", "contract --check schemas/released/0.1.0", "contract pack --json")
    app.command("contract", epilog=example(*writing))(contract)
