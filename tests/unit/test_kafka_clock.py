"""A clock that the broker has refused is not trusted until there is evidence for it."""

import pytest

from worker.errors import ClockRefused
from worker.kafka.clock import SET_SECONDS, TRY_AGAIN_SECONDS, ClockRefusal
from worker.resilience.backoff import LONGEST

AHEAD = 5400.0


class Machine:
    """A running clock, and a time of day that can be set."""

    def __init__(self) -> None:
        self.running = 50.0
        self.ahead = AHEAD
        self.clock_refusal = ClockRefusal(lambda: 1_800_000_000.0 + self.running + self.ahead, lambda: self.running)

    async def is_refused(self) -> bool:
        try:
            await self.clock_refusal.look()
        except ClockRefused:
            return True
        return False


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_a_clock_is_right_until_it_is_refused(machine: Machine) -> None:
    assert not await machine.is_refused()
    machine.clock_refusal.refused()
    assert await machine.is_refused()


@pytest.mark.parametrize("ahead", [0.0, 2 * AHEAD])
async def test_a_clock_that_was_set_is_tried_again_whichever_way_it_was_wrong(machine: Machine, ahead: float) -> None:
    machine.clock_refusal.refused()
    machine.ahead = ahead
    assert not await machine.is_refused()


async def test_a_drift_is_no_setting(machine: Machine) -> None:
    machine.clock_refusal.refused()
    for machine.ahead in (AHEAD - SET_SECONDS, AHEAD + SET_SECONDS):
        assert await machine.is_refused()


async def test_what_is_taken_speaks_for_the_clock(machine: Machine) -> None:
    machine.clock_refusal.refused()
    machine.clock_refusal.taken()
    assert not await machine.is_refused()


async def test_the_last_refusal_is_believed_for_a_while(machine: Machine) -> None:
    machine.clock_refusal.refused()
    machine.running += TRY_AGAIN_SECONDS
    machine.clock_refusal.refused()
    machine.running += TRY_AGAIN_SECONDS
    assert await machine.is_refused()
    machine.running += 1
    assert not await machine.is_refused()


async def test_a_clock_once_tried_again_stays_so_until_it_is_refused_again(machine: Machine) -> None:
    machine.clock_refusal.refused()
    machine.ahead = 0.0
    assert not await machine.is_refused()
    machine.ahead = AHEAD
    assert not await machine.is_refused()


async def test_who_was_refused_by_a_brokers_wrong_clock_tries_again_within_minutes(machine: Machine) -> None:
    """All workers may be out at once, and no worker's own clock will be set."""
    machine.clock_refusal.refused()
    machine.running += 121
    assert not await machine.is_refused()


async def test_a_refusal_is_still_believed_when_its_lane_tries_again(machine: Machine) -> None:
    machine.clock_refusal.refused()
    machine.running += LONGEST
    assert await machine.is_refused()
