"""The JSON Schema 2020-12 of every message: the checks of the models, for engineers who use another language.

Commands are as strict as the worker is. Values that the worker writes are closed: a further member is a new type
(``ce_type``). Their headers are open: a reader ignores headers that it does not know, as the worker does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from effective_contract.cloudevent import StructuredCommand
from effective_contract.command import SetEffectiveCommand
from effective_contract.headers import CE_TYPE, CommandHeaders, DeadLetterHeaders, ResultHeaders, TransitionHeaders
from effective_contract.methods import METHODS, SET_EFFECTIVE, Method, Methods
from effective_contract.result import Result
from effective_contract.transition import TransitionEvent

JsonSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """A message's value or its headers. ``to_worker``: a sender writes it and the worker reads it."""

    model: type[BaseModel]
    to_worker: bool = False
    headers: bool = False
    method: Method = SET_EFFECTIVE
    """The method whose types are in it."""


_OF_A_METHOD: Final[Mapping[str, Described]] = {
    "command-structured": Described(StructuredCommand, to_worker=True),
    "command-headers": Described(CommandHeaders, to_worker=True, headers=True),
    "result-headers": Described(ResultHeaders, headers=True),
}
_OF_ALL: Final[Mapping[str, Described]] = {
    "command": Described(SetEffectiveCommand, to_worker=True),
    "result": Described(Result),
    "transition": Described(TransitionEvent),
    "transition-headers": Described(TransitionHeaders, headers=True),
    "dead-letter-headers": Described(DeadLetterHeaders, headers=True),
}


def described(methods: Methods = METHODS) -> dict[str, Described]:
    """Return the messages by the names of their files. Methods differ in their types; the values are those of all."""
    return {**_OF_ALL} | {
        f"{prefix(method)}{name}": replace(message, method=method)
        for method in methods.all
        for name, message in _OF_A_METHOD.items()
    }


def prefix(method: Method) -> str:
    """Return the beginning of the names that are a method's own. Set effective, the first method, needs none."""
    return "" if method is SET_EFFECTIVE else f"{method.name.replace('_', '-')}-"


class _Plain(GenerateJsonSchema):
    """A generator that gives a member no title, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's own signature
        return False


def title_of(method: Method, title: str) -> str:
    """Return the title of a method's schema: that of set effective, with the method's name before it."""
    return title if method is SET_EFFECTIVE else f"{method.name.title().replace('_', '')}{title}"


def json_schema(name: str, methods: Methods = METHODS) -> JsonSchema:
    """Return the JSON Schema of one of ``described``, its definitions under ``$defs``."""
    message = described(methods)[name]
    schema: JsonSchema = plain_words(message.model.model_json_schema(schema_generator=_Plain))
    if message.method is not SET_EFFECTIVE:
        schema = _of_method(schema, message.method)
    if message.headers:
        schema["properties"] = {member: _header(rule) for member, rule in schema["properties"].items()}
        schema["additionalProperties"] = True
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"urn:effective-worker:{name}", **schema}


def _of_method(schema: JsonSchema, method: Method) -> JsonSchema:
    """Return the schema of the same message of another method: the types are its own, and must be given."""
    own: JsonSchema = _with_types(
        schema, {SET_EFFECTIVE.command_type: method.command_type, SET_EFFECTIVE.result_type: method.result_type}
    )
    required = [each for each in own["properties"] if each in {*own.get("required", ()), CE_TYPE}]
    return {**own, "title": title_of(method, own["title"]), "required": required}


def _with_types(schema: Any, types: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_with_types(each, types) for each in schema]
    if isinstance(schema, dict):
        return {name: _with_types(each, types) for name, each in schema.items()}
    return types.get(schema, schema) if isinstance(schema, str) else schema


def _header(rule: JsonSchema) -> JsonSchema:
    """Return the rule of a header, which is present or absent and never ``null``."""
    if "anyOf" not in rule:
        return rule
    (given,) = (kind for kind in rule["anyOf"] if kind != {"type": "null"})
    return {**given, **{name: value for name, value in rule.items() if name not in {"anyOf", "default"}}}


def plain_words(schema: Any) -> Any:
    """Remove from descriptions the markup of Python's docstrings and the line breaks of the source."""
    if isinstance(schema, list):
        return [plain_words(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _plain_text(value) if name == "description" and isinstance(value, str) else plain_words(value)
        for name, value in schema.items()
    }


def _plain_text(text: str) -> str:
    return " ".join(re.sub(r":\w+:`([^`]*)`", r"\1", text.replace("``", "")).split())
