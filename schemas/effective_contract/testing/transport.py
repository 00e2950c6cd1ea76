"""A transport without a broker: commands go to an in-memory worker, and its answers to every reader of their topic."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from effective_contract.client.transport import Headers, Hear


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as its reader gets it."""

    topic: str
    key: bytes | None
    value: bytes = field(repr=False)
    headers: Headers


class Receiver(Protocol):
    """The worker behind the transport."""

    @property
    def topics(self) -> frozenset[str]: ...

    def receive(self, value: bytes, headers: Headers, key: bytes | None) -> tuple[Reply, float] | None:
        """Carry out a command, and return its answer and the seconds until it is visible; None if there is none."""


class InMemoryTransport:
    """Stands in for Kafka in a ``CommandClient``. Clients may run on event loops of their own."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._readers: list[_Reading] = []

    def outbox(self, topic: str) -> "_Sending":
        return _Sending(topic, self)

    def replies(self, topic: str, hear: Hear) -> "_Reading":
        return _Reading(topic, hear, self._readers)

    def deliver(self, reply: Reply, seconds: float) -> None:
        """Give a reply to everybody who reads its topic now and still does after so many seconds."""
        for reader in [*self._readers]:
            if reader.topic == reply.topic:
                reader.loop.call_soon_threadsafe(reader.loop.call_later, seconds, reader.take, reply)


@dataclass(frozen=True, slots=True)
class _Sending:
    topic: str
    transport: InMemoryTransport

    async def open(self) -> None: ...

    async def topics(self) -> frozenset[str]:
        return self.transport.receiver.topics

    async def send(self, value: bytes, headers: Headers, key: bytes | None) -> None:
        answered = self.transport.receiver.receive(value, headers, key)
        if answered is not None:
            self.transport.deliver(*answered)

    async def close(self) -> None: ...


class _Reading:
    def __init__(self, topic: str, hear: Callable[[Reply], None], readers: "list[_Reading]") -> None:
        self.topic = topic
        self.loop: asyncio.AbstractEventLoop
        self._hear = hear
        self._readers = readers

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        if self not in self._readers:
            self._readers.append(self)

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        if self in self._readers:
            self._readers.remove(self)

    def take(self, reply: Reply) -> None:
        if self in self._readers:
            self._hear(reply)
