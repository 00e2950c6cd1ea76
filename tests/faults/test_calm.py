"""Quiet comes when all faults are over, and no fault begins before it is over itself."""

import asyncio

import pytest

from tests.faults import calm
from tests.faults.calm import Calm


async def test_quiet_comes_when_the_others_are_over() -> None:
    quiet, other = Calm(), asyncio.Event()

    async def hurt() -> None:
        async with quiet.work():
            await other.wait()

    async with quiet.work():
        hurting = asyncio.create_task(hurt())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(other.set)
        async with quiet.asked() as is_calm:
            assert is_calm
            assert hurting.done()


async def test_quiet_does_not_come_while_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm, "OTHERS_SECONDS", 0.1)
    quiet = Calm()
    async with quiet.work(), quiet.work(), quiet.asked() as is_calm:
        assert not is_calm


async def test_two_that_ask_for_quiet_do_not_wait_for_each_other() -> None:
    quiet, both = Calm(), asyncio.Barrier(2)

    async def judge() -> bool:
        async with quiet.work():
            await both.wait()
            async with quiet.asked() as is_calm:
                await both.wait()
                return is_calm

    one, other = await asyncio.gather(judge(), judge())
    assert one
    assert other


async def test_nothing_begins_before_all_have_had_their_quiet() -> None:
    quiet = Calm()
    seen = []

    async def hurt() -> None:
        async with quiet.work():
            seen.append("hurt")

    async with quiet.work():
        async with quiet.asked():
            async with quiet.asked():
                hurting = asyncio.create_task(hurt())
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("judged")
        await hurting
    assert seen == ["judged", "hurt"]
