"""What every Kafka client of this package is made with."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from aiokafka.client import AIOKafkaClient
from aiokafka.helpers import create_ssl_context
from aiokafka.partitioner import murmur2

from worker.errors import KAFKA_ERRORS, DependencyAway
from worker.kafka.internals import keep_only, mend_sending
from worker.kafka.metadata import TopicsRequest, id_of
from worker.kafka.record_batches import Bounds, bound_fetches
from worker.settings import PREFIX, KafkaSettings, SettingsError

CLIENT_ID: Final = "effective-worker"
# Less than the default of 100: every transaction that meets the one before it waits for as long (DESIGN 6).
RETRY_BACKOFF_MS: Final = 30
LOOK_SECONDS: Final = 5.0
MOST_NAMES: Final = 500
"""Of topics that one request asks for."""


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The arguments that aiokafka's consumer, producer and admin client share.

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
    """Which of so many partitions every other Kafka client would choose for this key."""
    return int((murmur2(key) & 0x7FFFFFFF) % count)


class TopicLook:
    """Looks topics up by their names without creating any, which asking the usual way may do (DESIGN 6).

    It has a connection of its own, made when first needed: an answer of the consumer's waits behind a long poll.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """``options`` are the connection settings (``client_options``)."""
        self._options = options
        self._client: AIOKafkaClient | None = None
        self._turn = asyncio.Lock()

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions each has of those that exist, are not Kafka's own and may be seen.

        Raises ``DependencyAway``.
        """
        return {name: len(topic["partitions"]) for name, topic in (await self._topics(topics)).items()}

    async def ids(self, topics: Sequence[str]) -> dict[str, UUID | None]:
        """The id of each of them, ``None`` where the broker has none. Raises ``DependencyAway``."""
        return {name: id_of(topic) for name, topic in (await self._topics(topics)).items()}

    async def _topics(self, topics: Sequence[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        try:
            # In turn: a client that one of two made, the other would use half made, or close.
            async with asyncio.timeout(LOOK_SECONDS), self._turn, self._connected(topics[:1]) as client:
                for first in range(0, len(topics), MOST_NAMES):
                    found |= await _asked(client, list(topics[first : first + MOST_NAMES]))
        except KAFKA_ERRORS as error:
            raise DependencyAway("kafka", f"{type(error).__name__} while topics were looked up: {error}") from error
        return found

    @asynccontextmanager
    async def _connected(self, some: Sequence[str]) -> AsyncIterator[AIOKafkaClient]:
        """The client, for a look; after one that failed it is made anew, since its brokers may have moved."""
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
        """Safe twice, and before the first look."""
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


# Whoever imports this reads what others have written, over connections that break.
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
