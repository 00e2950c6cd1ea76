"""Health and metrics over HTTP (CONTRACT, Admin port)."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Final

import aiohttp
import pytest
import uvloop

from tests.support.waiting import in_time
from worker.errors import DependencyUnavailable
from worker.observability import http
from worker.observability.health import Health
from worker.observability.http import MOST_CONNECTIONS, AdminUnavailable, serve_admin
from worker.observability.metrics import Metrics
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.served import Contract

CONTRACT: Final = Contract(Deployment(commands="orders-of-<b>mine</b>"))


class NoConsole:
    """A console page of one word."""

    files: Final = {"/": (b"console", "text/html")}

    async def events(self) -> AsyncGenerator[bytes, None]:
        yield b""


CONSOLE: Final = NoConsole()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def base(health: Health) -> AsyncIterator[str]:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT, console=CONSOLE) as port:
        yield f"http://127.0.0.1:{port}"


async def get(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.content_type, await response.text()


async def test_a_worker_that_makes_progress_is_live(base: str) -> None:
    status, kind, text = await get(f"{base}/livez")
    assert (status, kind) == (200, "application/json")
    assert '"reason"' in text


async def test_a_stuck_worker_is_answered_503_with_its_reason(base: str, health: Health) -> None:
    health.stuck("the coordinator is dead")
    status, _, text = await get(f"{base}/livez")
    assert status == 503
    assert "the coordinator is dead" in text


async def test_readiness_follows_assignment_and_dependencies(base: str, health: Health) -> None:
    assert (await get(f"{base}/readyz"))[0] == 503
    health.assigned(True)
    assert (await get(f"{base}/readyz"))[0] == 200
    health.away(DependencyUnavailable("postgres", "connection refused"))
    status, _, text = await get(f"{base}/readyz")
    assert status == 503
    assert "postgres is away: connection refused" in text


async def test_metrics_are_prometheus_text(base: str) -> None:
    status, kind, text = await get(f"{base}/metrics")
    assert (status, kind) == (200, "text/plain")
    assert "# TYPE effective_worker_lanes gauge" in text


async def test_the_contract_is_served_with_the_names_of_this_installation(base: str) -> None:
    status, kind, text = await get(f"{base}/asyncapi.json")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text)["channels"]["commands"]["address"] == "orders-of-<b>mine</b>"


async def test_the_contract_is_a_page_that_is_escaped_and_loads_nothing(base: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{base}/contract") as response:
        text = await response.text()
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "orders-of-&lt;b&gt;mine&lt;/b&gt;" in text
    assert "<b>mine" not in text
    assert not [each for each in ("<script", "<link", "src=", "@import", "url(", "http:", "https:") if each in text]


async def test_nothing_else_is_served_and_nothing_can_be_changed(base: str) -> None:
    assert (await get(f"{base}/secrets"))[0] == 404
    async with aiohttp.ClientSession() as session, session.post(f"{base}/livez") as response:
        assert response.status == 405


async def test_a_port_in_use_is_an_error_that_names_the_setting(health: Health) -> None:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT, console=CONSOLE) as port:
        with pytest.raises(AdminUnavailable, match=f"127.0.0.1:{port}.*WORKER_ADMIN__PORT"):
            async with serve_admin("127.0.0.1", port, Metrics(health), health, CONTRACT, console=CONSOLE):
                pass


# --- permitted clients, and time limits -------------------------------------------------------------------------------


async def raw(base: str, request: bytes) -> bytes:
    """Return all that is answered until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
    try:
        writer.write(request)
        return await in_time(reader.read(), "the connection ended")
    except ConnectionError:
        return b""
    finally:
        writer.close()


def asked(path: str, host: str = "127.0.0.1", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        *((path, "GET", 200) for path in ("/", "/livez", "/metrics", "/contract", "/asyncapi.json")),
        ("/readyz", "GET", 503),
        ("/secrets", "GET", 404),
        ("/livez", "DELETE", 405),
        ("/livez", "HEAD", 200),
    ],
)
async def test_no_answer_can_be_framed_sniffed_kept_or_says_what_it_runs_on(
    base: str, path: str, method: str, status: int
) -> None:
    head = (await raw(base, asked(path, method=method))).partition(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith(f"http/1.1 {status} ")
    assert "x-content-type-options: nosniff" in head
    assert "default-src 'none'" in head
    assert "frame-ancestors 'none'" in head
    assert "cache-control: no-store" in head
    assert "\r\nserver:" not in head
    assert "\r\nconnection: close" in head


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"G" * 20_000 + b"\r\n"]
)
async def test_what_is_no_request_is_refused_without_a_banner_and_without_a_word_in_the_log(
    base: str, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    said = await raw(base, request_)
    assert said.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert b"aiohttp" not in said
    assert b"Python" not in said
    assert caplog.records == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "10.2.3.4", "localhost", "LOCALHOST:80"])
async def test_it_answers_to_addresses_and_its_own_name(base: str, host: str) -> None:
    assert (await raw(base, asked("/livez", host))).startswith(b"HTTP/1.1 200 ")
    assert (await raw(base, asked("/livez", socket.gethostname()))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[evil]", "1.2.3"])
async def test_it_answers_to_no_other_name(base: str, host: str) -> None:
    said = await raw(base, asked("/metrics", host))
    assert said.startswith(b"HTTP/1.1 421 ")
    assert b"WORKER_ADMIN__NAMES" in said
    assert b"effective_worker_" not in said


@pytest.mark.parametrize(("names", "status"), [(("worker.shop",), 200), (("*",), 200), (("other",), 421)])
async def test_names_may_be_set(health: Health, names: tuple[str, ...], status: int) -> None:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT, console=CONSOLE, names=names) as port:
        said = await raw(f"http://127.0.0.1:{port}", asked("/livez", "Worker.Shop:8080"))
    assert said.startswith(f"HTTP/1.1 {status} ".encode())


async def one_is_cut_off(base: str, _: ExitStack) -> None:
    assert await raw(base, b"GET /livez HT") == b""


async def one_is_answered_beside_many(base: str, after: ExitStack) -> None:
    port = int(base.rpartition(":")[2])
    half = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * MOST_CONNECTIONS)]
    for _, writer in half:
        after.callback(writer.close)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
    assert (await get(f"{base}/livez"))[0] == 200
    ended = [reader for reader, _ in half if reader.at_eof() or reader.exception() is not None]
    assert len(ended) >= 2 * MOST_CONNECTIONS


async def one_is_open_at_the_end(base: str, after: ExitStack) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
    after.callback(writer.close)
    writer.write(b"GET /livez HT")
    assert (await get(f"{base}/livez"))[0] == 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("seconds", "scenario"),
    [(0.05, one_is_cut_off), (3600.0, one_is_answered_beside_many), (3600.0, one_is_open_at_the_end)],
)
def test_requests_that_are_never_sent_to_their_end_keep_nothing_up(
    run: Callable[[Coroutine[Any, Any, None]], None],
    seconds: float,
    scenario: Callable[[str, ExitStack], Coroutine[Any, Any, None]],
    health: Health,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker runs on uvloop, whose transports are of other classes."""
    monkeypatch.setattr(http, "CONNECTION_SECONDS", seconds)

    async def served(after: ExitStack) -> None:
        async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT, console=CONSOLE) as port:
            await in_time(scenario(f"http://127.0.0.1:{port}", after), "it was served")

    async def whole() -> None:
        with ExitStack() as after:
            await in_time(served(after), "it ended")

    run(whole())
