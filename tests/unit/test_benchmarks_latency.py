"""The pure parts of the latency benchmark: percentiles, due times, and the plan passed to another process."""

import dataclasses
import json

import pytest

from tests.benchmarks.latency import percentile, summary
from tests.benchmarks.openloop import Phase, Plan, Timed, due, read_plan


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.51) == 3.0


@pytest.mark.parametrize("share", [0.5, 0.99, 0.999, 1])
def test_of_one_value_every_percentile_is_that_value(share: float) -> None:
    assert percentile([7.0], share) == 7.0


def test_of_a_thousand_the_last_but_one_is_the_999th_per_mille() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1)] == [500, 990, 999, 1000]


def test_commands_are_due_at_even_distances_however_late_others_are() -> None:
    assert [due(4, number) for number in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_a_rate_for_some_seconds_is_a_number_of_commands() -> None:
    assert Phase.at(500, 15) == Phase(7500, 500)
    assert Phase.at(0.01, 5).count == 1


def test_a_summary_is_of_the_median_pass_and_the_extremes_of_all() -> None:
    passes = [Timed([1.0, 3.0], [0.0], 1.0), Timed([2.0, 5.0], [0.5], 2.0), Timed([1.5, 90.0], [0.1], 1.5)]
    told = summary(passes)
    assert (told.count, told.p50, told.p99, told.p999, told.longest) == (6, 1.5, 5.0, 90.0, 90.0)
    assert (told.late, told.cores) == (0.1, 1.5)


def test_a_plan_survives_the_way_to_the_open_loop() -> None:
    warm_up, phase = Phase.at(100, 2), Phase(5)
    plan = Plan("127.0.0.1:9092", "commands", "results", "run", 7, warm_up, phase, None, (1, 2))
    assert read_plan(json.dumps(dataclasses.asdict(plan))) == plan
    assert plan.count == 205
