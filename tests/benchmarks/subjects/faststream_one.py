"""b. The worker that a user writes first: FastStream, one message after the other.

One transaction, one reply that is waited for, and one commit of the offset per message.
"""

import os

import uvloop
from faststream import AckPolicy, FastStream

from tests.benchmarks.subjects.by_hand import Asked, Handler, connect, reading
from worker.settings import read_settings


async def run() -> None:
    settings = read_settings(os.environ)
    broker = connect(settings)
    handler = await Handler.open(settings, broker)

    @broker.subscriber(settings.topics.commands, ack_policy=AckPolicy.ACK, **reading(settings))
    async def handle(asked: Asked) -> None:
        await handler.answer(asked)

    try:
        await FastStream(broker, logger=None).run()
    finally:
        await handler.close()


if __name__ == "__main__":
    uvloop.run(run())
