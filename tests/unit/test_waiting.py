"""A wait ends with its condition, or with a text that says what it waited for and what it saw last."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.clocks import Clock
from tests.support.pace import VARIABLE
from tests.support.waiting import (
    PAUSE,
    SECONDS,
    SHOWN_CHARACTERS,
    TooLate,
    in_time,
    output_of,
    run_to_end,
    until,
    until_answered,
    wait_until,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that only sleep and slow looks move."""
    monkeypatch.setenv(VARIABLE, "1")
    return Clock(100.0)


def counting(clock: Clock | None = None, *, took: float = 0.0) -> Callable[[], int]:
    """Return a look at a number that grows by one with each, each taking so long."""
    seen = iter(range(1, 100_000))

    def look() -> int:
        if clock is not None:
            clock.now += took
        return next(seen)

    return look


def test_a_wait_ends_with_what_was_wanted(clock: Clock) -> None:
    found = wait_until(counting(), lambda n: n == 3, what="three came", clock=clock, sleep=clock.sleep)

    assert found == 3
    assert clock.now == pytest.approx(100.0 + 2 * PAUSE)


def test_who_gives_up_says_what_was_waited_for_and_what_was_seen_last(clock: Clock) -> None:
    with pytest.raises(TooLate) as raised:
        wait_until(
            counting(),
            lambda n: n > 1000,
            what="a thousand came",
            seconds=1.0,
            pause=0.25,
            tell=lambda: "and then it rained",
            clock=clock,
            sleep=clock.sleep,
        )

    assert str(raised.value) == "1 s went by before a thousand came; last seen: 5\nand then it rained"


def test_a_ceiling_is_scaled_by_the_pace_of_the_session(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")

    with pytest.raises(TooLate, match="30 s went by"):
        wait_until(list, what="anything came", seconds=10, clock=clock, sleep=clock.sleep)

    assert clock.now >= 130.0


def test_the_last_look_begins_after_the_ceiling_however_long_the_one_before_took(clock: Clock) -> None:
    look = counting(clock, took=SECONDS + 1)

    assert wait_until(look, lambda n: n == 2, what="two came", clock=clock, sleep=clock.sleep) == 2


def test_of_a_long_text_the_end_is_shown(clock: Clock) -> None:
    long = "first" + "." * SHOWN_CHARACTERS + "last"

    with pytest.raises(TooLate) as raised:
        wait_until(lambda: long, lambda _: False, what="it changed", clock=clock, sleep=clock.sleep)

    assert str(raised.value).endswith(".last")
    assert "first" not in str(raised.value)


async def test_on_an_event_loop_others_go_on_while_one_waits() -> None:
    came: list[int] = []

    async def come() -> None:
        for number in range(3):
            await asyncio.sleep(0)
            came.append(number)

    coming = asyncio.ensure_future(come())

    assert await until(lambda: came, lambda seen: len(seen) == 3, what="all came", pause=0) == [0, 1, 2]
    await coming


async def test_on_an_event_loop_a_look_may_be_a_question() -> None:
    look = counting()

    async def ask() -> int:
        return look()

    assert await until_answered(ask, lambda n: n == 2, what="two came", pause=0) == 2
    with pytest.raises(TooLate, match=r"0 s went by before it was none; last seen: \d+"):
        await until_answered(ask, lambda n: n == 0, what="it was none", seconds=0.01, pause=0)


async def test_what_does_not_come_in_time_is_named_and_given_up() -> None:
    never = asyncio.ensure_future(asyncio.Event().wait())

    with pytest.raises(TooLate, match="0 s went by before the bell rang; last seen: silence"):
        await in_time(never, "the bell rang", 0.01, seen=lambda: "silence")

    await asyncio.wait({never})
    assert never.cancelled()


async def test_what_comes_in_time_is_let_through_errors_too() -> None:
    async def fail() -> int:
        raise ZeroDivisionError

    assert await in_time(asyncio.sleep(0, "came"), "it came") == "came"
    with pytest.raises(ZeroDivisionError):
        await in_time(fail(), "it failed")


SLEEPING = "import time; print('awake', flush=True); time.sleep(600)"


def test_a_process_that_does_not_end_is_killed_and_what_it_wrote_is_shown() -> None:
    command = [sys.executable, "-c", SLEEPING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "awake\n"

        with pytest.raises(TooLate, match="before it ended"):
            output_of(process, "it ended", 0.01)

        assert process.poll() is not None


def test_a_program_that_does_not_end_is_named() -> None:
    with pytest.raises(TooLate, match="before the sleeper ended"):
        run_to_end([sys.executable, "-c", SLEEPING], what="the sleeper ended", seconds=0.01)


def test_a_program_that_ends_is_told_of_whatever_its_exit_code() -> None:
    done = run_to_end([sys.executable, "-c", "import sys; sys.exit(input())"], given="no\n")

    assert (done.returncode, done.stderr) == (1, "no\n")
