"""What is due against what is seen, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from worker.operations.reconcile.stream_join import Due, Matching, Seen, Unmatched, in_order

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def due(key: str, says: str = "OK", *, at: int = 0) -> Due:
    return Due("book", key, BEGIN + timedelta(seconds=at), (says,), f"due {key}", ("commands", 0), certain=True)


def seen(key: str, says: str = "OK", *, at: int = 0) -> Seen:
    return Seen("book", key, BEGIN + timedelta(seconds=at), (says,), f"seen {key}")


def unmatched(*items: Due | Seen, window: int = 100) -> list[Unmatched]:
    matching = Matching(window)
    return [each for item in items for each in matching.take(item)] + list(matching.rest())


def test_what_belongs_together_is_matched_whichever_comes_first() -> None:
    assert unmatched(due("a"), seen("b"), seen("a"), due("b")) == []


def test_what_one_side_lacks_is_told() -> None:
    missing, extra = due("a"), seen("b")
    assert unmatched(missing, extra) == [Unmatched(missing, None), Unmatched(None, extra)]


def test_a_counterpart_that_says_something_else_is_told_with_it() -> None:
    one, other = due("a", "OK"), seen("a", "ACCESS_DENIED")
    assert unmatched(one, other) == [Unmatched(one, other)]


def test_several_of_one_key_are_paired_by_what_they_say() -> None:
    assert unmatched(due("a", "OK"), due("a", "replay"), seen("a", "replay"), seen("a", "OK")) == []
    twice = seen("a")
    assert unmatched(due("a"), seen("a"), twice) == [Unmatched(None, twice)]


def test_what_so_many_have_overtaken_is_given_up() -> None:
    matching = Matching(window=2)
    items = [due("lost"), *(due(f"{number}") for number in range(2))]
    assert [each for item in items for each in matching.take(item)] == [Unmatched(items[0], None)]


def test_streams_are_merged_by_their_moments() -> None:
    async def stream(moments: Sequence[int]) -> AsyncIterator[Due]:
        for moment in moments:
            yield due(str(moment), at=moment)

    async def merged() -> list[str]:
        return [str(item.key) async for item in in_order([stream([1, 4]), stream([]), stream([0, 2, 3])])]

    assert asyncio.run(merged()) == ["0", "1", "2", "3", "4"]
