"""The client for programs without an event loop: scripts, threads, and frameworks that are not asynchronous."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Required, TypeAlias, TypedDict, Unpack

from effective_contract.client.answer import SetEffective
from effective_contract.client.calls import Counts
from effective_contract.client.client import CommandClient, Retry
from effective_contract.client.errors import ClientClosed

BlockingLoginToken: TypeAlias = str | Callable[[], str]
"""A login token, or a function that returns one before each attempt. It is called in a thread of its own."""


class Request(TypedDict, total=False):
    """The arguments of :meth:`CommandClient.set_effective`, which has their meanings."""

    token: Required[BlockingLoginToken]
    authentication_code: str | None
    identifier: str | None
    pass_code: str | None
    fields_set: str | None
    ce_id: str | None
    ce_source: str | None
    key: str | bytes | None
    traceparent: str | None
    tracestate: str | None
    dry_run: bool
    timeout: float | None
    retry: Retry


class BlockingCommandClient:
    """A client whose calls wait for their answers. ``with`` opens and closes it; any number of threads may share it.

    It runs a :class:`CommandClient` on an event loop of its own, in a thread that ends with the ``with``.
    """

    def __init__(self, client: CommandClient) -> None:
        """``client`` is not open: ``BlockingCommandClient(CommandClient("kafka:9092", source="/shop"))``."""
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def counts(self) -> Counts:
        """The counts so far, for example of late replies."""
        return self._client.counts

    def __enter__(self) -> "BlockingCommandClient":
        """Connect. Raises ``BrokerAway`` or ``NoSuchTopic``."""
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="command client", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._client.__aenter__(), loop).result()
        except BaseException:
            self._end(loop)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client. Calls that still wait get ``ClientClosed``."""
        loop = self._loop
        if loop is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._client.__aexit__(kind, error, trace), loop).result()
        finally:
            self._end(loop)

    def set_effective(self, **request: Unpack[Request]) -> SetEffective:
        """Set one access token effective, and wait for the answer.

        Raises the errors of ``effective_contract.client.errors``. Interrupted (Ctrl-C), it stops waiting.
        """
        future = self.submit(**request)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, **request: Unpack[Request]) -> "Future[SetEffective]":
        """Send a command, and return the future of its answer: for many commands in flight.

        ``concurrent.futures.as_completed`` and ``wait`` take such futures. A cancelled one stops waiting.
        """
        loop, token = self._loop, request["token"]
        if loop is None:
            named = {"ce_id": request.get("ce_id") or "", "ce_source": request.get("ce_source") or ""}
            raise ClientClosed("the client is not open", may_be_applied=False, **named)
        login = token if isinstance(token, str) else lambda: asyncio.to_thread(token)
        arguments: Any = {**request, "token": login}
        return asyncio.run_coroutine_threadsafe(self._client.set_effective(**arguments), loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and end what is left of it."""
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _cancel_all() -> None:
    """Cancel the calls of threads that did not see the client being closed: they would wait forever."""
    await asyncio.sleep(0)  # calls that were handed over last become tasks now
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
