"""The console page of a real worker in a real browser (CONTRACT, Admin port).

``SHOTS=directory`` keeps pictures of it. ``AXE=axe.min.js`` names axe-core, which then looks for barriers.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.scene import PARTITIONS, Load, Scene, body
from tests.acceptance.test_lanes import blocked_worker
from tests.acceptance.worker_process import WorkerProcess
from tests.support.browser import Browser, Page, browser, chromium

pytestmark = [pytest.mark.real_kafka, pytest.mark.own_servers]

NARROW: Final = 390
COMMANDS: Final = 2000


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    with browser(program, tmp_path / "profile") as running:
        yield running


def shoot(page: Page, name: str) -> None:
    if directory := os.environ.get("SHOTS"):
        page.shoot(Path(directory) / f"console-{name}.png")


def barriers(page: Page) -> list[Any]:
    """Return what axe-core finds; nothing if it was not named."""
    axe = os.environ.get("AXE")
    if axe is None:
        return []
    page.ask(Path(axe).read_text(encoding="utf-8") + ";0")
    found: list[Any] = page.ask("axe.run().then(found => found.violations.map(each => [each.id, each.help]))")
    return found


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def open_page(chrome: Browser, worker: WorkerProcess, **options: Any) -> Page:
    return Page(chrome, **options).open(worker.admin)


def test_a_worker_under_load_is_shown_as_it_is(scene: Scene, chrome: Browser) -> None:
    load = Load(scene, scene.new_tokens(COMMANDS))
    with scene.worker(MAX_BATCH="20") as worker:
        page = open_page(chrome, worker)
        page.wait_text("#state", "Ready")
        load.send(1, COMMANDS)
        scene.send(body("unknown"), body("unknown", token="nonsense"), b"no JSON")
        page.wait_text("#answers", "MALFORMED_REQUEST")
        page.wait_text("#answers", "ACCESS_TOKEN_NOT_FOUND")
        answers = page.wait_text("#answers", f"{COMMANDS // 1000}\u202f000")
        assert "INVALID_TOKEN" in answers
        recent = page.wait_text("#recent", "MALFORMED_REQUEST, dead letter")
        assert f"effective-worker explain {scene.topics.commands}/" in recent
        page.wait_text("#totals", f"{PARTITIONS} of {PARTITIONS}")
        assert page.text("#lanes table").count("working") == PARTITIONS
        assert "(this one)" in page.wait_text("#workers", "(this one)")
        assert "WORKER_MAX_BATCH\t20" in page.text("#settings")
        assert "***" in page.text("#settings")
        assert page.ask("document.querySelectorAll('#plots path').length") == 4
        assert page.ask("document.querySelector('#plots svg').getAttribute('aria-label')").startswith(
            "Answers a second"
        )
        for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("narrow", NARROW, False)):
            other = open_page(chrome, worker, width=width, dark=dark)
            other.wait_text("#answers", "MALFORMED_REQUEST")
            assert (overflow(other), barriers(other)) == (0, []), name
            shoot(other, name)
        assert worker.terminate() == 0
        # The page outlives its worker, and says that what it shows is old.
        page.wait_text("#state", "hears nothing from the worker")
        shoot(page, "gone")
    refused = [each for each in chrome.complaints if "ERR_CONNECTION_REFUSED" not in each]
    assert [each for each in refused if "ERR_INCOMPLETE_CHUNKED_ENCODING" not in each] == []


def test_everything_is_reached_by_keyboard(scene: Scene, chrome: Browser) -> None:
    with scene.worker() as worker:
        page = open_page(chrome, worker, width=NARROW)
        page.wait_text("#totals", f"{PARTITIONS} of {PARTITIONS}")
        wanted = page.ask("[...document.querySelectorAll('a, summary, [tabindex]')].length")
        reached = set()
        for _ in range(wanted):
            page.press("Tab")
            reached.add(page.ask("document.activeElement.outerHTML.slice(0, 200)"))
        assert len(reached) == wanted
        assert worker.terminate() == 0


def test_a_blocked_lane_is_shown_first_with_the_command_to_paste(scene: Scene, chrome: Browser) -> None:
    load = Load(scene, scene.new_tokens(40))
    load.send(1, 40)
    with scene.worker() as worker:
        scene.wait_consumed()
        assert worker.terminate() == 0
    load.send(1, 40)
    scene.set_offset(2, 15)
    with blocked_worker(scene, 2) as worker:
        page = open_page(chrome, worker)
        page.wait_text("#state", "partition 2 is blocked")
        assert page.text("#state strong") == "Not ready"
        first = page.wait_text("#lanes tbody tr", "blocked")
        assert first.startswith("2\tblocked")
        assert "effective-worker lanes show 2" in first
        assert page.ask("document.title") == "not ready: effective-worker"
        assert barriers(page) == []
        shoot(page, "blocked")


def test_postgres_and_kafka_that_are_away_are_named_and_come_back(scene: Scene, chrome: Browser) -> None:
    with ExitStack() as alive:
        worker = alive.enter_context(scene.worker())
        page = open_page(chrome, worker)
        page.wait_text("#state", "Ready")
        asyncio.run(scene.postgres.stop("immediate"))
        page.wait_text("#state", "postgres is away")
        page.wait_text("#dependencies", "away")
        assert barriers(page) == []
        shoot(page, "without-postgres")
        asyncio.run(scene.postgres.start())
        page.wait_text("#state", "Ready")
        asyncio.run(scene.kafka.kill())
        page.wait_text("#state", "kafka is away")
        page.wait_text("#workers", "Not known: kafka does not answer")
        shoot(page, "without-kafka")
        asyncio.run(scene.kafka.start())
        page.wait_text("#state", "Ready")
        assert worker.terminate() == 0
