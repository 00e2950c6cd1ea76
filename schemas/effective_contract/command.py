"""The command that sets an access token effective (CONTRACT, Command): its members, limits, and requested fields."""

from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from effective_contract.access_token import ALL_FIELDS, FIELD_NAMES, fields_mask
from effective_contract.base import Schema

LONGEST_TOKEN: Final = 4096
LONGEST_FIELDS_SET: Final = 4096
LONGEST_NAME: Final = 255
"""Of ``authentication_code``, ``identifier``, ``pass_code``, ``request_unique_identifier``. Limits count characters."""


@lru_cache(maxsize=256)
def asked_fields(fields_set: str) -> int:
    """Return the fields that a ``fields_set`` requests, as a bit mask; a blank one requests all.

    Raises ``effective_contract.access_token.UnknownField`` for an unknown or empty name and for a dotted path.
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


# The checks above and below, for senders that only have the JSON Schema.
_NO_NULL_CHARACTER: Final = {"pattern": r"^[^\u0000]*$"}
_NOT_GIVEN: Final[JsonValue] = {"enum": [None, ""]}
_GIVEN: Final[JsonValue] = {"type": "string", "minLength": 1}
_SHAPES: Final[list[JsonValue]] = [
    {
        "required": ["authentication_code"],
        "properties": {"authentication_code": _GIVEN, "identifier": _NOT_GIVEN},
    },
    {
        "required": ["identifier", "pass_code"],
        "properties": {"identifier": _GIVEN, "pass_code": _GIVEN, "authentication_code": _NOT_GIVEN},
    },
]
_ONE_NAME: Final = rf"\s*({'|'.join(FIELD_NAMES)})\s*"
_NAMES: Final = {"pattern": rf"^(\s*|{_ONE_NAME}(,{_ONE_NAME})*)$", "x-comma-separated": list(FIELD_NAMES)}

_Text = Annotated[str, AfterValidator(_no_null_character), Field(json_schema_extra={**_NO_NULL_CHARACTER})]
_Name = Annotated[_Text, Field(max_length=LONGEST_NAME)]
_OptionalName = Annotated[_Name | None, BeforeValidator(_empty_is_not_given)]
_FieldsSet = Annotated[
    _Text, Field(max_length=LONGEST_FIELDS_SET), AfterValidator(_known_fields), Field(json_schema_extra={**_NAMES})
]


class AccessTokenIdentifier(Schema):
    """Exactly one of ``authentication_code`` and ``identifier``; ``pass_code`` goes with the latter.

    Beside an ``authentication_code``, ``pass_code`` is accepted and ignored.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": [*_SHAPES]})

    authentication_code: _OptionalName = Field(default=None, repr=False)
    """The access token's authentication code."""
    identifier: _OptionalName = Field(default=None, repr=False)
    """The access token's identifier, an e-mail address for instance."""
    pass_code: _OptionalName = Field(default=None, repr=False)
    """Mandatory with ``identifier``. A secret."""

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
    """The login token of who asks: a JWT, valid for two hours. A secret."""
    access_token_identifier: AccessTokenIdentifier
    """The access token that is to become effective."""
    fields_set: Annotated[_FieldsSet | None, BeforeValidator(_empty_is_not_given)] = None
    """The top-level fields that the answer must hold, separated by commas; all of them if not given or blank."""
    request_unique_identifier: _OptionalName = None
    """The idempotency id for senders that cannot set the header ``ce_id``."""
