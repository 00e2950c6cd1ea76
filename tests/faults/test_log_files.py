"""The end of a log is lost at the border of a batch, and only there."""

from pathlib import Path

import pytest

from tests.faults.log_files import BATCH, batches, cut


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write two segments, of batches that begin at 0, 3, 7 and at 9, 10."""
    for segment, firsts in {0: (0, 3, 7), 9: (9, 10)}.items():
        written = b"".join(BATCH.pack(first, first + 1) + b"x" * (first + 1) for first in firsts)
        (tmp_path / f"{segment:020}.log").write_bytes(written)
        for suffix in ("index", "timeindex"):
            (tmp_path / f"{segment:020}.{suffix}").write_bytes(b"index")
    return tmp_path


def names(log: Path) -> set[str]:
    return {path.name.lstrip("0") for path in log.iterdir()}


def test_every_batch_is_found(log: Path) -> None:
    assert batches(log) == [0, 3, 7, 9, 10]


@pytest.mark.parametrize(
    ("before", "left", "files"),
    [
        (11, [0, 3, 7, 9, 10], {".log", ".index", ".timeindex", "9.log", "9.index", "9.timeindex"}),
        (10, [0, 3, 7, 9], {".log", ".index", ".timeindex", "9.log"}),
        (9, [0, 3, 7], {".log", ".index", ".timeindex"}),
        (7, [0, 3], {".log"}),
        (4, [0, 3], {".log"}),
        (0, [], {".log"}),
    ],
)
def test_what_begins_behind_the_cut_is_lost_and_the_rest_is_as_it_was(
    log: Path, before: int, left: list[int], files: set[str]
) -> None:
    cut(log, before)
    assert batches(log) == left
    assert names(log) == files
