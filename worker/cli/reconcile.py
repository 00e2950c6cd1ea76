"""``effective-worker reconcile``"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import typer

from worker.cli.findings import document_of, finding_lines
from worker.cli.terminal import FAILED, Json, example, progress_bar, run_to_end, settings_from_environment, show
from worker.operations.findings import partition_place
from worker.operations.reconcile.reconcile import reconcile as compare_everything
from worker.operations.reconcile.report import Reconciliation


def reconcile(json: Json = False) -> None:
    """Compare all topics with Postgres, and name each difference.

    The commands topics are compared with records, states, transitions and what was published. Workers may run
    meanwhile: only what lies below the committed offsets is compared. Changes nothing. Exit 1 if anything differs.
    """
    settings = settings_from_environment()
    with progress_bar("comparing") as on_progress:
        report = run_to_end(compare_everything(settings, clock=_now, on_progress=on_progress))
    document = document_of(report, named_as="differences") | {
        "clean": report.clean,
        "compared": [
            {"topic": topic, "partition": partition, "from": begin, "below": end}
            for (topic, partition), (begin, end) in sorted(report.compared.items())
        ],
    }
    show(document, list(_lines(report)), as_json=json)
    raise typer.Exit(0 if report.clean else FAILED)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _lines(report: Reconciliation) -> Iterator[str]:
    yield from finding_lines(report)
    read = f"{report.commands} commands, {report.results} results, {report.transitions} transitions"
    yield f"{read} and {report.dead_letters} dead letters compared: {report.counts.total() or 'no'} differences"
    for (topic, partition), (begin, end) in sorted(report.compared.items()):
        if begin and end > begin:
            yield f"  {partition_place(topic, partition)}: from offset {begin} on; what came before is gone or retired"
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
