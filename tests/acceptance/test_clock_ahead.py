"""A worker whose clock the broker refuses leaves its partitions to the others, until it is set (DESIGN 3)."""

from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.scene import Load, Scene
from tests.acceptance.test_two_workers import wait_for_all, wait_for_split
from tests.acceptance.test_without_postgres import LONG
from tests.acceptance.worker_process import WorkerProcess

pytestmark = pytest.mark.real_kafka

# More than the hour that a broker accepts by default, and less than the logins of the tests are good for.
AHEAD: Final = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from worker import service
from worker.lanes import publisher
from worker.observability import probe
from worker.cli import main

def now():
    return time.time() + (5400 if Path({wrong!r}).exists() else 0)

def appended(batch, message):
    stamp, headers = int(now() * 1000), list(message.headers)
    return batch.append(timestamp=stamp, key=message.key, value=message.value, headers=headers) is not None

publisher._appended = appended
service.time = SimpleNamespace(time=now, monotonic=time.monotonic)
service.CLOCK_REFUSED_SECONDS = 1
probe.INTERVAL_SECONDS = 0.5
sys.argv[1:] = ["run"]
main()
"""
"""A worker on a machine whose clock is ahead while a file is there, and that does not wait for a minute."""


def wait_out_of_group(worker: WorkerProcess) -> None:
    """Wait until it has left the group, and check its report of that."""
    worker.wait_event("leaving_group")
    document = worker.wait_unready("out of the consumer group: what the clock of this machine stamps has been refused")
    assert "clock is wrong: the clock of this machine is ahead of what the broker takes" in document["reason"]
    assert document["dependencies_away"].keys() == {"clock"}
    assert worker.wait_event("clock_refused")["dependency"] == "clock"
    assert worker.events("dependency_away") == []
    assert worker.probe("/livez")[0] == 200


def test_the_other_answers_all_until_the_clock_is_set(scene: Scene, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    load = Load(scene, scene.new_tokens(300))
    ahead = scene.worker(command=("-c", AHEAD.format(wrong=str(wrong))), **LONG)
    with scene.worker() as staying, ahead:
        wait_for_split(staying, ahead)
        load.send(1, 100)
        scene.wait_consumed()

        wrong.touch()
        load.send(101, 200)
        wait_out_of_group(ahead)
        wait_for_all(staying)
        scene.wait_consumed()
        assert ahead.events("leave_unheard") == []

        wrong.unlink()
        wait_for_split(staying, ahead)
        load.send(201, 300)
        scene.wait_consumed()
        assert [worker.terminate() for worker in (ahead, staying)] == [0, 0]

    load.check_exactly_once()
