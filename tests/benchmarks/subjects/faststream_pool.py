"""c. The same as b with concurrency made by hand: a task per message, sixteen at once; the client commits by itself.

The fastest of the obvious ways. It gives up what b still had: every few seconds the client commits all that it has
handed out, so a crash loses the commands in hand, and those of one key may overtake each other. A commit after every
message makes it four times as slow; FastStream's own ``max_workers``, or committing only finished messages, one commit
under way at a time, make it a tenth to a third slower.
"""

import asyncio
import os

import uvloop
from faststream import AckPolicy, FastStream

from tests.benchmarks.subjects.by_hand import POOL, Asked, Handler, connect, reading
from worker.settings import read_settings


async def run() -> None:
    settings = read_settings(os.environ)
    broker = connect(settings)
    handler = await Handler.open(settings, broker)
    free = asyncio.Semaphore(POOL)
    tasks: set[asyncio.Task[None]] = set()

    async def work(asked: Asked) -> None:
        try:
            await handler.answer(asked)
        finally:
            free.release()

    @broker.subscriber(settings.topics.commands, ack_policy=AckPolicy.ACK_FIRST, **reading(settings))
    async def handle(asked: Asked) -> None:
        await free.acquire()
        task = asyncio.create_task(work(asked))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    app = FastStream(broker, logger=None)

    @app.on_shutdown
    async def finish() -> None:
        await asyncio.gather(*tasks)

    try:
        await app.run()
    finally:
        await handler.close()


if __name__ == "__main__":
    uvloop.run(run())
