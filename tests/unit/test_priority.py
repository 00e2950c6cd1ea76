"""Turns of lanes: interactive lanes work at once, and so do bulk lanes unless they must give way (DESIGN 2)."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.waiting import in_time, turns, until
from worker.lanes import priority
from worker.lanes.priority import FEW, LATELY_SECONDS, Priority

MOST = 500
FOR_EVER = 1e6


class House:
    """A courtesy, a clock that the test turns, and lanes that note which of them worked on how many commands."""

    def __init__(self, most: int = MOST) -> None:
        self.now = 1000.0
        self.priority = Priority(most, clock=lambda: self.now)
        self.drain = asyncio.Event()
        self.turns: list[tuple[str, int]] = []
        self.inside = 0
        self.most_inside = 0

    async def interactive(self) -> None:
        """Run a batch that is soon done."""
        async with self.priority.first(self.drain):
            pass

    async def bulk(self, name: str = "lane", *, turns: int = 1, stay: asyncio.Event | None = None) -> None:
        """Run a bulk lane that takes so many turns, each of which lasts a while."""
        for _ in range(turns):
            async with self.priority.behind(self.drain) as most:
                self.turns.append((name, most))
                self.inside += 1
                self.most_inside = max(self.most_inside, self.inside)
                await (asyncio.sleep(0.001) if stay is None else stay.wait())
                self.inside -= 1

    def start(self, *names: str, turns: int = 1, stay: asyncio.Event | None = None) -> "list[asyncio.Task[None]]":
        return [asyncio.create_task(self.bulk(name, turns=turns, stay=stay)) for name in names]


async def ended(lanes: "list[asyncio.Task[None]]") -> None:
    await in_time(asyncio.gather(*lanes), "every lane had its turns")


async def test_without_interactive_commands_all_bulk_lanes_work_at_once_and_on_whole_batches() -> None:
    house = House()
    await ended(house.start("a", "b", "c"))
    assert house.most_inside == 3
    assert house.turns == [("a", MOST), ("b", MOST), ("c", MOST)]


@pytest.mark.parametrize(("most", "few"), [(MOST, FEW), (20, 20)])
async def test_while_interactive_commands_come_bulk_lanes_take_turns_with_a_few_commands(most: int, few: int) -> None:
    house = House(most)
    await house.interactive()
    await ended(house.start("a", "b", "c", turns=2))
    assert house.most_inside == 1
    assert house.turns == [(name, few) for name in "abcabc"]


async def test_a_bulk_lane_waits_until_no_interactive_batch_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "GAP_SECONDS", FOR_EVER)
    house = House()
    async with AsyncExitStack() as in_hand:
        await in_hand.enter_async_context(house.priority.first(house.drain))
        async with house.priority.first(house.drain):
            lanes = house.start("a")
            await turns()
        await turns()
        assert house.turns == []
    await ended(lanes)
    assert house.turns == [("a", FEW)]


async def test_however_much_is_in_hand_bulk_goes_on() -> None:
    house = House()
    async with house.priority.first(house.drain):
        await ended(house.start("a", "b", turns=2))
    assert house.turns == [(name, FEW) for name in "abab"]


async def test_when_interactive_commands_have_been_missing_for_long_enough_all_bulk_lanes_go_on_at_once() -> None:
    house = House()
    await house.interactive()
    leave, gone = asyncio.Event(), asyncio.Event()
    slow = house.start("slow", stay=leave)
    waiting = house.start("a", "b", "c", turns=1, stay=gone)
    house.now += LATELY_SECONDS / 2
    await turns()
    assert house.turns == [("slow", FEW)]
    house.now += LATELY_SECONDS
    leave.set()
    await until(lambda: house.inside == 3, what="all three worked at once")
    gone.set()
    await ended([*slow, *waiting])
    assert house.turns[1:] == [(name, MOST) for name in "abc"]


async def test_a_drain_ends_every_wait_at_once_and_leaves_the_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "GAP_SECONDS", FOR_EVER)
    house = House()
    async with house.priority.first(house.drain):
        lanes = house.start("waits for a gap", "waits for its turn")
        await turns()
        house.drain.set()
        await ended(lanes)
    assert [most for _, most in house.turns] == [0, 0]

    house.drain.clear()
    await ended(house.start("another"))
    assert house.turns[-1] == ("another", FEW)


async def test_a_lane_that_is_cancelled_in_the_moment_of_its_turn_leaves_it_to_others() -> None:
    house = House()
    await house.interactive()
    for moments in range(6):
        leave = asyncio.Event()
        inside = house.start("inside", stay=leave)
        [cancelled] = house.start("cancelled")
        await turns()
        leave.set()
        for _ in range(moments):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        await ended(inside)
        await ended(house.start("another"))
        assert house.turns[-1] == ("another", FEW)


async def test_a_lane_in_trouble_holds_the_others_up_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "TURN_SECONDS", 0.02)
    house = House()
    await house.interactive()
    leave = asyncio.Event()
    troubled = house.start("troubled", stay=leave)
    await ended(house.start("another", turns=2))
    assert house.turns == [("troubled", FEW), ("another", FEW), ("another", FEW)]
    leave.set()
    await ended(troubled)
    await ended(house.start("a", "b"))
    assert house.most_inside == 2  # the troubled lane and one other: its turn was passed on once


async def test_a_lane_that_fails_in_its_turn_leaves_it_to_others() -> None:
    house = House()
    await house.interactive()
    with pytest.raises(ZeroDivisionError):
        async with house.priority.behind(house.drain):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with house.priority.first(house.drain):
            raise ZeroDivisionError
    await ended(house.start("another"))
    assert house.turns == [("another", FEW)]
