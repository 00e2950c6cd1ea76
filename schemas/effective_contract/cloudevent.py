"""A command as a whole CloudEvent, attributes and data in one JSON object (CONTRACT, Command, structured mode)."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from effective_contract.base import Schema
from effective_contract.command import SetEffectiveCommand
from effective_contract.headers import LONGEST_TEXT

_Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]


class StructuredCommand(Schema):
    """The value of a command whose header ``content-type`` is ``application/cloudevents+json``.

    Attributes that are not known are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    specversion: Literal["1.0"]
    """The version of CloudEvents."""
    id: _Text
    """The sender's own id of the command: what makes sending it again safe."""
    source: _Text
    """The source that numbers the ids. A URI reference."""
    type: Literal["access_token.set_effective.v1"]
    """The type of the command."""
    time: _Text | None = None
    """The time at which the command was written. RFC 3339."""
    subject: _Text | None = None
    """The subject of the event. Not read."""
    datacontenttype: _Text | None = None
    """JSON in UTF-8."""
    data: SetEffectiveCommand
    """The command."""
