"""The files in which a broker keeps the log of a partition, and the loss of their end."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BATCH: Final = struct.Struct(">qi")
"""The beginning of a record batch: its first offset, and the number of bytes that follow."""
INDEXES: Final = (".index", ".timeindex")
"""The files that the broker makes again for a segment without them."""


def batches(directory: Path) -> list[int]:
    """Return the first offset of every record batch."""
    return [first for segment in _segments(directory) for first, _ in _batches(segment)]


def cut(directory: Path, before: int) -> None:
    """Leave no batch that begins at an offset of ``before`` or behind it. The broker must not run."""
    for segment in _segments(directory):
        kept = next((position for first, position in _batches(segment) if first >= before), None)
        if kept is None:
            continue
        for suffix in INDEXES:
            segment.with_suffix(suffix).unlink(missing_ok=True)
        if int(segment.stem) >= before and segment != _segments(directory)[0]:
            segment.unlink()
        else:
            os.truncate(segment, kept)


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def _batches(segment: Path) -> Iterator[tuple[int, int]]:
    """Yield first offset and position of each."""
    position, end = 0, segment.stat().st_size
    with segment.open("rb") as file:
        while position + BATCH.size <= end:
            first, size = BATCH.unpack(file.read(BATCH.size))
            yield first, position
            position += BATCH.size + size
            file.seek(position)
