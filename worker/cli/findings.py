"""The findings of a report as lines and as members of its JSON document, for every command with findings."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from worker.operations.findings import Report


def finding_lines(report: Report[Any]) -> Iterator[str]:
    """Yield a line for each named finding, and one for each kind that has more."""
    for finding in report.findings:
        yield f"{finding.kind}: {finding.where}: {finding.what}"
    for kind, count in report.unnamed():
        yield f"{kind}: {count} more"


def document_of(report: Report[Any], *, named_as: str) -> dict[str, Any]:
    """Return the members of a report, then ``counts`` by kind, then the list of findings named ``named_as``."""
    common = {each.name for each in fields(Report)}
    own = {each.name: getattr(report, each.name) for each in fields(report) if each.name not in common}
    counts = {str(kind): count for kind, count in report.counts.items()}
    return own | {"counts": counts, named_as: report.findings}
