"""A stopped import resumes at its position, and ends as if nothing had happened.

See CONTRACT, Command line, ``import``.
"""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.providers.postgres import DatabaseUnderTest
from tests.support.importing import EVENTS, GIVEN_HASH, ORGANISATION, first_state, load, rows, stored, token, written
from tests.support.waiting import in_time, until_answered
from worker.operations.imports import load as importing
from worker.operations.imports.load import BadLine, ImportingError, ImportProgress, ImportReport, import_files
from worker.postgres.connect import owner_connection

DAY: Final = 24 * 3600.0


class Stopped(Exception):
    """Raised as if the process had ended: the import does nothing afterwards."""


def stop_when(loaded: int) -> Callable[[ImportProgress], None]:
    def stop(progress: ImportProgress) -> None:
        if progress.loaded >= loaded:
            raise Stopped

    return stop


async def stopped(database: DatabaseUnderTest, files: Sequence[Path], loaded: int, **options: Any) -> None:
    with pytest.raises(Stopped):
        await import_files(database.owner_dsn, files, on_progress=stop_when(loaded), **options)


async def left(database: DatabaseUnderTest) -> list[tuple[Any, ...]]:
    """Return the lines that each unfinished import has read."""
    return await rows(database, "SELECT read FROM import_run ORDER BY read")


# Every other line is bad, for this reason or that.
MIXED: Final = (
    ORGANISATION,
    b"nonsense",
    token(1),
    b"",
    token(2, number="N1"),
    token(3),
    token(4, colour="red"),
    token(5, accounts_receivable={"id": "A1", "account_owner": {"id": "O1"}}),
)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("loaded", [1, 2, 3, 4])
async def test_an_import_that_was_stopped_goes_on_and_reports_the_bad_lines_of_both(
    database: DatabaseUnderTest, tmp_path: Path, chunk: int, loaded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", chunk)
    files = [written(tmp_path / "0.ndjson", MIXED[:4]), written(tmp_path / "1.ndjson", MIXED[4:])]
    await stopped(database, files, loaded)
    resumed: list[tuple[str, int]] = []
    told: list[BadLine] = []
    report = await import_files(
        database.owner_dsn, files, on_resumed=lambda *place: resumed.append(place), on_bad=told.append
    )
    assert len(resumed) == 1
    assert (report.read, report.loaded, report.bad_count) == (7, 4, 3)
    assert [(Path(bad.file).name, bad.line) for bad in report.bad] == [
        ("0.ndjson", 2),
        ("1.ndjson", 1),
        ("1.ndjson", 3),
    ]
    assert tuple(told) == report.bad
    assert [number for (number,) in await stored(database, "number")] == ["N1", "N3", "N5"]
    assert await left(database) == []


async def test_it_says_after_which_line_of_which_file_it_goes_on(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    files = [
        written(tmp_path / "0.ndjson", [ORGANISATION, token(1)]),
        written(tmp_path / "1.ndjson", [b"", token(2), token(3)]),
    ]
    await stopped(database, files, 3)
    places: list[tuple[str, int]] = []
    progress: list[ImportProgress] = []
    await import_files(
        database.owner_dsn, files, on_resumed=lambda *place: places.append(place), on_progress=progress.append
    )
    assert places == [(str(files[1]), 2)]
    assert progress[-1].bytes_done == progress[-1].bytes_total
    assert progress[-1].loaded == 4


async def test_what_a_stopped_import_made_is_still_the_last_lines_to_say(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    lines = [
        ORGANISATION,
        token(1, pass_code_hash=GIVEN_HASH),
        token(2),
        token(1, life_cycle_state="EFFECTIVE"),
        token(0, life_cycle_state="EFFECTIVE"),
    ]
    await load(database, tmp_path, [ORGANISATION, token(0)])
    file = written(tmp_path / "new.ndjson", lines)
    await stopped(database, [file], 3)
    # From another import, at the same time: that one made it, and its state stays.
    await load(database, tmp_path, [token(3)])
    await import_files(database.owner_dsn, [file])
    assert await rows(database, EVENTS) == [
        first_state("T0", "NOT_EFFECTIVE", 1),
        first_state("T1", "NOT_EFFECTIVE", 2),
        first_state("T2", "NOT_EFFECTIVE", 3),
        first_state("T3", "NOT_EFFECTIVE", 4),
        first_state("T1", "EFFECTIVE", 5, version=2),
    ]
    assert await stored(database, "life_cycle_state, pass_code_hash IS NOT NULL") == [
        ("NOT_EFFECTIVE", False),
        ("EFFECTIVE", True),
        ("NOT_EFFECTIVE", False),
        ("NOT_EFFECTIVE", False),
    ]


async def test_what_another_import_made_meanwhile_keeps_its_state(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    file = written(tmp_path / "new.ndjson", [ORGANISATION, token(1), token(2), token(3, life_cycle_state="EFFECTIVE")])
    await stopped(database, [file], 2)
    await load(database, tmp_path, [token(3)])
    await import_files(database.owner_dsn, [file])
    assert await stored(database, "id, life_cycle_state, version") == [
        ("T1", "NOT_EFFECTIVE", 1),
        ("T2", "NOT_EFFECTIVE", 1),
        ("T3", "NOT_EFFECTIVE", 1),
    ]


async def test_from_the_start_means_that(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    file = written(tmp_path / "new.ndjson", MIXED)
    await stopped(database, [file], 2)
    resumed: list[object] = []
    report = await import_files(
        database.owner_dsn, [file], on_resumed=lambda *place: resumed.append(place), from_start=True
    )
    assert (report.read, report.loaded, [bad.line for bad in report.bad]) == (7, 4, [2, 5, 7])
    assert resumed == []


@pytest.mark.parametrize("change", [b" ", b"x"])
async def test_a_file_that_was_changed_is_another_import(
    database: DatabaseUnderTest, tmp_path: Path, change: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    file = written(tmp_path / "new.ndjson", [ORGANISATION, token(1), token(2)])
    await stopped(database, [file], 2)
    file.write_bytes(file.read_bytes() + change)
    resumed: list[object] = []
    report = await import_files(database.owner_dsn, [file], on_resumed=lambda *place: resumed.append(place))
    assert (report.loaded, resumed) == (3, [])
    assert await left(database) == [(2,)]


async def test_what_nobody_goes_on_with_is_forgotten_after_a_week(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    file = written(tmp_path / "new.ndjson", MIXED)
    await stopped(database, [file], 2, clock=lambda: 0.0)
    other = written(tmp_path / "other.ndjson", [ORGANISATION])
    await import_files(database.owner_dsn, [other], clock=lambda: 6.9 * DAY)
    assert len(await left(database)) == 1
    await import_files(database.owner_dsn, [other], clock=lambda: 7.1 * DAY)
    assert await left(database) == []
    assert await rows(database, "SELECT FROM import_bad_line") == []


async def test_nobody_imports_what_somebody_is_importing(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "HELD_SECONDS", 1)
    file = written(tmp_path / "new.ndjson", [ORGANISATION, token(1)])
    async with owner_connection(database.owner_dsn) as connection:
        transaction = connection.transaction()
        await connection.execute(
            "INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset,"
            " next_offset) VALUES ('', '', 'import', 0, gen_random_uuid(), now(), 0, 0)"
        )
        await transaction.start()
        await connection.execute("SELECT FROM lane WHERE topic = 'import' FOR UPDATE")
        first = asyncio.create_task(import_files(database.owner_dsn, [file]))
        under_way = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
        await until_answered(lambda: connection.fetchval(under_way), what="the first import waited for its lane")
        with pytest.raises(ImportingError, match="importing the same files at this moment"):
            await in_time(import_files(database.owner_dsn, [file]), "the second import gave up")
        await transaction.rollback()
        assert await first == ImportReport(2, 2, ())


async def test_a_line_that_is_too_long_is_bad_and_costs_no_other(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LONGEST_LINE", 1000)
    right = json.dumps(token(1)).encode()
    lines = [
        ORGANISATION,
        right[:-1] + b" " * (1000 - len(right)) + b"}",
        right[:-1] + b" " * (1001 - len(right)) + b"}",
        b"x" * 5000,
        token(2),
        b" " * 3000,
    ]
    report = await load(database, tmp_path, lines)
    assert [(bad.line, bad.what) for bad in report.bad] == [(line, "longer than 1000 bytes") for line in (3, 4, 6)]
    assert (report.read, report.loaded) == (6, 3)


async def test_a_report_names_the_first_of_very_many_bad_lines_and_counts_them_all(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BAD_HELD", 10)
    monkeypatch.setattr(importing, "_BAD_PAGE", 7)
    told: list[BadLine] = []
    file = written(tmp_path / "bad.ndjson", [b"x"] * 40)
    report = await import_files(database.owner_dsn, [file], on_bad=told.append)
    assert (report.bad_count, len(report.bad)) == (40, 10)
    assert [bad.line for bad in told] == list(range(1, 41))


async def test_a_bad_line_is_found_wherever_it_stands_in_a_chunk(database: DatabaseUnderTest, tmp_path: Path) -> None:
    await load(database, tmp_path, [ORGANISATION, token("x")])
    for place in range(9):
        lines = [token(f"{place}-{number}") for number in range(9)]
        lines[place] |= {"number": "Nx"}
        report = await load(database, tmp_path, lines)
        assert ([bad.line for bad in report.bad], report.loaded) == ([place + 1], 8)


@pytest.mark.parametrize("chunk", [2, 7, 1000])
async def test_lines_in_any_mixture_leave_what_the_last_ones_say(
    database: DatabaseUnderTest, tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with a reading line by line: the last one says all, but for a pass code and a log it does not give."""
    monkeypatch.setattr(importing, "CHUNK", chunk)
    chance = random.Random(chunk)
    lines = [_any_line(chance) for _ in range(120)]
    report = await load(database, tmp_path, [ORGANISATION, *lines])
    assert report.bad == ()
    tokens: dict[str, dict[str, Any]] = {}
    accounts: dict[str, str] = {}
    for line in lines:
        tokens[line["id"]] = {**_given(line), **_kept(tokens.get(line["id"], {}), line)}
        if line["accounts_receivable"]:
            accounts[line["accounts_receivable"]["id"]] = line["accounts_receivable"]["name"]
    columns = (
        "id, life_cycle_state, udf_string_1, accounts_receivable, pass_code_hash, created_date::text, updated_by_user"
    )
    assert await stored(database, columns) == [(name, *tokens[name].values()) for name in sorted(tokens)]
    found = await rows(database, "SELECT id, name FROM accounts_receivable WHERE organisation = 'NEW' ORDER BY id")
    assert found == sorted(accounts.items())


def _any_line(chance: random.Random) -> dict[str, Any]:
    account = {"id": f"A{chance.randrange(5)}", "name": f"{chance.random()}"}
    log = {"created_date": f"20{chance.randrange(10, 30)}-10-05T13:19:56", "updated_by_user": f"U{chance.randrange(9)}"}
    return token(
        chance.randrange(40),
        life_cycle_state=chance.choice(["EFFECTIVE", "NOT_EFFECTIVE", "PENDING_VERIFICATION"]),
        udf_string_1=chance.choice(["a", "b", None]),
        accounts_receivable=chance.choice([account, None]),
        pass_code_hash=chance.choice([GIVEN_HASH, GIVEN_HASH.replace("m=7168", "m=8192"), None]),
        log_information=chance.choice([log, {}]),
    )


def _given(line: Mapping[str, Any]) -> dict[str, Any]:
    account = line["accounts_receivable"]
    return {
        "life_cycle_state": line["life_cycle_state"],
        "udf_string_1": line["udf_string_1"],
        "accounts_receivable": account and account["id"],
    }


def _kept(former: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    date = line["log_information"].get("created_date")
    now = {
        "pass_code_hash": line["pass_code_hash"],
        "created_date": date and date.replace("T", " "),
        "updated_by_user": line["log_information"].get("updated_by_user"),
    }
    return {name: former.get(name) if value is None else value for name, value in now.items()}
