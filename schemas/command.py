"""The command that sets an access token effective (CONTRACT 2): members, limits, and the fields it asks for."""

from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.access_token import ALL_FIELDS, fields_mask
from schemas.base import Schema

LONGEST_TOKEN: Final = 4096
LONGEST_FIELDS_SET: Final = 4096
LONGEST_NAME: Final = 255
"""``authentication_code``, ``identifier``, ``pass_code``, ``request_unique_identifier``. Limits count characters."""


@lru_cache(maxsize=256)
def asked_fields(fields_set: str) -> int:
    """The fields that a ``fields_set`` asks for, as a bit mask; a blank one asks for all.

    Raises ``schemas.access_token.UnknownField`` for an unknown or empty name and for a dotted path.
    """
    if not fields_set.strip():
        return ALL_FIELDS
    return fields_mask(name.strip() for name in fields_set.split(","))


def _empty_is_not_given(value: object) -> object:
    return None if value == "" else value


def _no_null_character(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds U+0000")
    return text


def _known_fields(fields_set: str) -> str:
    asked_fields(fields_set)
    return fields_set


_Text = Annotated[str, AfterValidator(_no_null_character)]
_Name = Annotated[_Text, Field(max_length=LONGEST_NAME)]
_OptionalName = Annotated[_Name | None, BeforeValidator(_empty_is_not_given)]
_FieldsSet = Annotated[_Text, Field(max_length=LONGEST_FIELDS_SET), AfterValidator(_known_fields)]


class AccessTokenIdentifier(Schema):
    """Exactly one of ``authentication_code`` and ``identifier``; ``pass_code`` goes with the latter.

    Beside an ``authentication_code``, ``pass_code`` is accepted and ignored.
    """

    authentication_code: _OptionalName = Field(default=None, repr=False)
    identifier: _OptionalName = Field(default=None, repr=False)
    pass_code: _OptionalName = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _one_shape(self) -> "AccessTokenIdentifier":
        if (self.authentication_code is None) == (self.identifier is None):
            raise ValueError("exactly one of authentication_code and identifier must be given")
        if self.identifier is not None and self.pass_code is None:
            raise ValueError("pass_code is mandatory with identifier")
        return self


class SetEffectiveCommand(Schema):
    """The value of a command. ``null`` and ``""`` count as not given."""

    token: Annotated[_Text, Field(min_length=1, max_length=LONGEST_TOKEN)] = Field(repr=False)
    access_token_identifier: AccessTokenIdentifier
    fields_set: Annotated[_FieldsSet | None, BeforeValidator(_empty_is_not_given)] = None
    request_unique_identifier: _OptionalName = None
