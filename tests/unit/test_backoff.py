"""Backoff grows to half a minute, is randomised, and can be cut short."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import in_time
from worker.resilience.backoff import LONGEST, SHORTEST, Backoff


class Fixed(random.Random):
    """A random source that always returns the same: 0 for the lower end, 1 for the upper."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self._at = at

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self._at


def test_the_wait_doubles_up_to_half_a_minute_and_stays_there() -> None:
    patience = Backoff(Fixed(1.0))

    waits = [patience.next_wait() for _ in range(12)]

    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits[-3:] == [LONGEST] * 3
    assert LONGEST == 30.0


@given(st.integers(0, 2**32), st.integers(0, 10_000))
def test_every_wait_is_between_half_and_all_of_its_span(seed: int, tried: int) -> None:
    patience = Backoff(random.Random(seed))
    patience.attempts = tried
    span = Backoff(Fixed(1.0))
    span.attempts = tried
    longest = span.next_wait()

    wait = patience.next_wait()

    assert longest / 2 <= wait <= longest
    assert SHORTEST / 2 <= wait <= LONGEST


def test_two_lanes_do_not_march_in_step() -> None:
    one, other = Backoff(random.Random(1)), Backoff(random.Random(2))

    assert [one.next_wait() for _ in range(5)] != [other.next_wait() for _ in range(5)]


def test_a_success_starts_over_with_short_waits() -> None:
    patience = Backoff(Fixed(1.0))
    for _ in range(20):
        patience.next_wait()

    patience.reset()

    assert patience.attempts == 0
    assert patience.next_wait() == pytest.approx(SHORTEST)


async def test_a_wait_is_cut_short_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.resilience.backoff.LONGEST", 1e6)  # beyond any ceiling: it does not end by itself
    patience, drain = Backoff(Fixed(1.0)), asyncio.Event()
    patience.attempts = 20
    waiting = asyncio.ensure_future(patience.wait(drain))
    await asyncio.sleep(0)
    assert not waiting.done()

    drain.set()

    await in_time(waiting, "the wait was cut short")


async def test_a_wait_ends_by_itself() -> None:
    patience = Backoff(Fixed(0.0))

    await in_time(patience.wait(asyncio.Event()), "the wait was over")

    assert patience.attempts == 1
