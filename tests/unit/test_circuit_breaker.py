"""The fuse blows over many failures and lets a trial through now and then."""

import pytest

from tests.support.clocks import Clock
from worker.resilience.circuit_breaker import FAILURES, LAST, TRIAL_SECONDS, Fuse


@pytest.fixture
def fuse(clock: Clock) -> Fuse:
    return Fuse(clock)


@pytest.fixture
def blown(fuse: Fuse) -> Fuse:
    for _ in range(FAILURES):
        assert fuse.lets_through()
        fuse.failed()
    assert fuse.blown
    return fuse


def test_single_failures_among_many_that_pass_do_not_blow_it(fuse: Fuse) -> None:
    for _ in range(10 * LAST):
        fuse.failed()
        fuse.passed(2)
        assert not fuse.blown
        assert fuse.lets_through()


def test_a_blown_fuse_lets_nothing_through_until_its_trial(blown: Fuse, clock: Clock) -> None:
    assert not blown.lets_through()
    clock.now += TRIAL_SECONDS - 1
    assert not blown.lets_through()
    clock.now += 1
    assert blown.lets_through()


def test_a_trial_is_for_one_command_only(blown: Fuse, clock: Clock) -> None:
    clock.now += TRIAL_SECONDS
    assert blown.lets_through()
    blown.failed()
    assert not blown.lets_through()
    clock.now += TRIAL_SECONDS
    assert blown.lets_through()


def test_it_is_whole_again_when_more_pass_than_fail(blown: Fuse) -> None:
    blown.passed(FAILURES)
    assert blown.blown
    blown.passed(1)
    assert not blown.blown


def test_one_great_batch_that_passes_makes_it_whole(blown: Fuse) -> None:
    blown.passed(10_000)
    assert not blown.blown
