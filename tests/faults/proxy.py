"""TCP proxies in front of Kafka and Postgres that break traffic at a named moment.

A proxy runs in a thread of its own. Its faults are armed from outside, wait for their request, strike as many times as
they were armed for, and are noted down. All other traffic passes through unchanged.
"""

import asyncio
import inspect
import re
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import ModuleType
from typing import Any, Final, TypeVar

from aiokafka.protocol import commit, fetch, group, produce, transaction
from aiokafka.protocol.api import RequestStruct

from tests.support.pace import patience, stretched

HOST: Final = "127.0.0.1"
CLOSE_SECONDS: Final = 5.0
CHUNK_BYTES: Final = 1 << 16
PRODUCED_SECONDS: Final = 2.0

T = TypeVar("T")


class Api(IntEnum):
    """The requests of Kafka's protocol that a worker's exactly-once rests on, by their keys."""

    PRODUCE = 0
    FETCH = 1
    OFFSET_FETCH = 9
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class GroupApi(IntEnum):
    """The requests by which a worker holds on to its partitions, and by which ``at_least_once`` commits."""

    OFFSET_COMMIT = 8
    HEARTBEAT = 12


Point = Api | GroupApi | str | None
"""The trigger of a fault: a request of Kafka's, a statement's beginning (Postgres), ``None`` for any."""


class Kind(StrEnum):
    """The treatment of a request."""

    DROPPED = "dropped"
    """The connection is cut, and the server never sees the request."""
    ANSWER_LOST = "answer_lost"
    """The server carries the request out, and the connection is cut before its answer."""
    BLACK_HOLED = "black_holed"
    """Silence for ``seconds``, then the connection is cut. The server never sees the request."""
    DELAYED = "delayed"
    """The request, and all that follows on its connection, arrives ``seconds`` later."""
    REFUSED = "refused"
    """Kafka only: answered with ``error``, and the broker never sees the request."""
    MISREPORTED = "misreported"
    """Kafka only: the broker carries the request out, and the answer is changed to ``error``."""
    LATE_DUPLICATE = "late_duplicate"
    """Kafka only, of transactional requests: cut the connection, and deliver the request later.

    It arrives on a connection of its own inside the next transaction of the same transactional id.
    """


_ENDING: Final = frozenset({Kind.DROPPED, Kind.BLACK_HOLED, Kind.LATE_DUPLICATE})
"""The connection is cut before the request has passed."""
_OF_KAFKA: Final = frozenset({Kind.REFUSED, Kind.MISREPORTED, Kind.LATE_DUPLICATE})


@dataclass(frozen=True, slots=True)
class Fault:
    """The treatment of the next ``count`` requests of its kind."""

    kind: Kind
    at: Point = None
    count: int = 1
    seconds: float = 0.0
    error: int = 0

    def __str__(self) -> str:
        what = self.at.name if isinstance(self.at, IntEnum) else self.at or "anything"
        detail = f" {self.error}" if self.error else f" {self.seconds} s" if self.seconds else ""
        return f"{what} {self.kind}{detail}"


@dataclass(frozen=True, slots=True)
class Fired:
    """A fault that struck.

    ``at``: monotonic seconds. ``outcome``: the broker's answer (an error code) to a request that was delivered late.
    """

    fault: Fault
    at: float
    outcome: int | None = None


class Proxy(ABC):
    """Listens as soon as it is made, so that its port can be given away; serves from ``start`` to ``close``."""

    def __init__(self, target_port: int = 0, listen_port: int = 0) -> None:
        """Listen. ``listen_port`` 0: any that is free. ``target_port`` may be given later."""
        self.target = target_port
        self._socket = socket.create_server((HOST, listen_port))
        self.port: int = self._socket.getsockname()[1]
        self._armed: deque[list[Any]] = deque()
        self._fired: list[Fired] = []
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._is_cut_off = False

    def start(self) -> None:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, sock=self._socket))

    def close(self) -> None:
        """Cut everything and stop listening."""
        if not self._thread.is_alive():
            self._socket.close()
            return
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience(CLOSE_SECONDS))
        self._loop.close()

    def __enter__(self) -> "Proxy":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- faults -------------------------------------------------------------------------------------------------------

    def arm(self, *faults: Fault) -> None:
        """Arm faults. They strike in this order if several wait for the same request."""
        with self._news:
            self._armed.extend([fault, fault.count] for fault in faults)

    def disarm(self) -> list[Fault]:
        """Forget the faults that have not struck, and return them."""
        with self._news:
            left = [fault for fault, _ in self._armed]
            self._armed.clear()
        return left

    @property
    def fired(self) -> list[Fired]:
        """Return the faults that struck so far, in order."""
        with self._news:
            return list(self._fired)

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``condition`` holds, checking it whenever something struck. True if it came to hold."""
        with self._news:
            return self._news.wait_for(condition, seconds)

    def is_armed(self) -> bool:
        """True if any fault is left that has not struck."""
        with self._news:
            return bool(self._armed)

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        self._loop.call_soon_threadsafe(self._abort_all)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let no connection through for as long as the block lasts: open ones are cut, new ones are closed at once."""
        self._is_cut_off = True
        self.cut_all()
        try:
            yield
        finally:
            self._is_cut_off = False

    def _take(self, matches: Callable[[Point], bool]) -> Fault | None:
        with self._news:
            for entry in self._armed:
                fault: Fault = entry[0]
                if fault.at is None or matches(fault.at):
                    entry[1] -= 1
                    if not entry[1]:
                        self._armed.remove(entry)
                    break
            else:
                return None
        if fault.kind is not Kind.LATE_DUPLICATE:  # a late duplicate has struck when it is delivered
            self._note(fault)
        return fault

    def _note(self, fault: Fault, outcome: int | None = None) -> None:
        with self._news:
            self._fired.append(Fired(fault, time.monotonic(), outcome))
            self._news.notify_all()

    # --- connections --------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut_off:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.add(writer)
        server: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            from_server, server = await asyncio.open_connection(HOST, self.target)
            self._writers.add(server)
            await self._serve(Link(reader, writer, from_server, server))
        for each in filter(None, (writer, server)):
            each.transport.abort()
            self._writers.discard(each)
        self._serving.discard(task)

    @abstractmethod
    async def _serve(self, link: "Link") -> None:
        """Serve one client until either side or a fault ends the connection: by returning, or by an ``OSError``."""

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort_all()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience(CLOSE_SECONDS))


@dataclass(frozen=True, slots=True)
class Link:
    """A client's connection and its counterpart to the server."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter


async def first_to_end(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run them all until one ends or fails; the others are cancelled."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


# --- Kafka ------------------------------------------------------------------------------------------------------------


def _structs(*modules: ModuleType) -> dict[tuple[int, int], Any]:
    every = [kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)]
    requests: list[Any] = [kind for kind in every if issubclass(kind, RequestStruct) and kind is not RequestStruct]
    return {(kind.API_KEY, kind.API_VERSION): kind for kind in requests}


# By key and version.
_REQUESTS: Final[Mapping[tuple[int, int], Any]] = _structs(commit, fetch, group, produce, transaction)

_WITH_TRANSACTIONAL_ID: Final = frozenset(Api) - {Api.FETCH, Api.OFFSET_FETCH}
# Errors of the group as a whole are at the end of an OffsetFetch answer, which then lists no partitions.
_OF_A_PARTITION: Final = frozenset({3, 29, 88})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was read, without its length."""

    key: int
    version: int
    correlation: int
    body: bytes
    frame: bytes = field(repr=False)

    @classmethod
    def parse(cls, frame: bytes) -> "Request":
        key, version, correlation, client = struct.unpack_from(">hhih", frame)
        return cls(key, version, correlation, frame[10 + max(client, 0) :], frame)

    def is_for(self, at: Point) -> bool:
        return at == self.key

    @property
    def transactional_id(self) -> str | None:
        """Return the transactional id, ``None`` also for a request that has none by its kind."""
        if self.key not in _WITH_TRANSACTIONAL_ID:
            return None
        (length,) = struct.unpack_from(">h", self.body)
        return None if length < 0 else self.body[2 : 2 + length].decode()

    def answer(self, error: int) -> bytes:
        """Return the frame of an answer with that error code, without its length."""
        return struct.pack(">i", self.correlation) + refusal(self.key, self.version, self.body, error)


def refusal(key: int, version: int, body: bytes, error: int) -> bytes:
    """Return the body of an answer that gives ``error`` for everything that was asked."""
    kind = _REQUESTS[key, version]
    asked = kind.decode(body)
    members: list[Any]
    match key:
        case Api.PRODUCE:
            members = [_each(asked.topics, lambda part: (part[0], error, -1, -1, -1)), 0]
        case Api.FETCH:
            members = [0, 0, 0, _each(asked.topics, lambda part: (part[0], error, -1, -1, -1, [], -1, b""))]
        case Api.OFFSET_FETCH if error in _OF_A_PARTITION:
            members = [0, _each(asked.topics, lambda number: (number, -1, "", error)), 0]
        case Api.OFFSET_FETCH:
            members = [0, [], error]
        case Api.ADD_PARTITIONS_TO_TXN:
            members = [0, _each(asked.topics, lambda number: (number, error))]
        case Api.TXN_OFFSET_COMMIT | GroupApi.OFFSET_COMMIT:
            members = [0, _each(asked.topics, lambda part: (part[0], error))]
        case Api.INIT_PRODUCER_ID:
            members = [0, error, -1, -1]
        case Api.ADD_OFFSETS_TO_TXN | Api.END_TXN | GroupApi.HEARTBEAT:
            members = [0, error]
        case _:
            raise ValueError(f"no answer is known to requests with the key {key}")
    encoded: bytes = kind.RESPONSE_TYPE(*members).encode()
    return encoded


def _each(topics: list[tuple[str, list[Any]]], answer: Callable[[Any], object]) -> list[object]:
    return [(topic, [answer(partition) for partition in partitions]) for topic, partitions in topics]


def first_error(key: int, version: int, body: bytes) -> int:
    """Return the error code of an answer to a transactional request or to Produce, 0 if it is good."""
    told = _REQUESTS[key, version].RESPONSE_TYPE.decode(body)
    if hasattr(told, "error_code"):
        return int(told.error_code)
    topics = told.topics if key == Api.PRODUCE else told.errors
    return next((part[1] for _, parts in topics for part in parts if part[1]), 0)


@dataclass(slots=True)
class _Held:
    """A request that must arrive inside the transaction after its own."""

    fault: Fault
    request: Request
    is_next: bool = False
    produced: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def moment(self) -> Api:
        """Return the request before which it is delivered: the one at which a late one of its kind does most harm."""
        # An end tears the messages from their offset; anything else spoils the next commit.
        return Api.TXN_OFFSET_COMMIT if self.fault.at is Api.END_TXN else Api.END_TXN


@dataclass(slots=True)
class _Open:
    """The pending requests of a connection, by correlation, and the moment at which none is left."""

    passed: dict[int, tuple[Request, Fault | None]] = field(default_factory=dict)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False

    async def all_answered(self) -> None:
        """Wait until none is left. A client expects its answers in the order of its requests."""
        while self.passed:
            self.answered.clear()
            await self.answered.wait()


class KafkaProxy(Proxy):
    """A proxy of a broker's listener with this proxy's port as its *advertised* one: nothing needs to be rewritten."""

    def __init__(self, target_port: int = 0, listen_port: int = 0) -> None:
        super().__init__(target_port, listen_port)
        self._held: list[_Held] = []

    def is_armed(self) -> bool:
        return bool(self._held) or super().is_armed()

    async def _serve(self, link: Link) -> None:
        state = _Open()
        await first_to_end(self._up(link, state), self._down(link, state))

    async def _up(self, link: Link, state: _Open) -> None:
        while True:
            request = Request.parse(await _frame(link.from_client))
            await self._deliver_late(request)
            fault = self._take(request.is_for)
            if fault is not None:
                if fault.kind is Kind.LATE_DUPLICATE:
                    self._held.append(_Held(fault, request))
                if fault.kind in _ENDING:
                    state.silent = True
                    await asyncio.sleep(fault.seconds)
                    return
                if fault.kind is Kind.REFUSED:
                    await state.all_answered()
                    _send(link.to_client, request.answer(fault.error))
                    continue
                await asyncio.sleep(fault.seconds)
            state.passed[request.correlation] = request, fault
            _send(link.to_server, request.frame)

    async def _down(self, link: Link, state: _Open) -> None:
        while True:
            frame = await _frame(link.from_server)
            (correlation,) = struct.unpack_from(">i", frame)
            request, fault = state.passed.pop(correlation)
            self._follow(request, frame[4:])
            if state.silent:
                continue
            if fault is not None and fault.kind is Kind.ANSWER_LOST:
                return
            if fault is not None and fault.kind is Kind.MISREPORTED:
                frame = request.answer(fault.error)
            _send(link.to_client, frame)
            state.answered.set()

    # --- late duplicates ----------------------------------------------------------------------------------------------

    def _follow(self, request: Request, answer: bytes) -> None:
        """Notice when the transaction of a held request is over, and when the next one has produced."""
        for held in self._held:
            if request.transactional_id != held.request.transactional_id:
                continue
            over = request.key in {Api.END_TXN, Api.INIT_PRODUCER_ID}
            if over and first_error(request.key, request.version, answer) == 0:
                held.is_next = True
            elif held.is_next and request.key == Api.PRODUCE:
                held.produced.set()

    async def _deliver_late(self, request: Request) -> None:
        for held in list(self._held):
            same = request.transactional_id == held.request.transactional_id
            if not (same and held.is_next and request.key == held.moment):
                continue
            self._held.remove(held)
            with suppress(TimeoutError):
                async with asyncio.timeout(stretched(PRODUCED_SECONDS)):
                    await held.produced.wait()
            self._note(held.fault, await self._ask(held.request))

    async def _ask(self, request: Request) -> int:
        """Deliver a request on a connection of its own; return the error code of its answer."""
        reader, writer = await asyncio.open_connection(HOST, self.target)
        try:
            _send(writer, request.frame)
            return first_error(request.key, request.version, (await _frame(reader))[4:])
        finally:
            writer.transport.abort()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)


# --- Postgres ---------------------------------------------------------------------------------------------------------

_NO_ENCRYPTION: Final = b"N"
_ENCRYPTION_REQUESTS: Final = frozenset({80877103, 80877104})
_STATEMENTS: Final = frozenset({b"Q", b"P", b"B"})
_READY: Final = b"Z"


class PostgresProxy(Proxy):
    """A proxy of TCP connections without encryption, which it declines in the server's place."""

    def arm(self, *faults: Fault) -> None:
        """Arm faults. Raises ``ValueError`` for a kind that is Kafka's."""
        for fault in faults:
            if fault.kind in _OF_KAFKA:
                raise ValueError(f"{fault} is a fault of Kafka's")
        super().arm(*faults)

    async def _serve(self, link: Link) -> None:
        await _pass_start(link)
        losing = asyncio.Event()
        silent = asyncio.Event()
        await first_to_end(self._up(link, losing, silent), self._down(link, losing, silent))

    async def _up(self, link: Link, losing: asyncio.Event, silent: asyncio.Event) -> None:
        while True:
            kind, message = await _message(link.from_client)
            fault = self._take(_is_for(kind, message)) if kind in _STATEMENTS else None
            if fault is not None:
                if fault.kind in _ENDING:
                    silent.set()
                await asyncio.sleep(fault.seconds)
                if fault.kind in _ENDING:
                    return
                if fault.kind is Kind.ANSWER_LOST:
                    losing.set()
            link.to_server.write(message)

    async def _down(self, link: Link, losing: asyncio.Event, silent: asyncio.Event) -> None:
        """Pass bytes as they come: only an answer to be lost is looked at, and it begins with a message."""
        while chunk := await link.from_server.read(CHUNK_BYTES):
            if losing.is_set():
                await _swallow_answer(chunk, link.from_server)
                return
            if not silent.is_set():
                link.to_client.write(chunk)


_COMMENTS: Final = re.compile(rb"(\s*--[^\n]*\n)*\s*")


def _is_for(kind: bytes, message: bytes) -> Callable[[Point], bool]:
    """Return a test for a message with a statement that begins so. A prepared statement comes without its text."""
    text = message[5:] if kind == b"Q" else message[5:].partition(b"\0")[2] if kind == b"P" else b""
    said = _COMMENTS.sub(b"", text, count=1).rstrip(b"\0").decode(errors="replace").upper()
    return lambda at: isinstance(at, str) and said.startswith(at.upper())


async def _pass_start(link: Link) -> None:
    """Pass the first messages, which carry no type, up to the one that opens the session or cancels another's."""
    while True:
        head = await link.from_client.readexactly(8)
        length, code = struct.unpack(">ii", head)
        if code in _ENCRYPTION_REQUESTS:
            link.to_client.write(_NO_ENCRYPTION)
            continue
        link.to_server.write(head + await link.from_client.readexactly(length - 8))
        return


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the type of a message, and the whole of it."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack_from(">i", head, 1)
    return head[:1], head + await reader.readexactly(length - 4)


async def _swallow_answer(begun: bytes, reader: asyncio.StreamReader) -> None:
    """Wait until the server is ready for the next statement: then the one before it has been carried out."""
    while True:
        while not _is_whole(begun):
            begun += await reader.readexactly(1)
        kind, begun = begun[:1], begun[1 + struct.unpack_from(">i", begun, 1)[0] :]
        if kind == _READY:
            return


def _is_whole(message: bytes) -> bool:
    return len(message) >= 5 and len(message) >= 1 + struct.unpack_from(">i", message, 1)[0]
