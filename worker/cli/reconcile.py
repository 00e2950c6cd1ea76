"""``effective-worker reconcile``"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import typer

from worker.cli.terminal import FAILED, Json, example, progress_bar, run_to_end, settings_from_environment, show
from worker.operations.reconcile import reconcile as reconciling
from worker.operations.reconcile.reconcile import Reconciliation


def reconcile(json: Json = False) -> None:
    """Compare the commands topics with records, states, transitions and what was published; name every difference.

    Workers may run meanwhile: only what lies below the committed offsets is compared. Changes nothing. Exit 1 if
    anything differs.
    """
    settings = settings_from_environment()
    with progress_bar("comparing") as on_progress:
        report = run_to_end(reconciling.reconcile(settings, clock=_now, on_progress=on_progress))
    document = asdict(report) | {
        "clean": report.clean,
        "compared": [
            {"topic": topic, "partition": partition, "from": begin, "below": end}
            for (topic, partition), (begin, end) in sorted(report.compared.items())
        ],
        "counts": {str(kind): count for kind, count in report.counts.items()},
    }
    show(document, list(_lines(report)), as_json=json)
    raise typer.Exit(0 if report.clean else FAILED)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _lines(report: Reconciliation) -> Iterator[str]:
    for each in report.differences:
        yield f"{each.kind}: {each.where}: {each.what}"
    for kind, count in report.counts.items():
        more = count - sum(each.kind is kind for each in report.differences)
        if more:
            yield f"{kind}: {more} more"
    read = f"{report.commands} commands, {report.results} results, {report.transitions} transitions"
    yield f"{read} and {report.dead_letters} dead letters compared: {report.counts.total() or 'no'} differences"
    for (topic, partition), (begin, end) in sorted(report.compared.items()):
        if begin and end > begin:
            yield f"  {topic}/{partition}: from offset {begin} on; what came before is gone or retired"
    for count, what in (
        (report.dry_runs, "dry runs among them"),
        (report.redirected, "answered in a topic of the sender's choice"),
        (report.retired, "older than the retention of the record"),
        (report.not_comparable, "older than what is left of a topic"),
        (report.repeated, "published twice, as at_least_once may"),
        (report.others, "of other groups or of imports"),
    ):
        if count:
            yield f"  {count} {what}"


def add(app: typer.Typer) -> None:
    """Add the command, with examples in its help."""
    app.command("reconcile", epilog=example("reconcile", "reconcile --json"))(reconcile)
