"""Imports: every event is marked before it is published (DESIGN 2, Imports)."""

from pathlib import Path
from typing import Any

import pytest

from tests.providers.kafka import KafkaServer, TopicNames
from tests.providers.postgres import DatabaseUnderTest
from tests.support.importing import ORGANISATION, load, rows, token
from tests.support.settings import settings_for
from worker.errors import DependencyUnavailable
from worker.operations.imports import publish
from worker.operations.imports.mark import Mark, read_mark, write_mark
from worker.operations.imports.publish import Announced, announce, mend
from worker.settings import PostgresSettings, Settings

pytestmark = pytest.mark.real_kafka


@pytest.fixture
def settings(kafka: KafkaServer, topics: TopicNames, database: DatabaseUnderTest) -> Settings:
    postgres = PostgresSettings.model_validate({"dsn": database.owner_dsn})
    return settings_for(kafka.bootstrap, topics).model_copy(update={"postgres": postgres})


async def head(database: DatabaseUnderTest) -> Mark:
    [(sequence, digest)] = await rows(database, "SELECT chain_sequence, chain_hash FROM lane WHERE topic = 'import'")
    return Mark(sequence, digest)


async def test_an_announcement_that_is_stopped_has_been_marked_whole_and_is_made_good(
    settings: Settings, database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(database, tmp_path, [ORGANISATION, token(1), token(2), token(3)])
    assert await read_mark(settings) is None
    marked: list[Mark | None] = []

    async def stopped(*_: Any) -> None:
        marked.append(await read_mark(settings))
        raise publish._Waits from DependencyUnavailable("kafka", "gone")

    with monkeypatch.context() as patched:
        patched.setattr(publish, "_publish", stopped)
        assert await announce(settings) == Announced(0, 3, "kafka: gone")
    assert marked == [await head(database)]

    assert await mend(settings, carry_out=True) is None
    assert await announce(settings) == Announced(3, 0)
    assert await read_mark(settings) == await head(database)


async def test_a_mending_that_was_cut_short_is_done_again(
    settings: Settings, database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(database, tmp_path, [ORGANISATION, *(token(number) for number in range(4))])
    await write_mark(settings, Mark(3, bytes(32)))

    async def stopped(*_: Any) -> None:
        raise DependencyUnavailable("kafka", "gone")

    with monkeypatch.context() as patched:
        patched.setattr(publish, "write_mark", stopped)
        with pytest.raises(DependencyUnavailable):
            await mend(settings, carry_out=True)
    assert await mend(settings, carry_out=False) is not None
    assert await mend(settings, carry_out=True) is not None
    assert await mend(settings, carry_out=False) is None
    assert await announce(settings) == Announced(1, 0)
