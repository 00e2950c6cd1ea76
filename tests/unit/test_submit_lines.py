"""Files of commands: their contents, the worker's verdict on each line, and the form in which refusals are written."""

import csv
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effective_contract.codes import StatusCode
from tests.contract.bad_inputs import BAD_INPUTS, CANARY_TOKEN, MAX_BYTES
from tests.support.builders import delivery
from worker.journey.decode.command import decode
from worker.journey.model import Command, Refused
from worker.operations.submit.lines import LONGEST_LINE, Csv, Ndjson, Ready, Record, UnusableFile, source_of

LOGIN: Final = "a login"
GOOD: Final[dict[str, Any]] = {"access_token_identifier": {"authentication_code": "99021047380"}}
WRONG: Final = Refused(StatusCode.ACCESS_TOKEN_NOT_FOUND, "no such access token")
BAD: Final = [row for row in BAD_INPUTS if row.stage == "decode" and row.value and not row.headers]


def ndjson(directory: Path, content: bytes | str) -> Ndjson:
    file = directory / "file.ndjson"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = source_of(file, as_csv=False, max_bytes=MAX_BYTES)
    assert isinstance(source, Ndjson)
    return source


def table(directory: Path, content: bytes | str) -> Csv:
    file = directory / "file.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = source_of(file, as_csv=False, max_bytes=MAX_BYTES)
    assert isinstance(source, Csv)
    return source


def the_value(source: Ndjson | Csv, record: Record, token: str | None = LOGIN) -> Any:
    ready = source.command(record.raw, token)
    assert not isinstance(ready, Refused), ready
    return json.loads(ready.value)


def the_code(source: Ndjson | Csv, record: Record, token: str | None = LOGIN) -> StatusCode:
    judged = record.fault or source.command(record.raw, token)
    assert isinstance(judged, Refused)
    return judged.code


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.name)
def test_a_line_is_refused_as_the_worker_would_refuse_it(row: Any, tmp_path: Path) -> None:
    source = ndjson(tmp_path, b"")
    # White space around a line is no part of it.
    wanted = decode(delivery(row.value.strip()), max_bytes=MAX_BYTES).request
    judged = source.command(row.value, None)
    assert judged == wanted or (isinstance(judged, Ready) and isinstance(wanted, Command))
    source.close()


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5) | st.binary())
def test_whatever_stands_in_a_line_is_judged_and_never_raises(value: Any) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    source = Ndjson.__new__(Ndjson)
    source._max_bytes = MAX_BYTES
    judged = source.command(raw, None)
    assert isinstance(judged, Refused)
    assert judged == decode(delivery(raw.strip()), max_bytes=MAX_BYTES).request
    # A written line can be submitted again.
    line = json.loads(source.refusal(Record(1, 0, raw), judged))
    assert line["status"]["code"] == judged.code


def test_a_given_login_is_used_and_a_lines_own_only_without_one(tmp_path: Path) -> None:
    source = ndjson(tmp_path, json.dumps(GOOD | {"token": "its own"}) + "\n" + json.dumps(GOOD))
    first, second = source.records()
    assert the_value(source, first)["token"] == LOGIN
    assert the_value(source, first, None)["token"] == "its own"
    assert the_value(source, second)["token"] == LOGIN
    assert the_code(source, second, None) == StatusCode.MISSING_PARAMETER
    source.close()


def test_lines_are_numbered_as_an_editor_does_and_read_again_by_their_place(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b"\n\r\n".join([b"one", b"", b"  \t", b"two\r", b"three"])
    source = ndjson(tmp_path, content)
    records = list(source.records())
    assert [(record.line, record.raw.strip()) for record in records] == [(1, b"one"), (7, b"two"), (9, b"three")]
    assert [source.read(record.start, len(record.raw)) for record in records] == [record.raw for record in records]
    *_, found = source.fingerprint()
    assert (found.size, found.lines) == (len(content), 9)
    assert list(source.records()) == records
    source.close()


def test_a_line_too_long_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    source = ndjson(tmp_path, b'{"token": "' + b"x" * (3 * LONGEST_LINE) + b'"}\n' + good)
    long, next_one = source.records()
    assert the_code(source, long) == StatusCode.MALFORMED_REQUEST
    assert len(long.raw) <= 1000
    assert (next_one.line, source.read(next_one.start, len(next_one.raw))) == (2, good)
    source.close()


def test_a_command_larger_than_the_worker_takes_is_refused(tmp_path: Path) -> None:
    source = ndjson(tmp_path, json.dumps(GOOD | {"fields_set": "," * MAX_BYTES}))
    [record] = source.records()
    assert the_code(source, record) == StatusCode.MALFORMED_REQUEST
    source.close()


def test_the_refusals_of_a_file_can_be_mended_and_submitted(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD | {"token": CANARY_TOKEN, "fields_set": "nothing"}), "no JSON", "[1]"]
    source = ndjson(tmp_path, "\n".join(lines))
    written = b"".join(source.refusal(record, WRONG) for record in source.records())
    assert CANARY_TOKEN.encode() not in written
    source.close()
    again = ndjson(tmp_path, written.replace(b"nothing", b"number"))
    mended, text, array = again.records()
    assert the_value(again, mended) == GOOD | {"token": LOGIN, "fields_set": "number"}
    assert the_code(again, text) == the_code(again, array) == StatusCode.MALFORMED_REQUEST
    # Unrepaired, it is reported as it was the first time.
    first, second = (json.loads(again.refusal(record, WRONG)) for record in (text, array))
    assert (first["text"], second["text"]) == ("no JSON", "[1]")
    again.close()


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_a_table_names_its_columns_in_any_order(tmp_path: Path) -> None:
    source = table(tmp_path, b"\xef\xbb\xbfpass_code, identifier ,fields_set\r\n2468,a@b.example,number\r\n\r\n,,\n")
    first, second = source.records()
    identifier = {"identifier": "a@b.example", "pass_code": "2468"}
    assert the_value(source, first) == {"token": LOGIN, "access_token_identifier": identifier, "fields_set": "number"}
    assert first.line == 2
    assert the_code(source, second) == StatusCode.INVALID_PARAMETER
    source.close()


def test_a_record_over_several_lines_counts_by_its_first(tmp_path: Path) -> None:
    content = 'authentication_code,fields_set\n"a, ""b""\nc",number\nd,number\n'
    source = table(tmp_path, content)
    first, second = source.records()
    assert (first.line, second.line) == (2, 4)
    assert the_value(source, first)["access_token_identifier"] == {"authentication_code": 'a, "b"\nc'}
    assert source.read(first.start, len(first.raw)) == first.raw
    source.close()


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    lines = [
        "authentication_code",
        '"never closed',
        *(f"c{number}" for number in range(100)),
        '"quoted"',
        'x"y',
        "last",
    ]
    source = table(tmp_path, "\n".join(lines))
    records = list(source.records())
    refused = [
        record.line for record in records if record.fault or isinstance(source.command(record.raw, LOGIN), Refused)
    ]
    assert refused == [2]
    assert [record.line for record in records] == list(range(2, len(lines) + 1))
    source.close()


@pytest.mark.parametrize("row", [b"a,b,c", b"a", b"\xff,b", b'a,"b'], ids=["more", "fewer", "bytes", "open"])
def test_a_record_that_is_none_is_refused(row: bytes, tmp_path: Path) -> None:
    source = table(tmp_path, b"authentication_code,fields_set\n" + row)
    [record] = source.records()
    assert the_code(source, record) == StatusCode.MALFORMED_REQUEST
    source.close()


@pytest.mark.parametrize(
    ("header", "word"),
    [("authentication_code,colour", '"colour"'), ("fields_set", "identifier"), ("identifier,identifier", "twice")],
)
def test_a_table_with_a_wrong_header_cannot_be_used(header: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=word):
        table(tmp_path, header)


def test_an_empty_table_has_no_commands(tmp_path: Path) -> None:
    source = table(tmp_path, "")
    assert list(source.records()) == []
    source.close()


def test_the_refusals_of_a_table_are_a_table_with_remarks(tmp_path: Path) -> None:
    source = table(tmp_path, 'fields_set,authentication_code\nnumber,"a\nb"\n')
    [record] = source.records()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([source.heading(), source.refusal(record, WRONG)])
    source.close()
    again = table(tmp_path, text.getvalue())
    [same] = again.records()
    assert again.columns == ["fields_set", "authentication_code", "line", "code", "message"]
    assert the_value(again, same)["access_token_identifier"] == {"authentication_code": "a\nb"}
    assert again.heading() == again.columns
    again.close()


def test_what_a_refused_record_has_beyond_the_header_is_kept_and_refused_again(tmp_path: Path) -> None:
    source = table(tmp_path, "authentication_code,fields_set\ncode-1,number,id\n")
    for _ in range(2):
        [record] = source.records()
        refused = source.command(record.raw, "login")
        assert isinstance(refused, Refused)
        assert "fields, and the header" in refused.message
        row = source.refusal(record, refused)
        assert (row[:2], row[-1]) == (["code-1", "number"], "id")
        text = io.StringIO(newline="")
        csv.writer(text).writerows([source.heading(), row])
        source.close()
        source = table(tmp_path, text.getvalue())
    source.close()


@pytest.mark.parametrize("name", ["-", "missing.ndjson", "."])
def test_what_is_no_file_cannot_be_used(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableFile):
        source_of(Path(name) if name == "-" else tmp_path / name, as_csv=False, max_bytes=MAX_BYTES)
