"""A large backlog in many partitions at once: a worker holds the batches of its lanes, and no more."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.clients import Outgoing
from tests.acceptance.scene import Scene, body

pytestmark = pytest.mark.real_kafka

PARTITIONS: Final = 32
MOST_MIB: Final = 160
EACH: Final = 300
PADDING: Final = b" " * 8192
"""White space is JSON, too: it makes a command as large as real ones get."""


@pytest.fixture
def partitions() -> int:
    return PARTITIONS


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has ever held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def test_many_partitions_with_large_backlogs_do_not_fill_the_memory(scene: Scene) -> None:
    codes = scene.new_tokens(PARTITIONS * EACH)
    scene.send(*(Outgoing(body(code) + PADDING, partition=n % PARTITIONS) for n, code in enumerate(codes)))
    with scene.worker() as worker:
        scene.wait_consumed(300)
        assert peak_mib(worker.pid) < MOST_MIB
        assert worker.terminate() == 0
