"""Health, metrics, the console page and the contract over HTTP (CONTRACT, Admin port). It changes nothing."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final, Protocol, cast

import orjson
from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from worker.errors import OperatorError
from worker.observability.health import Health
from worker.observability.metrics import Metrics

MOST_CONNECTIONS: Final = 64
"""The most connections at once: a probe and a scrape need one each. The oldest gives way to a new one."""
CONNECTION_SECONDS: Final = 10.0
"""Seconds that a connection may live: it serves one request, and a slow client does not extend it."""

# A page loads nothing from anywhere, no markup injected into it runs, and no other site may show it in a frame.
_EVERYWHERE: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}
# The console page runs its own script and style sheet, and follows its own events.
_CONSOLE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_POLICY: Final = "Content-Security-Policy"
WRITE_SECONDS: Final = 10.0
"""Seconds that a viewer of the console page may take for one event."""


class _OwnFaults(logging.Filter):
    """A filter that keeps clients' faults out of the log: they are answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_LOGGER: Final = logging.getLogger("worker.observability.http.requests")
_LOGGER.addFilter(_OwnFaults())
# The server itself answers requests that it refuses before the application, and would tell its and Python's version.
vars(web_response)["SERVER_SOFTWARE"] = "effective-worker"


class AdminUnavailable(OperatorError):
    """The worker cannot listen on the admin port."""


class TooManyViewers(Exception):
    """The console page has as many viewers as it takes."""


class Console(Protocol):
    """The console page (``worker.operations.console``)."""

    @property
    def files(self) -> Mapping[str, tuple[bytes, str]]:
        """The content and its type by path."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """Return the server-sent events for one viewer. Raises ``TooManyViewers``."""


class Contract(Protocol):
    """The contract as text, for people and for programs (``worker.operations.contract``)."""

    @property
    def asyncapi(self) -> str: ...

    @property
    def page(self) -> str: ...


@asynccontextmanager
async def serve_admin(
    host: str,
    port: int,
    metrics: Metrics,
    health: Health,
    contract: Contract,
    *,
    console: Console,
    names: Collection[str] = (),
) -> AsyncIterator[int]:
    """Serve for the length of the block and yield the port bound, which matters if ``port`` is 0.

    It answers to addresses, ``localhost``, this machine's own name and ``names``; to any name if ``*`` is one of them.
    Raises ``AdminUnavailable`` if it cannot listen on the port.
    """
    application = web.Application(middlewares=[_known_by(names)])
    application.on_response_prepare.append(_harden)
    for path, (content, content_type) in console.files.items():
        application.router.add_get(path, _file(content, content_type))
    application.router.add_get("/livez", _probe(health.live))
    application.router.add_get("/readyz", _probe(health.ready))
    application.router.add_get("/metrics", _metrics(metrics))
    application.router.add_get("/asyncapi.json", _document(lambda: contract.asyncapi, "application/json"))
    application.router.add_get("/contract", _document(lambda: contract.page, "text/html"))
    viewers = _Viewers(console)
    application.router.add_get("/events", viewers.follow, allow_head=False)
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0, logger=_LOGGER)
    await runner.setup()
    door = viewers.door = _Door(runner)
    try:
        listening = await _listen(door, host, port)
        try:
            yield int(listening.sockets[0].getsockname()[1])
        finally:
            listening.close()
            viewers.end()
            door.close()
            await listening.wait_closed()
    finally:
        await runner.cleanup()


async def _listen(door: "_Door", host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(door.enter, host, port)
    except OSError as error:
        raise AdminUnavailable(
            f"the admin port {host}:{port} cannot be listened on ({error.strerror or error}): "
            "set WORKER_ADMIN__HOST and WORKER_ADMIN__PORT (0 takes any free port)"
        ) from error


class _Door:
    """The door to the server: lets in not too many connections, and none for long."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._inside: dict[_Connection, None] = {}

    def enter(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "the runner was set up"
        return _Connection(server(), self._inside)

    def let_stay(self, request: web.Request) -> None:
        """Take the deadline from the connection of a request."""
        for connection in self._inside:
            if connection.serves(request.protocol):
                connection.stay()

    def close(self) -> None:
        for connection in [*self._inside]:
            connection.end()


class _Connection(asyncio.Protocol):
    """One connection of aiohttp's, with a deadline. ``inside`` has all connections, the oldest first."""

    def __init__(self, served: asyncio.Protocol, inside: "dict[_Connection, None]") -> None:
        self._served = served
        self._inside = inside
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None

    def serves(self, protocol: asyncio.Protocol) -> bool:
        return self._served is protocol

    def stay(self) -> None:
        if self._limit is not None:
            self._limit.cancel()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport does not inherit from this class
        self._limit = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, self.end)
        if len(self._inside) >= MOST_CONNECTIONS:
            next(iter(self._inside)).end()
        self._inside[self] = None
        self._served.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._inside.pop(self, None)
        self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def pause_writing(self) -> None:
        self._served.pause_writing()

    def resume_writing(self) -> None:
        self._served.resume_writing()


_Handler = Callable[[web.Request], Any]


def _known_by(names: Collection[str]) -> Any:
    """Refuse requests for another name: a foreign page may have made its own name point to this address."""
    known = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    @web.middleware
    async def judge(request: web.Request, handler: _Handler) -> web.StreamResponse:
        name = _name_of(request.headers.get("Host", ""))
        if "*" in known or name in known or _is_address(name):
            answer: web.StreamResponse = await handler(request)
            return answer
        return web.Response(status=421, text="not known by this name: see WORKER_ADMIN__NAMES\n")

    return judge


def _name_of(host: str) -> str:
    """Return the name in ``name:port`` or ``[address]:port``, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update({**_EVERYWHERE, _POLICY: response.headers.get(_POLICY, _EVERYWHERE[_POLICY])})
    response.headers.pop("Server", None)
    response.force_close()


def _file(content: bytes, content_type: str) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        headers = {"Content-Type": f"{content_type}; charset=utf-8", _POLICY: _CONSOLE}
        return web.Response(body=content, headers=headers)

    return answer


class _Viewers:
    """The viewers of the console page. Each has a connection for as long as the page is open."""

    door: "_Door"

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: set[asyncio.Task[Any]] = set()

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Send every event until the viewer goes, or takes none for ``WRITE_SECONDS``."""
        task = asyncio.current_task()
        assert task is not None, "a request is handled in one"
        self._tasks.add(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            async with aclosing(self._console.events()) as events:
                first = await anext(events)
                self.door.let_stay(request)
                await response.prepare(request)
                await response.write(first)
                async for event in events:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(event)
        except TooManyViewers:
            return web.Response(status=503, text="as many viewers as it takes have the page open\n")
        except ConnectionError:
            pass  # the viewer has gone
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # it takes nothing, not even the end
        finally:
            self._tasks.discard(task)
        return response

    def end(self) -> None:
        """Let go of every viewer."""
        for task in self._tasks:
            task.cancel()


def _probe(state: Callable[[], tuple[bool, dict[str, Any]]]) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        well, document = state()
        body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)  # people read it at night
        return web.Response(status=200 if well else 503, body=body, content_type="application/json")

    return answer


def _metrics(metrics: Metrics) -> _Handler:
    async def answer(request: web.Request) -> web.Response:
        body, content_type = metrics.answer(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer


def _document(made: Callable[[], str], content_type: str) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        # Made in a thread the first time: it takes longer than the lanes may wait.
        text = await asyncio.to_thread(made)
        return web.Response(text=text, content_type=content_type)

    return answer
