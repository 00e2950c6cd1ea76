"""``effective-worker import``"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.cli.terminal import FAILED, Json, run_to_end, settings_from_environment, show
from worker.importing import ImportProgress, OnProgress, import_files


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False, help="NDJSON files.")],
    json: Json = False,
) -> None:
    """Load organisations, units, users, revoked logins and access tokens. Bad lines are reported, skipped, and exit 1.

    Lines may come in any order, and the last line for an id wins. The state of an access token that exists is never
    changed.
    """
    owner = settings_from_environment().postgres.owner.get_secret_value()
    with _bar() as on_progress:
        report = run_to_end(import_files(owner, files, on_progress=on_progress))
    for bad in report.bad:
        sys.stderr.write(f"{bad.file}:{bad.line}: {bad.what}\n")
    document = {
        "read": report.read,
        "loaded": report.loaded,
        "bad": [{"file": bad.file, "line": bad.line, "what": bad.what} for bad in report.bad],
    }
    show(document, [f"{report.read} lines read, {report.loaded} loaded, {len(report.bad)} bad"], as_json=json)
    raise typer.Exit(FAILED if report.bad else 0)


@contextmanager
def _bar() -> Iterator[OnProgress]:
    columns = (
        TextColumn("importing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[loaded]} loaded"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("importing", total=None, loaded=0)

        def advance(now: ImportProgress) -> None:
            progress.update(task, completed=now.bytes_done, total=now.bytes_total, loaded=now.loaded)

        yield advance
