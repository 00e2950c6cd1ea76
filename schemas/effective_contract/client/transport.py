"""Kafka as a client needs it: an outbox for commands, and readers of topics with answers.

``effective_contract.testing`` has one without a broker.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from effective_contract.client.outbox import Outbox
from effective_contract.client.replies import Replies

Headers = Sequence[tuple[str, bytes]]


class Reply(Protocol):
    """A record of a topic with answers."""

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Headers: ...


Hear = Callable[[Reply], None]


class Sending(Protocol):
    """A sender to one topic (:class:`effective_contract.client.outbox.Outbox`)."""

    async def open(self) -> None: ...

    async def topics(self) -> frozenset[str]: ...

    async def send(self, value: bytes, headers: Headers, key: bytes | None) -> None: ...

    async def close(self) -> None: ...


class Reading(Protocol):
    """A reader of one topic (:class:`effective_contract.client.replies.Replies`)."""

    async def open(self) -> None: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """The maker of both."""

    def outbox(self, topic: str) -> Sending: ...

    def replies(self, topic: str, hear: Hear) -> Reading: ...


class Kafka:
    """The transport of aiokafka."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        """``connection`` holds aiokafka's own arguments, the same for producer and consumer."""
        self._connection = dict(connection)

    def outbox(self, topic: str) -> Outbox:
        return Outbox(topic, self._connection)

    def replies(self, topic: str, hear: Hear) -> Replies:
        return Replies(topic, self._connection, hear)
