"""Health and metrics over HTTP (CONTRACT 10)."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from worker.admin import AdminUnavailable, serve_admin
from worker.observe import Health, Metrics


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def base(health: Health) -> AsyncIterator[str]:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health) as port:
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
    health.away("postgres", "connection refused")
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
    assert all(f'href="{page}"' in text for page in ("livez", "readyz", "metrics"))


async def test_nothing_else_is_served_and_nothing_can_be_changed(base: str) -> None:
    assert (await get(f"{base}/secrets"))[0] == 404
    async with aiohttp.ClientSession() as session, session.post(f"{base}/livez") as response:
        assert response.status == 405


async def test_a_port_in_use_is_an_error_that_names_the_setting(health: Health) -> None:
    async with serve_admin("127.0.0.1", 0, Metrics(health), health) as port:
        with pytest.raises(AdminUnavailable, match=f"127.0.0.1:{port}.*WORKER_ADMIN__PORT"):
            async with serve_admin("127.0.0.1", port, Metrics(health), health):
                pass
