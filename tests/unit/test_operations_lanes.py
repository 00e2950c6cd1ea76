"""The ways out of a lane that does not start: each lets it start, at the offset it names (DESIGN 2)."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import LaneBlocked
from worker.kafka.reader import OffsetRange
from worker.lanes.start import where_to_start
from worker.operations.lanes import Decided, Lane, Remedy, State, Way, remedies

SOURCE = TopicPartition("commands", 3)
NUMBERS = st.integers(0, 40)


def lane(
    *, committed: int | None, row: tuple[int, int] | None, log: tuple[int, int] | None, ordered: int | None = None
) -> Lane:
    decided = None
    if row is not None:
        decided = Decided(1, UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), *row, ordered, transitions=0)
    return Lane(SOURCE, None if log is None else OffsetRange(SOURCE, *log), committed, decided, None)


def ways(blocked: Lane) -> dict[Way, Remedy]:
    return {remedy.way: remedy for remedy in remedies(blocked)}


@pytest.mark.parametrize(
    ("seen", "state", "behind"),
    [
        pytest.param(lane(committed=None, row=None, log=(0, 7)), State.NEW, 7, id="no worker so far"),
        pytest.param(lane(committed=5, row=(2, 5), log=(0, 5)), State.DONE, 0, id="all answered"),
        pytest.param(lane(committed=5, row=(2, 5), log=(0, 9)), State.BEHIND, 4, id="commands wait"),
        pytest.param(lane(committed=2, row=(2, 5), log=(0, 5)), State.BEHIND, 3, id="decided, and not answered"),
        pytest.param(lane(committed=8, row=(2, 5), log=(0, 9)), State.BLOCKED, 0, id="Postgres has lost commits"),
        pytest.param(lane(committed=5, row=(2, 5), log=(0, 3)), State.BLOCKED, 0, id="the log was cut"),
        pytest.param(lane(committed=8, row=(5, 5), log=(0, 9), ordered=5), State.ORDERED, 4, id="to be mended"),
        pytest.param(lane(committed=None, row=(5, 5), log=(0, 3), ordered=5), State.BLOCKED, 0, id="cut again"),
        pytest.param(lane(committed=5, row=(2, 5), log=None), State.GONE, 0, id="no such partition any more"),
    ],
)
def test_a_lanes_state_is_told_by_log_offset_and_row(seen: Lane, state: State, behind: int) -> None:
    assert (seen.state, seen.behind) == (state, behind)


def test_lost_commits_are_decided_again_or_left() -> None:
    found = ways(lane(committed=150, row=(90, 100), log=(0, 200)))

    assert found.keys() == {Way.REDO, Way.SKIP}
    assert "from offset 100 on" in found[Way.REDO].what
    assert "from 100 to 149" in found[Way.SKIP].what


def test_an_offset_beyond_the_log_cannot_be_gone_on_from() -> None:
    assert ways(lane(committed=250, row=(90, 100), log=(0, 200))).keys() == {Way.REDO}


@given(
    st.one_of(st.none(), NUMBERS),
    st.tuples(NUMBERS, NUMBERS).map(sorted),
    st.tuples(NUMBERS, NUMBERS).map(sorted),
)
def test_a_lane_that_does_not_start_has_ways_out_and_each_lets_it_start_where_it_says(
    committed: int | None, row: list[int], log: list[int]
) -> None:
    (first, following), (begin, end) = row, log
    blocked = lane(committed=committed, row=(first, following), log=(begin, end))
    try:
        where_to_start(committed, first, following, begin, end)
    except LaneBlocked:
        assert remedies(blocked)
    else:
        assert remedies(blocked) == ()
    where = {Way.REDO: max(following, begin), Way.SKIP: committed, Way.FROM_START: begin, Way.FROM_END: end}
    for remedy in remedies(blocked):
        assert 0 <= remedy.first <= remedy.following  # the table demands this
        told = committed if remedy.ordered is None else remedy.ordered
        start = where_to_start(told, remedy.first, remedy.following, begin, end)
        assert (start.position, start.set_back) == (where[remedy.way], False)
        # No recorded command may be decided a second time: commands below next_offset are looked up.
        assert remedy.way is not Way.FROM_START or remedy.following == end
