"""The arithmetic of the benchmarks: parsing the system's figures, and the results computed from them."""

import os
import subprocess
import sys

import pytest

from tests.benchmarks import meter
from tests.benchmarks.bulk import WINDOW, usual
from tests.benchmarks.capacity import fitted
from tests.benchmarks.load import GOLDEN_CODE, Answers, Backlog, commands
from tests.benchmarks.meter import TICKS, Meter, Usage, cpu_seconds, peak_memory, status_bytes, used
from tests.benchmarks.rounds import Round, medians, saturation
from tests.support.waiting import wait_until

STAT = (
    "4711 (a name) with) S 1 4711 4711 0 -1 4194560 100 200 0 0 70 30 5 15 20 0 8 0 12345 1000 50 18446744073709551615"
)
STATUS = "Name:\tpostgres\nVmPeak:\t  300 kB\nVmHWM:\t  200 kB\nRssAnon:\t  50 kB\nThreads:\t1\n"


def a_round(rate: float, worker: float, memory: int = 0) -> Round:
    return Round(100, rate, Usage({"worker": worker}, {"worker": memory}))


def test_what_else_the_machine_does_for_a_while_does_not_count() -> None:
    assert usual([1.0] * WINDOW + [9.0] * WINDOW + [2.0] * WINDOW, 0.99) == 2.0


def test_cpu_is_read_behind_a_name_that_may_hold_anything() -> None:
    assert used(STAT) == (70 + 30 + 5 + 15) / TICKS


def test_sizes_are_read_in_bytes() -> None:
    assert status_bytes(STATUS) == {"VmPeak": 300 * 1024, "VmHWM": 200 * 1024, "RssAnon": 50 * 1024}


def test_a_process_that_works_uses_cpu() -> None:
    measured = Meter({"us": [os.getpid()]})
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) < before + 2 / TICKS:
        pass
    usage = measured.stop()
    assert usage.cpu["us"] == usage.total > 1.5 / TICKS
    assert usage.peak_memory["us"] > 2**20


def test_a_thread_that_could_have_run_and_had_no_core_has_queued() -> None:
    core = min(os.sched_getaffinity(0))
    spinning = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with (
        subprocess.Popen([sys.executable, "-c", spinning]) as one,
        subprocess.Popen([sys.executable, "-c", spinning]) as two,
    ):
        try:
            measured = Meter({"both": [one.pid, two.pid]})
            wait_until(
                lambda: cpu_seconds(one.pid) + cpu_seconds(two.pid),
                lambda spent: spent >= 0.5,
                what="both had run for half a second",
                pause=0.01,
            )
            assert measured.stop().queued["both"] > 0.1
        finally:
            one.kill()
            two.kill()


def test_processes_of_one_name_are_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    used_so_far, peaks = {1: 10.0, 2: 20.0}, {1: 100, 2: 300}
    monkeypatch.setattr(meter, "cpu_seconds", used_so_far.__getitem__)
    monkeypatch.setattr(meter, "peak_memory", peaks.__getitem__)
    measured = Meter({"both": [1, 2], "one": [1]})
    used_so_far.update({1: 10.5, 2: 22.0})
    usage = measured.stop()
    assert usage.cpu == {"both": 2.5, "one": 0.5}
    assert usage.peak_memory == {"both": 300, "one": 100}


def test_a_rate_since_a_moment_counts_every_command() -> None:
    assert Answers(7, 7, 3000, {"OK": 7}).rate_since(500.0) == 2.8


@pytest.mark.parametrize(
    "answers",
    [
        Answers(3, 2, 2, {"OK": 3}),
        Answers(2, 2, 2, {"OK": 2}),
        Answers(3, 3, 3, {"OK": 2, "INTERNAL_ERROR": 1}),
    ],
    ids=["a duplicate", "one missing", "one refused"],
)
def test_answers_that_are_not_one_good_one_each_are_found(answers: Answers) -> None:
    with pytest.raises(AssertionError):
        answers.check(3, {"OK": 3})


def test_refusals_can_be_expected() -> None:
    Answers(3, 3, 3, {"OK": 2, "INVALID_TOKEN": 1}).check(3, {"OK": 2, "INVALID_TOKEN": 1})


def test_a_backlog_is_to_be_answered_well_if_nothing_else_is_said() -> None:
    backlog = Backlog.of("run", [3, 1])
    assert (backlog.count, backlog.statuses) == (2, {"OK": 2})
    assert [key for key, _, _ in backlog.written] == [b"run-3", b"run-1"]


def test_a_median_is_taken_of_every_figure_for_itself() -> None:
    middle = medians([a_round(30, 1.0, 5), a_round(10, 3.0, 7), a_round(20, 2.0, 6)])
    assert middle == a_round(20, 2.0, 6)
    assert middle.cpu == {"worker": 20_000.0}


def test_saturation_is_the_share_of_what_the_cores_allow() -> None:
    assert saturation(10_000, {"worker": 60.0, "postgres": 60.0, "kafka": 80.0}, 2) == pytest.approx(1.0)


def test_every_command_names_a_token_of_its_own_and_itself() -> None:
    sent = list(commands("run", range(1, 4), fields_set="number"))
    assert [key for key, _, _ in sent] == [b"run-1", b"run-2", b"run-3"]
    assert len({value for _, value, _ in sent}) == 3
    assert all(b'"fields_set": "number"' in value and GOLDEN_CODE.encode() not in value for _, value, _ in sent)
    assert [dict(headers)["correlation_id"] for _, _, headers in sent] == [key for key, _, _ in sent]


def test_the_prices_of_a_command_and_of_a_batch_are_found() -> None:
    command, batch = fitted({size: 60 + 2500 / size for size in (25, 100, 500)})

    assert command == pytest.approx(60)
    assert batch == pytest.approx(2500)


def test_a_child_that_has_ended_and_is_not_buried_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert peak_memory(os.getpid()) > 0
