"""The queries of ``explain``: whole ids by their index, and senders' own ids only where no whole id is possible."""

from typing import Any, cast

import asyncpg
import pytest

from worker.journey.digests import CommandNames
from worker.operations.explain import _known_id
from worker.postgres.sql import statement


class Asked:
    """A connection to a database in which nothing is found any more."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    async def fetch(self, query: str, *_: Any) -> list[dict[str, str]]:
        self.statements.append(query)
        return []


@pytest.mark.parametrize(
    ("asked", "reads_everything"),
    [
        ("ce:ORG1:%2Fshop:order%207", False),
        ("ce:ORG1::7", False),
        ("req:ORG1:7", False),
        ("ce:ORG1:account:%2Fshop:order%207", False),
        ("req:ORG1:account:7", False),
        ("rec:cluster/commands/0/7@1700000000000", False),
        ("order 7", True),
        ("7", True),
        ("urn:order:7", True),
        ("req:7", True),
    ],
)
async def test_only_what_can_be_no_whole_id_is_sought_in_all_that_is_recorded(
    asked: str, *, reads_everything: bool
) -> None:
    connection = Asked()

    assert await _known_id(cast(asyncpg.Connection, connection), asked, CommandNames(())) == asked

    assert (statement("explain/bare_id") in connection.statements) is reads_everything
