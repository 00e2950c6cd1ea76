"""The outcome of a submission: a report to sign, and the refusals, to be mended and submitted again.

See CONTRACT, Command line.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from effective_contract.codes import StatusCode
from worker.errors import OperatorError
from worker.journey.model import Refused
from worker.operations.submit.journal import Journal, Outcome
from worker.operations.submit.lines import Csv, Ndjson, Record
from worker.values import counted, utc_text

QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
_ANY_LOGIN: Final = "-"


class Unwritten(OperatorError):
    """A file of the report cannot be written."""


@dataclass(frozen=True, slots=True)
class Report:
    """Totals of a submission over all its sessions. Times in seconds, latencies in milliseconds."""

    file: str
    sha256: str
    bytes: int
    lines: int
    """Physical lines."""
    commands: int
    dry_run: bool
    statuses: dict[str, int]
    """By status: the number of sent commands that were answered with it."""
    not_sent: dict[str, int]
    """By the code that the worker would have given: the number refused before they were sent."""
    ok: int
    refused: int
    replayed: int
    """The number of ``ok`` that the worker had applied before, and said so."""
    rate: float
    """Commands per second of the sessions."""
    latency_ms: dict[str, int]
    """From a session's first sending of a command to its answer."""
    seconds: float
    """The total duration of the sessions."""
    sessions: int
    first: str
    last: str
    topic: str
    reply_topic: str
    cluster: str
    run: str
    journal: str
    refusals: str | None
    """The file of the refusals, if there are any."""

    def document(self) -> dict[str, object]:
        return asdict(self)

    def summary(self) -> Iterator[str]:
        """Yield the same as text for people."""
        dry = ", a dry run: nothing was changed" if self.dry_run else ""
        commands = counted(self.commands, "command", form=",")
        yield f"{self.file}: {commands}, {self.ok:,} OK, {self.refused:,} refused{dry}"
        for code, count in self.statuses.items():
            again = f" ({self.replayed:,} had been applied before)" if code == StatusCode.OK and self.replayed else ""
            yield f"  {code}: {count:,}{again}"
        for code, count in self.not_sent.items():
            yield f"  {code}: {count:,}, not sent"
        if self.latency_ms:
            times = ", ".join(f"{name} {milliseconds / 1000:.3f} s" for name, milliseconds in self.latency_ms.items())
            yield f"  {self.rate:,.0f}/s over {self.seconds:,.1f} s in {counted(self.sessions, 'session')}; {times}"
        yield f"  {self.first} to {self.last}"
        size, lines = counted(self.bytes, "byte", form=","), counted(self.lines, "line", form=",")
        yield f"  sha256 {self.sha256}, {size}, {lines}; run {self.run}"
        yield f"  sent to {self.topic}, answered in {self.reply_topic}, which is kept; journal {self.journal}"
        if self.refusals:
            yield f"  refusals: {self.refusals}: mend them and submit that file"


def reported(path: Path, refusals: Path, journal: Journal) -> Report:
    """Build the report from the journal."""
    counts, facts, sessions = journal.counts(), journal.facts, journal.sessions()
    statuses: dict[str, int] = {}
    not_sent: dict[str, int] = {}
    replayed = 0
    for code, again, sent, count in counts:
        chosen = statuses if sent else not_sent
        chosen[code] = chosen.get(code, 0) + count
        replayed += count if again and code == StatusCode.OK else 0
    commands, ok = sum(statuses.values()) + sum(not_sent.values()), statuses.get(StatusCode.OK, 0)
    seconds = sum(session.ended - session.began for session in sessions)
    return Report(
        file=str(path),
        sha256=facts["digest"],
        bytes=int(facts["size"]),
        lines=int(facts["lines"]),
        commands=commands,
        dry_run=facts["dry_run"] == "true",
        statuses=statuses,
        not_sent=not_sent,
        ok=ok,
        refused=commands - ok,
        replayed=replayed,
        rate=round(sum(statuses.values()) / seconds, 1) if seconds else 0.0,
        latency_ms=quantiles(journal.latencies()),
        seconds=round(seconds, 3),
        sessions=len(sessions),
        first=utc_text(sessions[0].began, "milliseconds"),
        last=utc_text(sessions[-1].ended, "milliseconds"),
        topic=facts["topic"],
        reply_topic=facts["reply_topic"],
        cluster=facts["cluster"],
        run=facts["run"],
        journal=str(journal.path),
        refusals=str(refusals) if commands > ok else None,
    )


def quantiles(counted: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return the nearest-rank quantiles of counted values that are in order; none if there are no values."""
    whole = sum(count for _, count in counted)
    found: dict[str, int] = {}
    for name, share in QUANTILES if whole else ():
        rank, passed = max(1, -int(-share * whole // 1)), 0
        for value, count in counted:
            passed += count
            if passed >= rank:
                found[name] = value
                break
    return found


def write_report(path: Path, report: Report) -> None:
    """Write the report as JSON, whole or not at all. Raises ``Unwritten``."""
    with _replaced(path, 0o644) as file:
        file.write(orjson.dumps(report.document(), option=orjson.OPT_INDENT_2) + b"\n")


def write_refusals(path: Path, source: Ndjson | Csv, refusals: Iterator[Outcome], *, own_logins: bool) -> None:
    """Write the refused lines in the form of the file, readable only for its owner; no file if nothing was refused.

    Reads the file again, up to the last refusal. Raises ``Unwritten``.
    """
    first = next(refusals, None)
    if first is None:
        with _mapped(path):
            path.unlink(missing_ok=True)
        return
    with _replaced(path, 0o600) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        rows = csv.writer(text)
        if isinstance(source, Csv):
            rows.writerow(source.heading())
        for record, refused in _refused(source, first, refusals, own_logins=own_logins):
            if isinstance(source, Csv):
                rows.writerow(source.refusal(record, refused))
            else:
                file.write(source.refusal(record, refused))
        text.detach()


def _refused(
    source: Ndjson | Csv, first: Outcome, others: Iterator[Outcome], *, own_logins: bool
) -> Iterator[tuple[Record, Refused]]:
    wanted: Outcome | None = first
    for record in source.records():
        if wanted is None:
            return
        if record.line == wanted.line:
            yield record, _why(source, record, wanted, own_logins=own_logins)
            wanted = next(others, None)


def _why(source: Ndjson | Csv, record: Record, outcome: Outcome, *, own_logins: bool) -> Refused:
    """Return the refusal of a line. The journal has no message for a line not sent, since it would quote the line."""
    if not outcome.sent and not outcome.message:
        judged = record.fault or source.command(record.raw, None if own_logins else _ANY_LOGIN)
        if isinstance(judged, Refused):
            return judged
    return Refused(StatusCode(outcome.code), outcome.message)


@contextmanager
def _replaced(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a new file that replaces the old one once it is written completely."""
    draft = path.with_name(f"{path.name}.part")
    with _mapped(path):
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritten(f"{path} cannot be written: {error.strerror}") from error
