"""The headers of commands, results and transition events: CloudEvents in binary mode, and ours.

See CONTRACT, Command, Result and Transition event.
"""

import re
from datetime import date
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from effective_contract.base import Schema
from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE

SPEC_VERSION: Final = "1.0"
COMMAND_TYPE: Final = SET_EFFECTIVE.command_type
RESULT_TYPE: Final = SET_EFFECTIVE.result_type
TRANSITION_TYPE: Final = "access_token.life_cycle_state_changed.v1"
JSON_CONTENT: Final = "application/json"
CLOUD_EVENT_CONTENT: Final = "application/cloudevents"
"""The beginning of the content type of a CloudEvent in structured or batched mode."""
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
DRY_RUN: Final = "dry_run"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
CAUSATION_ID: Final = "causation_id"
COMMAND_ID: Final = "command_id"
STATUS_CODE: Final = "status_code"
REPLAYED: Final = "replayed"

TRUE: Final = "true"
FALSE: Final = "false"
"""The values of ``dry_run`` and ``replayed``."""

LONGEST_TEXT: Final = 255
"""Characters of a CloudEvents attribute."""
LONGEST_TOPIC: Final = 249
"""Characters of a topic's name, by a rule of Kafka."""
LONGEST_TRACESTATE: Final = 512
"""Characters."""
LONGEST_CORRELATION: Final = 1024
"""Bytes."""
PARTITION_BYTES: Final = 4
"""Bytes of ``kafka_replyPartition``, big-endian."""

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
    """True if this is a W3C trace context: of version 00, or of a later one as far as 00 can read it."""
    return len(text) <= LONGEST_TEXT and _TRACEPARENT.fullmatch(text) is not None


def is_json_content(text: str) -> bool:
    """True if this content type is JSON, in UTF-8 if it names a charset."""
    return _JSON_CONTENT.fullmatch(text) is not None


def is_structured_content(text: str) -> bool:
    """True if this content type is a whole CloudEvent as JSON, in UTF-8 if it names a charset."""
    return _STRUCTURED_CONTENT.fullmatch(text) is not None


def is_topic(text: str) -> bool:
    """True if a topic can have this name."""
    return _TOPIC.fullmatch(text) is not None


def is_time(text: str) -> bool:
    """True if this is an RFC 3339 time."""
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


# The checks above, for senders and readers that only have the JSON Schema.
_RFC_3339: Final = {
    "pattern": r"^\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
}
_W3C: Final = {"pattern": rf"^(00-{_TRACE}|(?!00|ff)[0-9a-f]{{2}}-{_TRACE}(-[!-~]*)?)$"}
_CONTENTS: Final = {"examples": [JSON_CONTENT, "application/json; charset=utf-8"]}

_Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(_no_null_character)]
_Time = Annotated[_Text, AfterValidator(_time), Field(json_schema_extra={**_RFC_3339})]
_Opaque = Annotated[bytes, Field(min_length=1, max_length=LONGEST_CORRELATION)]
_Topic = Annotated[
    str, Field(min_length=1, max_length=LONGEST_TOPIC, pattern=r"^[a-zA-Z0-9._-]+$"), AfterValidator(_topic)
]
_Partition = Annotated[bytes, Field(min_length=PARTITION_BYTES, max_length=PARTITION_BYTES)]
_Traceparent = Annotated[str, AfterValidator(_traceparent), Field(max_length=LONGEST_TEXT, json_schema_extra={**_W3C})]
_Number = Annotated[str, Field(pattern=r"^-?[0-9]+$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Content = Annotated[str, AfterValidator(_json_content), Field(json_schema_extra={**_CONTENTS})]


class CommandHeaders(Schema):
    """The headers of a command, all optional. Headers that are not known are ignored; none may be repeated."""

    model_config = ConfigDict(
        extra="ignore", populate_by_name=True, json_schema_extra={"dependentRequired": {CE_ID: [CE_SOURCE]}}
    )

    ce_specversion: Literal["1.0"] | None = None
    """The version of CloudEvents."""
    ce_id: _Text | None = None
    """The sender's own id of the command: what makes sending it again safe. Needs ``ce_source``."""
    ce_source: _Text | None = None
    """The source that numbers the ids. A URI reference."""
    ce_type: Literal["access_token.set_effective.v1"] | None = None
    """The type of the command."""
    ce_time: _Time | None = None
    """The time at which the command was written. RFC 3339."""
    ce_subject: _Text | None = None
    """The subject of the event. Not read."""
    content_type: _Content | None = Field(default=None, alias=CONTENT_TYPE)
    """JSON in UTF-8; ``application/cloudevents+json`` where the value is a whole CloudEvent."""
    correlation_id: _Opaque | None = None
    """Opaque bytes, returned with the answer under the same name."""
    kafka_correlation_id: _Opaque | None = Field(default=None, alias=KAFKA_CORRELATION_ID)
    """The same, under the name that replying clients of other ecosystems use."""
    reply_to: _Topic | None = None
    """The topic to answer on, instead of the results topic. It must match the worker's allow-list and exist."""
    kafka_reply_topic: _Topic | None = Field(default=None, alias=KAFKA_REPLY_TOPIC)
    """The same, under the name that replying clients of other ecosystems use."""
    kafka_reply_partition: _Partition | None = Field(default=None, alias=KAFKA_REPLY_PARTITION)
    """The partition to answer on: four bytes, a big-endian signed integer."""
    dry_run: Literal["true", "false"] | None = None
    """``true``: the whole journey, and the answer as it would be, but nothing is changed, recorded or published."""
    traceparent: _Traceparent | None = None
    """W3C trace context, continued into the answer."""
    tracestate: Annotated[str, Field(min_length=1, max_length=LONGEST_TRACESTATE)] | None = None
    """W3C trace context."""

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
    """The headers of every result, and the echoes it carries where the command had them."""

    model_config = ConfigDict(populate_by_name=True)

    ce_specversion: Literal["1.0"]
    """The version of CloudEvents."""
    ce_id: str
    """The same for every answer ``OK`` to one command id, dry runs left out."""
    ce_source: str
    """The worker that answers."""
    ce_type: Literal["access_token.set_effective.result.v1"]
    """The type of the answer."""
    ce_time: _Time
    """The time of the decision. RFC 3339, UTC."""
    content_type: Literal["application/json"] = Field(alias=CONTENT_TYPE)
    """JSON in UTF-8."""
    causation_id: str
    """The sender's own id as given: ``ce_id``, else ``request_unique_identifier``, else the ``rec:`` id."""
    command_id: str
    """The worker's id of the command. The transition event has it, or, of a sender's own, its keyed digest."""
    status_code: Annotated[StatusCode, Field(strict=False)]
    """The same as in the value."""
    replayed: Literal["true", "false"]
    """``true`` if this command had been applied before, and is answered once more."""
    dry_run: Literal["true"] | None = None
    """There if the command was a dry run: this is what it would be answered, and nothing has changed."""
    ce_subject: str | None = None
    """Of a dry run: the ``rec:`` id of the command, which nothing else keeps."""
    correlation_id: _Opaque | None = None
    """The command's."""
    kafka_correlation_id: _Opaque | None = Field(default=None, alias=KAFKA_CORRELATION_ID)
    """The command's."""
    traceparent: _Traceparent | None = None
    """The command's trace, continued."""
    tracestate: str | None = None
    """The command's."""


class TransitionHeaders(Schema):
    """The headers of every transition event."""

    model_config = ConfigDict(populate_by_name=True)

    ce_specversion: Literal["1.0"]
    """The version of CloudEvents."""
    ce_id: str
    """The same each time this event is read or written."""
    ce_source: str
    """The worker that writes."""
    ce_type: Literal["access_token.life_cycle_state_changed.v1"]
    """The type of the event."""
    ce_time: _Time
    """The time at which the transition occurred. RFC 3339, UTC."""
    ce_subject: str
    """The key: ``{organisation}:{access_token_id}``."""
    content_type: Literal["application/json"] = Field(alias=CONTENT_TYPE)
    """JSON in UTF-8."""


class DeadLetterHeaders(Schema):
    """The headers of every dead letter, beside those of the command that it was."""

    model_config = ConfigDict(extra="ignore")

    dl_code: Literal["MALFORMED_REQUEST", "INTERNAL_ERROR"]
    """The status that the sender was answered."""
    dl_reason: str
    """The message that the sender was given."""
    dl_topic: str
    """The topic that the command was read from."""
    dl_partition: _Number
    """The partition that the command was read from."""
    dl_offset: _Number
    """The offset that the command was read at."""
    dl_timestamp: _Number
    """The command's Kafka timestamp, in milliseconds since 1970."""
    dl_consumer_group: str
    """The worker's consumer group."""
    dl_worker: str
    """The worker process that gave up."""
    dl_attempts: _Number
    """The number of attempts."""
    dl_failed_at: _Time
    """The time at which the worker gave up. RFC 3339, UTC."""
    dl_organisation: str | None = None
    """The organisation of the login token, if its signature is good."""
    dl_truncated: Literal["true"] | None = None
    """There if the command was too large to be kept whole."""
    dl_value_bytes: _Number | None = None
    """The size of its value, where that could be told."""
    dl_value_sha256: _Digest | None = None
    """SHA-256 of its whole value, in lower-case hexadecimal digits, where its end was reached."""
    dl_batch_sha256: _Digest | None = None
    """The same of the record batch as it lies in the log, if that could not be read to its end."""
