"""The proxies carry out a fault on the request that it is for, and do nothing else."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pytest
from aiokafka.protocol.api import RequestHeader_v1, RequestStruct
from aiokafka.protocol.commit import OffsetCommitRequest_v3, OffsetFetchRequest_v3
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.group import HeartbeatRequest_v1
from aiokafka.protocol.metadata import MetadataRequest_v1
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest_v0,
    AddPartitionsToTxnRequest_v0,
    EndTxnRequest_v0,
    InitProducerIdRequest_v0,
    TxnOffsetCommitRequest_v0,
)

from tests.faults.conftest import through
from tests.faults.proxy import (
    HOST,
    Api,
    Fault,
    GroupApi,
    KafkaProxy,
    Kind,
    PostgresProxy,
    Proxy,
    Request,
    first_error,
    refusal,
)
from tests.providers.postgres import DatabaseUnderTest

NOT_COORDINATOR: Final = 16
FENCED: Final = 47
END: Final = EndTxnRequest_v0("lane", 7, 0, True)
TOPICS: Final = [("results", [0, 3])]
REQUESTS: Final[dict[Api | GroupApi, RequestStruct]] = {
    Api.PRODUCE: ProduceRequest_v7("lane", -1, 1000, [("results", [(0, b"one"), (3, b"two")])]),
    Api.FETCH: FetchRequest_v11(-1, 100, 1, 9, 1, 0, -1, [("results", [(0, -1, 5, -1, 9), (3, -1, 5, -1, 9)])], [], ""),
    Api.OFFSET_FETCH: OffsetFetchRequest_v3("group", TOPICS),
    Api.INIT_PRODUCER_ID: InitProducerIdRequest_v0("lane", 1000),
    Api.ADD_PARTITIONS_TO_TXN: AddPartitionsToTxnRequest_v0("lane", 7, 0, TOPICS),
    Api.ADD_OFFSETS_TO_TXN: AddOffsetsToTxnRequest_v0("lane", 7, 0, "group"),
    Api.END_TXN: END,
    Api.TXN_OFFSET_COMMIT: TxnOffsetCommitRequest_v0("lane", "group", 7, 0, [("results", [(0, 5, ""), (3, 5, "")])]),
    GroupApi.OFFSET_COMMIT: OffsetCommitRequest_v3("group", 1, "member", -1, [("results", [(0, 5, ""), (3, 5, "")])]),
    GroupApi.HEARTBEAT: HeartbeatRequest_v1("group", 1, "member"),
}


class FakeBroker:
    """Answers every request well, and remembers it. Once fenced, it refuses transactional ones of the older epoch."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[Request] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeBroker"]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        yield self
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                request = Request.parse(await reader.readexactly(length))
                self.heard.append(request)
                known = request.key in set(REQUESTS)
                body = refusal(request.key, request.version, request.body, 0) if known else b"metadata"
                answer = struct.pack(">i", request.correlation) + body
                writer.write(struct.pack(">i", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def keys(self) -> list[int]:
        return [request.key for request in self.heard]


class Client:
    """One connection of a client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._correlation = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: RequestStruct) -> bytes:
        """Return the body of the answer. Raises ``IncompleteReadError`` or ``ConnectionError`` when cut off."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        self._correlation += 1
        frame = RequestHeader_v1(request, self._correlation, "test").encode() + request.encode()
        writer.write(struct.pack(">i", len(frame)) + frame)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        answer = await reader.readexactly(length)
        assert struct.unpack_from(">i", answer) == (self._correlation,)
        return answer[4:]

    async def is_cut_off(self, request: RequestStruct) -> bool:
        """True if the request ends the connection. If so, the next one opens another."""
        try:
            await self.ask(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return True
        return False

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker().serving() as serving:
        yield serving


@pytest.fixture
def kafka_proxy(broker: FakeBroker) -> Any:
    with KafkaProxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def client(kafka_proxy: KafkaProxy) -> Any:
    client = Client(kafka_proxy.port)
    yield client
    client.close()


def struck(proxy: Proxy) -> list[Fault]:
    return [fired.fault for fired in proxy.fired]


async def test_what_no_fault_waits_for_passes_unchanged(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    kafka_proxy.arm(Fault(Kind.DROPPED, Api.FETCH))
    assert await client.ask(MetadataRequest_v1([])) == b"metadata"
    assert await client.ask(END) == refusal(26, 0, END.encode(), 0)
    assert [request.body for request in broker.heard] == [MetadataRequest_v1([]).encode(), END.encode()]
    assert not kafka_proxy.fired
    assert kafka_proxy.disarm() == [Fault(Kind.DROPPED, Api.FETCH)]


async def test_a_dropped_request_is_never_heard_of(broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client) -> None:
    fault = Fault(Kind.DROPPED, Api.END_TXN, count=2)
    kafka_proxy.arm(fault)
    assert [await client.is_cut_off(END) for _ in range(3)] == [True, True, False]
    assert broker.keys == [Api.END_TXN]
    assert struck(kafka_proxy) == [fault, fault]


async def test_a_request_whose_answer_is_lost_is_carried_out(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    kafka_proxy.arm(Fault(Kind.ANSWER_LOST, Api.END_TXN))
    assert await client.is_cut_off(END)
    assert broker.keys == [Api.END_TXN]


async def test_a_black_hole_is_silent_before_it_cuts(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    kafka_proxy.arm(Fault(Kind.BLACK_HOLED, None, seconds=0.2))
    began = asyncio.get_running_loop().time()
    assert await client.is_cut_off(MetadataRequest_v1([]))
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert not broker.heard


async def test_a_delayed_request_arrives_later(broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client) -> None:
    kafka_proxy.arm(Fault(Kind.DELAYED, Api.END_TXN, seconds=0.2))
    began = asyncio.get_running_loop().time()
    assert not await client.is_cut_off(END)
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert broker.keys == [Api.END_TXN]


@pytest.mark.parametrize("api", REQUESTS, ids=lambda api: api.name.lower())
async def test_a_refused_request_is_answered_with_the_error(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client, api: Api | GroupApi
) -> None:
    kafka_proxy.arm(Fault(Kind.REFUSED, api, error=NOT_COORDINATOR))
    request = REQUESTS[api]
    answer = request.RESPONSE_TYPE.decode(await client.ask(request))
    assert NOT_COORDINATOR in _numbers(answer.to_object())
    assert not broker.heard
    assert NOT_COORDINATOR not in _numbers(request.RESPONSE_TYPE.decode(await client.ask(request)).to_object())


async def test_a_misreported_request_is_carried_out_and_answered_with_the_error(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    kafka_proxy.arm(Fault(Kind.MISREPORTED, Api.END_TXN, error=FENCED))
    assert first_error(26, 0, await client.ask(END)) == FENCED
    assert broker.keys == [Api.END_TXN]


async def test_a_late_end_arrives_between_the_messages_and_the_offset_of_the_next_transaction(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    fault = Fault(Kind.LATE_DUPLICATE, Api.END_TXN)
    kafka_proxy.arm(fault)
    assert await client.is_cut_off(END)
    others = EndTxnRequest_v0("another lane", 8, 0, True)
    for request in (others, END, REQUESTS[Api.PRODUCE], REQUESTS[Api.TXN_OFFSET_COMMIT], END):
        await client.ask(request)
    heard = [Api(key).name for key in broker.keys]
    assert heard == ["END_TXN", "END_TXN", "PRODUCE", "END_TXN", "TXN_OFFSET_COMMIT", "END_TXN"]
    assert [(fired.fault, fired.outcome) for fired in kafka_proxy.fired] == [(fault, 0)]
    assert not kafka_proxy.is_armed()


async def test_any_other_late_request_arrives_before_the_end_of_the_next_transaction(
    broker: FakeBroker, kafka_proxy: KafkaProxy, client: Client
) -> None:
    offset = REQUESTS[Api.TXN_OFFSET_COMMIT]
    kafka_proxy.arm(Fault(Kind.LATE_DUPLICATE, Api.TXN_OFFSET_COMMIT))
    assert await client.is_cut_off(offset)
    for request in (offset, END, REQUESTS[Api.PRODUCE], offset, END):
        await client.ask(request)
    heard = [Api(key).name for key in broker.keys]
    assert heard == ["TXN_OFFSET_COMMIT", "END_TXN", "PRODUCE", "TXN_OFFSET_COMMIT", "TXN_OFFSET_COMMIT", "END_TXN"]


async def test_every_connection_can_be_cut(kafka_proxy: KafkaProxy, client: Client) -> None:
    await client.ask(END)
    kafka_proxy.cut_all()
    assert await client.is_cut_off(END)


async def test_a_server_that_is_away_cuts_the_client_off(unused_port: int) -> None:
    with KafkaProxy(unused_port) as proxy:
        assert await Client(proxy.port).is_cut_off(END)


@pytest.fixture
def unused_port() -> int:
    with KafkaProxy() as proxy:
        return proxy.port


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, list | tuple):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, int) else []


async def test_nobody_passes_a_proxy_that_is_cut_off_until_it_is_not(broker: FakeBroker) -> None:
    request = REQUESTS[Api.END_TXN]
    with KafkaProxy(broker.port) as proxy:
        client = Client(proxy.port)
        await client.ask(request)
        with proxy.cut_off():
            assert await client.is_cut_off(request)
            assert await client.is_cut_off(request)
        await client.ask(request)
        client.close()
    assert len(broker.heard) == 2


# --- Postgres ---------------------------------------------------------------------------------------------------------

COUNT: Final = "SELECT count(*) FROM organisation"
INSERT: Final = "INSERT INTO organisation (id, name) VALUES ($1, $1)"


async def test_a_commit_whose_answer_is_lost_is_a_commit(
    database: DatabaseUnderTest, postgres_proxy: PostgresProxy
) -> None:
    postgres_proxy.arm(Fault(Kind.ANSWER_LOST, "COMMIT"))
    before = await _count(database)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await _insert(postgres_proxy, database)
    assert await _count(database) == before + 1
    assert len(postgres_proxy.fired) == 1


@pytest.mark.parametrize("comment", ["", "-- Why it is made,\n-- in two lines; UPDATE is not meant.\n"])
async def test_a_statement_is_known_by_its_first_word_whatever_is_said_of_it_before(
    database: DatabaseUnderTest, postgres_proxy: PostgresProxy, comment: str
) -> None:
    postgres_proxy.arm(Fault(Kind.DROPPED, "INSERT"))
    before = await _count(database)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await _insert(postgres_proxy, database, f"{comment}{INSERT}")
    assert await _count(database) == before


async def test_a_commit_that_is_dropped_is_none(database: DatabaseUnderTest, postgres_proxy: PostgresProxy) -> None:
    postgres_proxy.arm(Fault(Kind.DROPPED, "COMMIT"))
    before = await _count(database)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await _insert(postgres_proxy, database)
    assert await _count(database) == before


@pytest.mark.parametrize("kind", [Kind.DELAYED, Kind.BLACK_HOLED])
async def test_a_commit_can_be_late_or_never_arrive(
    database: DatabaseUnderTest, postgres_proxy: PostgresProxy, kind: Kind
) -> None:
    before = await _count(database)
    postgres_proxy.arm(Fault(kind, "COMMIT", seconds=0.3))
    began = asyncio.get_running_loop().time()
    try:
        await _insert(postgres_proxy, database)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        assert kind is Kind.BLACK_HOLED
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert await _count(database) == before + (kind is Kind.DELAYED)


async def test_statements_pass_when_nothing_waits_for_them(
    database: DatabaseUnderTest, postgres_proxy: PostgresProxy
) -> None:
    postgres_proxy.arm(Fault(Kind.DROPPED, "ROLLBACK"))
    before = await _count(database)
    await _insert(postgres_proxy, database)
    assert await _count(database) == before + 1


async def _insert(proxy: PostgresProxy, database: DatabaseUnderTest, statement: str = INSERT) -> None:
    connection = await asyncpg.connect(through(proxy, database.owner_dsn))
    try:
        async with connection.transaction():
            await connection.execute(statement, "a new one")
    finally:
        connection.terminate()


async def _count(database: DatabaseUnderTest) -> int:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        return int(await connection.fetchval(COUNT))
    finally:
        await connection.close()
