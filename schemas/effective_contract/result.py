"""The answer to a command, exactly as the source method gives it (CONTRACT, Result)."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field, JsonValue, model_validator

from effective_contract.access_token import AccessTokenData
from effective_contract.base import Schema
from effective_contract.codes import StatusCode

# The checks below, for readers that only have the JSON Schema.
_SENTENCES: Final[list[JsonValue]] = [
    {"properties": {"code": {"const": code.value}, "description": {"const": code.description}}} for code in StatusCode
]
_NO_DATA_UNLESS_OK: Final[dict[str, JsonValue]] = {
    "if": {"properties": {"status": {"properties": {"code": {"const": StatusCode.OK.value}}}}},
    "else": {"properties": {"data": {"maxProperties": 0}}},
}


class Status(Schema):
    """The outcome of the command. ``message`` is the detail for people, without secrets or personal data."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [*_SENTENCES]})

    code: Annotated[StatusCode, Field(strict=False)]
    """The outcome, for programs."""
    description: str
    """The fixed sentence of the code; empty for ``OK``."""
    message: str
    """The detail for people. Not for programs: its words may change."""

    @model_validator(mode="after")
    def _fixed_sentence(self) -> "Status":
        if self.description != self.code.description:
            raise ValueError("description is not the fixed sentence of the code")
        return self


class Result(Schema):
    """``data`` holds exactly the requested fields on ``OK``, and nothing otherwise."""

    model_config = ConfigDict(json_schema_extra={**_NO_DATA_UNLESS_OK})

    data: AccessTokenData
    """The access token after the change: exactly the fields that were asked for."""
    status: Status
    """The outcome of the command."""

    @model_validator(mode="after")
    def _data_only_when_ok(self) -> "Result":
        if self.status.code is not StatusCode.OK and self.data:
            raise ValueError("a refusal shows no data")
        return self
