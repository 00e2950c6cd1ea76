"""``effective-worker reconcile``"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import typer

from worker.cli.findings import (
    JsonLines,
    OfOrganisation,
    Run,
    Since,
    Until,
    document_of,
    ending,
    finding_lines,
    followed,
    many,
    opening,
    period,
    refuse_both,
    restriction_of,
    tell,
)
from worker.cli.moments import now
from worker.cli.terminal import Json, example, run_to_end, settings_from_environment
from worker.operations.findings import partition_place
from worker.operations.reconcile.reconcile import reconcile as compare_everything
from worker.operations.reconcile.report import Reconciliation
from worker.values import counted

_NUMBERS: Final = (
    "commands",
    "results",
    "transitions",
    "dead_letters",
    "dry_runs",
    "redirected",
    "retired",
    "not_comparable",
    "repeated",
    "others",
)
"""The members of the report that the summary has under ``read``."""


def reconcile(
    *,
    organisation: OfOrganisation = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
    json_lines: JsonLines = False,
) -> None:
    """Compare all topics with Postgres, and name each difference.

    The commands topics are compared with records, states, transitions and what was published. Workers may run
    meanwhile: only what lies below the committed offsets is compared. Changes nothing. Exit 1 if anything differs.

    Topics mix organisations, so they are compared whole. --organisation, --since and --until restrict the states that
    are compared and the differences that are named; others are counted. Such a run never says that everything agrees.
    """
    refuse_both(as_json=json, as_lines=json_lines)
    restriction = restriction_of(organisation, since, until)
    settings, began = settings_from_environment(), now()
    with followed(as_lines=json_lines) as (on_progress, on_found):
        comparing = compare_everything(
            settings, clock=now, restriction=restriction, on_progress=on_progress, on_found=on_found
        )
        report = run_to_end(comparing)
    tell(report, _run(report, began), as_json=json, as_lines=json_lines)


def _run(report: Reconciliation, began: datetime) -> Run:
    compared = [
        {"topic": topic, "partition": partition, "from": begin, "below": end}
        for (topic, partition), (begin, end) in sorted(report.compared.items())
    ]
    read: dict[str, Any] = {name: getattr(report, name) for name in _NUMBERS}
    return Run(
        command="reconcile",
        began=began,
        ended=now(),
        read=read | {"compared": compared},
        document=document_of(report, named_as="differences") | {"clean": report.verdict, "compared": compared},
        lines=list(_lines(report)),
        sentence=sentence(report, began),
    )


def sentence(report: Reconciliation, at: datetime) -> str:
    """Return the verdict as one sentence for an auditor's report."""
    commands = many(report.commands, "command") + period(report)
    paired = ", ".join(
        (
            many(report.results, "result"),
            many(report.dead_letters, "dead letter"),
            f"{many(report.transitions, 'transition')} with as many events",
        )
    )
    own = None if report.restriction is None else report.restriction.organisation
    states = many(report.states, "state") + ("" if own is None else f" of {own}")
    agree = "agrees" if report.commands == 1 else "agree"
    did = f"{agree} with" if report.clean else f"{'was' if report.commands == 1 else 'were'} compared with"
    what = f"{commands} below the committed offsets {did} their records, {paired} and {states}"
    return f"{opening('Reconciled', report, at)}{what}; {ending(report, 'difference')}"


def _lines(report: Reconciliation) -> Iterator[str]:
    yield from finding_lines(report)
    things = ((report.commands, "command"), (report.results, "result"), (report.transitions, "transition"))
    read = f"{', '.join(counted(*each) for each in things)} and {counted(report.dead_letters, 'dead letter')}"
    found = report.counts.total()
    yield f"{read} compared: {counted(found, 'difference') if found else 'no differences'}"
    for (topic, partition), (begin, end) in sorted(report.compared.items()):
        if begin and end > begin:
            yield f"  {partition_place(topic, partition)}: from offset {begin} on; what came before is gone or retired"
    if report.dry_runs:
        yield f"  {counted(report.dry_runs, 'dry run')} among them"
    for count, what in (
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
    reconciling = ("reconcile", "reconcile --json", "reconcile --organisation ORG1 --since 1d --json-lines")
    app.command("reconcile", epilog=example(*reconciling))(reconcile)
