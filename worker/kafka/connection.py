"""Send a request over one of the Kafka client's connections, and tell a broken or slow one from a bug (DESIGN 6)."""

from collections.abc import Awaitable
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest

_write = AIOKafkaConnection.send


def mend_sending() -> None:
    """Let every Kafka client of this process send as said here."""
    AIOKafkaConnection.send = _written
    AIOKafkaClient.send = _sent


def _written(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Awaitable[Any]:
    """Raises ``KafkaConnectionError`` also where a broken connection is known to uvloop, and not to its reader yet.

    For one turn of the loop, uvloop answers ``RuntimeError`` to who writes there. It would end the client's own tasks.
    """
    writer = connection._writer
    try:
        answer: Awaitable[Any] = _write(connection, request, expect_response)
    except RuntimeError as error:
        if writer is None or not writer.transport.is_closing():
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        what = f"Connection at {connection.host}:{connection.port} broken"
        raise KafkaConnectionError(what) from error
    return answer


async def _sent(
    client: AIOKafkaClient, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
) -> Any:
    """Send, and after a timeout close the connection that was slow.

    The client looks it up by its name once more: there may be none by then (``KeyError``), or one that has taken its
    place, with the requests of others.
    """
    connection = await client._get_conn(node_id, group=group)
    if connection is None:
        raise NodeNotReadyError(f"Attempt to send a request to node which is not ready (node id {node_id}).")
    is_silent = isinstance(request, ProduceRequest) and request.required_acks == 0
    try:
        return await connection.send(request, expect_response=not is_silent)
    except TimeoutError as error:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        raise RequestTimedOutError from error
