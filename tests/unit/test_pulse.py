"""A stalled event loop is noticed, and told apart from a stopped process."""

import asyncio

import pytest
from structlog.testing import LogCapture

from tests.support.waiting import in_time
from worker.observability.health import STALLED_SECONDS, Health
from worker.observability.pulse import BEAT_SECONDS, Pulse

SESSION = 10.0


class Clocks:
    """The time, and the CPU time that the process has used."""

    def __init__(self) -> None:
        self.now = self.spent = 0.0

    def go(self, seconds: float, spent: float = 0.0) -> None:
        self.now += seconds
        self.spent += spent


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def health(clocks: Clocks) -> Health:
    return Health(lambda: clocks.now, wall=lambda: clocks.now)


@pytest.fixture
def pulse(clocks: Clocks, health: Health) -> Pulse:
    return Pulse(health, SESSION, clock=lambda: clocks.now, spent=lambda: clocks.spent)


def live(health: Health) -> tuple[bool, str]:
    health.progress()
    is_live, document = health.live()
    return is_live, document["reason"]


def test_a_loop_that_stood_for_longer_than_a_session_is_not_live_for_a_while(
    clocks: Clocks, health: Health, pulse: Pulse, logged: LogCapture
) -> None:
    clocks.go(BEAT_SECONDS + SESSION + 5, spent=SESSION + 5)
    pulse.beat()

    assert live(health) == (False, "the event loop stood for 15 s, longer than a session (10 s)")
    assert [entry["event"] for entry in logged.entries] == ["event_loop_stood"]
    clocks.go(STALLED_SECONDS + 1)
    assert live(health)[0]


def test_a_shorter_pause_is_none(clocks: Clocks, health: Health, pulse: Pulse, logged: LogCapture) -> None:
    clocks.go(BEAT_SECONDS + SESSION, spent=SESSION)
    pulse.beat()

    assert live(health)[0]
    assert logged.entries == []


def test_a_process_that_was_stopped_is_not_to_blame(
    clocks: Clocks, health: Health, pulse: Pulse, logged: LogCapture
) -> None:
    clocks.go(1000, spent=1)
    pulse.beat()

    assert live(health)[0]
    assert [entry["event"] for entry in logged.entries] == ["process_stood"]


def test_each_beat_is_compared_with_the_one_before(clocks: Clocks, health: Health, pulse: Pulse) -> None:
    for _ in range(100):
        clocks.go(BEAT_SECONDS, spent=BEAT_SECONDS)
        pulse.beat()

    assert live(health)[0]


async def test_it_beats_until_told_to_stop(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    beats: list[None] = []
    monkeypatch.setattr("worker.observability.pulse.BEAT_SECONDS", 0.001)

    def beat() -> None:
        beats.append(None)
        if len(beats) == 3:
            stop.set()

    monkeypatch.setattr(pulse, "beat", beat)
    await in_time(asyncio.create_task(pulse.run(stop)), "the pulse stopped")

    assert len(beats) == 3
