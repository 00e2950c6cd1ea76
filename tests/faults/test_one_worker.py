"""A fault of one worker alone strikes, is undone, and tells a missed moment from a broken promise."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import jwt
import pytest

from tests.faults import calm, one_worker
from tests.faults.calm import Calm
from tests.faults.kinds import Domain, FaultKind
from tests.faults.ledger import Command
from tests.faults.load import Writer
from tests.faults.one_worker import DAYS_AHEAD, LIMIT_SECONDS, a_month_ahead, without_postgres
from tests.faults.past import Past
from tests.faults.rules import Unkept
from tests.faults.schedule import Log, Strike, play
from tests.faults.worker import DAY_SECONDS, faulty, make_otherwise
from tests.support.logins import SECRET
from worker import service
from worker.operations import retention

LANES: Final = {"lanes": {"0": {"state": "working"}}}
OUT: Final = {"lanes": {}, "out_of_group": {"reason": "postgres has not answered for 6 s"}}
DOUBTS: Final = {
    "clock_ahead_of_postgres_seconds": DAYS_AHEAD * 86_400.0,
    "reason": "partitions assigned; records of commands are not retired: the worker's clock is 2678400 s ahead",
}


class Life:
    """A substitute for a process: its output and its log."""

    def __init__(self, *said: dict[str, Any], logs: tuple[str, ...] = (), later: tuple[str, ...] = ()) -> None:
        self._said = list(said) or [{}]
        self._logs = logs
        self._later = later
        """The events that it logs after its first word."""
        self.is_killed = False

    def probe(self, _: str) -> tuple[int, Any]:
        self._logs, self._later = self._logs + self._later, ()
        return 200, self._said.pop(0) if len(self._said) > 1 else self._said[0]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [{"event": each} for each in self._logs if each == event]

    def kill(self) -> None:
        self.is_killed = True


class Stage:
    """One worker, always ready or not ready once it was cut off, and a record of the actions on it."""

    def __init__(self, life: Life, *, runs: bool = True, joins: bool = True) -> None:
        self._joins, self.calm, self.past = joins, Calm(), Past()
        self.usual, self.odd = Life(), life
        self.started: dict[str, float] = {}
        self.cuts: list[str] = []
        self.slot = SimpleNamespace(
            name="worker 1", wanted=True, runs=runs, worker=self.usual, start=self._start, is_ready=lambda: True
        )
        # Either choice of the two.
        self.fleet = SimpleNamespace(slots=[self.slot] * 2, ready=self._ready, count_end=lambda _: None)

    def _start(self, **otherwise: float) -> None:
        assert self.usual.is_killed
        assert not self.slot.wanted
        self.started, self.slot.worker = otherwise, self.odd

    async def _ready(self, *_: object) -> bool:
        return self._joins or not self.cuts

    def postgres_of(self, slot: object) -> Any:
        assert slot is self.slot
        return SimpleNamespace(cut_off=self._cut_off)

    @contextmanager
    def _cut_off(self) -> Iterator[None]:
        self.cuts.append("cut")
        try:
            yield
        finally:
            self.cuts.append("mended")

    @property
    def is_undone(self) -> bool:
        return self.odd.is_killed and self.slot.wanted and self.cuts in ([], ["cut", "mended"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("START", "LEAVE", "TAKE_OVER", "SAY", "CALM"):
        monkeypatch.setattr(one_worker, f"{name}_SECONDS", 0.3)
    monkeypatch.setattr(calm, "OTHERS_SECONDS", 0.3)
    for name in ("LOOK", "RETENTION"):
        monkeypatch.setattr(one_worker, f"{name}_SECONDS", 0.01)


def others_answer(monkeypatch: pytest.MonkeyPatch, *settled: int) -> None:
    """Set up lanes of one partition with ten decided commands, of which ``settled`` are settled at each look."""
    looks = list(settled)

    async def lanes(_: object) -> dict[str, tuple[int, int]]:
        return {"commands-0": (looks.pop(0) if len(looks) > 1 else looks[0], 10)}

    monkeypatch.setattr(one_worker, "_lanes", lanes)


async def strike(act: Any, stage: Any) -> bool:
    async with stage.calm.work():
        done: bool = await act(stage, Random(1))
    return done


# --- without Postgres -------------------------------------------------------------------------------------------------


async def test_who_leaves_is_answered_for_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10, 11)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)))
    assert await strike(without_postgres, stage)
    assert stage.started == {"without_postgres": LIMIT_SECONDS}
    assert stage.cuts == ["cut", "mended"]
    assert stage.is_undone


async def test_who_keeps_its_partitions_breaks_a_promise() -> None:
    stage = Stage(Life(LANES))
    with pytest.raises(Unkept, match="worker 1 was without Postgres for 0 s and kept its partitions"):
        await strike(without_postgres, stage)
    assert stage.is_undone


async def test_who_ends_meanwhile_has_had_no_moment() -> None:
    stage = Stage(Life(LANES), runs=False)
    assert not await strike(without_postgres, stage)
    assert stage.is_undone


async def test_who_has_no_partitions_has_none_to_lose() -> None:
    stage = Stage(Life({"lanes": {}}))
    assert not await strike(without_postgres, stage)
    assert stage.cuts == []
    assert stage.is_undone


async def test_a_worker_that_nobody_answers_for_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10)  # the decided part is published, and nothing further
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)))
    with pytest.raises(Unkept, match="worker 1 was out of its group, and nobody took its partitions"):
        await strike(without_postgres, stage)
    assert stage.is_undone


async def test_a_moment_in_which_a_log_is_changed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)))
    async with stage.past.one:
        assert not await strike(without_postgres, stage)
    assert stage.is_undone


async def test_a_worker_that_is_the_only_one_has_nobody_to_answer_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)))
    del stage.fleet.slots[1]
    assert not await strike(without_postgres, stage)
    assert stage.is_undone


async def test_who_does_not_join_again_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10, 11)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)), joins=False)
    with pytest.raises(Unkept, match="worker 1 heard Postgres for 0 s, and did not join again"):
        await strike(without_postgres, stage)
    assert stage.is_undone


async def test_who_is_in_its_group_again_and_is_not_ready_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    others_answer(monkeypatch, 5, 10, 11)
    stage = Stage(Life(LANES, OUT, LANES, logs=("leaving_group",)), joins=False)
    assert not await strike(without_postgres, stage)
    assert stage.is_undone


@pytest.mark.parametrize(("joins", "settled"), [(True, (5, 10)), (False, (5, 10, 11))])
async def test_a_moment_in_which_others_are_hurt_too_is_none(
    monkeypatch: pytest.MonkeyPatch, joins: bool, settled: tuple[int, ...]
) -> None:
    others_answer(monkeypatch, *settled)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)), joins=joins)
    async with stage.calm.work():
        assert not await strike(without_postgres, stage)
    assert stage.is_undone


async def test_a_postgres_that_is_away_for_all_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: object) -> dict[str, tuple[int, int]]:
        raise ConnectionRefusedError

    monkeypatch.setattr(one_worker, "_lanes", away)
    stage = Stage(Life(LANES, OUT, logs=("leaving_group",)))
    assert not await strike(without_postgres, stage)


# --- a month ahead ----------------------------------------------------------------------------------------------------


async def test_who_doubts_its_clock_has_had_its_moment() -> None:
    stage = Stage(Life(DOUBTS, logs=("records_not_retired",)))
    assert await strike(a_month_ahead, stage)
    assert stage.started == {"days_ahead": DAYS_AHEAD}
    assert stage.is_undone


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(Life({"reason": ""}), id="silent"),
        pytest.param(Life(DOUBTS), id="not in the log"),
        pytest.param(Life({"reason": ""}, logs=("retention_failed",)), id="it failed before it was ready"),
        pytest.param(Life({**DOUBTS, "reason": ""}, logs=("records_not_retired",)), id="not in the reason"),
    ],
)
async def test_who_is_silent_breaks_a_promise(life: Life) -> None:
    stage = Stage(life)
    with pytest.raises(Unkept, match="worker 1 has a clock 31 days ahead, and does not say so"):
        await strike(a_month_ahead, stage)
    assert stage.is_undone


@pytest.mark.parametrize(("later", "runs"), [(("retention_failed",), True), ((), False)])
async def test_who_could_not_ask_for_the_time_has_had_no_moment(later: tuple[str, ...], runs: bool) -> None:
    stage = Stage(Life({"reason": ""}, later=later), runs=runs)
    assert not await strike(a_month_ahead, stage)
    assert stage.is_undone


# --- findings of a fault ----------------------------------------------------------------------------------------------


async def test_what_a_fault_saw_is_told_and_is_no_failure_of_the_harness() -> None:
    async def act(_: object, __: Random) -> None:
        raise Unkept("worker 1 kept its partitions")

    stage: Any = SimpleNamespace(fallen=list, calm=Calm())
    log = Log()
    await play(
        stage, iter([Strike((FaultKind("away", Domain.WORKER, act),), 1.0, "1/1")]), time.monotonic() + 0.01, log
    )
    assert log.unkept == ["away: worker 1 kept its partitions"]
    assert (log.counts(), log.broken, log.missed) == ({"away": 1}, [], {})


def test_a_worker_is_told_what_is_not_as_usual() -> None:
    command = faulty("before_the_end:1:SIGKILL", mutant="dry_run_kept", days_ahead=31, without_postgres=5.0)
    assert command[2:] == (
        "--mutant",
        "dry_run_kept",
        "--point",
        "before_the_end:1:SIGKILL",
        "--days-ahead=31",
        "--without-postgres=5",
    )


def test_what_is_not_as_usual_is_so_in_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 600.0)
    monkeypatch.setattr(service, "WITHOUT_POSTGRES_SECONDS", 60.0)
    monkeypatch.setattr(service, "time", time)
    given: Any = service

    make_otherwise(retention_seconds=None, without_postgres=None, days_ahead=0.0)
    assert (retention.INTERVAL_SECONDS, service.WITHOUT_POSTGRES_SECONDS, given.time) == (600.0, 60.0, time)

    make_otherwise(retention_seconds=1.0, without_postgres=2.0, days_ahead=31)
    assert (retention.INTERVAL_SECONDS, service.WITHOUT_POSTGRES_SECONDS) == (1.0, 2.0)
    assert given.time.time() - time.time() == pytest.approx(31 * DAY_SECONDS, abs=60)
    assert given.time.monotonic is time.monotonic


@pytest.mark.parametrize(("flaw", "is_good"), [(None, True), ("ACCESS_DENIED", True), ("EXPIRED_TOKEN", False)])
def test_a_login_is_as_good_a_month_ahead(flaw: str | None, is_good: bool) -> None:
    value = Writer().value(Command(1, 0, "code", "life_cycle_state", flaw=flaw))
    token = json.loads(value)["token"]
    until = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})["exp"]
    assert [until > time.time() + days * DAY_SECONDS for days in (0, DAYS_AHEAD)] == [is_good] * 2
