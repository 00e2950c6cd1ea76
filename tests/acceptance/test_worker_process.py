"""The worker as a process: it says when it is ready, and ends as it is told."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.worker_process import WorkerProcess, worker_settings
from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest


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


def test_a_worker_that_starts_writes_no_secret_to_its_log(settings: dict[str, str], tmp_path: Path) -> None:
    with WorkerProcess(settings, tmp_path) as worker:
        worker.terminate()
        for variable in ("WORKER_POSTGRES__DSN", "WORKER_LOGIN__SECRETS"):
            assert settings[variable] not in worker.logs()
