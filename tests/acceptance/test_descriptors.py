"""A worker without descriptors reports that, and calls neither Postgres nor Kafka away."""

import resource
import sys
from pathlib import Path

import pytest

from tests.acceptance.scene import Scene, body
from worker.observability.descriptors import partitions_within

pytestmark = [
    pytest.mark.real_kafka,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into, and limits, another process"),
]

FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
sys.argv = ["effective-worker", "run"]
from worker.cli import main
main()
"""

# All is open that may be when a stage of the start begins.
USED_UP = """
import os, resource, sys
import worker.service as service
stage = "schema" if "{stage}" == "postgres" else "topics"
def used_up(step):
    async def first(*arguments):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return await step(*arguments)
    return first
setattr(service._Start, stage, used_up(getattr(service._Start, stage)))
sys.argv = ["effective-worker", "run"]
from worker.cli import main
main()
"""

END_ITS_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def opened(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_worker_that_may_open_too_few_files_for_any_work_ends_and_says_so(scene: Scene) -> None:
    worker = scene.worker(command=("-c", FEW.format(limit=40))).start()
    try:
        assert worker.wait_end() == 1
        assert "error: 40 open files are too few for a worker with one partition. Raise the hard limit" in worker.logs()
    finally:
        worker.kill()


@pytest.mark.parametrize("stage", ["postgres", "kafka"])
def test_a_worker_that_runs_out_of_descriptors_while_it_starts_ends_and_says_so(scene: Scene, stage: str) -> None:
    worker = scene.worker(command=("-c", USED_UP.format(stage=stage))).start()
    try:
        assert worker.wait_end() == 1
        assert "Too many open files, which is a limit of this process. Raise the hard limit" in worker.logs()
        assert worker.events("dependency_away") == []
    finally:
        worker.kill()


def test_a_worker_that_runs_out_of_descriptors_at_work_says_so_and_goes_on(scene: Scene) -> None:
    with scene.worker() as worker:
        hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (5, hard))
        scene.rows(END_ITS_SESSIONS)
        scene.send(body(scene.new_tokens(1)[0]))
        assert worker.wait_event("descriptors_used_up")["dependency"] == "descriptors"
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.events("dependency_away") == []
        assert worker.terminate() == 0


@pytest.mark.parametrize("partitions", [24])
@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_worker_needs_no_more_descriptors_than_is_said(scene: Scene, partitions: int, delivery: str) -> None:
    with scene.worker(DELIVERY=delivery) as worker:
        needed = opened(worker.pid)
        worker.terminate()
    assert partitions_within(needed, brokers=1, connections=10) < partitions
