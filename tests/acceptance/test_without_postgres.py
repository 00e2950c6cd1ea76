"""A worker that has lost Postgres leaves its partitions to the others, and comes back when Postgres does (DESIGN 3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.acceptance.scene import Load, Scene
from tests.acceptance.test_two_workers import wait_for_all, wait_for_split
from tests.acceptance.worker_process import WorkerProcess
from tests.faults.proxy import HOST, Fault, Kind, PostgresProxy
from tests.support.pace import in_milliseconds, patience

pytestmark = pytest.mark.real_kafka

IMPATIENT: Final = (
    "-c",
    "import sys\n"
    "from worker import service\n"
    "from worker.cli import main\n"
    "service.WITHOUT_POSTGRES_SECONDS = 2\n"
    "sys.argv[1:] = ['run']\n"
    "main()",
)
"""Settings of a worker that does not wait for a minute."""
LONG: Final = {
    "KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(90),
    "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(95),
    "KAFKA__TRANSACTION_TIMEOUT_MS": in_milliseconds(100),
}
"""A session longer than any wait: partitions do not come free because it runs out."""


class Line:
    """The way to Postgres of one worker alone."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._target = parts.port or 5432
        self._proxy = PostgresProxy(self._target)
        self._proxy.start()
        credentials = parts.netloc.rpartition("@")[0]
        self.dsn = urlunsplit(parts._replace(netloc=f"{credentials}@{HOST}:{self._proxy.port}"))

    def cut(self) -> None:
        """Refuse connections from now on."""
        self._proxy.close()

    def silence(self) -> None:
        """Drop statements from now on."""
        self._proxy.arm(Fault(Kind.BLACK_HOLED, count=1_000_000, seconds=patience(3600)))

    def mend(self) -> None:
        """Make all well again, after either."""
        self._proxy.close()
        self._proxy = PostgresProxy(self._target, self._proxy.port)
        self._proxy.start()


@contextmanager
def line_to(dsn: str) -> Iterator[Line]:
    line = Line(dsn)
    try:
        yield line
    finally:
        line.cut()


def wait_out_of_group(worker: WorkerProcess) -> None:
    """Wait until it has left the group, and check its report of that."""
    worker.wait_event("leaving_group")
    document = worker.wait_unready("out of the consumer group: postgres has not answered for")
    assert document["out_of_group"]["since"]
    assert document["dependencies_away"]["postgres"]["since"]
    assert worker.probe("/livez")[0] == 200


@pytest.mark.parametrize(
    ("place", "lose"),
    [
        pytest.param({}, Line.cut, id="any place, refused"),
        pytest.param(
            {"KAFKA__GROUP_INSTANCE_ID": "pod-0"},
            Line.silence,
            id="a place of its own, silent",
            marks=pytest.mark.slow(
                why="what is silent is given up only after its time: 90 s",
                instead="tests/acceptance/test_without_postgres.py::test_the_other_answers_all_until_it_comes_back",
            ),
        ),
    ],
)
def test_the_other_answers_all_until_it_comes_back(
    scene: Scene, place: dict[str, str], lose: Callable[[Line], None]
) -> None:
    load = Load(scene, scene.new_tokens(900))
    with line_to(scene.database.worker_dsn) as line:
        losing = scene.worker(command=IMPATIENT, POSTGRES__DSN=line.dsn, **LONG, **place)
        with scene.worker() as staying, losing:
            wait_for_split(staying, losing)
            load.send(1, 300)
            scene.wait_consumed()

            lose(line)
            load.send(301, 600)
            wait_for_all(staying)
            scene.wait_consumed()
            wait_out_of_group(losing)
            assert losing.events("leave_unheard") == []

            line.mend()
            wait_for_split(staying, losing)
            load.send(601, 900)
            scene.wait_consumed()
            assert [worker.terminate() for worker in (losing, staying)] == [0, 0]

    load.check_exactly_once()


@pytest.mark.slow(
    why="all workers leave the group and come back: 11 s",
    instead="tests/acceptance/test_without_postgres.py::test_the_other_answers_all_until_it_comes_back",
)
def test_nothing_is_lost_where_nobody_has_postgres(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(200))
    with (
        line_to(scene.database.worker_dsn) as line,
        scene.worker(command=IMPATIENT, POSTGRES__DSN=line.dsn) as worker,
    ):
        load.send(1, 100)
        scene.wait_consumed()
        line.cut()
        wait_out_of_group(worker)
        load.send(101, 200)
        line.mend()
        scene.wait_consumed()
        worker.wait_ready()
        assert worker.terminate() == 0

    load.check_exactly_once()
