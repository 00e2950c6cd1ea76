"""The offset from which a lane starts: every row of the table of DESIGN 2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import LaneBlocked, LaneContradicted
from worker.lanes.start import Start, where_to_start

LOG = (0, 100)


@pytest.mark.parametrize(
    ("committed", "log", "start"),
    [
        pytest.param(None, (0, 100), 0, id="a first start"),
        pytest.param(None, (40, 100), 40, id="a first start on a log whose beginning is gone"),
        pytest.param(None, (0, 0), 0, id="a first start on an empty topic"),
        pytest.param(0, (0, 100), 0, id="offset zero is an offset"),
    ],
)
def test_without_a_row_and_an_offset_a_lane_starts_at_the_beginning(
    committed: int | None, log: tuple[int, int], start: int
) -> None:
    assert where_to_start(committed, None, None, *log) == Start(start)


@pytest.mark.parametrize("committed", [1, 60, 100])
@pytest.mark.parametrize("log", [(0, 100), (40, 100)])
def test_an_offset_without_a_row_is_no_first_start(committed: int, log: tuple[int, int]) -> None:
    with pytest.raises(LaneContradicted) as blocked:
        where_to_start(committed, None, None, *log)

    assert f"committed offset {committed}" in blocked.value.reason
    assert "effective-worker lanes mend" in blocked.value.reason


@pytest.mark.parametrize("following", [1, 60, 100])
def test_where_everything_decided_is_published_the_lane_goes_on(following: int) -> None:
    assert where_to_start(following, following - 1, following, *LOG) == Start(following)


def test_a_lane_that_was_opened_and_never_decided_anything_goes_on() -> None:
    assert where_to_start(0, 0, 0, 0, 0) == Start(0)


@pytest.mark.parametrize("committed", [50, 55, 59])
def test_a_decided_and_unpublished_batch_is_taken_again_from_the_committed_offset(committed: int) -> None:
    assert where_to_start(committed, 50, 60, *LOG) == Start(committed, set_back=False)


@pytest.mark.parametrize("committed", [0, 10, 49])
def test_offsets_set_back_by_hand_are_followed_and_reported(committed: int) -> None:
    assert where_to_start(committed, 50, 60, *LOG) == Start(committed, set_back=True)


def test_offsets_set_back_behind_the_log_start_at_its_beginning_and_are_reported() -> None:
    assert where_to_start(10, 50, 60, 30, 100) == Start(30, set_back=True)


@pytest.mark.parametrize("committed", [61, 100])
def test_a_committed_offset_beyond_what_was_decided_blocks_the_lane(committed: int) -> None:
    with pytest.raises(LaneBlocked) as blocked:
        where_to_start(committed, 50, 60, *LOG)

    assert str(committed) in blocked.value.reason
    assert "60" in blocked.value.reason
    assert "effective-worker lanes mend" in blocked.value.reason


def test_expired_offsets_start_from_the_first_of_the_last_batch() -> None:
    assert where_to_start(None, 50, 60, *LOG) == Start(50)


def test_expired_offsets_of_a_log_cut_at_its_beginning_start_at_what_is_left() -> None:
    assert where_to_start(None, 50, 60, 55, 100) == Start(55, lost=range(50, 55))


@pytest.mark.parametrize(
    ("committed", "log_start", "lost"),
    [
        pytest.param(60, 60, range(0), id="what was answered may be removed"),
        pytest.param(60, 61, range(60, 61), id="one that nobody has read"),
        pytest.param(60, 100, range(60, 100), id="all that nobody has read"),
        pytest.param(52, 55, range(52, 55), id="some that were decided and not answered"),
        pytest.param(52, 70, range(52, 70), id="these, and some that nobody has read"),
        pytest.param(10, 30, range(0), id="what was answered before the offsets were set back"),
        pytest.param(10, 55, range(50, 55), id="more than that"),
    ],
)
def test_what_is_removed_before_it_was_answered_is_lost(committed: int, log_start: int, lost: range) -> None:
    start = where_to_start(committed, 50, 60, log_start, 100)

    assert (start.position, start.lost) == (max(committed, log_start), lost)


@pytest.mark.parametrize("committed", [None, 10, 50, 60])
def test_a_log_that_ends_before_what_was_decided_blocks_the_lane(committed: int | None) -> None:
    with pytest.raises(LaneBlocked) as blocked:
        where_to_start(committed, 50, 60, 0, 59)

    assert "59" in blocked.value.reason
    assert "60" in blocked.value.reason


def test_a_log_that_ends_where_the_decided_does_is_whole() -> None:
    assert where_to_start(60, 50, 60, 0, 60) == Start(60)


@given(
    st.one_of(st.none(), st.integers(0, 30)),
    st.one_of(st.none(), st.tuples(st.integers(0, 30), st.integers(0, 30))),
    st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_a_lane_never_skips_a_command_that_is_not_answered_for_sure(
    committed: int | None, row: tuple[int, int] | None, log: tuple[int, int]
) -> None:
    first, following = sorted(row) if row is not None else (None, None)
    log_start, log_end = sorted(log)
    try:
        start = where_to_start(committed, first, following, log_start, log_end)
    except LaneBlocked:
        if following is None:
            assert committed
        else:
            assert log_end < following or (committed is not None and committed > following)
        return
    unanswered_from = committed if committed is not None else first if first is not None else log_start
    assert start.position == max(unanswered_from, log_start)
    assert start.set_back == (committed is not None and first is not None and committed < first)
