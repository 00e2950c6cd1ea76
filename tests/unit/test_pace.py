"""The pace is measured once, never below 1, and every ceiling is scaled by it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.pace import (
    LOOK_SECONDS,
    MOST,
    ROUND_SECONDS,
    START_SECONDS,
    STRETCHED_MOST,
    VARIABLE,
    in_milliseconds,
    measure,
    measured_once,
    pace,
    patience,
    stretched,
)

COMMON: Final = 1.0


class Machine:
    """A machine that is so many times slower than a common one, at work and at starting a process."""

    def __init__(self, of_work: float, of_starts: float) -> None:
        self.now = 50.0
        self.rounds = 0
        self._of_work = of_work
        self._of_starts = of_starts

    def clock(self) -> float:
        return self.now

    def work(self) -> None:
        self.rounds += 1
        self.now += ROUND_SECONDS * self._of_work

    def start(self) -> None:
        self.now += START_SECONDS * self._of_starts

    def measured(self) -> float:
        return measure(self.clock, self.work, self.start)


@pytest.mark.parametrize(
    ("of_work", "of_starts", "expected"),
    [
        (COMMON, COMMON, 1.0),
        (4.0, COMMON, 4.0),
        (COMMON, 3.0, 3.0),
        (0.1, 0.1, 1.0),
        (1000.0, COMMON, MOST),
    ],
)
def test_the_pace_is_that_of_the_slower_of_work_and_starts(of_work: float, of_starts: float, expected: float) -> None:
    assert Machine(of_work, of_starts).measured() == pytest.approx(expected)


@pytest.mark.parametrize("of_work", [0.1, 1.0, 10.0, 1000.0])
def test_the_look_is_short_on_any_machine(of_work: float) -> None:
    machine = Machine(of_work, 0.0)

    machine.measured()

    assert machine.rounds >= 1
    assert machine.now - 50.0 <= LOOK_SECONDS + ROUND_SECONDS * of_work


def test_a_core_that_another_program_has_half_of_is_twice_as_slow() -> None:
    machine = Machine(COMMON, COMMON)

    def interrupted() -> None:
        machine.work()
        machine.now += ROUND_SECONDS

    assert measure(machine.clock, interrupted, machine.start) == pytest.approx(2.0)


def test_the_quicker_of_two_starts_counts() -> None:
    machine = Machine(COMMON, COMMON)
    lengths = iter([50.0, 2.0])

    def start() -> None:
        machine.now += START_SECONDS * next(lengths)

    assert measure(machine.clock, machine.work, start) == pytest.approx(2.0)


def test_this_machine_has_a_pace() -> None:
    assert 1.0 <= measure() <= MOST


def test_the_pace_is_measured_once_and_left_for_everybody() -> None:
    environment: dict[str, str] = {}
    figures = iter([2.5, 7.0])

    measured_once(environment, lambda: next(figures))
    measured_once(environment, lambda: next(figures))

    assert environment == {VARIABLE: "2.50"}
    assert pace(environment) == 2.5


def test_a_pace_given_by_hand_is_kept() -> None:
    environment = {VARIABLE: "5"}

    measured_once(environment, _not_measured)

    assert pace(environment) == 5.0


@pytest.mark.parametrize(("given", "expected"), [({}, 1.0), ({VARIABLE: ""}, 1.0), ({VARIABLE: "0.2"}, 1.0)])
def test_without_a_pace_or_with_one_that_is_too_small_ceilings_are_as_they_are(
    given: dict[str, str], expected: float
) -> None:
    assert pace(given) == expected
    assert patience(60.0, given) == 60.0


def test_a_pace_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="fast"):
        pace({VARIABLE: "fast"})


def test_a_pace_has_an_upper_bound() -> None:
    assert patience(10.0, {VARIABLE: "1e9"}) == 10.0 * MOST


def test_a_ceiling_is_scaled_by_the_pace() -> None:
    assert patience(60.0, {VARIABLE: "2.5"}) == 150.0


def test_what_a_test_sits_out_is_stretched_no_further_than_needed() -> None:
    assert in_milliseconds(6, {VARIABLE: "1.5"}) == "9000"
    assert in_milliseconds(6, {VARIABLE: "15"}) == f"{6000 * STRETCHED_MOST:.0f}"
    assert stretched(6, {VARIABLE: "15"}) == 6 * STRETCHED_MOST


def test_the_session_has_its_pace_and_a_program_that_it_starts_the_same() -> None:
    command = [sys.executable, "-c", "from tests.support.pace import pace; print(pace())"]

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert os.environ[VARIABLE]
    assert float(done.stdout) == pace()


def _not_measured() -> float:
    raise AssertionError("it was measured again")
