"""Run as a program: the worker, which dies or stands still at a point that no test could hit from outside.

``faulty_worker.py POINT NUMBER SIGNAL`` sends itself that signal when it comes to that point for the NUMBER-th time:
SIGKILL ends it, SIGSTOP lets it stand still until somebody sends it SIGCONT.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.transaction import EndTxnRequest

from worker.cli import main
from worker.publish import AtLeast, Exactly
from worker.sql import statement


class Fuse:
    """Burns down with every visit to the point."""

    def __init__(self, number: int, which: signal.Signals) -> None:
        self._left = number
        self._which = which

    def burns_down(self) -> bool:
        """Whether this visit is the one."""
        self._left -= 1
        return self._left == 0

    def blow(self) -> None:
        os.kill(os.getpid(), self._which)

    def burn(self) -> None:
        if self.burns_down():
            self.blow()


def between_the_commits(fuse: Fuse) -> None:
    """Postgres has committed the batch, and nothing of it was sent to Kafka."""
    for publisher in (Exactly, AtLeast):
        _burn_before(publisher, "publish", fuse)


def before_the_end(fuse: Fuse) -> None:
    """Everything was sent but the request that ends the transaction."""
    _burn_before(AIOKafkaProducer, "commit_transaction", fuse)


def before_the_offset(fuse: Fuse) -> None:
    """Delivery ``at_least_once``: the results are out, the offset is not."""
    _burn_before(AIOKafkaConsumer, "commit", fuse)


def with_the_end_under_way(fuse: Fuse) -> None:
    """The request that ends the transaction was sent, and its answer was not read."""
    send: Any = AIOKafkaConnection.send

    def faulty(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        answer = send(connection, request, *arguments, **options)
        if isinstance(request, EndTxnRequest) and fuse.burns_down():
            # What was written leaves at the end of the loop's turn.
            asyncio.get_running_loop().call_later(0.001, fuse.blow)
        return answer

    AIOKafkaConnection.send = faulty


def after_the_end(fuse: Fuse) -> None:
    """The transaction was committed, and nobody in the worker has heard of it yet."""
    commit: Any = AIOKafkaProducer.commit_transaction

    async def faulty(producer: Any) -> None:
        await commit(producer)
        fuse.burn()

    AIOKafkaProducer.commit_transaction = faulty


def in_the_middle_of_a_statement(fuse: Fuse) -> None:
    """Within a transaction of Postgres, which has parsed a statement and waits to be told to execute it."""
    client: Any = asyncpg.Connection
    prepare: Any = client._get_statement

    async def faulty(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        prepared = await prepare(connection, query, *arguments, **options)
        # One with plain types: for others the client puts questions of its own in between, and Postgres is idle again.
        if query == statement("advance_chain"):
            fuse.burn()
        return prepared

    client._get_statement = faulty


def _burn_before(owner: Any, name: str, fuse: Fuse) -> None:
    whole: Any = getattr(owner, name)

    async def faulty(*arguments: Any, **options: Any) -> Any:
        fuse.burn()
        return await whole(*arguments, **options)

    setattr(owner, name, faulty)


POINTS: Final[dict[str, Callable[[Fuse], None]]] = {
    point.__name__: point
    for point in (
        in_the_middle_of_a_statement,
        between_the_commits,
        before_the_end,
        with_the_end_under_way,
        after_the_end,
        before_the_offset,
    )
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](Fuse(int(sys.argv[2]), signal.Signals[sys.argv[3]]))
    sys.argv[1:] = ["run"]
    main()
