"""The errors of a topic reader that are Kafka's fault, and those of its caller."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from tests.support.builders import record
from worker.errors import DependencyUnavailable
from worker.kafka import reader
from worker.kafka.reader import OffsetRange, topic_reader
from worker.settings import read_settings

SETTINGS = read_settings({})
SPAN = OffsetRange(TopicPartition("results", 0), 0, 10)


class Consumer:
    """A client that does what is asked of it as far as the test allows."""

    fails = ""

    def __init__(self, **_: Any) -> None:
        self.stopped = False

    async def start(self) -> None:
        self._try("start")

    async def stop(self) -> None:
        self.stopped = True

    async def getmany(self, *_: Any, **__: Any) -> dict[TopicPartition, list[Any]]:
        self._try("getmany")
        return {SPAN.source: [record()]}

    def _try(self, what: str) -> None:
        if self.fails == what:
            raise KafkaConnectionError(what)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Consumer]:
    monkeypatch.setattr(reader, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(Consumer, "fails", "")
    return Consumer


@pytest.mark.parametrize("what", ["start", "getmany"])
async def test_what_the_client_cannot_do_is_a_broker_that_is_away(client: type[Consumer], what: str) -> None:
    client.fails = what
    with pytest.raises(DependencyUnavailable, match="kafka") as away:
        async with topic_reader(SETTINGS) as kafka:
            await anext(kafka.read(SPAN))
    assert what in away.value.reason


async def test_what_its_reader_cannot_do_is_not(client: type[Consumer]) -> None:
    async def written_to_nobody() -> None:
        async with topic_reader(SETTINGS) as kafka:
            async for _ in kafka.read(SPAN):
                raise BrokenPipeError

    assert client.fails == ""
    with pytest.raises(BrokenPipeError):
        await written_to_nobody()
