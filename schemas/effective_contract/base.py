"""The common base of all schemas."""

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)
"""Exact members, no coercion of types, and no error that repeats the input, which may be a secret.

A member's docstring is its description in the JSON Schema.
"""


class Schema(BaseModel):
    """A frozen JSON object whose members are exactly those named."""

    model_config = STRICT
