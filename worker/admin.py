"""Health, metrics and the contract over HTTP (CONTRACT 10), for probes and for people. It changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from worker.contract import Contract
from worker.errors import WorkerError
from worker.observe import Health, Metrics

# A page that loads nothing from anywhere, and that nothing written in it can make to.
_ALONE: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>effective-worker</title>
<h1>effective-worker</h1>
<ul>
<li><a href="livez">livez</a>: the process makes progress or has nothing to do</li>
<li><a href="readyz">readyz</a>: partitions assigned, database and broker reachable</li>
<li><a href="metrics">metrics</a>: for Prometheus</li>
<li><a href="contract">contract</a>: topics, messages, statuses and examples, for those who send and those who read</li>
<li><a href="asyncapi.json">asyncapi.json</a>: the same for programs</li>
</ul>
</html>
"""


class AdminUnavailable(WorkerError):
    """The admin port cannot be listened on."""


@asynccontextmanager
async def serve_admin(host: str, port: int, metrics: Metrics, health: Health, contract: Contract) -> AsyncIterator[int]:
    """Serve for the length of the block and yield the port bound, which matters where ``port`` is 0.

    Raises ``AdminUnavailable`` if it cannot be bound.
    """
    application = web.Application()
    application.router.add_get("/", _page)
    application.router.add_get("/livez", _probe(health.live))
    application.router.add_get("/readyz", _probe(health.ready))
    application.router.add_get("/metrics", _metrics(metrics))
    application.router.add_get("/asyncapi.json", _document(lambda: contract.asyncapi, "application/json"))
    application.router.add_get("/contract", _document(lambda: contract.page, "text/html"))
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise AdminUnavailable(
                f"the admin port {host}:{port} cannot be listened on ({error.strerror or error}): "
                "set WORKER_ADMIN__HOST and WORKER_ADMIN__PORT (0 takes any free port)"
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


_Handler = Callable[[web.Request], Any]


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html")


def _probe(state: Callable[[], tuple[bool, dict[str, Any]]]) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        well, document = state()
        return web.Response(status=200 if well else 503, body=orjson.dumps(document), content_type="application/json")

    return answer


def _metrics(metrics: Metrics) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer


def _document(made: Callable[[], str], content_type: str) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        # Made in a thread the first time: it takes longer than the lanes should wait.
        text = await asyncio.to_thread(made)
        return web.Response(text=text, content_type=content_type, headers=_ALONE)

    return answer
