"""The backlog of a worker, whether its lanes work, wait, are blocked or are idle."""

from types import SimpleNamespace
from typing import Final, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support.doubles import subscription
from worker.kafka.backlog import Backlog, Behind
from worker.kafka.delivery import Coordinates
from worker.observability.metrics import Metrics

ONE: Final = TopicPartition("commands", 1)


class Client:
    """The part of a consumer of one partition that reports its last fetch."""

    def __init__(self, *, position: int | None, stable: int | None, end: int | None) -> None:
        self.position, self.stable, self.end = position, stable, end
        self.assigned = {ONE}
        self.now = 1000.0
        self.backlog = Backlog(cast(AIOKafkaConsumer, self), lambda: self.now)

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def highwater(self, _: TopicPartition) -> int | None:
        return self.end

    def last_stable_offset(self, _: TopicPartition) -> int | None:
        return self.stable

    @property
    def _subscription(self) -> SimpleNamespace:
        return subscription(self.assigned, self.position)

    @property
    def behind(self) -> Behind:
        return self.backlog.behind()[ONE]


def command(offset: int, seconds: float) -> Coordinates:
    return Coordinates("cluster", ONE.topic, ONE.partition, offset, int(seconds * 1000))


def test_an_idle_worker_is_not_behind() -> None:
    assert Client(position=7, stable=7, end=7).behind == Behind(0, 0.0, 0)


def test_what_is_in_hand_is_behind_however_far_the_client_has_read() -> None:
    client = Client(position=10, stable=10, end=10)
    client.backlog.in_hand(ONE, command(4, client.now - 2.5))

    assert client.behind == Behind(6, 2.5, 0, in_hand=1)

    client.backlog.in_hand(ONE, None)
    assert client.behind == Behind(0, 0.0, 0)


def test_an_open_transaction_hides_what_is_behind_it() -> None:
    assert Client(position=7, stable=7, end=12).behind == Behind(5, 0.0, 5)


def test_where_nothing_is_fetched_the_broker_has_told_the_end() -> None:
    client = Client(position=7, stable=9, end=9)
    client.backlog.told({ONE: 100})

    assert client.behind == Behind(93, 0.0, 0)


def test_commands_that_nobody_takes_are_as_old_as_they_are_known() -> None:
    client = Client(position=7, stable=9, end=9)
    client.backlog.told({ONE: 9})
    client.now += 60
    client.backlog.told({ONE: 11})
    client.now += 5

    assert client.behind == Behind(4, 65.0, 0)

    client.position = 8
    assert client.behind.age == 0.0
    client.backlog.told({ONE: 11})
    client.now += 3
    assert client.behind.age == 3.0
    client.position = 11
    assert client.behind == Behind(0, 0.0, 0)


def test_a_clock_of_a_sender_that_is_ahead_gives_no_age_below_nothing() -> None:
    client = Client(position=8, stable=8, end=8)
    client.backlog.in_hand(ONE, command(7, client.now + 60))

    assert client.behind.age == 0.0


@pytest.mark.parametrize("assigned", [True, False])
def test_of_what_is_not_known_or_somebody_elses_nothing_is_said(assigned: bool) -> None:
    client = Client(position=None if assigned else 7, stable=None, end=None)
    client.assigned = {ONE} if assigned else set()

    assert client.backlog.behind() == {}


def test_the_gauges_name_topic_and_partition() -> None:
    client = Client(position=7, stable=8, end=10)
    metrics = Metrics()
    metrics.show(client.backlog)

    lines = metrics.text().decode().splitlines()

    labels = '{partition="1",topic="commands"}'
    for name, value in (("lag", 3), ("oldest_unanswered_seconds", 0), ("hidden", 2), ("in_hand", 0)):
        assert f"effective_worker_{name}{labels} {value:.1f}" in lines
