"""What every schema has in common."""

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)
"""Members exact, no coercion of types, and no error that repeats what was sent: it may be a secret.
A member's docstring is its description in the JSON Schema."""


class Schema(BaseModel):
    """A frozen JSON object whose members are exactly those named."""

    model_config = STRICT
