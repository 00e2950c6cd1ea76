"""``effective-worker import``"""

from contextlib import AbstractContextManager
from importlib.resources import as_file
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated

import asyncpg
import typer

from worker.cli.progress import screen
from worker.cli.terminal import FAILED, Json, example, run_to_end, settings_from_environment, show, warn
from worker.errors import DependencyUnavailable
from worker.operations.imports.load import ImportProgress, ImportReport, import_files
from worker.operations.imports.mark import MarkForbidden
from worker.operations.imports.publish import Announced, Overtaken, announce, mend, require_not_overtaken
from worker.settings import Settings, SettingsError
from worker.values import counted


def import_(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", show_default=False, help="NDJSON files.")
    ] = None,
    *,
    example_lines: Annotated[
        bool, typer.Option("--example", help="Load the example that comes with the program: for trying out.")
    ] = False,
    announce_only: Annotated[
        bool, typer.Option("--announce", help="Load nothing: publish the events that earlier imports have left.")
    ] = False,
    no_events: Annotated[bool, typer.Option("--no-events", help="Publish no events now: they wait.")] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget that an import of these files was stopped.")
    ] = False,
    mend_lane: Annotated[
        bool,
        typer.Option("--mend", help="Load nothing: say if the database is older than what was announced of it."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --mend: go on behind what was announced.")] = False,
    json: Json = False,
) -> None:
    """Load access tokens, users and what they belong to.

    These are organisations, units, users, revoked logins and access tokens. Bad lines are reported, skipped, and exit
    1. Lines may come in any order, and the last line for an id wins. The state of an access token that exists is never
    changed. An import that was stopped, by whatever, goes on where it was when the same files are imported again within
    seven days, and then reports the bad lines of both. The first state of a new access token is an event: if the broker
    does not take it now, it waits for the next import, or for `import --announce`, which exits 1 if it has to wait on.

    A database that was put back to before what was announced of it is refused, with exit 1, before anything is loaded.
    """
    loading = bool(files) or example_lines
    _check_usage((bool(files), example_lines, announce_only, mend_lane), no_events or from_start, yes=yes)
    settings = settings_from_environment()
    if mend_lane:
        _mend(settings, carry_out=yes, json=json)
        return
    unmarked: list[str] = []
    with _example() as fixture:
        chosen = [fixture] if example_lines else files or []
        report = _load(settings, chosen, unmarked, from_start=from_start) if loading else ImportReport(0, 0, ())
    announced = Announced(0, 0) if no_events else run_to_end(announce(settings))
    if announced.published:  # the database was compared once more, and the later result counts
        unmarked = [] if announced.unmarked is None else [announced.unmarked]
    lines = []
    if loading:
        lines.append(f"{counted(report.read, 'line')} read, {report.loaded} loaded, {report.bad_count} bad")
    if announced.published or announce_only:
        lines.append(f"{counted(announced.published, 'first state')} announced")
    if announced.waiting:
        warn(
            f"{counted(announced.waiting, 'first state')} loaded but not announced yet: {announced.reason}; "
            "announce with: effective-worker import --announce"
        )
    elif unmarked:
        warn(f"whether the database is older than what was announced is not known: {unmarked[0]}")
    document = _document(report, None if no_events else announced) | {"unmarked": unmarked[0] if unmarked else None}
    show(document, lines, as_json=json)
    raise typer.Exit(FAILED if report.bad_count or (announce_only and announced.waiting) else 0)


def _check_usage(ways: tuple[bool, bool, bool, bool], of_files: bool, *, yes: bool) -> None:
    """Raise wrong usage unless exactly one of files, ``--example``, ``--announce`` and ``--mend`` is given."""
    files, example_lines, _, mend_lane = ways
    if sum(ways) != 1 or (of_files and not (files or example_lines)) or (yes and not mend_lane):
        what = "files to load or --example, or --announce and nothing else, or --mend with or without --yes"
        raise typer.BadParameter(what, param_hint="FILE...")


def _example() -> AbstractContextManager[Path]:
    """Return the lines that the demonstration loads, as a file, wherever the package lies."""
    return as_file(resources("worker") / "demo" / "fixture.ndjson")


def _load(settings: Settings, files: list[Path], unmarked: list[str], *, from_start: bool) -> ImportReport:
    """Load the files. ``unmarked`` gets the reason if the database cannot be compared with the mark."""

    async def before(connection: asyncpg.Connection) -> None:
        try:
            await require_not_overtaken(connection, settings)
        except (DependencyUnavailable, MarkForbidden, SettingsError) as error:
            unmarked.append(str(error))

    owner = settings.postgres.owner.get_secret_value()
    with screen() as (advance, say):
        return run_to_end(
            import_files(
                owner,
                files,
                on_progress=lambda now: advance("importing, KiB", *_told(now)),
                on_resumed=lambda file, line: say(
                    f"going on after line {line} of {file}, where an import of these files was stopped"
                ),
                on_bad=lambda bad: say(f"{bad.file}:{bad.line}: {bad.what}"),
                from_start=from_start,
                before=before,
            )
        )


def _mend(settings: Settings, *, carry_out: bool, json: bool) -> None:
    found = run_to_end(mend(settings, carry_out=carry_out))
    if found is None:
        show({"announced": None, "written": None, "done": False}, ["nothing keeps imports from going on"], as_json=json)
        return
    document = {"announced": found.mark.sequence, "written": found.written, "done": carry_out}
    lines = [
        str(found),
        f"  go on behind sequence {found.mark.sequence}: nothing up to there is announced (again), and what is lacking"
        " here of it, `audit verify` names from then on",
        *_break_in_the_chain(found),
        "done: imports go on" if carry_out else "nothing was changed; do it with --yes",
    ]
    show(document, lines, as_json=json)


def _break_in_the_chain(found: Overtaken) -> list[str]:
    """Return a warning if this database has gone on by itself: its hash chain goes on, and that of the topic breaks."""
    if found.written < found.mark.sequence:
        return []
    return ["  in the topic the hashes break there, once: what follows is chained to events of this database only"]


def _document(report: ImportReport, announced: Announced | None) -> dict[str, object]:
    return {
        "read": report.read,
        "loaded": report.loaded,
        "bad_count": report.bad_count,
        "bad": [{"file": bad.file, "line": bad.line, "what": bad.what} for bad in report.bad],
        "events": None
        if announced is None
        else {"published": announced.published, "waiting": announced.waiting, "reason": announced.reason},
    }


def _told(now: ImportProgress) -> tuple[int, int, str]:
    """Return how much is done, the total, and the lines loaded. Every file is read twice."""
    return now.bytes_done >> 10, now.bytes_total >> 10, f"{counted(now.loaded, 'line', form=',')} loaded"


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    importing = (
        "import --example",
        "import customers.ndjson",
        "import customers.ndjson --from-start",
        "import --announce",
        "import --mend",
    )
    app.command("import", epilog=example(*importing))(import_)
