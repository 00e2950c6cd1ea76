"""The connection settings of every Kafka client of this package, and the lookup of topics."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from aiokafka.client import AIOKafkaClient
from aiokafka.helpers import create_ssl_context
from aiokafka.partitioner import murmur2

from worker.errors import KAFKA_ERRORS, kafka_away
from worker.kafka.internals import keep_only, mend_sending
from worker.kafka.metadata import TopicsRequest, id_of
from worker.kafka.record_batches import Bounds, bound_fetches
from worker.settings import PREFIX, KafkaSettings, SettingsError

CLIENT_ID: Final = "effective-worker"
# Below the default of 100: a transaction that meets the one before it waits for as long (DESIGN 6).
RETRY_BACKOFF_MS: Final = 30
LOOK_SECONDS: Final = 5.0
MOST_NAMES: Final = 500
"""The most topics that one request asks for."""


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that aiokafka's consumer, producer and admin client share.

    Raises ``SettingsError`` if the certificates cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "request_timeout_ms": kafka.request_timeout_ms,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        }
    return options


def keyed(key: bytes, count: int) -> int:
    """Return the partition, of ``count``, that every other Kafka client would choose for this key."""
    return int((murmur2(key) & 0x7FFFFFFF) % count)


class TopicLook:
    """The lookup of topics by name. It creates none, which an ordinary request may do (DESIGN 6).

    It has a connection of its own, made when first needed: on the consumer's, an answer would wait behind a long poll.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """``options`` are the connection settings (``client_options``)."""
        self._options = options
        self._client: AIOKafkaClient | None = None
        self._turn = asyncio.Lock()

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the number of partitions of each topic that exists, is not Kafka's own, and may be seen.

        Raises ``DependencyUnavailable``.
        """
        return {name: len(topic["partitions"]) for name, topic in (await self._topics(topics)).items()}

    async def ids(self, topics: Sequence[str]) -> dict[str, UUID | None]:
        """Return the id of each topic, ``None`` where the broker has no ids. Raises ``DependencyUnavailable``."""
        return {name: id_of(topic) for name, topic in (await self._topics(topics)).items()}

    async def _topics(self, topics: Sequence[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        try:
            # In turn: of two lookups, one would use a client that the other has half made, or would close it.
            async with asyncio.timeout(LOOK_SECONDS), self._turn, self._connected(topics[:1]) as client:
                for first in range(0, len(topics), MOST_NAMES):
                    found |= await _asked(client, list(topics[first : first + MOST_NAMES]))
        except KAFKA_ERRORS as error:
            raise kafka_away(error, "while topics were looked up") from error
        return found

    @asynccontextmanager
    async def _connected(self, some: Sequence[str]) -> AsyncIterator[AIOKafkaClient]:
        """Yield the client for one lookup. A failure closes it, and the next one is new: its brokers may have moved."""
        try:
            if self._client is None:
                self._client = AIOKafkaClient(**self._options)
                await self._client.bootstrap()
                keep_only(self._client, some)
            yield self._client
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the client. Safe twice, and before the first lookup."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _asked(client: AIOKafkaClient, topics: list[str]) -> dict[str, dict[str, Any]]:
    answer = await client.send(client.get_random_node(), TopicsRequest(topics))
    return {
        topic["topic"]: topic
        for topic in answer.to_object()["topics"]
        if not topic["error_code"] and not topic["is_internal"]
    }


# Every module that imports this reads other people's records, over connections that break.
bound_fetches(Bounds())
mend_sending()


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        authorities: ssl.SSLContext = create_ssl_context(cafile=kafka.ssl_cafile)
    except (OSError, ValueError):
        raise SettingsError(((f"{PREFIX}KAFKA__SSL_CAFILE", "holds no usable certificate"),)) from None
    if kafka.ssl_certfile is None:
        return authorities
    try:
        own: ssl.SSLContext = create_ssl_context(
            cafile=kafka.ssl_cafile, certfile=kafka.ssl_certfile, keyfile=kafka.ssl_keyfile
        )
    except (OSError, ValueError):
        what = "the certificate and its key are not usable, or do not belong together"
        raise SettingsError(((f"{PREFIX}KAFKA__SSL_CERTFILE", what),)) from None
    return own
