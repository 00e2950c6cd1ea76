"""Lines of an import, the files that hold them, and the rows stored from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.providers.postgres import DatabaseUnderTest
from worker.operations.imports.load import ImportReport, import_files
from worker.postgres.connect import owner_connection

ORGANISATION: Final = {"kind": "organisation", "id": "NEW", "name": "New"}
GIVEN_HASH: Final = "$argon2id$v=19$m=7168,t=5,p=1$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ"
EVENTS: Final = (
    "SELECT access_token_id, version, from_state, to_state, user_id, unit_id, command_id, cause, sequence"
    " FROM transition WHERE organisation = 'NEW' ORDER BY sequence"
)


def token(one: int | str = 1, /, **members: Any) -> dict[str, Any]:
    return {
        "kind": "access_token",
        "organisation": "NEW",
        "id": f"T{one}",
        "number": f"N{one}",
        "life_cycle_state": "NOT_EFFECTIVE",
        "authentication_code": f"C{one}",
    } | members


def first_state(token: str, state: str, sequence: int, version: int = 1) -> tuple[Any, ...]:
    """Return a row of ``EVENTS``."""
    return (token, version, None, state, None, None, None, "IMPORT", sequence)


def written(path: Path, lines: Sequence[object]) -> Path:
    """Write a file of these lines: objects as JSON, bytes as they are."""
    path.write_bytes(
        b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    )
    return path


async def load(database: DatabaseUnderTest, directory: Path, *files: Sequence[object]) -> ImportReport:
    """Import files of these lines."""
    paths = [written(directory / f"{position}.ndjson", lines) for position, lines in enumerate(files)]
    return await import_files(database.owner_dsn, paths)


async def rows(database: DatabaseUnderTest, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    async with owner_connection(database.owner_dsn) as connection:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]


async def stored(database: DatabaseUnderTest, columns: str) -> list[tuple[Any, ...]]:
    """Return the access tokens of the lines' organisation, by their ids."""
    return await rows(database, f"SELECT {columns} FROM access_token WHERE organisation = 'NEW' ORDER BY id")
