"""Reports of findings as lines, as one JSON document and as lines of JSON, for every command with findings.

See CONTRACT, Findings.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from worker.cli.moments import moment_of
from worker.cli.progress import screen
from worker.cli.terminal import FAILED, show
from worker.operations.findings import Finding, OnProgress, Report, Restriction
from worker.values import counted, rfc3339

JsonLines = Annotated[
    bool,
    typer.Option("--json-lines", help="Print every finding as a line of JSON when it is found, and a summary last."),
]
OfOrganisation = Annotated[str | None, typer.Option("--organisation", help="Only findings of this organisation.")]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only of what happened since: 2h (ago), a day, or an RFC 3339 time.")
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Only of what happened before: likewise.")]


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended: the command, when it ran, and all that it has to say beside its findings."""

    command: str
    began: datetime
    ended: datetime
    read: dict[str, Any]
    """The numbers of what was read, for the summary."""
    document: dict[str, Any]
    lines: Sequence[str]
    sentence: str


def restriction_of(organisation: str | None, since: str | None, until: str | None) -> Restriction | None:
    """Return the restriction that these options ask for; ``None`` if none is given."""
    if organisation is None and since is None and until is None:
        return None
    if organisation == "":
        raise typer.BadParameter("empty", param_hint="--organisation")
    first = None if since is None else moment_of(since, "--since")
    end = None if until is None else moment_of(until, "--until")
    if first is not None and end is not None and first >= end:
        raise typer.BadParameter(f"not after --since, {rfc3339(first)}", param_hint="--until")
    return Restriction(organisation, first, end)


def refuse_both(*, as_json: bool, as_lines: bool) -> None:
    """Refuse two forms of one report as wrong usage."""
    if as_json and as_lines:
        raise typer.BadParameter("give one of --json and --json-lines", param_hint="--json-lines")


@contextmanager
def followed(*, as_lines: bool) -> Iterator[tuple[OnProgress, Callable[[Finding[Any]], None] | None]]:
    """Yield a callback for the progress of a run, and one for its findings if they are printed as they are found."""
    with screen(with_bar=not (as_lines and sys.stdout.isatty())) as (advance, _):
        yield lambda stage, done, total: advance(stage, done, total, ""), print_finding if as_lines else None


def print_finding(finding: Finding[Any]) -> None:
    """Print a finding as a line of JSON."""
    _print_line({"code": finding.kind.name, "where": finding.where, "what": finding.what})


def tell(report: Report[Any], run: Run, *, as_json: bool, as_lines: bool) -> None:
    """Print the report, or its end if its findings were printed as they were found, and exit with its code."""
    if as_lines:
        _print_line({"summary": _summary(report, run)})
    else:
        document = run.document if report.restriction is None else run.document | _restricted(report)
        show(document, [*run.lines, *_restricted_lines(report), run.sentence], as_json=as_json)
    raise typer.Exit(FAILED if report.verdict is False else 0)


def _print_line(document: dict[str, Any]) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(document).decode() + "\n")
    sys.stdout.flush()


def _summary(report: Report[Any], run: Run) -> dict[str, Any]:
    return {
        "command": run.command,
        "began_at": rfc3339(run.began),
        "ended_at": rfc3339(run.ended),
        "holds": report.verdict,
        "counts": _by_code(report.counts),
        "read": run.read | {"states": report.states},
        "earliest": _time(report.earliest),
        "latest": _time(report.latest),
        "restriction": None,
        "outside": {},
        "sentence": run.sentence,
    } | ({} if report.restriction is None else _restricted(report))


def _restricted(report: Report[Any]) -> dict[str, Any]:
    restriction = report.restriction
    assert restriction is not None
    return {
        "restriction": {
            "organisation": restriction.organisation,
            "since": _time(restriction.since),
            "until": _time(restriction.until),
        },
        "outside": _by_code(report.outside),
    }


def _restricted_lines(report: Report[Any]) -> Iterator[str]:
    if report.restriction is not None:
        yield f"  restricted to {restricted_to(report.restriction)}"
        yield "  chains and topics were read whole; findings of others are counted, not named; more may be wrong"
        if report.restriction.organisation is not None and not report.states:
            yield f"  no access token is of {report.restriction.organisation}: is the organisation called so?"
        for code, count in _by_code(report.outside).items():
            yield f"  outside: {code} {count}"


def finding_lines(report: Report[Any]) -> Iterator[str]:
    """Yield a line for each named finding, and one for each kind that has more."""
    for finding in report.findings:
        yield f"{finding.kind}: {finding.where}: {finding.what}"
    for kind, count in report.unnamed():
        yield f"{kind}: {count} more"


def document_of(report: Report[Any], *, named_as: str) -> dict[str, Any]:
    """Return the members of a report, then ``counts`` by kind, then the list of findings named ``named_as``."""
    common = {each.name for each in fields(Report)}
    own = {
        each.name: getattr(report, each.name)
        for each in fields(report)
        if each.name not in common and each.metadata.get("document", True)
    }
    counts = {str(kind): count for kind, count in report.counts.items()}
    return own | {"counts": counts, named_as: report.findings}


# --- the sentence -----------------------------------------------------------------------------------------------------


def many(count: int, what: str) -> str:
    """Return a number of things in words: its digits in threes."""
    return counted(count, what, form=",").replace(",", " ")


def at_minute(moment: datetime) -> str:
    """Return a moment in UTC, to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def opening(did: str, report: Report[Any], at: datetime) -> str:
    """Return the beginning of the sentence about a report."""
    restricted = "" if report.restriction is None else f", restricted to {restricted_to(report.restriction)}"
    return f"{did} on {at_minute(at)}{restricted}: "


def period(report: Report[Any]) -> str:
    """Return the time of all that was read."""
    if report.earliest is None or report.latest is None:
        return ""
    return f" from {at_minute(report.earliest)} to {at_minute(report.latest)}"


def ending(report: Report[Any], what: str) -> str:
    """Return the end of the sentence about a report: its findings, called ``what``."""
    counts, outside = report.counts.total(), report.outside.total()
    found = f"{many(counts, what)} ({_listed(report.counts)})" if counts else f"no {what}"
    if report.restriction is None:
        return f"{found}."
    others = f", {many(outside, what)} outside it ({_listed(report.outside)})" if outside else ""
    return f"{found} within the restriction{others}; this does not say that everything holds."


def restricted_to(restriction: Restriction) -> str:
    """Return a restriction in words."""
    parts = (
        "" if restriction.organisation is None else f"the organisation {restriction.organisation}",
        "" if restriction.since is None else f"what happened since {rfc3339(restriction.since)}",
        "" if restriction.until is None else f"what happened before {rfc3339(restriction.until)}",
    )
    return ", ".join(part for part in parts if part)


def _by_code(counts: Counter[Any]) -> dict[str, int]:
    kinds: list[StrEnum] = sorted(counts, key=lambda kind: kind.name)
    return {kind.name: counts[kind] for kind in kinds}


def _listed(counts: Counter[Any]) -> str:
    return ", ".join(f"{code} {count}" for code, count in _by_code(counts).items())


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
