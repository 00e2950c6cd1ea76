"""Dry runs and their results are matched by coordinates."""

from hypothesis import given
from hypothesis import strategies as st

from worker.kafka.delivery import Coordinates, coordinates_of
from worker.operations.reconcile.dry_runs import DryRun, DryRuns


def test_a_dry_run_is_answered_once_by_a_result_with_its_offset_and_timestamp() -> None:
    dry_runs = DryRuns()
    for offset in (3, 5, 9):
        dry_runs.add(DryRun(offset, 1000 + offset, elsewhere=offset == 9))

    assert [dry_runs.answer(5, 1005), dry_runs.answer(5, 1005)] == [True, False]
    assert [dry_runs.answer(*at) for at in ((4, 1004), (5, 1004), (10, 1010))] == [None] * 3
    assert list(dry_runs.unanswered()) == [DryRun(3, 1003, False), DryRun(9, 1009, True)]


PLACES = st.builds(
    Coordinates,
    cluster=st.text(min_size=1),
    topic=st.text(min_size=1),
    partition=st.integers(0, 999),
    offset=st.integers(0, 10**18 - 1),
    timestamp=st.integers(-1, 10**18 - 1),
)


@given(PLACES)
def test_coordinates_are_read_from_the_id_that_they_make(where: Coordinates) -> None:
    assert coordinates_of(where.command_id) == where


def test_no_other_id_names_coordinates() -> None:
    assert [coordinates_of(text) for text in ("", "ce:ORG1:a:b", "rec:a/b/1/2", "rec:a/b/1/2@x")] == [None] * 4
