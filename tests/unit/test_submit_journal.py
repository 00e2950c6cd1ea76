"""The journal: intact whenever its writer dies, one writer at a time, and one rule for outcomes."""

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operations.submit.journal import Journal, JournalError, Outcome
from worker.operations.submit.report import quantiles, reported

FULL: Final = Path("/dev/full")
FACTS: Final = {
    "run": "r",
    "digest": "d",
    "size": "7",
    "lines": "9",
    "topic": "t",
    "reply_topic": "a",
    "cluster": "c",
    "dry_run": "false",
}


def outcome(line: int, code: str = "OK", *, replayed: bool = False) -> Outcome:
    return Outcome(line, code, replayed, True, 5, "" if code == "OK" else "why")


def begun(path: Path) -> Journal:
    journal = Journal(path)
    journal.begin(FACTS, {0: 3, 1: 4})
    journal.open_session(10.0)
    return journal


def test_it_knows_again_what_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with closing(begun(path)) as journal:
        journal.mark(5, [Outcome(2, "MALFORMED_REQUEST", False, False, None, "")])
        journal.answered([outcome(1), outcome(3, "INVALID_TOKEN")], {0: 9}, 12.0)
    with closing(Journal(path)) as journal:
        assert journal.facts.items() >= FACTS.items()
        assert (journal.sent_up_to, journal.positions()) == (5, {0: 9, 1: 4})
        assert list(journal.settled()) == [1, 2, 3]
        assert [refusal.line for refusal in journal.refusals()] == [2, 3]
        assert journal.open_session(20.0) == 2
        assert [(session.how, session.ended) for session in journal.sessions()] == [("killed", 12.0), ("running", 20.0)]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("statement", ["INSERT INTO outcome", "INSERT INTO position", "UPDATE session"])
def test_of_a_read_of_answers_all_is_written_or_nothing(tmp_path: Path, statement: str) -> None:
    """The process dies between any two of its statements, as SQLite sees it."""
    path = tmp_path / "j"
    journal = begun(path)

    def dies(action: int, table: str | None, *others: object) -> int:
        verb, *_, name = statement.split()
        wanted = sqlite3.SQLITE_INSERT if verb == "INSERT" else sqlite3.SQLITE_UPDATE
        return sqlite3.SQLITE_DENY if (action, table) == (wanted, name) else sqlite3.SQLITE_OK

    journal._db.set_authorizer(dies)
    with pytest.raises(JournalError):
        journal.answered([outcome(1)], {0: 9}, 12.0)
    journal.close()
    with closing(Journal(path)) as journal:
        assert (list(journal.settled()), journal.positions()) == ([], {0: 3, 1: 4})


def test_a_second_submit_of_the_same_journal_is_told_so(tmp_path: Path) -> None:
    with closing(begun(tmp_path / "j")), pytest.raises(JournalError, match="in use: another submit"):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    with pytest.raises(JournalError, match="no journal"):
        Journal(path)
    assert path.read_text() == "Dear reader, " * 100
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "j")


def test_a_journal_that_cannot_be_used_is_closed_again(tmp_path: Path) -> None:
    letter, older, here = tmp_path / "letter.txt", tmp_path / "older", psutil.Process()
    letter.write_text("Dear reader, " * 100)
    with closing(begun(older)) as journal:
        journal.note({"version": "0"})
    told = []  # as long as its traceback lives, nothing else closes a file
    for path in (letter, older):
        with pytest.raises(JournalError) as caught:
            Journal(path)
        told.append(caught)
    assert [opened.path for opened in here.open_files() if opened.path.startswith(str(tmp_path))] == []


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_journal_on_a_full_disk_is_closed_again() -> None:
    with pytest.raises(JournalError, match="disk") as caught:
        Journal(FULL)
    # As long as its traceback lives, nothing else closes it; the descriptor that lists the others is gone by now.
    held = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert (FULL in held, caught.tb is None) == (False, False)


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["OK", "INVALID_TOKEN", "ACCESS_DENIED"])), max_size=30))
def test_ok_is_final_and_among_refusals_the_last_counts(answers: list[tuple[int, str]]) -> None:
    wanted: dict[int, str] = {}
    for line, code in answers:
        if wanted.get(line) != "OK":
            wanted[line] = code
    with TemporaryDirectory() as directory, closing(Journal(Path(directory, "j"))) as journal:
        journal.begin(FACTS, {})
        journal.open_session(1.0)
        for line, code in answers:
            journal.answered([outcome(line, code)], {}, 2.0)
        report = reported(Path("f"), Path("r"), journal)
        assert {each.line: each.code for each in journal.refusals()} == {n: c for n, c in wanted.items() if c != "OK"}
    assert (report.commands, report.ok) == (len(wanted), list(wanted.values()).count("OK"))
    assert report.statuses == {code: list(wanted.values()).count(code) for code in sorted(set(wanted.values()))}


@given(st.lists(st.integers(0, 50), min_size=1))
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(values: list[int]) -> None:
    counted = [(value, values.count(value)) for value in sorted(set(values))]
    found = quantiles(counted)
    assert found["max"] == max(values)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert sum(value <= found[name] for value in values) >= share * len(values)
        assert sum(value < found[name] for value in values) < share * len(values)


def test_of_nothing_there_are_no_quantiles() -> None:
    assert quantiles([]) == {}
