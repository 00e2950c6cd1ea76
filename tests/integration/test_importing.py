"""Fixture lines: any order, the last for an id wins, and a bad one costs no other.

See CONTRACT, Command line, ``import``.
"""

import json
import random
from pathlib import Path
from typing import Final

import pytest

from tests.providers.postgres import DatabaseUnderTest
from tests.support.connections import connected
from tests.support.importing import EVENTS, GIVEN_HASH, ORGANISATION, first_state, load, rows, stored, token
from worker.journey.pass_codes import HASHER
from worker.operations.imports import load as importing
from worker.operations.imports.load import BadLine, ImportingError, ImportReport, import_files
from worker.postgres.connect import owner_connection

FIXTURE: Final = Path(__file__).parents[1] / "seed" / "fixture.ndjson"


async def test_the_fixture_loads_whole_and_again(database: DatabaseUnderTest) -> None:
    for _ in range(2):
        assert await import_files(database.owner_dsn, [FIXTURE]) == ImportReport(15, 15, ())
    # They existed before, from a release that wrote no first states.
    assert await rows(database, "SELECT FROM transition") == []
    tokens = await rows(
        database, "SELECT number, life_cycle_state, version FROM access_token ORDER BY organisation, id"
    )
    assert tokens[:2] == [("AT0000000671", "NOT_EFFECTIVE", 0), ("AT0000000672", "NOT_EFFECTIVE", 0)]
    assert len(tokens) == 6


async def test_what_was_imported_is_known_to_the_planner(database: DatabaseUnderTest, tmp_path: Path) -> None:
    known = "SELECT reltuples FROM pg_class WHERE relname = 'access_token'"
    async with connected(database.owner_dsn) as connection:
        before = await connection.fetchval(known)
        await load(database, tmp_path, [ORGANISATION, *(token(number) for number in range(1, 40))])
        assert await connection.fetchval(known) >= before + 39


async def test_lines_may_come_in_any_order_across_files(database: DatabaseUnderTest, tmp_path: Path) -> None:
    lines = FIXTURE.read_bytes().replace(b"ORG1", b"NEW").replace(b"ORG2", b"NEXT").splitlines()
    random.Random(7).shuffle(lines)
    report = await load(database, tmp_path, lines[:5], lines[5:])
    assert (report.loaded, report.bad) == (15, ())


async def test_a_pass_code_is_kept_as_its_hash_only(database: DatabaseUnderTest, tmp_path: Path) -> None:
    await load(
        database,
        tmp_path,
        [ORGANISATION, token(1, pass_code="correct horse"), token(2, pass_code_hash=GIVEN_HASH)],
    )
    (first,), (second,) = await stored(database, "pass_code_hash")
    assert HASHER.verify(first, "correct horse")
    assert second == GIVEN_HASH


async def test_nested_objects_are_loaded_whole_with_what_a_line_leaves_out_as_null(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    owner = {"id": "O1", "name": "Polina", "demographics": {"gender": "FEMALE", "country_of_residence": {"id": "231"}}}
    account = {"id": "A1", "number": "ACR1", "account_owner": owner}
    rewards = {"id": "R1", "accounts_receivable": account}
    line = token(accounts_receivable=account, rewards_participant=rewards, classification={"id": "C1"})
    assert (await load(database, tmp_path, [line, ORGANISATION])).bad == ()
    assert await stored(database, "accounts_receivable, rewards_participant, classification") == [("A1", "R1", "C1")]
    ((body,),) = await rows(database, "SELECT body::text FROM contact WHERE organisation = 'NEW'")
    whole = json.loads(body)
    assert whole["demographics"]["date_of_birth"] == {"month": None, "year": None, "day": None}
    assert whole["demographics"]["country_of_residence"]["name"] is None
    assert whole["company_profile"] is None


async def test_users_and_units_may_be_objects_or_ids_and_their_own_lines_say_more(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    mention = {"id": "U1", "username": "anna", "person_name": "As mentioned", "email": None}
    log = {
        "created_date": "2016-10-05T13:19:56",
        "created_by_user": "U9",
        "updated_by_user": mention,
        "created_by_unit": {"id": "B1", "name": "Back office"},
        "updated_by_unit": "B2",
    }
    user = {"kind": "user", "organisation": "NEW", "id": "U1", "username": "anna", "rights": ["R"], "unit": "B1"}
    for lines in ([ORGANISATION, user, token(verified_by_user=mention, log_information=log)], [token(2), user]):
        assert (await load(database, tmp_path, lines)).bad == ()
    columns = "verified_by_user, created_by_user, updated_by_user, created_by_unit, updated_by_unit, created_date::text"
    assert (await stored(database, columns))[0] == ("U1", "U9", "U1", "B1", "B2", "2016-10-05 13:19:56")
    assert await rows(database, "SELECT id, rights FROM app_user WHERE organisation = 'NEW'") == [("U1", ["R"])]
    assert await rows(database, "SELECT id, name FROM unit WHERE organisation = 'NEW'") == [("B1", "Back office")]


@pytest.mark.parametrize("chunk", [1, 2, 1000])
async def test_the_last_line_for_an_id_wins_however_lines_are_cut(
    database: DatabaseUnderTest, tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", chunk)
    lines = [
        ORGANISATION,
        token(
            1, udf_string_1="first", pass_code_hash=GIVEN_HASH, log_information={"created_date": "2016-10-05T13:19:56"}
        ),
        token(2),
        ORGANISATION | {"name": "Newer"},
        token(1, life_cycle_state="EFFECTIVE", udf_string_1="last"),
    ]
    report = await load(database, tmp_path, lines)
    assert (report.loaded, report.bad) == (5, ())
    assert await stored(database, "id, life_cycle_state, udf_string_1, pass_code_hash, created_date::text") == [
        ("T1", "EFFECTIVE", "last", GIVEN_HASH, "2016-10-05 13:19:56"),
        ("T2", "NOT_EFFECTIVE", None, None, None),
    ]
    assert await rows(database, "SELECT name FROM organisation WHERE id = 'NEW'") == [("Newer",)]


async def test_state_version_and_last_transition_of_a_token_that_exists_stay(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    await load(database, tmp_path, [ORGANISATION, token()])
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute(
            "UPDATE access_token SET life_cycle_state = 'EFFECTIVE', version = 2, updated_by_user = 'U1',"
            " updated_date = '2026-01-01' WHERE organisation = 'NEW'"
        )
        await connection.execute(
            "INSERT INTO transition SELECT organisation, id, 2, 'NOT_EFFECTIVE', 'EFFECTIVE', now(), 'U1', 'B1',"
            " 'req:x', 'API', 77, 1, sha256(''), sha256('') FROM access_token WHERE organisation = 'NEW'"
        )
    log = {"updated_date": "2016-10-05T13:19:56", "updated_by_user": "U2"}
    await load(database, tmp_path, [token(udf_string_1="new", log_information=log)])
    columns = "life_cycle_state, version, updated_by_user, updated_date::text, udf_string_1"
    assert await stored(database, columns) == [("EFFECTIVE", 2, "U1", "2026-01-01 00:00:00", "new")]


async def test_a_token_that_existed_before_keeps_its_state_though_no_command_changed_it(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    await load(database, tmp_path, [ORGANISATION, token()])
    await load(
        database, tmp_path, [token(life_cycle_state="EFFECTIVE"), token(life_cycle_state="PENDING_VERIFICATION")]
    )
    assert await stored(database, "life_cycle_state, version") == [("NOT_EFFECTIVE", 1)]


@pytest.mark.parametrize("chunk", [1, 2, 1000])
async def test_the_first_state_of_each_new_token_is_an_event_and_nothing_else_is(
    database: DatabaseUnderTest, tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", chunk)
    await load(database, tmp_path, [ORGANISATION, token(1), token(2, life_cycle_state="EFFECTIVE")])
    await load(database, tmp_path, [token(1), token(2), token(3, number="N1"), token(4)])
    assert await rows(database, EVENTS) == [
        first_state("T1", "NOT_EFFECTIVE", 1),
        first_state("T2", "EFFECTIVE", 2),
        first_state("T4", "NOT_EFFECTIVE", 3),
    ]
    (lane,) = await rows(database, "SELECT cluster, topic, first_offset, next_offset, chain_sequence FROM lane")
    assert lane == ("", "import", 0, 3, 3)


async def test_a_token_that_a_later_chunk_makes_in_another_state_goes_on_with_its_history(
    database: DatabaseUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 1)
    await load(database, tmp_path, [ORGANISATION, token(1), token(1, life_cycle_state="EFFECTIVE")])
    assert await rows(database, EVENTS) == [
        first_state("T1", "NOT_EFFECTIVE", 1),
        first_state("T1", "EFFECTIVE", 2, version=2),
    ]
    assert await stored(database, "life_cycle_state, version") == [("EFFECTIVE", 2)]


BAD: Final = [
    (b"nonsense", "not JSON"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    (b'{"kind": "unit", "id": "\xff"}', "not JSON"),
    (b'{"kind": NaN}', "not JSON"),
    (b'"text"', "whose kind is one of"),
    (b"[1]", "whose kind is one of"),
    ({"id": "1"}, "whose kind is one of"),
    ({"kind": "planet", "id": "1"}, "whose kind is one of"),
    ({"kind": ["unit"]}, "whose kind is one of"),
    ({"kind": "organisation", "name": "No id"}, "id: missing"),
    ({"kind": "organisation", "id": "", "name": "x"}, "id: "),
    ({"kind": "unit", "organisation": "NOBODY", "id": "1"}, "organisation: not known"),
    ({"kind": "user", "organisation": "NEW", "id": "U1"}, "username"),
    ({"kind": "user", "organisation": "NEW", "id": "U1", "username": "u", "rights": "ALL"}, "rights"),
    ({"kind": "revoked_login", "organisation": "NEW"}, "jti: missing"),
    (token(7, colour="red"), "colour: unknown member"),
    (token(7, number=7), "number: "),
    (token(7, number=None), "number: "),
    (token(7, id="x" * 256), "id: "),
    (token(7, life_cycle_state="LOST"), "life_cycle_state: "),
    (token(7, verified_date="2016-10-05"), "verified_date: not a date"),
    (token(7, udf_date_1="2016-02-30T00:00:00"), "udf_date_1: no such date"),
    (token(7, udf_float_1="1.5"), "udf_float_1: "),
    (token(7, udf_float_1=True), "udf_float_1: "),
    (token(7, udf_string_1="a\0b"), "U+0000"),
    (token(7, identifier=""), "identifier: "),
    (token(7, pass_code=1), "pass_code: "),
    (token(7, pass_code_hash="$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2g"), "pass_code_hash: "),
    (token(7, pass_code_hash="canary"), "pass_code_hash: "),
    (token(7, pass_code="canary", pass_code_hash=GIVEN_HASH), "one of them"),
    (token(7, accounts_receivable="A1"), "accounts_receivable: "),
    (token(7, accounts_receivable={"number": "1"}), "accounts_receivable.id: missing"),
    (token(7, accounts_receivable={"id": "A1", "life_cycle_state": "OPEN"}), "accounts_receivable.life_cycle_state"),
    (token(7, accounts_receivable={"id": ""}), "accounts_receivable"),
    (token(7, log_information={"created_by": "x"}), "log_information.created_by: unknown member"),
    (token(7, number="N1"), "number: another access token"),
    (token(7, authentication_code="C1"), "authentication_code: another access token"),
    (token(7, identifier="taken@example.com"), "identifier: another access token"),
]


@pytest.mark.parametrize(("line", "what"), BAD, ids=range(len(BAD)))
async def test_a_bad_line_is_reported_with_its_place_and_costs_no_other(
    database: DatabaseUnderTest, tmp_path: Path, line: object, what: str
) -> None:
    good = [ORGANISATION, token(1, identifier="taken@example.com"), token(2)]
    report = await load(database, tmp_path, [good[0]], [good[1], b"", line, good[2]])
    assert (report.read, report.loaded) == (4, 3)
    (bad,) = report.bad
    assert (Path(bad.file).name, bad.line) == ("1.ndjson", 3)
    assert what in bad.what
    assert "canary" not in bad.what
    assert [number for (number,) in await stored(database, "number")] == ["N1", "N2"]


async def test_many_bad_lines_among_many_good_ones_are_found_one_by_one(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    lines = [ORGANISATION, *(token(n, number="taken" if n % 50 == 0 else f"N{n}") for n in range(300))]
    report = await load(database, tmp_path, lines)
    assert [bad.line for bad in report.bad] == [52, 102, 152, 202, 252]
    assert report.loaded == 301 - 5
    assert await rows(database, "SELECT count(*) FROM access_token WHERE organisation = 'NEW'") == [(295,)]


async def test_a_skipped_line_leaves_nothing_of_itself(database: DatabaseUnderTest, tmp_path: Path) -> None:
    line = token(2, number="N1", accounts_receivable={"id": "A1", "account_owner": {"id": "O1"}})
    report = await load(database, tmp_path, [ORGANISATION, token(1), line])
    assert [bad.line for bad in report.bad] == [3]
    assert await rows(database, "SELECT id FROM contact WHERE organisation = 'NEW'") == []


async def test_a_bad_organisation_is_reported_once_and_so_is_what_belongs_to_it(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    report = await load(database, tmp_path, [{"kind": "organisation", "id": "NEW"}, token()])
    assert [(bad.line, bad.what) for bad in report.bad] == [(1, "name: missing"), (2, "organisation: not known")]


async def test_an_organisation_is_recognised_however_its_line_is_written(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    written = [
        b'{ "id":"NEW" , "name":"access_token", "kind" : "organisation" }',
        b'{"kind": "organis\\u0061tion", "id": "NEXT", "name": "x"}',
        b'{"id": "LAST", "name": "x", "kind": "organisation"\t}',
    ]
    assert (await load(database, tmp_path, [token(), *written])).bad == ()


async def test_progress_ends_with_everything_done(database: DatabaseUnderTest) -> None:
    seen: list[importing.ImportProgress] = []
    await import_files(database.owner_dsn, [FIXTURE], on_progress=seen.append)
    assert seen[-1].bytes_done == seen[-1].bytes_total == 2 * FIXTURE.stat().st_size
    assert seen[-1].loaded == 15


async def test_a_file_that_is_not_there_is_told_before_anything_is_loaded(
    database: DatabaseUnderTest, tmp_path: Path
) -> None:
    with pytest.raises(ImportingError, match="No such file"):
        await import_files(database.owner_dsn, [FIXTURE, tmp_path / "none"])
    with pytest.raises(ImportingError, match="not a regular file"):
        await import_files(database.owner_dsn, [tmp_path])


async def test_a_database_without_the_schema_is_told_to_migrate(database: DatabaseUnderTest) -> None:
    async with owner_connection(database.owner_dsn) as connection:
        await connection.execute("DROP TABLE access_token CASCADE")
    with pytest.raises(ImportingError, match="migrate"):
        await import_files(database.owner_dsn, [FIXTURE])


async def test_the_report_names_bad_lines_in_reading_order(database: DatabaseUnderTest, tmp_path: Path) -> None:
    report = await load(database, tmp_path, [b"x", token(1, number=1)], [b"y"])
    assert [(Path(bad.file).name, bad.line) for bad in report.bad] == [
        ("0.ndjson", 1),
        ("0.ndjson", 2),
        ("1.ndjson", 1),
    ]
    assert all(isinstance(bad, BadLine) for bad in report.bad)
