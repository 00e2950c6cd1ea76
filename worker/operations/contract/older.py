"""A contract pack from a directory, read to be compared. Its shape is checked here, so that the comparison need not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

ASYNCAPI: Final = "asyncapi.json"
SCHEMA: Final = ".schema.json"


class NotAPack(ValueError):
    """The directory holds no contract pack, or one that cannot be read."""


class _Keywords(BaseModel):
    """The keywords of JSON Schema that the comparison follows or reads."""

    ref: str = Field("", alias="$ref")
    definitions: "dict[str, bool | _Keywords]" = Field({}, alias="$defs")
    properties: "dict[str, bool | _Keywords]" = {}
    additional: "bool | _Keywords" = Field(True, alias="additionalProperties")
    items: "bool | _Keywords" = True
    any_of: "list[bool | _Keywords]" = Field([], alias="anyOf")
    one_of: "list[bool | _Keywords]" = Field([], alias="oneOf")
    type: str | list[str] = ""
    enum: list[Any] = []
    required: list[str] = []


class _Reference(BaseModel):
    ref: str = Field(alias="$ref")


class _Channel(BaseModel):
    address: str | None
    messages: dict[str, _Reference]


class _Reply(BaseModel):
    address: dict[str, str] = {}
    channel: _Reference
    messages: list[_Reference] = []


class _Operation(BaseModel):
    action: str
    channel: _Reference
    messages: list[_Reference]
    reply: _Reply | None = None


class _Components(BaseModel):
    schemas: dict[str, bool | _Keywords]
    messages: dict[str, dict[str, Any]]


class _Document(BaseModel):
    channels: dict[str, _Channel]
    operations: dict[str, _Operation]
    components: _Components


def releases() -> dict[str, Path]:
    """Return the directories of the released packs by version, from the wheel or else from the checkout."""
    here = Path(__file__).parent / "released"
    directory = here if here.is_dir() else Path(__file__).parents[3] / "schemas" / "released"
    return {path.name: path for path in sorted(directory.iterdir()) if path.is_dir()}


def read(directory: Path) -> dict[str, Any]:
    """Return the schemas and the AsyncAPI document of a pack, by file. Raises ``NotAPack``."""
    paths = [directory / ASYNCAPI, *sorted(directory.glob(f"*{SCHEMA}"))]
    try:
        files = parsed({path.name: path.read_text(encoding="utf-8") for path in paths})
    except (OSError, ValueError) as error:
        raise NotAPack(f"{directory} is no contract pack: {error}") from error
    for name, document in files.items():
        try:
            (_Document if name == ASYNCAPI else _Keywords).model_validate(document)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
            raise NotAPack(f"{directory} is no contract pack: {name}: {where} is not as it was written") from error
    return files


def parsed(files: Mapping[str, str]) -> dict[str, Any]:
    """Return the same of a pack that is not written yet."""
    compared = (name for name in files if name == ASYNCAPI or name.endswith(SCHEMA))
    return {name: json.loads(files[name]) for name in compared}
