"""A real worker does what the senders' test kit says: one suite of expectations for both.

``tests/unit/test_testing.py`` is the other half.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from uuid import uuid4

import pytest

from effective_contract.client import CommandClient
from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import Scene, answer
from tests.contract.expectations import EXPECTATIONS, OWN, Answer
from tests.providers.kafka import create_topics, delete_topics
from tests.support.logins import login_token
from tests.support.pace import patience
from tests.support.waiting import until_answered

pytestmark = pytest.mark.real_kafka

_NUMBERS: Final = count(1)


@dataclass(frozen=True)
class Real:
    """The world of a running worker (``tests.contract.expectations.World``)."""

    scene: Scene
    own: str

    def client(self, *, source: str | None = None, reply_to: str | None = None) -> CommandClient:
        return CommandClient(
            self.scene.kafka.bootstrap,
            commands=self.scene.topics.commands,
            results=self.scene.topics.results,
            source=source,
            reply_to=self.own if reply_to == OWN else reply_to,
            timeout=patience(60),
        )

    def login(self, user: str = "mpadmin", *, expired: bool = False, account: str | None = None) -> str:
        long_ago = int(time.time()) - 86_400
        claims: dict[str, Any] = {"iat": long_ago, "exp": long_ago + 7200} if expired else {}
        if account is not None:
            claims |= {"cii": "app", "acr": account}
        return login_token(user=user, **claims)

    async def new_code(self) -> str:
        [code] = await asyncio.to_thread(self.scene.new_tokens, 1, prefix=f"new-{next(_NUMBERS)}")
        return code

    async def exchange(self, value: bytes, headers: Mapping[str, bytes], key: bytes | None = None) -> Answer:
        before = await asyncio.to_thread(self.scene.seen, self.scene.topics.results)
        await asyncio.to_thread(self.scene.send, Outgoing(value, key, [*headers.items()]))

        async def new() -> list[Record]:
            records = await asyncio.to_thread(self.scene.seen, self.scene.topics.results)
            return [record for record in records if record not in before]

        [record] = await until_answered(new, bool, what="the command was answered", pause=0.05)
        return Answer(record.key, answer(record), {name: value or b"" for name, value in record.headers})


@pytest.fixture(scope="module")
def world(shared_scene: Scene) -> Iterator[Real]:
    """Yield a world whose worker runs."""
    own = f"own-{uuid4().hex[:12]}"
    create_topics(shared_scene.kafka.bootstrap, own)
    shared_scene.set_effective()
    with shared_scene.worker(TOPICS__REPLY_TO_ALLOWED=own) as worker:
        worker.wait_ready()
        yield Real(shared_scene, own)
    delete_topics(shared_scene.kafka.bootstrap, own)


@pytest.mark.parametrize("expectation", EXPECTATIONS, ids=lambda each: each.__name__)
def test_a_real_worker_does_what_a_sender_may_expect(world: Real, expectation: Any) -> None:
    asyncio.run(expectation(world))
