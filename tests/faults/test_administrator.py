"""Changes of a log of commands: each waits for its moment, and reports its findings."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import administrator, calm, schedule
from tests.faults.administrator import Place, cut_off, made_anew, removed_unread
from tests.faults.calm import Calm
from tests.faults.kinds import Act, Domain, FaultKind
from tests.faults.ledger import Sent
from tests.faults.past import Past
from tests.faults.schedule import Log, Strike, play
from tests.providers import Unavailable
from tests.support.pace import patience
from tests.support.waiting import SECONDS


class Ground:
    """A substitute for a stage: one partition in which eight commands are answered, and the sources of information."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended, self.answered, self.end, self.begin = True, 8, 50, 0
        self.row = {"partition": 0, "next_offset": 8}
        self.past, self.calm, self.carries_out = Past(), Calm(), True
        self.is_whole, self.left_at = True, 50
        self.did: list[tuple[str, ...]] = []
        self.seen: list[bool] = []
        for name, instead in {
            "consumed_offsets": lambda *_: {0: self.answered},
            "log_ends": lambda *_: {0: self.end},
            "_held": lambda *_: [Sent(0, n, n) for n in range(self.end)],
            "_command": self._command,
            "_places_that_tell": lambda _, __, lost: {"lanes list": lambda: self._told() is (lost is not None)},
            "_places_that_tell_of_blocks": lambda *_: {"lanes list": self._told},
            "_listed": lambda _: (0, {"a lane": {"state": "done"}}),
            "PATIENCE_SECONDS": 0.1,
            "CALM_SECONDS": 0.2,
            "DONE_SECONDS": 0.2,
            "MOMENT_SECONDS": 0.2,
        }.items():
            monkeypatch.setattr(administrator, name, instead)

    def _command(self, _: object, *arguments: str) -> Any:
        self.did.append(arguments)
        return SimpleNamespace(returncode=0 if self.carries_out else 1, stdout="")

    def _told(self) -> bool:
        """Something that needs a person, until one has acted."""
        self.seen.append(not any("--yes" in each for each in self.did))
        return self.seen[-1]

    def stage(self) -> Any:
        @asynccontextmanager
        async def ended_in_order() -> AsyncIterator[bool]:
            yield self.ended

        def remove_records(_: str, __: int, before: int) -> int:
            self.begin = before
            return before

        async def healed(_: float) -> None:
            if not self.is_whole:
                raise Unavailable("a broker is away")

        async def lose_end(*_: object) -> int:
            self.did.append(("cut",))
            return self.left_at

        def does(*what: str, instead: Any) -> Callable[..., Any]:
            def do(*_: object) -> Any:
                self.did.append(what)
                return instead

            return do

        return SimpleNamespace(
            past=self.past,
            calm=self.calm,
            fallen=list,
            partitions=1,
            sources=("commands",),
            source=lambda _: "commands",
            left=lambda: {} if self.answered == 8 else {"commands-0": 1},
            load=SimpleNamespace(pause=does("pause", instead=True), resume=does("resume", instead=None)),
            fleet=SimpleNamespace(ended_in_order=ended_in_order),
            cluster=SimpleNamespace(
                remove_records=remove_records,
                healed=healed,
                is_gone=does("delete", instead=True),
                is_there=does("create", instead=True),
                lose_end=lose_end,
            ),
            scene=SimpleNamespace(
                kafka=SimpleNamespace(bootstrap=""), group="group", rows=lambda *_: [self.row] if self.row else []
            ),
        )


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(monkeypatch)


async def test_what_is_removed_unread_is_evidence_and_is_acknowledged(ground: Ground) -> None:
    assert await removed_unread(ground.stage(), Random(1))
    assert 10 <= ground.begin <= 48
    assert ground.past.sent == [Sent(0, n, n) for n in range(ground.begin)]
    assert ground.past.removed == [Sent(0, n, n) for n in range(8, ground.begin)]
    assert ground.did == [("lanes", "acknowledge", "commands/0", "--yes")]
    assert ground.seen == [True, False]
    assert ground.past.untold == []


def drain_in_vain(ground: Ground) -> None:
    ground.ended = False


def lag(ground: Ground) -> None:
    ground.answered = 7


def decide_nothing(ground: Ground) -> None:
    ground.row = {}


def decide_more_than_is_told(ground: Ground) -> None:
    ground.row = {"partition": 0, "next_offset": 9}


def send_nothing(ground: Ground) -> None:
    ground.end = 8


@pytest.mark.parametrize("spoil", [drain_in_vain, lag, decide_nothing, decide_more_than_is_told, send_nothing])
async def test_nothing_is_removed_when_it_is_not_known_what_is_unread(
    ground: Ground, spoil: Callable[[Ground], None]
) -> None:
    spoil(ground)
    assert not await removed_unread(ground.stage(), Random(1))
    assert (ground.begin, ground.past.sent, ground.past.removed, ground.did) == (0, [], [], [])


@pytest.mark.parametrize("act", [removed_unread, made_anew, cut_off])
async def test_a_log_is_changed_by_one_at_a_time(ground: Ground, act: Any) -> None:
    async with ground.past.one:
        assert not await act(ground.stage(), Random(1))
    assert (ground.begin, ground.did) == (0, [])


async def test_who_says_nothing_of_a_loss_is_written_down(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administrator, "_places_that_tell", lambda *_: {"/readyz": lambda: False})
    assert await removed_unread(ground.stage(), Random(1))
    [told] = ground.past.untold
    assert told.startswith("/readyz should say that commands/0 has lost offsets 8 to ")


async def test_who_does_not_cease_to_speak_of_a_loss_is_written_down(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administrator, "_places_that_tell", lambda _, __, lost: {"/metrics": lambda: lost is not None})
    assert await removed_unread(ground.stage(), Random(1))
    assert ground.past.untold == ["/metrics should say no more what commands/0 has lost, since it is acknowledged"]


@pytest.mark.parametrize("act", [removed_unread, made_anew, cut_off])
async def test_an_act_in_which_nobody_says_anything_comes_to_its_end(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    # As much longer than one wait as it is in a run.
    longest = schedule.LONGEST_SECONDS / calm.CALM_SECONDS * 0.2
    silent = {where: lambda: False for where in ("lanes list", "/readyz", "/metrics")}
    for name in ("_places_that_tell", "_places_that_tell_of_blocks"):
        monkeypatch.setattr(administrator, name, lambda *_: silent)
    monkeypatch.setattr(schedule, "LONGEST_SECONDS", longest)
    assert (await played(ground, act)).broken == []
    assert [told.partition(" should ")[0] for told in ground.past.untold] == [*silent]


async def test_all_places_are_looked_at_at_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administrator, "PATIENCE_SECONDS", patience(SECONDS))
    together = Barrier(3, timeout=patience(SECONDS))

    def look() -> bool:
        together.wait()
        return True

    monkeypatch.setattr(administrator, "_places_that_tell", lambda *_: dict.fromkeys(("a", "b", "c"), look))
    assert await removed_unread(ground.stage(), Random(1))
    assert ground.past.untold == []


async def test_a_command_that_does_not_come_to_its_end_is_written_down(ground: Ground) -> None:
    ground.carries_out = False
    log = await played(ground, removed_unread)
    assert (log.broken, log.counts()) == ([], {"act": 1})
    assert ground.past.untold == ["effective-worker lanes acknowledge commands/0 --yes should come to its end"]


async def test_nothing_is_said_of_who_is_hurt_by_others_all_the_time(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calm, "OTHERS_SECONDS", 0.2)
    monkeypatch.setattr(administrator, "_places_that_tell", lambda *_: {"/readyz": lambda: False})
    async with ground.calm.work():
        log = await played(ground, removed_unread)
    assert ground.past.untold == []
    [failed] = log.broken
    assert failed.startswith("act: TimeoutError: other faults do not come to their end, before /readyz should say")


async def test_who_speaks_once_the_others_are_over_is_in_time(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ground.calm.work()
    is_over = False

    def say(_: object, __: object, lost: range | None) -> Any:
        return {"/readyz": lambda: is_over or lost is None}

    async def end_others(seconds: float) -> None:
        nonlocal is_over
        await asyncio.sleep(seconds)
        is_over = True
        await others.__aexit__(None, None, None)

    monkeypatch.setattr(administrator, "_places_that_tell", say)
    await others.__aenter__()
    _, log = await asyncio.gather(end_others(0.5), played(ground, removed_unread))
    assert (ground.past.untold, log.broken) == ([], [])


async def played(ground: Ground, act: Any) -> Log:
    log = Log()
    kind = FaultKind("act", Domain.BROKER, act)
    await play(ground.stage(), iter([Strike((kind,), 0.1, "1/1")]), time.monotonic() + 0.05, log)
    return log


# --- reports of a loss ------------------------------------------------------------------------------------------------

LOST = range(8, 11)
SAYS = "partition 0 has lost commands before they were answered, at offsets 8 to 10: see lanes show"


class Told:
    """A loss of the offsets 8 to 10, as reported everywhere: a substitute for a stage, and for the command."""

    def __init__(self, ranges: list[tuple[int, int]], reason: str, count: float) -> None:
        lost = [{"from_offset": begin, "to_offset": end, "acknowledged_at": None} for begin, end in ranges]
        self.listed = (int(bool(lost)), {Place("commands", 0): {"lost": lost}})
        metrics = f"# TYPE {administrator.LOSSES} gauge\n{administrator.LOSSES} {count}\n"
        worker = SimpleNamespace(probe=lambda _: (200, {"reason": reason}), metrics=lambda: metrics)
        self.fleet = SimpleNamespace(slots=[SimpleNamespace(worker=worker)])


@pytest.mark.parametrize(
    ("told", "says_it", "says_nothing"),
    [
        (Told([(8, 10)], SAYS, 1.0), True, False),
        (Told([], "partitions assigned", 0.0), False, True),
        (Told([(8, 100)], SAYS.replace("10", "100"), 10.0), False, False),
    ],
    ids=["the loss", "none", "another"],
)
def test_a_loss_is_told_as_it_is_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, told: Any, says_it: bool, says_nothing: bool
) -> None:
    monkeypatch.setattr(administrator, "_listed", lambda stage: stage.listed)
    for lost, wanted in ((LOST, says_it), (None, says_nothing)):
        places = administrator._places_that_tell(told, Place("commands", 0), lost)
        assert {where: look() for where, look in places.items()} == dict.fromkeys(places, wanted)


# --- made again -------------------------------------------------------------------------------------------------------

MENDED = ("lanes", "mend", "--by", "from-start", "--yes")


async def test_a_topic_is_made_anew_when_all_is_answered_and_mended_while_commands_come(ground: Ground) -> None:
    assert await made_anew(ground.stage(), Random(1))
    assert ground.did == [("pause",), ("delete",), ("create",), ("resume",), MENDED]
    assert ground.past.sent == [Sent(0, n, n) for n in range(50)]
    assert (ground.past.removed, ground.past.untold) == ([], [])


def hurt_a_broker(ground: Ground) -> None:
    ground.is_whole = False


@pytest.mark.parametrize("act", [made_anew, cut_off])
@pytest.mark.parametrize("spoil", [lag, decide_nothing, hurt_a_broker])
async def test_nothing_is_done_to_a_log_at_another_moment(
    ground: Ground, spoil: Callable[[Ground], None], act: Act
) -> None:
    spoil(ground)
    assert not await act(ground.stage(), Random(1))
    assert ground.did == [("pause",), ("resume",)]
    assert ground.past.sent == []


async def test_who_does_not_tell_of_a_block_is_written_down(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administrator, "_places_that_tell_of_blocks", lambda *_: {"its row": lambda: False})
    assert await made_anew(ground.stage(), Random(1))
    assert ground.past.untold == ["its row should say that commands waits for a person"]


async def test_a_lane_that_does_not_start_when_it_is_mended_is_written_down(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administrator, "_listed", lambda _: (0, {"a lane": {"state": "ordered"}}))
    assert await made_anew(ground.stage(), Random(1))
    assert ground.past.untold == ["every lane should start, since it is mended from-start"]


# --- cut --------------------------------------------------------------------------------------------------------------


async def test_a_log_is_cut_when_all_is_answered_and_mended_before_other_commands_come(ground: Ground) -> None:
    assert await cut_off(ground.stage(), Random(1))
    assert ground.did == [("pause",), ("cut",), ("lanes", "mend", "--by", "from-end", "--yes"), ("resume",)]
    assert ground.past.sent == [Sent(0, n, n) for n in range(50)]
    assert (ground.past.removed, ground.past.untold) == ([], [])


async def test_a_log_that_does_not_end_where_it_was_cut_is_a_failure_of_the_harness(ground: Ground) -> None:
    ground.left_at = 51
    with pytest.raises(TimeoutError, match="does not end at 51"):
        await cut_off(ground.stage(), Random(1))
