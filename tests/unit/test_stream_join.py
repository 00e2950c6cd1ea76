"""Expected against observed messages, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from worker.operations.reconcile.messages import Expected, Ledger, Observed
from worker.operations.reconcile.stream_join import StreamJoin, Unmatched, in_order

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def expected(key: str, says: str = "OK", *, at: int = 0) -> Expected:
    return Expected(
        Ledger.RESULTS, key, BEGIN + timedelta(seconds=at), (says,), f"expected {key}", ("commands", 0), certain=True
    )


def observed(key: str, says: str = "OK", *, at: int = 0) -> Observed:
    return Observed(Ledger.RESULTS, key, BEGIN + timedelta(seconds=at), (says,), f"observed {key}")


def unmatched(*items: Expected | Observed, window: int = 100) -> list[Unmatched]:
    join = StreamJoin(window)
    return [each for item in items for each in join.take(item)] + list(join.rest())


def test_what_belongs_together_is_matched_whichever_comes_first() -> None:
    assert unmatched(expected("a"), observed("b"), observed("a"), expected("b")) == []


def test_what_one_side_lacks_is_told() -> None:
    missing, extra = expected("a"), observed("b")
    assert unmatched(missing, extra) == [Unmatched(missing, None), Unmatched(None, extra)]


def test_a_counterpart_that_says_something_else_is_told_with_it() -> None:
    one, other = expected("a", "OK"), observed("a", "ACCESS_DENIED")
    assert unmatched(one, other) == [Unmatched(one, other)]


def test_several_of_one_key_are_paired_by_what_they_say() -> None:
    assert unmatched(expected("a", "OK"), expected("a", "replay"), observed("a", "replay"), observed("a", "OK")) == []
    twice = observed("a")
    assert unmatched(expected("a"), observed("a"), twice) == [Unmatched(None, twice)]


def test_what_so_many_have_overtaken_is_given_up() -> None:
    join = StreamJoin(window=2)
    items = [expected("lost"), *(expected(f"{number}") for number in range(2))]
    assert [each for item in items for each in join.take(item)] == [Unmatched(items[0], None)]


def test_streams_are_merged_by_their_moments() -> None:
    async def stream(moments: Sequence[int]) -> AsyncIterator[Expected]:
        for moment in moments:
            yield expected(str(moment), at=moment)

    async def merged() -> list[str]:
        return [str(item.key) async for item in in_order([stream([1, 4]), stream([]), stream([0, 2, 3])])]

    assert asyncio.run(merged()) == ["0", "1", "2", "3", "4"]
