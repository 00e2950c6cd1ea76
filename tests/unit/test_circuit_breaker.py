"""The circuit breaker opens after many failures and allows a trial now and then."""

import pytest

from tests.support.clocks import Clock
from worker.resilience.circuit_breaker import FAILURES, LAST, TRIAL_SECONDS, CircuitBreaker


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock)


@pytest.fixture
def blown(breaker: CircuitBreaker) -> CircuitBreaker:
    for _ in range(FAILURES):
        assert breaker.allow_trial()
        breaker.failed()
    assert breaker.is_open
    return breaker


def test_single_failures_among_many_that_pass_do_not_blow_it(breaker: CircuitBreaker) -> None:
    for _ in range(10 * LAST):
        breaker.failed()
        breaker.passed(2)
        assert not breaker.is_open
        assert breaker.allow_trial()


def test_a_blown_fuse_lets_nothing_through_until_its_trial(blown: CircuitBreaker, clock: Clock) -> None:
    assert not blown.allow_trial()
    clock.now += TRIAL_SECONDS - 1
    assert not blown.allow_trial()
    clock.now += 1
    assert blown.allow_trial()


def test_a_trial_is_for_one_command_only(blown: CircuitBreaker, clock: Clock) -> None:
    clock.now += TRIAL_SECONDS
    assert blown.allow_trial()
    blown.failed()
    assert not blown.allow_trial()
    clock.now += TRIAL_SECONDS
    assert blown.allow_trial()


def test_it_is_whole_again_when_more_pass_than_fail(blown: CircuitBreaker) -> None:
    blown.passed(FAILURES)
    assert blown.is_open
    blown.passed(1)
    assert not blown.is_open


def test_one_great_batch_that_passes_makes_it_whole(blown: CircuitBreaker) -> None:
    blown.passed(10_000)
    assert not blown.is_open
