"""The answer to a command, exactly as the source method gives it (CONTRACT 3)."""

from typing import Annotated

from pydantic import Field, model_validator

from schemas.access_token import AccessTokenData
from schemas.base import Schema
from schemas.codes import StatusCode


class Status(Schema):
    """What became of the command. ``message`` is the detail for people, without secrets or personal data."""

    code: Annotated[StatusCode, Field(strict=False)]
    description: str
    message: str

    @model_validator(mode="after")
    def _fixed_sentence(self) -> "Status":
        if self.description != self.code.description:
            raise ValueError("description is not the fixed sentence of the code")
        return self


class Result(Schema):
    """``data`` holds exactly the requested fields on ``OK``, and nothing otherwise."""

    data: AccessTokenData
    status: Status

    @model_validator(mode="after")
    def _data_only_when_ok(self) -> "Result":
        if self.status.code is not StatusCode.OK and self.data:
            raise ValueError("a refusal shows no data")
        return self
