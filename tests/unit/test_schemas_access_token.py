"""The access token's 30 fields, and the masks that name any of them."""

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from effective_contract.access_token import (
    ALL_FIELDS,
    FIELD_NAMES,
    AccessToken,
    AccessTokenData,
    LogInformation,
    TokenDate,
    UnknownField,
    field_names,
    fields_mask,
)

NAMES = st.lists(st.sampled_from(FIELD_NAMES))
DATE = TypeAdapter(TokenDate)
DATA = TypeAdapter(AccessTokenData)

LOG: dict[str, Any] = dict.fromkeys(LogInformation.model_fields)
WHOLE: dict[str, Any] = {
    **dict.fromkeys(FIELD_NAMES),
    "id": "231",
    "number": "AT1",
    "life_cycle_state": "EFFECTIVE",
    "log_information": LOG,
}


def test_there_are_thirty_fields_in_the_order_of_the_contract() -> None:
    assert len(FIELD_NAMES) == 30
    assert FIELD_NAMES[:4] == ("id", "number", "life_cycle_state", "authentication_code")
    assert FIELD_NAMES[-4:] == ("classification", "accounts_receivable", "rewards_participant", "log_information")
    assert "pass_code" not in FIELD_NAMES


def test_a_part_of_a_token_has_the_very_members_of_the_whole() -> None:
    whole = typing.get_type_hints(AccessToken, include_extras=True)

    assert typing.get_type_hints(AccessTokenData, include_extras=True) == {name: whole[name] for name in FIELD_NAMES}


@given(NAMES)
def test_a_mask_holds_each_name_once_whatever_their_order(names: list[str]) -> None:
    mask = fields_mask(names)

    assert set(field_names(mask)) == set(names)
    assert field_names(mask) == tuple(name for name in FIELD_NAMES if name in names)
    assert fields_mask(reversed(names)) == mask


@given(st.integers(0, ALL_FIELDS))
def test_every_mask_is_the_mask_of_its_own_names(mask: int) -> None:
    assert fields_mask(field_names(mask)) == mask


@given(NAMES, st.text().filter(lambda name: name not in FIELD_NAMES))
def test_an_unknown_name_is_refused_and_named(names: list[str], unknown: str) -> None:
    with pytest.raises(UnknownField) as refused:
        fields_mask([*names, unknown, "another"])

    assert refused.value.name == unknown


@given(st.integers(0, ALL_FIELDS))
def test_any_subset_of_a_token_is_data(mask: int) -> None:
    part = {name: WHOLE[name] for name in field_names(mask)}

    assert set(DATA.validate_python(part)) == set(part)


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_a_whole_token_lacks_no_member(name: str) -> None:
    AccessToken.model_validate(WHOLE)
    with pytest.raises(ValidationError):
        AccessToken.model_validate({member: value for member, value in WHOLE.items() if member != name})


@pytest.mark.parametrize(
    "change",
    [
        {"colour": None},
        {"pass_code": None},
        {"id": None},
        {"id": 231},
        {"life_cycle_state": "ACTIVE"},
        {"life_cycle_state": None},
        {"log_information": None},
        {"log_information": {**LOG, "deleted_date": None}},
        {"udf_float_1": "1.5"},
        {"udf_float_1": float("nan")},
        {"udf_date_1": "2016-10-05"},
        {"classification": {"id": "C1", "name": "Loyalty card"}},
        {"verified_by_user": {"id": "1", "username": None, "person_name": None, "email": None, "password": None}},
    ],
)
def test_members_are_exact_and_nothing_is_coerced(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AccessToken.model_validate({**WHOLE, **change})


@pytest.mark.parametrize("text", ["2016-10-05T13:19:56", "2024-02-29T00:00:00"])
def test_a_date_is_local_to_nobody_and_to_the_second(text: str) -> None:
    assert DATE.validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["2016-10-05T13:19:56Z", "2016-10-05 13:19:56", "2016-10-05T13:19:56.5", "2023-02-29T00:00:00", "", 5, None]
)
def test_anything_else_is_no_date(text: object) -> None:
    with pytest.raises(ValidationError):
        DATE.validate_python(text)
