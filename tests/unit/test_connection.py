"""A connection to a broker that breaks, or is slow, is an outage to whoever uses it, and no bug."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from worker.kafka.connection import mend_sending

mend_sending()

NODE = 1
CONNECTION = NODE, ConnectionGroup.DEFAULT
BROKEN = struct.pack("ii", 1, 0)


@contextlib.asynccontextmanager
async def opened(timeout_ms: int = 30_000) -> AsyncIterator[tuple[AIOKafkaConnection, asyncio.StreamWriter]]:
    """A connection, and its other end, where nobody answers. The timeout is of requests, not of opening it."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    connection = AIOKafkaConnection(*server.sockets[0].getsockname())
    connection._do_version_lookup = _nothing
    connection._versions = {MetadataRequest.API_KEY: (0, 1)}
    await connection.connect()
    connection._request_timeout = timeout_ms / 1000
    other = await accepted.get()
    try:
        yield connection, other
    finally:
        await asyncio.gather(connection.close(), return_exceptions=True)
        other.close()
        with contextlib.suppress(ConnectionError):
            await other.wait_closed()
        server.close()


async def _nothing() -> None:
    pass


def client_of(connection: AIOKafkaConnection) -> AIOKafkaClient:
    client = AIOKafkaClient()
    client._conns[CONNECTION] = connection
    return client


def test_a_request_right_after_the_connection_broke_is_refused_by_the_client() -> None:
    # uvloop closes a transport one turn of the loop before whoever reads from it can know.
    async def sent() -> Any:
        async with opened() as (connection, other):
            other.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BROKEN)
            other.transport.abort()
            client = client_of(connection)
            told: asyncio.Queue[Any] = asyncio.Queue()

            async def ask() -> None:
                try:
                    await client.send(NODE, MetadataRequest([]))
                except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
                    await told.put(error)

            asks = []
            while told.empty():
                asks.append(asyncio.create_task(ask()))
                await asyncio.sleep(0)
            await asyncio.gather(*asks)
            return {type(told.get_nowait()) for _ in range(told.qsize())}

    assert uvloop.run(sent()) <= {kafka.KafkaConnectionError, kafka.NodeNotReadyError}


async def test_two_requests_that_time_out_at_once_are_both_told_so() -> None:
    async with opened(timeout_ms=20) as (connection, _):
        client = client_of(connection)
        asked = [asyncio.create_task(client.send(NODE, MetadataRequest([]))) for _ in range(2)]
        await asyncio.sleep(0)
        assert connection._requests
        connection._on_close_cb = lambda *_: client._conns.pop(CONNECTION)  # as a third does that asks for it meanwhile
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in found} <= {kafka.RequestTimedOutError, kafka.KafkaConnectionError}, found


async def test_a_timeout_closes_the_connection_that_was_slow_and_not_the_one_that_has_taken_its_place() -> None:
    newer = SimpleNamespace(close=lambda **_: pytest.fail("closed the connection of others"))
    async with opened(timeout_ms=20) as (connection, _):
        client = client_of(connection)
        asked = asyncio.create_task(client.send(NODE, MetadataRequest([])))
        await asyncio.sleep(0)
        assert connection._requests
        client._conns[CONNECTION] = newer
        with pytest.raises(kafka.RequestTimedOutError):
            await asked
        assert not connection.connected()
