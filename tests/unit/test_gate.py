"""The gate (``tests/gate``): stages from cheap to expensive, three verdicts, and last lines that say what matters."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import psutil
import pytest

from tests.faults.mutants import MUTANTS
from tests.gate import levels, stages
from tests.gate.__main__ import parser, picked
from tests.gate.checkout import Checkout, Memory, checkout
from tests.gate.levels import Gate
from tests.gate.running import ran
from tests.gate.stages import ROOT, Stage, mutants, seed_of, some_mutants
from tests.gate.verdicts import Reading, Verdict
from tests.model import check
from tests.model.check import in_turn

COMMIT: Final = Checkout("a" * 40, clean=True)
COMMITS: Final = [f"{number:040x}" for number in range(300)]
PASSED: Final = "============ 3 passed, 1 skipped in 0.12s ============"
FAILED: Final = "============ 1 failed, 2 passed in 61.20s (0:01:01) ============"


def stage(name: str, code: int = 0, said: str = "", **more: Any) -> Stage:
    """Return a stage that prints something and exits with a code."""
    command = (sys.executable, "-c", f"import sys; print({said!r}); sys.exit({code})")
    return Stage(name, f"the promise of {name}", command, f"make {name}", **more)


def ci(tmp_path: Path, *all_: Stage) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = levels.ci(Gate(all_, tmp_path, out=out), "the head")
    return code, out.getvalue().splitlines()


def verify(
    tmp_path: Path,
    *all_: Stage,
    chosen: Sequence[Stage] | None = None,
    anew: bool = False,
    now: Callable[[], Checkout] = lambda: COMMIT,
) -> tuple[int, list[str]]:
    out, logs = io.StringIO(), tmp_path / "logs"
    logs.mkdir(exist_ok=True)
    gate = Gate(all_, logs, out=out)
    memory = Memory(tmp_path / "memory.json")
    code = levels.verify(gate, now, memory, chosen=all_ if chosen is None else chosen, anew=anew)
    return code, out.getvalue().splitlines()


def rows(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return stage and verdict of each row of the table."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [(row[0], row[2]) for row in cells[2:]]


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "code", "verdict"),
    [
        (Reading.TOOL, 0, "kept"),
        (Reading.TOOL, 1, "broken"),
        (Reading.TOOL, 2, "broken"),
        (Reading.TOOL, 5, "broken"),
        (Reading.TOOL, None, "broken"),
        (Reading.HARNESS, 0, "kept"),
        (Reading.HARNESS, 1, "broken"),
        (Reading.HARNESS, 2, "not checked"),
        (Reading.HARNESS, 64, "broken"),
        (Reading.HARNESS, -6, "not checked"),
        (Reading.HARNESS, None, "not checked"),
        (Reading.OPTIONAL, 0, "kept"),
        (Reading.OPTIONAL, 1, "not checked"),
    ],
)
def test_an_exit_code_is_read_as_one_of_three_verdicts(reading: Reading, code: int | None, verdict: str) -> None:
    assert reading.verdict(code) == verdict


def test_a_tool_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    absent = Stage("absent", "", ("no-such-tool",), "no-such-tool", reading=Reading.OPTIONAL)
    code, lines = ci(tmp_path, absent)
    assert code == 0
    assert "no-such-tool: No such file or directory" in lines[-1]


# --- the level of every change ----------------------------------------------------------------------------------------


def test_it_stops_at_the_first_broken_stage(tmp_path: Path) -> None:
    code, lines = ci(tmp_path, stage("lint"), stage("types", 3), stage("test"))
    assert code == 1
    assert rows(lines) == [("lint", "kept"), ("types", "BROKEN")]
    assert not (tmp_path / "test.log").exists()


def test_it_goes_on_after_what_could_not_be_checked_and_says_so_last(tmp_path: Path) -> None:
    unusable = stage("model", 2, "spin not found", reading=Reading.HARNESS)
    code, lines = ci(tmp_path, unusable, stage("test"))
    assert code == 0
    assert rows(lines) == [("model", "NOT CHECKED"), ("test", "kept")]
    assert lines[-1] == f"NOT CHECKED: model: spin not found ({tmp_path / 'model.log'})"


def test_of_a_harness_that_failed_its_own_words_are_told(tmp_path: Path) -> None:
    said = "  the harness failed: no broker\nverdict: NOT CHECKED"
    _, lines = ci(tmp_path, stage("faults", 2, said, reading=Reading.HARNESS))
    assert lines[-1].startswith("NOT CHECKED: faults: the harness failed: no broker")


def test_every_stage_has_a_line_with_its_seconds(tmp_path: Path) -> None:
    _, lines = ci(tmp_path, stage("lint"), stage("faults", note="seed 7"))
    assert lines[0] == "the head; stages: lint, faults"
    assert lines[1].split()[0] == "lint"
    assert lines[1].split()[2:] == ["s", "kept"]
    assert lines[2].endswith("kept  (seed 7)")


def test_the_last_thirty_lines_of_a_broken_run_hold_its_reason(tmp_path: Path) -> None:
    noise = "\n".join(f"noise {number}" for number in range(200))
    broken = stage("faults", 1, f"{noise}\nBROKEN PROMISE: no answer is lost", reading=Reading.HARNESS)
    _, lines = ci(tmp_path, *(stage(f"before-{number}") for number in range(6)), broken)
    last = lines[-29:]
    assert "promised: the promise of faults" in last
    assert "seen:     exit 1" in last
    assert "seen:     BROKEN PROMISE: no answer is lost" in last
    assert "again:    make faults" in last
    assert f"logs:     {tmp_path / 'faults.log'}" in last
    assert "noise 0\n" in (tmp_path / "faults.log").read_text()
    assert rows(last)[-1] == ("faults", "BROKEN")


def test_pytest_has_the_last_line_when_all_is_kept(tmp_path: Path) -> None:
    said = f"......\n===== short test summary info =====\nSKIPPED [1] no npm\n{PASSED}\nmake: bye"
    _, lines = ci(tmp_path, stage("lint"), stage("test", 0, said, pytest=True, aloud=True))
    table = lines.index("| stage | seconds | verdict |")
    assert lines[table + 5 :] == ["===== short test summary info =====", "SKIPPED [1] no npm", PASSED]


def test_a_long_summary_keeps_the_table_near_the_end_and_its_own_last_line(tmp_path: Path) -> None:
    skipped = "\n".join(f"SKIPPED [1] {number}" for number in range(300))
    said = f"===== short test summary info =====\n{skipped}\n{PASSED}"
    _, lines = ci(tmp_path, stage("test", 0, said, pytest=True, aloud=True))
    assert lines[-1] == PASSED
    assert ("test", "kept") in rows(lines[-30:])
    assert any("lines more" in line for line in lines[-30:])


def test_pytest_has_the_last_line_when_a_test_fails_and_the_reason_stands_before_it(tmp_path: Path) -> None:
    said = (
        f"E   assert 1 == 2\n==== short test summary info ====\nFAILED tests/t.py::test_x - assert\n{FAILED}\nmake: ***"
    )
    test = stage("test", 2, said, pytest=True, aloud=True, env={"REQUIRE_REAL_KAFKA": "1"})
    code, lines = ci(tmp_path, stage("lint"), test)
    assert code == 1
    assert lines[-1] == FAILED
    last = lines[-29:]
    assert "seen:     FAILED tests/t.py::test_x - assert" in last
    assert "seen:     E   assert 1 == 2" in last
    assert "again:    REQUIRE_REAL_KAFKA=1 make test" in last
    assert last.index("| stage | seconds | verdict |") < last.index("BROKEN: test")


def test_tests_that_were_cut_off_do_not_sound_as_if_they_had_passed(tmp_path: Path) -> None:
    code, lines = ci(tmp_path, stage("test", 2, f"KeyboardInterrupt\n{PASSED}", pytest=True, aloud=True))
    assert code == 1
    assert lines[-1] == f"logs:     {tmp_path / 'test.log'}"


def test_many_failures_leave_room_for_the_table(tmp_path: Path) -> None:
    asserted = "\n".join(f"E   assert {number}" for number in range(50))
    failed = "\n".join(f"FAILED t.py::test_{number}" for number in range(50))
    said = f"{asserted}\n==== short test summary info ====\n{failed}\n{FAILED}"
    before = [stage(f"s{number}", 2, reading=Reading.HARNESS) for number in range(6)]
    _, lines = ci(tmp_path, *before, stage("test", 1, said, pytest=True, aloud=True))
    last = lines[-30:]
    assert len(rows(last)) == 7
    assert [line for line in last if "FAILED t.py::test_0" in line]
    assert [line for line in last if "E   assert" in line]
    assert last[-1] == FAILED


def test_without_a_test_stage_there_is_no_line_of_pytest(tmp_path: Path) -> None:
    _, lines = ci(tmp_path, stage("mutants", 0, PASSED, pytest=True))
    assert PASSED not in lines


def test_what_a_kept_stage_gives_is_told_to_the_tests_after_it(tmp_path: Path) -> None:
    shows = (sys.executable, "-c", "import os; print(os.environ.get('GIVEN')); raise SystemExit(1)")
    test = Stage("test", "", shows, "make test", pytest=True)
    _, lines = ci(tmp_path, stage("outside", gives={"GIVEN": "1"}), test)
    assert "seen:     1" in lines
    assert "again:    GIVEN=1 make test" in lines


def test_what_is_not_kept_gives_nothing(tmp_path: Path) -> None:
    shows = (sys.executable, "-c", "import os; raise SystemExit('GIVEN' in os.environ)")
    outside = stage("outside", 1, reading=Reading.OPTIONAL, gives={"GIVEN": "1"})
    code, _ = ci(tmp_path, outside, Stage("test", "", shows, "make test", pytest=True))
    assert code == 0


def test_logs_are_removed_when_everything_is_kept(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    ci(logs, stage("lint"))
    assert not logs.exists()


# --- one stage --------------------------------------------------------------------------------------------------------


def test_output_is_passed_on_while_the_stage_runs(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    waits = (
        "import pathlib, time\nprint('first', flush=True)\n"
        f"while not pathlib.Path({str(heard)!r}).exists(): time.sleep(.01)"
    )

    class Echo(io.StringIO):
        def write(self, text: str) -> int:
            if "first" in text:
                heard.touch()
            return super().write(text)

    result = ran(Stage("s", "", (sys.executable, "-c", waits), ""), tmp_path, {}, Echo(), time.monotonic() + 60)
    assert result.verdict is Verdict.KEPT


def test_a_stage_beyond_its_time_is_asked_to_end_and_says_what_it_was_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = tmp_path / "waiting"
    waits = (
        "import pathlib, time\n"
        f"try:\n print('it waits', flush=True); pathlib.Path({str(waiting)!r}).touch(); time.sleep(600)\n"
        "except KeyboardInterrupt:\n print('put away')"
    )
    # The time is up as soon as it waits.
    clock = SimpleNamespace(monotonic=lambda: float(waiting.exists()))
    monkeypatch.setattr("tests.gate.running.time", clock)
    result = ran(Stage("test", "", (sys.executable, "-c", waits), ""), tmp_path, {}, None, until=1.0)
    assert result.verdict is Verdict.BROKEN
    assert result.seen == ["its time was up, and it was ended", "it waits", "put away"]


def test_what_was_asked_of_the_gate_by_way_of_make_does_not_reach_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makefile = tmp_path / "Makefile"
    makefile.write_text("ARGS ?= none\nshow:\n\t@echo $(ARGS) $(VENV)\n")
    monkeypatch.setenv("ARGS", "--from faults-2")
    monkeypatch.setenv("VENV", "elsewhere")
    monkeypatch.setenv("MAKEFLAGS", " -- ARGS=--from\\ faults-2")
    ran(Stage("s", "", ("make", "--file", str(makefile), "show"), ""), tmp_path, {}, None)
    assert (tmp_path / "s.log").read_text() == "none elsewhere\n"


def test_a_server_left_behind_keeps_nobody_waiting(tmp_path: Path) -> None:
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid)"
    began = time.monotonic()
    ran(Stage("s", "", (sys.executable, "-c", leaves), ""), tmp_path, {}, None)
    subprocess.run(["kill", (tmp_path / "s.log").read_text().strip()], check=True)
    assert time.monotonic() - began < 30


def test_the_signal_that_ends_a_gate_ends_its_stage_and_leaves_a_table(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    writing = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    program = (
        "import pathlib, sys\nfrom tests.gate import __main__ as gate\nfrom tests.gate.stages import Stage\n"
        f"waits = Stage('slow', '', (sys.executable, '-c', {writing + '; time.sleep(600)'!r}), '')\n"
        "quick = Stage('quick', '', (sys.executable, '-c', ''), '')\n"
        "gate.stages.ci = lambda _: [quick, waits]\n"
        f"gate.logs = lambda: pathlib.Path({str(tmp_path)!r})\n"
        "sys.argv = ['gate', 'ci']\nsys.exit(gate.main())"
    )
    gate = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not pid.exists() or not pid.read_text():
        assert gate.poll() is None
        time.sleep(0.02)
    gate.send_signal(signal.SIGTERM)
    lines = gate.communicate(timeout=60)[0].splitlines()
    assert gate.returncode == 130
    assert rows(lines) == [("quick", "kept")]
    assert lines[-1] == f"ended from outside during slow; logs: {tmp_path / 'slow.log'}"
    assert not psutil.pid_exists(int(pid.read_text()))


# --- the level of a release -------------------------------------------------------------------------------------------


def test_verify_goes_on_after_what_is_broken(tmp_path: Path) -> None:
    code, lines = verify(tmp_path, stage("lint", 1, "E501"), stage("test"), anew=True)
    assert code == 1
    assert rows(lines) == [("lint", "BROKEN"), ("test", "kept")]
    assert "seen:     E501" in lines[-29:]
    assert "again:    make lint" in lines[-29:]


def test_verify_exits_2_if_nothing_is_broken_and_something_was_not_checked(tmp_path: Path) -> None:
    code, lines = verify(tmp_path, stage("lint"), stage("model", 2, reading=Reading.HARNESS), anew=True)
    assert code == 2
    assert lines[-1].startswith("NOT CHECKED: model")


def test_verify_exits_0_if_all_is_kept(tmp_path: Path) -> None:
    code, lines = verify(tmp_path, stage("lint"), stage("test"), anew=True)
    assert code == 0
    assert f"make verify, commit {'a' * 12}:" in lines


def test_verify_resumes_at_a_stage_with_what_was_shown_before(tmp_path: Path) -> None:
    verify(tmp_path, stage("lint"), stage("model", 1, "P1 breaks"), stage("bench", 1), anew=True)
    all_ = [stage("lint", 1), stage("model"), stage("bench")]
    code, lines = verify(tmp_path, *all_, chosen=all_[2:])
    assert code == 1
    assert rows(lines) == [("lint", "kept (from before)"), ("model", "BROKEN (from before)"), ("bench", "kept")]
    assert "seen:     P1 breaks" in lines


def test_verify_of_what_is_left_completes_the_table(tmp_path: Path) -> None:
    verify(tmp_path, stage("lint"), stage("faults", 2, reading=Reading.HARNESS), stage("bench"), anew=True)
    all_ = [stage("lint", 1), stage("faults"), stage("bench", 1)]
    code, lines = verify(tmp_path, *all_, chosen=all_[1:2])
    assert code == 0
    assert [verdict for _, verdict in rows(lines)] == ["kept (from before)", "kept", "kept (from before)"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (COMMIT, Checkout("b" * 40, clean=True)),
        (COMMIT, Checkout(COMMIT.commit, clean=False)),
        (Checkout(COMMIT.commit, clean=False), COMMIT),
        (Checkout("", clean=False), Checkout("", clean=False)),
    ],
)
def test_results_of_other_files_are_none(tmp_path: Path, first: Checkout, second: Checkout) -> None:
    verify(tmp_path, stage("lint"), stage("test"), anew=True, now=lambda: first)
    all_ = [stage("lint"), stage("test")]
    code, lines = verify(tmp_path, *all_, chosen=all_[1:], now=lambda: second)
    assert code == 2
    assert rows(lines) == [("test", "kept")]
    assert lines[-1] == "NOT CHECKED: never run at this commit: lint"


def test_a_stage_during_which_the_files_changed_shows_nothing(tmp_path: Path) -> None:
    states = iter([COMMIT, COMMIT, *[Checkout(COMMIT.commit, clean=False)] * 9])
    code, lines = verify(tmp_path, stage("lint"), anew=True, now=lambda: next(states))
    assert code == 2
    assert lines[-1].startswith("NOT CHECKED: the files changed meanwhile")
    assert Memory(tmp_path / "memory.json").results(COMMIT) == {}


def test_a_whole_run_forgets_what_was_shown_before(tmp_path: Path) -> None:
    verify(tmp_path, stage("lint"), stage("test"), anew=True)
    verify(tmp_path, stage("lint"), stage("test"), chosen=[], anew=True)
    assert Memory(tmp_path / "memory.json").results(COMMIT) == {}


def test_a_memory_of_another_version_is_none(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"commit": COMMIT.commit, "results": [{"stage": "lint", "mood": "good"}]}))
    assert Memory(path).results(COMMIT) == {}


def test_a_stage_is_picked_by_its_name() -> None:
    all_ = [stage("lint"), stage("types"), stage("test")]
    assert [each.name for each in picked(all_, "types", None)] == ["types", "test"]
    assert [each.name for each in picked(all_, None, "types")] == ["types"]
    with pytest.raises(ValueError, match="there are lint, types, test"):
        picked(all_, "typos", None)


def test_a_wrong_option_is_not_taken_for_something_unchecked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["verify", "--form", "test"])
    assert ended.value.code == 64


def test_a_checkout_with_a_change_is_not_clean(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert checkout(tmp_path / "nowhere") == Checkout("", clean=False)
    git("init")
    git("commit", "--allow-empty", "--message", "one")
    assert checkout(tmp_path).clean
    (tmp_path / "file").touch()
    assert not checkout(tmp_path).clean
    assert len(checkout(tmp_path).commit) == 40


# --- stages that take turns -------------------------------------------------------------------------------------------


def test_the_mutants_are_read_without_importing_the_worker() -> None:
    assert mutants() == list(MUTANTS)
    loaded = "import sys, tests.gate.__main__ as _; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    bare = subprocess.run([sys.executable, "-S", "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    foreign = set(bare.stdout.split()) - sys.stdlib_module_names - {"tests", "__main__"}
    assert not foreign


def test_the_same_commit_always_has_the_same_mutants() -> None:
    assert in_turn(mutants(), COMMITS[0], 3) == in_turn(mutants(), COMMITS[0], 3)
    assert in_turn(["a", "b", "c", "d"], "a commit", 2) == ["c", "d"]


def test_over_many_commits_all_mutants_come_about_as_often() -> None:
    drawn = [name for commit in COMMITS for name in in_turn(mutants(), commit, 3)]
    mean = len(drawn) / len(mutants())
    assert {name for name in mutants() if mean / 2 < drawn.count(name) < mean * 2} == set(MUTANTS)


def test_a_commit_draws_so_many_different_mutants() -> None:
    assert {len(set(in_turn(mutants(), commit, 3))) for commit in COMMITS} == {3}


def test_the_mutants_of_a_commit_are_run_with_their_rule_and_without() -> None:
    chosen = in_turn(mutants(), COMMIT.commit, 3)
    arguments = some_mutants(COMMIT.commit).command[-1]
    expression = arguments.partition("-k ")[2].strip("'")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", stages.MUTANTS_TESTS, "-k", expression]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = {line.rpartition("::")[2] for line in listed.splitlines() if "::" in line}
    both = ("test_without_its_rule_the_worker_is_caught", "test_the_worker_as_it_is_comes_through_the_same_unharmed")
    assert tests == {f"{test}[{name}]" for test in both for name in chosen}


def test_seeds_take_turns() -> None:
    seeds = {seed_of(commit) for commit in COMMITS}
    assert len(seeds) > 200
    assert min(seeds) >= 1


def test_the_stages_of_both_levels_have_names_of_their_own() -> None:
    for all_ in (stages.ci(COMMIT.commit), stages.verify()):
        names = [each.name for each in all_]
        assert len(set(names)) == len(names)
        assert all(each.promise and each.by_hand for each in all_)


def test_every_target_that_a_stage_names_is_in_the_makefile() -> None:
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()}
    named = [each.by_hand.split() for each in (*stages.ci("c"), *stages.verify())]
    assert {words[1] for words in named if words[0] == "make"} <= targets


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_model_without_its_tools_is_not_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", "--quick"])
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert check.main() == 2
    assert "spin and gcc not found" in capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "code"), [(True, 0), (False, 1)])
def test_the_model_says_whether_all_came_out_as_expected(
    monkeypatch: pytest.MonkeyPatch, outcome: bool, code: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr("shutil.which", lambda tool: tool)
    monkeypatch.setattr(check, "reported", lambda *_, **__: outcome)
    assert check.main() == code


def test_a_search_that_was_not_finished_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfinished(*_: Any, **__: Any) -> bool:
        raise check.Unusable("out of memory")

    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr("shutil.which", lambda tool: tool)
    monkeypatch.setattr(check, "reported", unfinished)
    assert check.main() == 2


def test_the_quick_model_comes_to_every_configuration_and_mutant_in_turn() -> None:
    drawn = [check.quick(commit) for commit in COMMITS]
    assert {run.name for configurations, _ in drawn for run in configurations} == {
        run.name for run in check.CONFIGURATIONS
    }
    assert {run.name for _, drawn_mutants in drawn for run in drawn_mutants} == {run.name for run in check.MUTANTS}
