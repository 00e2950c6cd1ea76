"""The command as senders build it."""

import pytest
from pydantic import ValidationError

from effective_contract.access_token import ALL_FIELDS, UnknownField, fields_mask
from effective_contract.command import AccessTokenIdentifier, SetEffectiveCommand, asked_fields


def test_a_command_says_neither_its_token_nor_its_credentials_when_printed() -> None:
    named = AccessTokenIdentifier(identifier="id-me", pass_code="pass-me")

    assert "-me" not in repr(SetEffectiveCommand(token="tell-me", access_token_identifier=named))


def test_the_error_of_a_wrong_command_repeats_nothing_of_it() -> None:
    with pytest.raises(ValidationError) as wrong:
        SetEffectiveCommand.model_validate(
            {"token": ["tell-me"], "access_token_identifier": {"identifier": "id-me", "pass_code": 5, "x": "x-me"}}
        )

    assert "-me" not in str(wrong.value)


def test_a_command_cannot_be_changed() -> None:
    named = AccessTokenIdentifier(authentication_code="1")

    with pytest.raises(ValidationError):
        setattr(named, "authentication_code", "2")  # noqa: B010 - a type checker would not allow this


def test_what_is_empty_was_not_given() -> None:
    assert AccessTokenIdentifier(authentication_code="1", identifier="") == AccessTokenIdentifier(
        authentication_code="1"
    )


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_a_blank_fields_set_asks_for_all(blank: str) -> None:
    assert asked_fields(blank) == ALL_FIELDS


def test_names_are_parted_by_commas_and_trimmed() -> None:
    assert asked_fields(" number ,id,\tnumber") == fields_mask(["id", "number"])


@pytest.mark.parametrize(("fields_set", "name"), [("id,,number", ""), ("id,", ""), ("id.x", "id.x"), ("ID", "ID")])
def test_a_name_that_is_none_is_refused(fields_set: str, name: str) -> None:
    with pytest.raises(UnknownField) as refused:
        asked_fields(fields_set)

    assert refused.value.name == name
