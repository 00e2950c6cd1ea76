"""The fast path reads valid lines, and changes neither the lines accepted nor the errors reported."""

import json
from typing import Any, Final

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.operations.imports import lines
from worker.operations.imports.lines import Bad, may_be_organisation, parsed
from worker.operations.imports.rows import tables_of

GIVEN_HASH: Final = "$argon2id$v=19$m=7168,t=5,p=1$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ"
ACCOUNT: Final = {
    "id": "A1",
    "number": "ACR1",
    "life_cycle_state": "ACTIVE",
    "account_owner": {
        "id": "O1",
        "first_name": "Ελένη",
        "type": "PERSON",
        "demographics": {
            "name_day": {"month": 5, "day": 21},
            "date_of_birth": {"month": 1, "year": 1980, "day": 7},
            "country_of_residence": {"id": "300"},
        },
    },
}
TOKEN: Final = {
    "kind": "access_token",
    "organisation": "NEW",
    "id": "T1",
    "number": "N1",
    "life_cycle_state": "NOT_EFFECTIVE",
    "authentication_code": "C1",
    "verified_date": "2016-10-05T13:19:56",
    "verified_by_user": {"id": "U1", "username": "anna"},
    "udf_string_1": "x",
    "udf_float_1": 1.5,
    "udf_float_2": 2,
    "udf_date_1": "2020-02-29T00:00:00",
    "classification": {"id": "C1"},
    "accounts_receivable": ACCOUNT,
    "rewards_participant": {"id": "R1", "accounts_receivable": ACCOUNT},
    "log_information": {"created_by_user": "U9", "updated_by_unit": {"id": "B1", "name": "Back office"}},
    "pass_code_hash": GIVEN_HASH,
}

SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.sampled_from(
        [
            "2016-10-05T13:19:56",
            "2016-10-05 13:19:56",
            "2016-10-05T13:19:56Z",
            "2016-10-05T13:19:56\n",
            "20161005T131956.123",
            "2016-02-30T00:00:00",
            "0000-01-01T00:00:00",
            "2016-W01-1T13:19:56",
            "\uff12\uff1016-10-05T13:19:56",
            "EFFECTIVE",
            "ACTIVE",
            "PERSON",
            "x" * 255,
            "x" * 256,
            "\0",
            "U1",
            0,
            13,
            1.0,
        ]
    )
)
VALUES: Final = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["id", "name"]), SCALARS)


def places(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the paths of all members, at any depth."""
    found = []
    for name, inner in value.items():
        found.append((*path, name))
        if isinstance(inner, dict):
            found += places(inner, (*path, name))
    return found


def with_value(line: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    copy: dict[str, Any] = orjson.loads(orjson.dumps(line))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


EVERYWHERE: Final = [*places(TOKEN), ("colour",), ("pass_code",), ("udf_date_4",), ("log_information", "created_date")]


def meant(line: Any) -> object:
    """Return the result for a line: its rows, and its pass code."""
    return tables_of([(line, None)]), line.pass_code, line.pass_code_hash


def told(raw: bytes) -> object:
    """Return the slow path's verdict on a line."""
    try:
        return meant(lines._judged(raw))
    except Bad as bad:
        return str(bad)


@settings(max_examples=600)
@given(path=st.sampled_from(EVERYWHERE), value=VALUES, ascii_only=st.booleans())
@example(path=("udf_float_1",), value=10**400, ascii_only=True)
@example(path=("id",), value="x" * 256, ascii_only=True)
@example(path=("number",), value="", ascii_only=True)
@example(path=("accounts_receivable", "account_owner", "demographics", "name_day", "month"), value=13, ascii_only=True)
@example(path=("accounts_receivable", "account_owner", "demographics", "name_day", "month"), value=0, ascii_only=True)
def test_what_is_read_fast_is_what_would_be_read_slowly(path: tuple[str, ...], value: object, ascii_only: bool) -> None:
    raw = json.dumps(with_value(TOKEN, path, value), ensure_ascii=ascii_only).encode()
    read = lines._right_token(raw)
    assert read is None or meant(read) == told(raw)


@given(st.binary(max_size=6), st.integers(0, 2000))
@example(rb"\ud800", 75)
@example(rb"\u0000", 75)
@example(b"\xed\xa0\x80", 75)
@example(b"\xff", 75)
def test_that_holds_for_bytes_that_are_no_right_line(put: bytes, place: int) -> None:
    raw = json.dumps(TOKEN).encode()
    raw = raw[: place % len(raw)] + put + raw[place % len(raw) :]
    read = lines._right_token(raw)
    assert read is None or meant(read) == told(raw)


@pytest.mark.parametrize(
    "line",
    [
        TOKEN,
        {name: value for name, value in TOKEN.items() if name != "kind"} | {"kind": "access_token"},
        with_value(TOKEN, ("log_information",), {}),
        with_value(TOKEN, ("accounts_receivable",), None),
        with_value(TOKEN, ("verified_by_user",), "U1"),
    ],
)
def test_lines_with_which_all_is_well_are_read_fast(line: dict[str, Any]) -> None:
    assert lines._right_token(json.dumps(line).encode()) is not None


def test_a_kind_that_stands_twice_counts_as_it_did() -> None:
    raw = json.dumps(TOKEN).encode()
    assert lines._right_token(raw[:-1] + b', "kind": "unit"}') is None


def test_no_line_shows_a_pass_code_when_it_is_shown() -> None:
    shown = [
        repr(parsed(json.dumps(with_value(TOKEN, ("pass_code_hash",), GIVEN_HASH)).encode())),
        repr(parsed(json.dumps(TOKEN | {"pass_code_hash": None, "pass_code": "canary"}).encode())),
    ]
    assert "T1" in shown[0]
    assert "canary" not in shown[1]
    assert GIVEN_HASH not in shown[0]


def test_only_what_may_be_an_organisation_is_read_in_the_first_reading() -> None:
    assert may_be_organisation(b'{"kind": "organisation", "id": "NEW"}')
    assert may_be_organisation(b'{"kind": "organis\\u0061tion"}')
    assert not may_be_organisation(json.dumps(TOKEN).encode())
