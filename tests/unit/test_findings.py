"""Reports of findings: their codes, what a restriction leaves out, and the sentence for an auditor's report."""

import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import output_of
from worker.cli import audit as audit_command
from worker.cli import reconcile as reconcile_command
from worker.cli.findings import Run, document_of, print_finding, refuse_both, restriction_of, tell
from worker.cli.moments import moment_of
from worker.cli.progress import LINE_SECONDS, Lines
from worker.operations.audit.anchors import Anchor
from worker.operations.audit.report import Audit
from worker.operations.audit.report import Kind as Finding
from worker.operations.findings import Origin, Progress, Report, Restriction, moment_at
from worker.operations.reconcile.messages import organisation_in
from worker.operations.reconcile.report import Kind as Difference
from worker.operations.reconcile.report import Reconciliation
from worker.values import percent_encoded

ROOT: Final = Path(__file__).parents[2]
CONTRACT: Final = (ROOT / "schemas" / "CONTRACT.md").read_text(encoding="utf-8")
NOW: Final = datetime(2026, 12, 1, 9, 30, 59, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
OF_ONE: Final = Restriction("ORG1", NOW - HOUR, NOW)
ANCHOR: Final = Anchor("2026-11-30T08:00:00.000000Z", (), "", 1)


def codes_in_contract(command: str) -> dict[str, str]:
    """Return the codes of a command that the contract lists, with their meanings."""
    [listed] = re.findall(rf"^\*\*Codes of `{command}`\*\*\n((?:- .*\n)+)", CONTRACT, re.MULTILINE)
    return dict(re.findall(r"^- `(\w+)`: (.+)$", listed, re.MULTILINE))


@pytest.mark.parametrize(("command", "kinds"), [("audit verify", Finding), ("reconcile", Difference)])
def test_the_contract_lists_every_code_with_its_meaning(command: str, kinds: type[StrEnum]) -> None:
    assert codes_in_contract(command) == {kind.name: str(kind) for kind in kinds}


# --- what a restriction leaves out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        Origin("ORG1", NOW - HOUR),
        Origin("ORG1", NOW - timedelta(microseconds=1)),
        Origin("ORG1"),
        Origin(moment=NOW - HOUR),
        Origin(),
    ],
)
def test_what_may_be_within_is_named(origin: Origin) -> None:
    report = Audit(restriction=OF_ONE)
    report.found(Finding.CAUSE, "there", "this", Origin("ORG2", NOW), origin)

    assert (report.counts, report.outside) == ({Finding.CAUSE: 1}, {})


@pytest.mark.parametrize(
    "origin",
    [Origin("ORG2", NOW - HOUR), Origin("ORG1", NOW - 2 * HOUR), Origin("ORG1", NOW), Origin("ORG2"), Origin("")],
)
def test_what_is_of_others_or_of_another_time_is_counted_and_not_named(origin: Origin) -> None:
    report = Audit(restriction=OF_ONE)
    report.found(Finding.CAUSE, "there", "this", origin)

    assert (report.counts, report.findings, report.outside) == ({}, [], {Finding.CAUSE: 1})
    assert (report.verdict, report.holds) == (False, False)


def test_what_is_everybodys_is_named_under_every_restriction() -> None:
    report = Audit(restriction=OF_ONE)
    report.found(Finding.HEAD, "there", "this")

    assert report.counts == {Finding.HEAD: 1}


@pytest.mark.parametrize("restriction", [Restriction("ORG1"), Restriction(since=NOW), Restriction(until=NOW), OF_ONE])
def test_a_restricted_run_never_says_that_everything_holds(restriction: Restriction) -> None:
    audit, compared = Audit(restriction=restriction), Reconciliation(restriction=restriction)

    assert (audit.verdict, audit.holds, compared.verdict, compared.clean) == (None, False, None, False)
    assert Audit().holds
    assert Reconciliation().clean
    for text in (audit_command.sentence(audit, None, NOW), reconcile_command.sentence(compared, NOW)):
        assert text.endswith("within the restriction; this does not say that everything holds.")
        assert "agree" not in text
        assert "unbroken" not in text


def test_every_finding_is_told_also_those_that_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Audit, "most_named", 2)
    told: list[Any] = []
    report = Audit(on_found=told.append)
    for number in range(5):
        report.found(Finding.STATE, f"T{number}", "is not")

    assert [finding.where for finding in told] == ["T0", "T1", "T2", "T3", "T4"]
    assert told[:2] == report.findings


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_organisation_in_a_command_id_is_read_as_it_was_written(organisation: str, identity: str) -> None:
    for kind in ("ce", "req"):
        assert organisation_in(f"{kind}:{percent_encoded(organisation)}:x:{percent_encoded(identity)}") == organisation
    assert organisation_in(f"rec:{percent_encoded(organisation)}/t/0/1@2") is None


@pytest.mark.parametrize("seconds", [float("inf"), float("-inf"), float("nan"), 1e18, -1e18])
def test_a_moment_beyond_every_calendar_is_none(seconds: float) -> None:
    assert moment_at(seconds) is None


def test_what_was_read_lies_between_its_earliest_and_its_latest_time() -> None:
    report = Audit()
    for moment in (NOW, None, NOW - HOUR, NOW + HOUR):
        report.covers(moment)

    assert (report.earliest, report.latest) == (NOW - HOUR, NOW + HOUR)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_restrict_and_none_does_not() -> None:
    assert restriction_of(None, None, None) is None
    assert restriction_of("ORG1", None, "2026-12-01T09:30:59Z") == Restriction("ORG1", None, NOW)
    midnight = NOW.replace(hour=0, minute=0, second=0)
    assert restriction_of(None, "2026-12-01", None) == Restriction(None, midnight, None)


def test_a_time_without_a_moment_in_it_is_wrong_usage() -> None:
    with pytest.raises(typer.BadParameter, match="not after --since, 2026-12-01T09:30:59"):
        restriction_of(None, "2026-12-01T09:30:59Z", "2026-12-01")


@pytest.mark.parametrize(
    ("signature", "has_key", "said"),
    [(None, False, "not signed"), ("f00d", True, "signature verified"), ("f00d", False, "signature not checked")],
)
def test_the_sentence_says_whether_a_signature_was_verified(signature: str | None, has_key: bool, said: str) -> None:
    signed = Anchor(ANCHOR.taken_at, (), "", 1, signature)
    assert f"UTC ({said}) holds;" in audit_command.sentence(audited(), signed, NOW, has_key=has_key)


@pytest.mark.parametrize("text", ["", "soon", "2026-12-01T09:30:59", "20261201", "2026-13-01"])
def test_a_time_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment_of(text, "--since")


def test_one_form_of_a_report_is_printed() -> None:
    with pytest.raises(typer.BadParameter):
        refuse_both(as_json=True, as_lines=True)


# --- the report -------------------------------------------------------------------------------------------------------


def audited(**members: Any) -> Audit:
    numbers = {"lanes": 12, "transitions": 34567, "events": 34567, "states": 40000, "published_until": NOW - HOUR}
    return Audit(earliest=NOW - 48 * HOUR, latest=NOW - HOUR, **{**numbers, **members})


def test_one_sentence_says_that_everything_holds() -> None:
    assert audit_command.sentence(audited(), ANCHOR, NOW) == (
        "Verified on 2026-12-01 09:30 UTC: 12 lanes with 34 567 transitions from 2026-11-29 09:30 UTC to"
        " 2026-12-01 08:30 UTC are unbroken from the first to the last, agree with 40 000 states and with"
        " 34 567 events of the transitions topic up to 2026-12-01 08:30 UTC; the anchor of 2026-11-30 08:00 UTC (not"
        " signed) holds; no finding."
    )


def test_one_sentence_says_what_was_left_out() -> None:
    report = audited(lanes=1, transitions=1, events=None, states=1, unpublished=2)

    assert audit_command.sentence(report, None, NOW) == (
        "Verified on 2026-12-01 09:30 UTC: 1 lane with 1 transition from 2026-11-29 09:30 UTC to 2026-12-01 08:30 UTC"
        " is unbroken from the first to the last and agrees with 1 state; 2 transitions not published yet; the"
        " transitions topic was not read; no anchor was compared; no finding."
    )


def test_one_sentence_says_what_was_found() -> None:
    report = audited(counts=Counter({Finding.STATE: 1, Finding.ANCHOR: 2}))

    assert audit_command.sentence(report, ANCHOR, NOW).endswith(
        "12 lanes with 34 567 transitions from 2026-11-29 09:30 UTC to 2026-12-01 08:30 UTC were recomputed from the"
        " first to the last, and compared with 40 000 states and with 34 567 events of the transitions topic up to"
        " 2026-12-01 08:30 UTC; the anchor of 2026-11-30 08:00 UTC (not signed) does not hold; 3 findings"
        " (ANCHOR 2, STATE 1)."
    )


def test_one_sentence_says_what_a_restricted_run_has_found_within_and_outside() -> None:
    report = audited(restriction=OF_ONE, counts=Counter({Finding.STATE: 1}), outside=Counter({Finding.CHANGED: 2}))
    text = audit_command.sentence(report, None, NOW)

    assert text.startswith(
        "Verified on 2026-12-01 09:30 UTC, restricted to the organisation ORG1, what happened since"
        " 2026-12-01T08:30:59.000000Z, what happened before 2026-12-01T09:30:59.000000Z: 12 lanes"
    )
    assert "compared with 40 000 states of ORG1 and with" in text
    assert text.endswith(
        "; 1 finding (STATE 1) within the restriction, 2 findings outside it (CHANGED 2);"
        " this does not say that everything holds."
    )


def test_an_anchor_whose_time_is_none_is_named_as_it_says() -> None:
    odd = Anchor("yester\nday", (), "", 1)

    assert "the anchor of yester\\nday (not signed) holds" in audit_command.sentence(audited(), odd, NOW)


def test_one_sentence_says_that_everything_agrees() -> None:
    report = Reconciliation(commands=600, results=600, transitions=200, dead_letters=1, states=210)

    assert reconcile_command.sentence(report, NOW) == (
        "Reconciled on 2026-12-01 09:30 UTC: 600 commands below the committed offsets agree with their records,"
        " 600 results, 1 dead letter, 200 transitions with as many events and 210 states; no difference."
    )
    report.found(Difference.LOST, "there", "some")
    assert reconcile_command.sentence(report, NOW).endswith("and 210 states; 1 difference (LOST 1).")


def run_of(document: dict[str, Any]) -> Run:
    return Run("audit verify", NOW - HOUR, NOW, {"lanes": 12}, document, ["a line"], "A sentence.")


Report_ = Callable[[], Report[Any]]


@pytest.mark.parametrize(
    ("report", "holds", "code"),
    [
        (Audit(), True, 0),
        (Audit(restriction=OF_ONE), None, 0),
        (Audit(counts=Counter({Finding.STATE: 1})), False, 1),
        (Audit(restriction=OF_ONE, outside=Counter({Finding.STATE: 1})), False, 1),
    ],
)
def test_the_last_line_has_the_summary_and_the_exit_code_agrees(
    report: Audit, holds: bool | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        tell(report, run_of({}), as_json=False, as_lines=True)

    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "summary": {
            "command": "audit verify",
            "began_at": "2026-12-01T08:30:59.000000Z",
            "ended_at": "2026-12-01T09:30:59.000000Z",
            "holds": holds,
            "counts": {kind.name: count for kind, count in report.counts.items()},
            "read": {"lanes": 12, "states": 0},
            "earliest": None,
            "latest": None,
            "restriction": report.restriction
            and {
                "organisation": "ORG1",
                "since": "2026-12-01T08:30:59.000000Z",
                "until": "2026-12-01T09:30:59.000000Z",
            },
            "outside": {kind.name: count for kind, count in report.outside.items()},
            "sentence": "A sentence.",
        }
    }
    assert ended.value.exit_code == code


def test_a_finding_is_a_line_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    Audit(on_found=print_finding).found(Finding.NO_LANE, "lane 7", "gone\nfor good")

    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"code": "NO_LANE", "where": "lane 7", "what": "gone\nfor good"}


def test_the_one_document_is_as_it_was_unless_the_run_is_restricted(capsys: pytest.CaptureFixture[str]) -> None:
    audit = {"lanes", "transitions", "events", "anchored", "unpublished", "counts", "findings"}
    assert document_of(audited(), named_as="findings").keys() == audit
    numbers = {"commands", "results", "transitions", "dead_letters", "dry_runs", "redirected", "retired"}
    others = {"not_comparable", "repeated", "others", "compared", "counts", "differences"}
    compared = Reconciliation(compared={TopicPartition("t", 0): (0, 1)})
    assert document_of(compared, named_as="differences").keys() == numbers | others

    for report in (Audit(), Audit(restriction=OF_ONE)):
        with pytest.raises(typer.Exit):
            tell(report, run_of({"holds": report.verdict}), as_json=True, as_lines=False)
        more = set() if report.restriction is None else {"restriction", "outside"}
        assert json.loads(capsys.readouterr().out).keys() == {"holds"} | more


def test_the_report_for_people_ends_with_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        tell(Audit(), run_of({}), as_json=False, as_lines=False)

    assert capsys.readouterr().out.splitlines() == ["a line", "A sentence."]


def test_an_organisation_that_has_nothing_may_be_called_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        tell(Audit(restriction=Restriction("ORG9")), run_of({}), as_json=False, as_lines=False)

    assert "  no access token is of ORG9: is the organisation called so?" in capsys.readouterr().out.splitlines()


def test_the_report_of_a_restricted_run_says_what_it_cannot_say(capsys: pytest.CaptureFixture[str]) -> None:
    report = Audit(restriction=Restriction("ORG1"), states=1, outside=Counter({Finding.LATE: 3}))
    with pytest.raises(typer.Exit):
        tell(report, run_of({}), as_json=False, as_lines=False)

    assert capsys.readouterr().out.splitlines() == [
        "a line",
        "  restricted to the organisation ORG1",
        "  chains and topics were read whole; findings of others are counted, not named; more may be wrong",
        "  outside: LATE 3",
        "A sentence.",
    ]


# --- progress ---------------------------------------------------------------------------------------------------------


def test_a_stage_is_told_when_it_begins_and_every_thousand() -> None:
    told: list[tuple[str, int, int]] = []
    progress = Progress(lambda *now: told.append(now))
    progress.begin("chains", 2500)
    for _ in range(2500):
        progress.advance()
    progress.begin("states")
    progress.advance(999)
    progress.advance(2)

    chains = [("chains", done, 2500) for done in (0, 1000, 2000)]
    assert told == [*chains, ("states", 0, 0), ("states", 1001, 0)]


def test_where_there_is_no_bar_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    time = [100.0]
    lines = Lines(lambda: time[0])

    def after(seconds: float, *progress: Any) -> str:
        time[0] += seconds
        lines.advance(*progress)
        return capsys.readouterr().err

    assert after(LINE_SECONDS - 1, "file", 10, 5000) == ""
    assert after(1, "file", 1000, 5000, "7 refused") == "file: 1,000 of 5,000, 100/s, 40 s to go; 7 refused\n"
    assert after(LINE_SECONDS - 1, "file", 4000, 5000) == ""
    # Another stage counts from its own beginning.
    assert after(1, "states", 0, 0) == ""
    assert after(LINE_SECONDS, "states", 20000, 0) == "states: 20,000, 2,000/s\n"
    assert after(LINE_SECONDS, "states", 20000, 30000) == "states: 20,000 of 30,000, 0/s\n"


FOLLOWED: Final = """
from worker.cli.findings import followed
from worker.operations.audit.report import Kind
from worker.operations.findings import Finding

with followed(as_lines=True) as (on_progress, on_found):
    on_progress("chains", 1000, 3000)
    on_found(Finding(Kind.STATE, "there", "this"))
"""


def on_a_terminal(program: str, columns: int) -> tuple[str, bytes]:
    """Run a program whose stderr is a terminal. Returns what it printed, and what the terminal got."""
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
        command, pipe = [sys.executable, "-c", program], subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=theirs, env=environment, text=True) as process:
            printed, _ = output_of(process, "the program ended")
        return printed, os.read(ours, 65536)
    finally:
        os.close(theirs)
        os.close(ours)


LINE: Final = "go on with: effective-worker submit " + "--option 'a value' " * 10 + "[red]"
SAID: Final = f"""
from worker.cli.progress import screen

with screen() as (advance, say):
    advance("file", 1, 3, "")
    say({LINE!r})
"""


def test_a_line_beside_a_bar_stays_whole_and_can_be_pasted() -> None:
    _, shown = on_a_terminal(SAID, 40)
    assert LINE in shown.decode()


def test_findings_go_to_stdout_while_a_bar_is_on_the_terminal() -> None:
    printed, shown = on_a_terminal(FOLLOWED, 120)
    assert json.loads(printed) == {"code": "STATE", "where": "there", "what": "this"}
    assert b"chains" in shown
    assert b"1,000/3,000" in shown
