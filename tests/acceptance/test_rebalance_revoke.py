"""Partitions are revoked while their lanes have batches in hand: each batch is finished or dropped whole (DESIGN 2)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import asyncpg
import pytest

from tests.acceptance.scene import PARTITIONS, Load, Scene
from tests.acceptance.worker_process import WorkerProcess
from tests.support.pace import in_milliseconds

pytestmark = pytest.mark.real_kafka


@contextmanager
def locked(scene: Scene, tokens: list[str]) -> Iterator[None]:
    """Hold these access tokens, so that every batch that names one of them waits."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(scene.database.owner_dsn))
        try:
            runner.run(connection.execute("BEGIN"))
            runner.run(connection.execute("SELECT FROM access_token WHERE id = ANY ($1) FOR UPDATE", tokens))
            yield
            runner.run(connection.execute("ROLLBACK"))
        finally:
            runner.run(connection.close())


def count_waiting(scene: Scene) -> int:
    """Return the number of batches that wait for an access token now."""
    (row,) = scene.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(row["count"])


def lane_states(worker: WorkerProcess) -> set[str]:
    _, document = worker.probe("/readyz")
    return {lane["state"] for lane in document["lanes"].values()} if document else set()


def test_a_revoked_lane_finishes_the_batch_in_hand(scene: Scene) -> None:
    load = Load(scene, scene.new_tokens(400))
    # A rebalance grants the lanes half a session, and the steps of this test take time meanwhile.
    settings = {
        "KAFKA__SESSION_TIMEOUT_MS": in_milliseconds(60),
        "KAFKA__REQUEST_TIMEOUT_MS": in_milliseconds(70),
        "KAFKA__TRANSACTION_TIMEOUT_MS": in_milliseconds(80),
    }
    coming = scene.worker(**settings)
    with scene.worker(**settings) as working:
        try:
            with locked(scene, load.codes):
                load.send(1, 400)
                coming.start()
                working.wait(
                    lambda: lane_states(working), "is told to let go", wanted=lambda states: "draining" in states
                )
                draining = count_waiting(scene)
            coming.wait_ready()
            working.wait_ready()
            scene.wait_consumed()
            shares = [worker.events("partitions_assigned")[-1]["partitions"] for worker in (working, coming)]
            assert sorted(chain(*shares)) == list(range(PARTITIONS))
            assert working.events("lanes_cancelled") == []
            assert [coming.terminate(), working.terminate()] == [0, 0]
        finally:
            coming.kill()

    # The batches waiting for the lock at that moment were finished by the worker that had them.
    assert draining <= PARTITIONS
    load.check_exactly_once()
