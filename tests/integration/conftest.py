"""The journey that tests of the Postgres half use."""

from collections.abc import AsyncIterator

import pytest

from tests.providers.postgres import DatabaseUnderTest
from tests.support.journey import Journey, Partition, journey


@pytest.fixture
async def j(database: DatabaseUnderTest) -> AsyncIterator[Journey]:
    async with journey(database.worker_dsn, database.owner_dsn) as opened:
        yield opened


@pytest.fixture
async def lane(j: Journey) -> Partition:
    return await j.lane()
