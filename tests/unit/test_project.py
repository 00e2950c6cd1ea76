"""A projection reads the fields asked for and no more."""

import re
from functools import partial
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effective_contract.access_token import ALL_FIELDS, FIELD_NAMES, field_names, fields_mask
from worker.journey.project import projection
from worker.postgres.sql import statement

WHOLE: Final = statement("journey/project")
MARKED: Final = re.compile(r"^(?P<text>.*) -- fields: (?P<field>\w+)$")
ALIAS: Final = re.compile(r"\b(t|v|c|r|cu|uu|cn|un)\.")

masks: Final = st.integers(1, ALL_FIELDS)


reading: Final = partial(projection, reveal_verification_code=True)
"""The projection that may reveal everything."""


def marked_lines() -> list[tuple[str, str]]:
    return [(match["text"], match["field"]) for match in map(MARKED.match, WHOLE.splitlines()) if match]


def test_every_field_has_a_line_but_the_key_and_every_mark_is_a_field() -> None:
    marked = {field for _, field in marked_lines()}

    assert marked == set(FIELD_NAMES) - {"id"}


def test_every_column_and_every_join_but_that_of_the_token_is_marked() -> None:
    plain = [line for line in WHOLE.splitlines() if not line.startswith("--") and not MARKED.match(line)]

    assert plain == [
        "SELECT t.organisation, t.id",
        "FROM unnest($1::text[], $2::text[]) AS shown (organisation, id)",
        "JOIN access_token AS t USING (organisation, id)",
    ]


@given(masks)
def test_a_projection_keeps_the_lines_of_its_fields_and_drops_all_others(mask: int) -> None:
    names, kept = set(field_names(mask)), reading(mask).splitlines()

    for text, field in marked_lines():
        assert (text in kept) == (field in names)


@given(masks)
def test_a_projection_names_no_table_that_it_does_not_join(mask: int) -> None:
    text = "\n".join(line for line in reading(mask).splitlines() if not line.startswith("--"))
    joined = set(re.findall(r"JOIN \w+ AS (\w+)", text))

    assert set(ALIAS.findall(text)) <= joined


@given(masks, masks)
def test_the_projection_of_more_fields_reads_all_that_each_part_reads(one: int, other: int) -> None:
    both = set(reading(one | other).splitlines())

    assert set(reading(one).splitlines()) <= both
    assert set(reading(other).splitlines()) <= both


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_one_field_alone_never_touches_the_tables_of_others(name: str) -> None:
    tables = {
        "verified_by_user": {"app_user"},
        "classification": {"classification"},
        "rewards_participant": {"rewards_participant"},
        "log_information": {"app_user", "unit"},
    }

    joined = set(re.findall(r"JOIN (\w+)", reading(fields_mask([name]))))

    assert joined == {"access_token"} | tables.get(name, set())


def test_the_verification_code_is_in_no_projection_where_it_is_not_revealed() -> None:
    hidden = projection(ALL_FIELDS, reveal_verification_code=False)

    assert set(reading(ALL_FIELDS).splitlines()) - set(hidden.splitlines()) == {"    , t.verification_code"}


def test_the_pass_code_is_in_no_projection() -> None:
    assert "pass_code" not in reading(ALL_FIELDS)
