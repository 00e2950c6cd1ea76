"""The headers of commands, results and transition events (CONTRACT 2, 3, 6): CloudEvents in binary mode, and ours."""

import re
from datetime import date
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from schemas.base import Schema
from schemas.codes import StatusCode

SPEC_VERSION: Final = "1.0"
COMMAND_TYPE: Final = "access_token.set_effective.v1"
RESULT_TYPE: Final = "access_token.set_effective.result.v1"
TRANSITION_TYPE: Final = "access_token.life_cycle_state_changed.v1"
JSON_CONTENT: Final = "application/json"
CLOUD_EVENT_CONTENT: Final = "application/cloudevents"
"""How the content type of a CloudEvent in structured or batched mode begins."""
STRUCTURED_CONTENT: Final = f"{CLOUD_EVENT_CONTENT}+json"
BATCH_CONTENT: Final = f"{CLOUD_EVENT_CONTENT}-batch"

CE_SPEC_VERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SOURCE: Final = "ce_source"
CE_TYPE: Final = "ce_type"
CE_TIME: Final = "ce_time"
CE_SUBJECT: Final = "ce_subject"
CONTENT_TYPE: Final = "content-type"
CORRELATION_ID: Final = "correlation_id"
KAFKA_CORRELATION_ID: Final = "kafka_correlationId"
REPLY_TO: Final = "reply_to"
KAFKA_REPLY_TOPIC: Final = "kafka_replyTopic"
KAFKA_REPLY_PARTITION: Final = "kafka_replyPartition"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
CAUSATION_ID: Final = "causation_id"
COMMAND_ID: Final = "command_id"
STATUS_CODE: Final = "status_code"
REPLAYED: Final = "replayed"

LONGEST_TEXT: Final = 255
"""Characters of a CloudEvents attribute."""
LONGEST_TRACESTATE: Final = 512
"""Characters."""
LONGEST_CORRELATION: Final = 1024
"""Bytes."""
PARTITION_BYTES: Final = 4
"""Of ``kafka_replyPartition``, big-endian."""

# Version 00 has exactly four parts; a later one may have more, and "ff" is none.
_TRACE: Final = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(rf"00-{_TRACE}|(?!00|ff)[0-9a-f]{{2}}-{_TRACE}(-[!-~]*)?")
_IN_UTF_8: Final = r'[ \t]*(;[ \t]*charset=("utf-8"|utf-8)[ \t]*)?'
_JSON_CONTENT: Final = re.compile(rf"application/json{_IN_UTF_8}", re.IGNORECASE | re.ASCII)
_STRUCTURED_CONTENT: Final = re.compile(rf"application/cloudevents\+json{_IN_UTF_8}", re.IGNORECASE | re.ASCII)
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def is_traceparent(text: str) -> bool:
    """Whether this is a W3C trace context: of version 00, or of a later one as far as 00 can read it."""
    return len(text) <= LONGEST_TEXT and _TRACEPARENT.fullmatch(text) is not None


def is_json_content(text: str) -> bool:
    """Whether this content type is JSON, in UTF-8 if it says so."""
    return _JSON_CONTENT.fullmatch(text) is not None


def is_structured_content(text: str) -> bool:
    """Whether this content type is a whole CloudEvent as JSON, in UTF-8 if it says so."""
    return _STRUCTURED_CONTENT.fullmatch(text) is not None


def is_topic(text: str) -> bool:
    """Whether a topic can have this name."""
    return _TOPIC.fullmatch(text) is not None


def is_time(text: str) -> bool:
    """Whether this is an RFC 3339 time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    return True


def _traceparent(text: str) -> str:
    if not is_traceparent(text):
        raise ValueError("not a W3C trace context")
    return text


def _json_content(text: str) -> str:
    if not is_json_content(text):
        raise ValueError("not application/json in UTF-8")
    return text


def _topic(text: str) -> str:
    if not is_topic(text):
        raise ValueError("not the name of a topic")
    return text


def _time(text: str) -> str:
    if not is_time(text):
        raise ValueError("not an RFC 3339 time")
    return text


def _no_null_character(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds U+0000")
    return text


_Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(_no_null_character)]
_Time = Annotated[_Text, AfterValidator(_time)]
_Opaque = Annotated[bytes, Field(min_length=1, max_length=LONGEST_CORRELATION)]
_Traceparent = Annotated[str, AfterValidator(_traceparent)]
_Topic = Annotated[str, AfterValidator(_topic)]


class CommandHeaders(Schema):
    """What a command may carry, all optional. Headers that are not known are ignored; none may be repeated."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    ce_specversion: Literal["1.0"] | None = None
    ce_id: _Text | None = None
    ce_source: _Text | None = None
    ce_type: Literal["access_token.set_effective.v1"] | None = None
    ce_time: _Time | None = None
    ce_subject: _Text | None = None
    content_type: Annotated[str, AfterValidator(_json_content)] | None = Field(default=None, alias=CONTENT_TYPE)
    correlation_id: _Opaque | None = None
    kafka_correlation_id: _Opaque | None = Field(default=None, alias=KAFKA_CORRELATION_ID)
    reply_to: _Topic | None = None
    kafka_reply_topic: _Topic | None = Field(default=None, alias=KAFKA_REPLY_TOPIC)
    kafka_reply_partition: Annotated[bytes, Field(min_length=PARTITION_BYTES, max_length=PARTITION_BYTES)] | None = (
        Field(default=None, alias=KAFKA_REPLY_PARTITION)
    )
    traceparent: _Traceparent | None = None
    tracestate: Annotated[str, Field(min_length=1, max_length=LONGEST_TRACESTATE)] | None = None

    @model_validator(mode="after")
    def _an_id_has_a_source(self) -> "CommandHeaders":
        if self.ce_id is not None and self.ce_source is None:
            raise ValueError("ce_id needs ce_source")
        return self

    @model_validator(mode="after")
    def _a_reply_goes_to_one_place(self) -> "CommandHeaders":
        topics = {self.reply_to, self.kafka_reply_topic} - {None}
        if len(topics) > 1:
            raise ValueError("kafka_replyTopic names another topic than reply_to")
        if self.kafka_reply_partition is not None and not topics:
            raise ValueError("kafka_replyPartition needs reply_to or kafka_replyTopic")
        if self.kafka_reply_partition is not None and self.kafka_reply_partition[0] & 0x80:
            raise ValueError("kafka_replyPartition is negative")
        return self


class ResultHeaders(Schema):
    """What every result carries, and the echoes it carries where the command had them."""

    model_config = ConfigDict(populate_by_name=True)

    ce_specversion: Literal["1.0"]
    ce_id: str
    """The same for every answer ``OK`` to one command id."""
    ce_source: str
    ce_type: Literal["access_token.set_effective.result.v1"]
    ce_time: _Time
    content_type: Literal["application/json"] = Field(alias=CONTENT_TYPE)
    causation_id: str
    """The sender's own id as given: ``ce_id``, else ``request_unique_identifier``, else the ``rec:`` id."""
    command_id: str
    status_code: Annotated[StatusCode, Field(strict=False)]
    replayed: Literal["true", "false"]
    correlation_id: _Opaque | None = None
    kafka_correlation_id: _Opaque | None = Field(default=None, alias=KAFKA_CORRELATION_ID)
    traceparent: _Traceparent | None = None
    tracestate: str | None = None


class TransitionHeaders(Schema):
    """What every transition event carries. ``ce_subject`` is its key."""

    model_config = ConfigDict(populate_by_name=True)

    ce_specversion: Literal["1.0"]
    ce_id: str
    ce_source: str
    ce_type: Literal["access_token.life_cycle_state_changed.v1"]
    ce_time: _Time
    ce_subject: str
    content_type: Literal["application/json"] = Field(alias=CONTENT_TYPE)
