"""A broken or slow connection to a broker is an outage to its user, and no bug."""

import ast
import asyncio
import contextlib
import inspect
import socket
import struct
from collections.abc import AsyncIterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from effective_contract.client import outbox, replies
from worker.kafka import internals
from worker.kafka.internals import mend_sending

mend_sending()

NODE = 1
CONNECTION = NODE, ConnectionGroup.DEFAULT
BROKEN = struct.pack("ii", 1, 0)


@contextlib.asynccontextmanager
async def opened(timeout_ms: int = 30_000) -> AsyncIterator[tuple[AIOKafkaConnection, asyncio.StreamWriter]]:
    """Open a connection whose other end never answers. The timeout is of requests, not of opening it."""
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
    # uvloop closes a transport one turn of the loop before its reader can know.
    async def sent() -> Any:
        async with opened() as (connection, other):
            other.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BROKEN)
            other.transport.abort()
            client = client_of(connection)
            told: asyncio.Queue[Any] = asyncio.Queue()

            async def ask() -> None:
                try:
                    await client.send(NODE, MetadataRequest([]))
                except Exception as error:  # noqa: BLE001 - the test looks at any exception
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
        connection._on_close_cb = lambda *_: client._conns.pop(CONNECTION)  # as a third caller does meanwhile
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


PARTS = {
    AIOKafkaConnection: ("send", "close", "host", "port", "_writer", "_versions"),
    AIOKafkaClient: ("send", "close", "set_topics", "fetch_all_metadata", "_get_conn", "_topics", "_conns"),
    AIOKafkaAdminClient: ("_send_request", "_client"),
    AIOKafkaConsumer: ("_client", "_coordinator", "_fetcher", "_subscription"),
    GroupCoordinator: (
        "_send_req",
        "_do_heartbeat",
        "coordinator_dead",
        "reset_generation",
        "group_id",
        "member_id",
        "_group_instance_id",
        "_coordination_task",
        "_heartbeat_task",
        "_commit_refresh_task",
    ),
    fetcher.Fetcher: ("_prefetch_backoff", "_fetch_task", "error_future"),
    fetcher.FetchResult: (
        "has_more",
        "check_assignment",
        "getall",
        "_topic_partition",
        "_partition_records",
        "_update_position",
    ),
    fetcher.PartitionRecords: ("_records",),
    AIOKafkaProducer: ("client", "_closed", "_sender", "_message_accumulator", "_txn_manager"),
    Sender: ("sender_task",),
    MessageAccumulator: ("_batches", "_pending_batches"),
    MessageBatch: ("_drain_waiter",),
    TransactionManager: ("_transaction_waiter",),
    SubscriptionState: ("is_assigned", "subscription"),
    TopicPartitionState: ("position", "has_valid_position"),
    JoinGroupRequest: ("_member_id",),
}
"""Every part of aiokafka that ``worker.kafka.internals`` and the client for senders reach into, by its class."""


@pytest.mark.parametrize("owner", PARTS, ids=lambda owner: owner.__name__)
def test_aiokafka_has_every_part_that_is_reached_into(owner: type) -> None:
    """An upgrade without one of them fails here, and not in production. Its classes set them in ``__init__``."""
    source = inspect.getsource(owner)
    assert [part for part in PARTS[owner] if not hasattr(owner, part) and f"self.{part}" not in source] == []


def private_parts(module: ModuleType) -> list[ast.Attribute]:
    tree = ast.parse(inspect.getsource(module))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]


KNOWN = {part for parts in PARTS.values() for part in parts}


def test_no_part_is_reached_into_unnamed() -> None:
    assert {node.attr for node in private_parts(internals)} - KNOWN == set()


@pytest.mark.parametrize("module", [outbox, replies], ids=lambda module: module.__name__)
def test_the_client_for_senders_reaches_into_no_part_unnamed(module: ModuleType) -> None:
    """It stands alone, so ``worker.kafka.internals`` is not there for it."""
    private = [node for node in private_parts(module) if not node.attr.startswith("__")]
    own = {node.attr for node in private if isinstance(node.value, ast.Name) and node.value.id == "self"}
    assert {node.attr for node in private} - own - KNOWN == set()


def test_the_sender_keeps_its_requests_in_a_variable_called_tasks() -> None:
    assert "tasks" in Sender._sender_routine.__code__.co_varnames


def test_the_fetcher_makes_what_it_reads_by_names_of_its_module() -> None:
    names = {
        name for each in vars(fetcher.Fetcher).values() if inspect.isfunction(each) for name in each.__code__.co_names
    }
    assert {"MemoryRecords", "FetchResult"} <= names
