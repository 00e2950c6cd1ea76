"""Health and metrics over HTTP (CONTRACT 10)."""

import json
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import pytest

from schemas.asyncapi import Deployment
from worker.admin import AdminUnavailable, serve_admin
from worker.contract import Contract
from worker.errors import DependencyAway
from worker.observe import Health, Metrics

CONTRACT: Final = Contract(Deployment(commands="orders-of-<b>mine</b>"))


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def base(health: Health) -> AsyncIterator[str]:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT) as port:
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
    health.away(DependencyAway("postgres", "connection refused"))
    status, _, text = await get(f"{base}/readyz")
    assert status == 503
    assert "postgres is away: connection refused" in text


async def test_metrics_are_prometheus_text(base: str) -> None:
    status, kind, text = await get(f"{base}/metrics")
    assert (status, kind) == (200, "text/plain")
    assert "# TYPE effective_worker_lanes gauge" in text


async def test_the_front_page_links_to_the_others(base: str) -> None:
    status, kind, text = await get(f"{base}/")
    assert (status, kind) == (200, "text/html")
    assert all(f'href="{page}"' in text for page in ("livez", "readyz", "metrics", "contract", "asyncapi.json"))


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
    async with serve_admin("127.0.0.1", 0, Metrics(health), health, CONTRACT) as port:
        with pytest.raises(AdminUnavailable, match=f"127.0.0.1:{port}.*WORKER_ADMIN__PORT"):
            async with serve_admin("127.0.0.1", port, Metrics(health), health, CONTRACT):
                pass
