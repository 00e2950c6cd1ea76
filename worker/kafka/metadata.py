"""Ask a broker for the ids of topics: a topic that was deleted and created again has the same name and another id.

The client's own request for topics is older than ids are (Metadata before version 10), so this module defines the newer
one.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_METADATA: Final = 3
_NO_ID: Final = UUID(int=0)


class _Uuid:
    """16 bytes, in aiokafka's way of naming how a field is written."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: UUID) -> str:
        return str(value)


_TAGS: Final = ("tags", TaggedFields)
_NAME: Final = CompactString("utf-8")


class _Response(Response):  # type: ignore[misc] # aiokafka carries no types
    API_KEY = _METADATA
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), _TAGS)),
        ("cluster_id", _NAME),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _NAME),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("topic_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_operations", Int32),
        _TAGS,
    )


class _Asked(RequestStruct):  # type: ignore[misc] # aiokafka carries no types
    API_KEY = _METADATA
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _NAME), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
        _TAGS,
    )


class TopicsRequest(Request[MetadataRequest_v5 | _Asked]):  # type: ignore[misc] # aiokafka carries no types
    """A request for the metadata of topics by name, which creates none of them. Has ids if the broker knows them.

    ``with_operations`` also asks for the operations that are allowed on them, if the broker tells that.
    """

    API_KEY = _METADATA

    def __init__(self, topics: Sequence[str], *, with_operations: bool = False) -> None:
        self._topics = list(topics)
        self._with_operations = with_operations

    def build(self, request_struct_class: Any) -> Any:
        """Return the newest form that broker and client both know."""
        if request_struct_class is _Asked:
            return _Asked([(_NO_ID, name, {}) for name in self._topics], False, False, self._with_operations, {})
        return request_struct_class(self._topics, False)


def id_of(topic: Mapping[str, Any]) -> UUID | None:
    """Return the id of a topic in an answer; ``None`` if the broker has none."""
    found: UUID = topic.get("topic_id", _NO_ID)
    return None if found == _NO_ID else found
