"""Points at which a worker dies, stands still or meets a trick of the network, and that no test could hit.

A point is armed in the worker's own process (``tests.faults.worker``) and changes nothing until its fuse has burned
down. Its name says what has happened so far and what has not.
"""

import asyncio
import os
import re
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest, TxnOffsetCommitRequest
from asyncpg.transaction import Transaction

from worker.lanes.publisher import IdempotentPublisher, TransactionalPublisher
from worker.lanes.row import LaneRow
from worker.lanes.supervisor import Supervisor
from worker.pipeline import Pipeline
from worker.postgres.sql import statement


class Fuse:
    """Burns down with every visit to the point."""

    def __init__(self, number: int, which: signal.Signals) -> None:
        self._left = number
        self.which = which

    def burns_down(self) -> bool:
        """True if this visit is the one."""
        self._left -= 1
        return self._left == 0

    def blow(self) -> None:
        os.kill(os.getpid(), self.which)

    def burn(self) -> None:
        if self.burns_down():
            self.blow()


# --- a lane's start ---------------------------------------------------------------------------------------------------


def before_the_row(fuse: Fuse) -> None:
    """Strike when a lane is about to take its row in Postgres."""
    _burn_before(LaneRow, "take", fuse)


def before_the_init(fuse: Fuse) -> None:
    """Strike when a producer is about to start: an older owner is not fenced yet."""
    _burn_before(AIOKafkaProducer, "start", fuse)


def after_the_init(fuse: Fuse) -> None:
    """Strike when InitProducerId was answered, and the lane has not gone on from there."""
    _burn_after(AIOKafkaProducer, "start", fuse)


def init_held_up(fuse: Fuse) -> None:
    """Hold InitProducerId up until the process gets the signal; everything else goes on."""
    start: Any = AIOKafkaProducer.start

    async def faulty(producer: Any) -> None:
        if fuse.burns_down():
            released = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(fuse.which, released.set)
            await released.wait()
        await start(producer)

    AIOKafkaProducer.start = faulty


# --- the transaction of Postgres --------------------------------------------------------------------------------------


def before_the_decision(fuse: Fuse) -> None:
    """Strike when a batch was taken, and nothing was asked of Postgres about it."""
    _burn_before(Pipeline, "run", fuse)


def in_the_middle_of_a_statement(fuse: Fuse) -> None:
    """Strike within a transaction of Postgres, which has parsed a statement and waits for the order to execute it."""
    client: Any = asyncpg.Connection
    prepare: Any = client._get_statement

    async def faulty(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        prepared = await prepare(connection, query, *arguments, **options)
        if query == statement("journey/apply") and fuse.burns_down():
            # Parsed once more, nameless: a statement that the connection knows would leave the session idle, and so
            # would one whose types the client had to look up first.
            await connection._protocol.prepare("", query, None, record_class=asyncpg.Record, ignore_custom_codec=False)
            fuse.blow()
        return prepared

    client._get_statement = faulty


def before_the_first_commit(fuse: Fuse) -> None:
    """Strike when Postgres has done everything that a batch asks for but COMMIT."""
    _burn_before(Transaction, "__aexit__", fuse)


def with_the_first_commit_under_way(fuse: Fuse) -> None:
    """Strike when COMMIT was sent to Postgres, and its answer was not read."""
    client: Any = asyncpg.Connection
    execute: Any = client.execute

    async def faulty(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        if query == "COMMIT;" and fuse.burns_down():
            _soon(fuse.blow)
        return await execute(connection, query, *arguments, **options)

    client.execute = faulty


def between_the_commits(fuse: Fuse) -> None:
    """Strike when Postgres has committed the batch, and nothing of it was sent to Kafka."""
    for publisher in (TransactionalPublisher, IdempotentPublisher):
        _burn_before(publisher, "publish", fuse)


# --- the transaction of Kafka -----------------------------------------------------------------------------------------


def with_the_messages_under_way(fuse: Fuse) -> None:
    """Strike when messages were sent, and their answer was not read."""
    _burn_while_sending(ProduceRequest, fuse)


def with_the_offset_under_way(fuse: Fuse) -> None:
    """Strike when the offset was sent to the transaction, and its answer was not read."""
    _burn_while_sending(TxnOffsetCommitRequest, fuse)


def before_the_end(fuse: Fuse) -> None:
    """Strike when everything was sent but the request that ends the transaction."""
    _burn_before(AIOKafkaProducer, "commit_transaction", fuse)


def with_the_end_under_way(fuse: Fuse) -> None:
    """Strike when the request that ends the transaction was sent, and its answer was not read."""
    _burn_while_sending(EndTxnRequest, fuse)


def after_the_end(fuse: Fuse) -> None:
    """Strike when the transaction was committed, and the worker does not know it yet."""
    _burn_after(AIOKafkaProducer, "commit_transaction", fuse)


def before_the_offset(fuse: Fuse) -> None:
    """Strike in delivery ``at_least_once`` when the results are out, and the offset is not."""
    _burn_before(AIOKafkaConsumer, "commit", fuse)


def with_the_lane_lost(fuse: Fuse) -> None:
    """Strike when a lane has ended because something was taken from it or is away, before any reaction."""
    report = Supervisor._report

    def faulty(*arguments: Any) -> None:
        report(*arguments)
        fuse.burn()

    supervisor: Any = Supervisor
    supervisor._report = faulty


# --- the network ------------------------------------------------------------------------------------------------------


def late_end(fuse: Fuse) -> None:
    """Make the end of a transaction arrive a second time.

    It loses its connection on the way, the client sends it again, and the first copy arrives when the next transaction
    has its messages and not its offset. There the worker gets its signal.
    """
    send: Any = AIOKafkaConnection.send
    add_offset: Any = AIOKafkaProducer.send_offsets_to_transaction
    held: list[_Held] = []

    def losing(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(request, EndTxnRequest) and fuse.burns_down():
            held.append(_Held.of(connection, request))
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError("lost on the way")
        return send(connection, request, *arguments, **options)

    async def preceded(producer: Any, *arguments: Any) -> None:
        if held:
            await producer.flush()
            await held.pop().deliver()
            fuse.blow()
        await add_offset(producer, *arguments)

    AIOKafkaConnection.send = losing
    AIOKafkaProducer.send_offsets_to_transaction = preceded


def late_messages(fuse: Fuse) -> None:
    """Make messages that get no answer arrive after the next producer of the same lane has started.

    The worker then gets its signal.
    """
    send: Any = AIOKafkaConnection.send
    start: Any = AIOKafkaProducer.start
    held: list[_Held] = []

    def swallowing(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(request, ProduceRequest) and fuse.burns_down():
            held.append(_Held.of(connection, request))
            return asyncio.get_running_loop().create_future()
        return send(connection, request, *arguments, **options)

    async def preceded(producer: Any) -> None:
        await start(producer)
        if held:
            await held.pop().deliver()
            fuse.blow()

    AIOKafkaConnection.send = swallowing
    AIOKafkaProducer.start = preceded


@dataclass(frozen=True, slots=True)
class _Held:
    """A request that the network keeps for later, and its destination."""

    host: str
    port: int
    frame: bytes

    @classmethod
    def of(cls, connection: Any, request: Any) -> "_Held":
        body = request.prepare(connection._versions)
        header = body.build_request_header(correlation_id=1, client_id="late")
        message: bytes = header.encode() + body.encode()
        return cls(connection.host, connection.port, struct.pack(">i", len(message)) + message)

    async def deliver(self) -> None:
        """Hand it to the broker on a connection of its own, and return once the broker has answered it."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.frame)
            await reader.readexactly(4)
        finally:
            writer.close()
            await writer.wait_closed()


# --- how a point is hooked in -----------------------------------------------------------------------------------------


def _burn_before(owner: Any, name: str, fuse: Fuse) -> None:
    whole: Any = getattr(owner, name)

    async def faulty(*arguments: Any, **options: Any) -> Any:
        fuse.burn()
        return await whole(*arguments, **options)

    setattr(owner, name, faulty)


def _burn_after(owner: Any, name: str, fuse: Fuse) -> None:
    whole: Any = getattr(owner, name)

    async def faulty(*arguments: Any, **options: Any) -> Any:
        answer = await whole(*arguments, **options)
        fuse.burn()
        return answer

    setattr(owner, name, faulty)


def _burn_while_sending(kind: type, fuse: Fuse) -> None:
    send: Any = AIOKafkaConnection.send

    def faulty(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        answer = send(connection, request, *arguments, **options)
        if isinstance(request, kind) and fuse.burns_down():
            _soon(fuse.blow)
        return answer

    AIOKafkaConnection.send = faulty


def _soon(do: Callable[[], None]) -> None:
    # Written data leaves at the end of the loop's turn.
    asyncio.get_running_loop().call_later(0.001, do)


STEPS: Final[dict[str, Callable[[Fuse], None]]] = {
    point.__name__: point
    for point in (
        before_the_row,
        before_the_init,
        after_the_init,
        before_the_decision,
        in_the_middle_of_a_statement,
        before_the_first_commit,
        with_the_first_commit_under_way,
        between_the_commits,
        with_the_messages_under_way,
        with_the_offset_under_way,
        before_the_end,
        with_the_end_under_way,
        after_the_end,
        before_the_offset,
    )
}
"""Steps of the journey at which a signal is sent, in their order. The last is one of ``at_least_once`` only."""

POINTS: Final[dict[str, Callable[[Fuse], None]]] = {
    **STEPS,
    **{trick.__name__: trick for trick in (init_held_up, with_the_lane_lost, late_end, late_messages)},
}


def arm(point: str) -> None:
    """Arm ``NAME:NUMBER:SIGNAL``: at the NUMBER-th visit the process gets the signal.

    SIGKILL ends it, SIGSTOP lets it stand still until it gets SIGCONT, which by itself does nothing. Raises
    ``ValueError`` if there is no such point, number or signal.
    """
    named = re.fullmatch(r"(\w+):([1-9]\d*):(\w+)", point)
    if named is None or named[1] not in POINTS or named[3] not in signal.Signals.__members__:
        raise ValueError(f"no such point, or not NAME:NUMBER:SIGNAL: {point}")
    POINTS[named[1]](Fuse(int(named[2]), signal.Signals[named[3]]))
