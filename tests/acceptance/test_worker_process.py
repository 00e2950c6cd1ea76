"""The worker as a process: it reports when it is ready, and ends as it is told."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.scene import Load, Scene
from tests.acceptance.worker_process import Ended, WorkerProcess, worker_settings
from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.waiting import TooLate


def program(code: str, directory: Path) -> WorkerProcess:
    """Return a program in the place of a worker."""
    return WorkerProcess({}, directory, command=("-c", code))


def test_one_that_ends_before_it_is_ready_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    worker = program("print('the last word'); raise SystemExit(3)", tmp_path).start()

    with pytest.raises(Ended, match=r"ended with 3 before it is ready; last seen: \(0, None\)") as raised:
        worker.wait_ready()

    assert "the last word" in str(raised.value)


def test_one_that_is_waited_for_in_vain_is_described(tmp_path: Path) -> None:
    worker = program("import time; print('begun', flush=True); time.sleep(600)", tmp_path).start()
    try:
        worker.wait(worker.logs, "has begun", wanted=lambda logs: "begun" in logs)

        with pytest.raises(TooLate, match=r"before the worker logs lane_started; last seen: \[\]") as raised:
            worker.wait_event("lane_started", 0.01)
        assert "exit code: None; /readyz: 0 null" in str(raised.value)
        assert "begun" in str(raised.value)

        with pytest.raises(TooLate, match="before the worker ended by itself"):
            worker.wait_end(0.01)
        assert worker.exit_code is not None
    finally:
        worker.kill()


@pytest.fixture
def settings(kafka: KafkaServer, topics: TopicNames, database: DatabaseUnderTest) -> dict[str, str]:
    return worker_settings(kafka.bootstrap, topics, database.worker_dsn)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_clean_when_it_is_told_to(
    settings: dict[str, str], tmp_path: Path, which: signal.Signals
) -> None:
    with WorkerProcess(settings, tmp_path) as worker:
        assert worker.probe("/livez")[0] == 200
        assert worker.signal_and_wait(which) == 0


@pytest.mark.real_kafka
def test_a_worker_holds_no_more_connections_than_it_is_given_and_needs_but_one(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(400))
    with scene.worker(POSTGRES__CONNECTIONS="1", MAX_BATCH="10") as worker:
        load.send(1, 400)
        scene.wait_consumed()
        held = scene.rows(
            "SELECT count(*) AS held FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'effective-worker'"
        )
        assert held[0]["held"] == 1
        assert worker.terminate() == 0
    load.check_exactly_once()


def test_a_worker_that_starts_writes_no_secret_to_its_log(settings: dict[str, str], tmp_path: Path) -> None:
    with WorkerProcess(settings, tmp_path) as worker:
        worker.terminate()
        for variable in ("WORKER_POSTGRES__DSN", "WORKER_LOGIN__SECRETS"):
            assert settings[variable] not in worker.logs()


FAILING = """
import sys
from worker.cli import main
from worker.observability.probe import Probe

async def failing(self):
    raise ZeroDivisionError

Probe.look = failing
sys.argv[1:] = ["run"]
main()
"""


def test_a_background_task_that_fails_ends_the_worker_and_is_told(settings: dict[str, str], tmp_path: Path) -> None:
    worker = WorkerProcess(settings, tmp_path, command=("-c", FAILING)).start()
    try:
        assert worker.wait_end() == 1
    finally:
        worker.kill()
    [failed] = worker.events("background_failed")
    assert failed["name"] == "probe"
    assert "ZeroDivisionError" in failed["exception"]
    assert worker.events("stopped"), "the worker has not drained"
    assert (
        worker.logs().splitlines()[-1] == "error: the worker's probe has failed (ZeroDivisionError): its log says where"
    )
