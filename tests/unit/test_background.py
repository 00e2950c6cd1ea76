"""Background work beside the main work, and the effect of its failure on it."""

import asyncio

import pytest
from structlog.testing import LogCapture

from tests.support.waiting import in_time
from worker.resilience.background import BackgroundFailed, beside


async def test_the_end_of_the_block_ends_the_work() -> None:
    stop, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        await stop.wait()
        ended = True

    async with beside("work", work(), stop):
        await asyncio.sleep(0)
        assert not ended
    assert ended


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=["a bug", "a future cancelled"])
async def test_a_failure_ends_the_main_work_at_once_and_is_told_with_its_stack(
    logged: LogCapture, error: BaseException
) -> None:
    stop, drained = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        raise error

    async def main_work() -> None:
        async with beside("probe", work(), stop):
            await in_time(stop.wait(), "the main work was told to end")
            drained.set()

    with pytest.raises(BackgroundFailed, match=f"the worker's probe has failed \\({type(error).__name__}\\)"):
        await main_work()
    assert drained.is_set()
    [entry] = logged.entries
    assert (entry["event"], entry["name"], entry["log_level"]) == ("background_failed", "probe", "error")
    assert entry["exc_info"]


async def test_a_failure_while_the_main_work_ends_is_told_as_well(logged: LogCapture) -> None:
    stop = asyncio.Event()

    async def work() -> None:
        await stop.wait()
        raise ZeroDivisionError

    with pytest.raises(BackgroundFailed):
        async with beside("probe", work(), stop):
            await asyncio.sleep(0)
    assert [entry["event"] for entry in logged.entries] == ["background_failed"]
