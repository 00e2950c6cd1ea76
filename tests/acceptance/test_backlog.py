"""A worker that has answered everything is not behind, by its gauges and by its group's lag."""

import pytest
from confluent_kafka import Producer

from tests.acceptance.clients import Outgoing, consumed_offsets, log_ends, transactional
from tests.acceptance.deliveries import in_both_deliveries
from tests.acceptance.scene import Scene, body, status
from tests.acceptance.worker_process import WorkerProcess
from tests.support import waiting
from tests.support.pace import patience

pytestmark = pytest.mark.real_kafka


def begin(producer: Producer, scene: Scene, code: str) -> None:
    """Send a command to the first partition in a transaction, and leave that open."""
    producer.begin_transaction()
    producer.produce(scene.topics.commands, body(code), partition=0)
    assert not producer.flush(patience(waiting.SECONDS))


def gauge(worker: WorkerProcess, name: str, topic: str) -> float:
    """Return the gauge of the first partition."""
    label = f'effective_worker_{name}{{partition="0",topic="{topic}"}} '
    return next((float(line[len(label) :]) for line in worker.metrics().splitlines() if line.startswith(label)), -1.0)


@in_both_deliveries(
    pytest.mark.slow(
        why="the same story in the other delivery: 11 s",
        instead="tests/acceptance/test_backlog.py"
        "::test_the_group_comes_to_rest_behind_the_markers_of_transactional_senders",
    )
)
def test_the_group_comes_to_rest_behind_the_markers_of_transactional_senders(scene: Scene, delivery: str) -> None:
    one, two = scene.new_tokens(2)
    producer = transactional(scene.kafka.bootstrap, scene.topics.commands)
    with scene.worker(DELIVERY=delivery) as worker:
        begin(producer, scene, one)
        producer.commit_transaction(patience(waiting.SECONDS))
        begin(producer, scene, two)
        producer.abort_transaction(patience(waiting.SECONDS))

        scene.wait_consumed()
        assert log_ends(scene.kafka.bootstrap, scene.topics.commands)[0] == 4
        worker.wait(lambda: gauge(worker, "lag", scene.topics.commands), "is not behind", wanted=lambda lag: lag == 0)
        assert gauge(worker, "oldest_unanswered_seconds", scene.topics.commands) == 0

        scene.send(body(two))
        assert [status(record)[0] for record in scene.results(2)] == ["OK", "OK"]
        assert worker.terminate() == 0
    [row] = scene.rows("SELECT next_offset FROM lane WHERE partition = 0")
    assert row["next_offset"] == consumed_offsets(scene.kafka.bootstrap, scene.group, scene.topics.commands)[0]

    with scene.worker(DELIVERY=delivery) as worker:
        worker.wait_ready()
        assert worker.terminate() == 0
    assert len(scene.seen(scene.topics.results)) == 2


def test_an_open_transaction_that_hides_commands_is_seen(scene: Scene) -> None:
    [one] = scene.new_tokens(1)
    producer = transactional(scene.kafka.bootstrap, scene.topics.commands)
    with scene.worker() as worker:
        worker.wait_ready()
        begin(producer, scene, one)

        worker.wait(lambda: gauge(worker, "hidden", scene.topics.commands), "sees it", wanted=lambda count: count == 1)
        assert gauge(worker, "lag", scene.topics.commands) == 1

        producer.commit_transaction(patience(waiting.SECONDS))
        worker.wait(lambda: gauge(worker, "hidden", scene.topics.commands), "sees on", wanted=lambda count: count == 0)
        assert [status(record)[0] for record in scene.results(1)] == ["OK"]


def test_commands_that_wait_for_postgres_are_behind_and_grow_old(scene: Scene) -> None:
    codes = scene.new_tokens(20)
    with scene.worker() as worker:
        worker.wait_ready()
        scene.execute("ALTER TABLE command_record RENAME TO away")
        scene.send(*(Outgoing(body(code), partition=0) for code in codes))

        def old() -> float:
            return gauge(worker, "oldest_unanswered_seconds", scene.topics.commands)

        worker.wait(old, "has commands that wait", wanted=lambda age: age > 1)
        assert gauge(worker, "lag", scene.topics.commands) > 0
        scene.execute("ALTER TABLE away RENAME TO command_record")
        worker.wait(old, "has answered them", wanted=lambda age: age == 0)
        assert len(scene.results(20)) == 20
