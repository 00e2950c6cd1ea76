"""Run as a program: the worker, which kills itself at a point that no test could hit from outside.

``faulty_worker.py POINT NUMBER`` ends by SIGKILL when it comes to that point for the NUMBER-th time.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.transaction import EndTxnRequest

from worker.cli import main
from worker.publish import AtLeast, Exactly


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Burns down with every call; ``blows`` is true at the last one."""

    def __init__(self, number: int) -> None:
        self._left = number

    def blows(self) -> bool:
        self._left -= 1
        return self._left == 0


def between_the_commits(fuse: Fuse) -> None:
    """Postgres has committed the batch, and nothing of it was sent to Kafka."""
    for publisher in (Exactly, AtLeast):
        _die_before(publisher, "publish", fuse)


def before_the_end(fuse: Fuse) -> None:
    """Everything was sent but the request that ends the transaction."""
    _die_before(AIOKafkaProducer, "commit_transaction", fuse)


def before_the_offset(fuse: Fuse) -> None:
    """Delivery ``at_least_once``: the results are out, the offset is not."""
    _die_before(AIOKafkaConsumer, "commit", fuse)


def with_the_end_under_way(fuse: Fuse) -> None:
    """The request that ends the transaction was sent, and its answer was not read."""
    send: Any = AIOKafkaConnection.send

    def faulty(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        answer = send(connection, request, *arguments, **options)
        if isinstance(request, EndTxnRequest) and fuse.blows():
            # What was written leaves at the end of the loop's turn.
            asyncio.get_running_loop().call_later(0.001, die)
        return answer

    AIOKafkaConnection.send = faulty


def after_the_end(fuse: Fuse) -> None:
    """The transaction was committed, and nobody in the worker has heard of it yet."""
    commit: Any = AIOKafkaProducer.commit_transaction

    async def faulty(producer: Any) -> None:
        await commit(producer)
        if fuse.blows():
            die()

    AIOKafkaProducer.commit_transaction = faulty


def _die_before(owner: Any, name: str, fuse: Fuse) -> None:
    whole: Any = getattr(owner, name)

    async def faulty(*arguments: Any, **options: Any) -> Any:
        if fuse.blows():
            die()
        return await whole(*arguments, **options)

    setattr(owner, name, faulty)


POINTS: Final[dict[str, Callable[[Fuse], None]]] = {
    point.__name__: point
    for point in (between_the_commits, before_the_end, with_the_end_under_way, after_the_end, before_the_offset)
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](Fuse(int(sys.argv[2])))
    sys.argv[1:] = ["run"]
    main()
