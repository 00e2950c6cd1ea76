"""The findings of a report as lines and as members of its JSON document, alike for every command that has findings."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from worker.operations.findings import Report


def finding_lines(report: Report[Any]) -> Iterator[str]:
    """A line for each finding that is named, and one for each kind of which there are more."""
    for finding in report.findings:
        yield f"{finding.kind}: {finding.where}: {finding.what}"
    for kind, count in report.unnamed():
        yield f"{kind}: {count} more"


def document_of(report: Report[Any], *, named_as: str) -> dict[str, Any]:
    """The members of a report, then ``counts`` by kind, then the list of findings under the name it has there."""
    common = {each.name for each in fields(Report)}
    own = {each.name: getattr(report, each.name) for each in fields(report) if each.name not in common}
    counts = {str(kind): count for kind, count in report.counts.items()}
    return own | {"counts": counts, named_as: report.findings}
