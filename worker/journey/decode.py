"""From bytes to a command or its refusal (CONTRACT 2). Nothing that gets past here can trouble a batch's statements."""

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec.structs import replace

from schemas import headers as h
from schemas.access_token import UnknownField
from schemas.codes import StatusCode
from schemas.command import LONGEST_FIELDS_SET, LONGEST_NAME, LONGEST_TOKEN, asked_fields
from worker.journey.model import Command, Decoded, Envelope, Refused, ReplyTo
from worker.kafka.delivery import KEPT_BYTES, Cut, Delivery, Header
from worker.values import Value

LONGEST_QUOTE: Final = 64
"""Characters of what a sender wrote that a message may repeat (CONTRACT 3)."""

_QUOTED: Final = re.compile(r'"[^"]*"')

_UNSAID_EVENT: Final = f": a whole CloudEvent needs the header {h.CONTENT_TYPE}: {h.STRUCTURED_CONTENT}"

_BODY: Final = {
    "token": LONGEST_TOKEN,
    "fields_set": LONGEST_FIELDS_SET,
    "request_unique_identifier": LONGEST_NAME,
}
_IDENTIFIER: Final = {
    "authentication_code": LONGEST_NAME,
    "identifier": LONGEST_NAME,
    "pass_code": LONGEST_NAME,
}
_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
_BODY_MEMBERS: Final = frozenset((*_BODY, "access_token_identifier"))
_IDENTIFIER_MEMBERS: Final = frozenset(_IDENTIFIER)
_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def decode(delivery: Delivery, *, max_bytes: int) -> Decoded:
    """Read a record: its command, or the first fault in the order of CONTRACT 3, and what its answer needs either way.

    Never raises for what a sender wrote. The answer to a refused command still carries every header that was right.
    """
    read = _read_headers(delivery.headers)
    request: Command | Refused
    delivery = _kept(delivery, max_bytes)
    if delivery.cut is not None:
        return Decoded(delivery, read.envelope, _malformed(delivery.cut.reason))
    right = _right_body(delivery.value, max_bytes) if read.structured is False else None
    if right is not None:
        request, request_id = right
    else:
        body: dict[str, Any] | Refused
        if isinstance(read.structured, Refused):
            body = read.structured
        elif read.structured:
            read, body = _read_event(delivery, read, max_bytes)
        else:
            body = _parse(delivery.value, max_bytes)
        if isinstance(body, Refused):
            return Decoded(delivery, read.envelope, body)
        request, request_id = _judge(body), _request_id(body)
    envelope = read.envelope if request_id is None else replace(read.envelope, request_id=request_id)
    if read.fault is not None and isinstance(request, Command):
        request = read.fault
    return Decoded(delivery, envelope, request)


def read_command(value: bytes, *, max_bytes: int) -> Command | Refused:
    """What ``decode`` makes of a record with this value, when nothing is wrong with its headers."""
    right = _right_body(value, max_bytes)
    if right is not None:
        return right[0]
    body = _parse(value, max_bytes)
    return body if isinstance(body, Refused) else _judge(body)


def quoted(text: str) -> str:
    """At most 64 printable characters of what a sender wrote, for a message that puts them in double quotes."""
    shown = text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
    shown = shown.replace('"', "'")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)


def unquoted(message: str) -> str:
    """The message without what stands in quotes in it: what a sender wrote is told, and not kept."""
    return _QUOTED.sub('"…"', message) if '"' in message else message


def texts_of(value: object) -> Iterator[str]:
    """Every string in a JSON value, at any depth; the names of members are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)


# --- the body ---------------------------------------------------------------------------------------------------------


class _RightIdentifier(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    authentication_code: _Name | None = None
    identifier: _Name | None = None
    pass_code: _Name | None = None


class _RightBody(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What nearly every body is. Any other is read again, to say what is wrong with it, if anything is."""

    token: Annotated[str, msgspec.Meta(max_length=LONGEST_TOKEN)]
    access_token_identifier: _RightIdentifier
    fields_set: Annotated[str, msgspec.Meta(max_length=LONGEST_FIELDS_SET)] | None = None
    request_unique_identifier: _Name | None = None


_BACKSLASH: Final = ord("\\")
_QUOTE: Final = ord('"')
_ALL_QUOTES: Final = 4 * 6 + 2
"""Of six members that are texts, and the one that is an object."""
_IN_QUOTES: Final = tuple(b'"%b"' % name.encode() for name in sorted(_BODY_MEMBERS | _IDENTIFIER_MEMBERS))
_read_right: Final = msgspec.json.Decoder(_RightBody).decode


def _right_body(value: bytes | None, max_bytes: int) -> tuple[Command, str | None] | None:
    """The command and the sender's id for it, if all is well; a third of the time of finding out what is not."""
    # What is escaped may be what no text here may hold. To look for one byte is a tenth of the time of looking for two.
    if value is None or len(value) > max_bytes or (_BACKSLASH in value and b"\\u" in value):
        return None
    try:
        body = _read_right(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    named = body.access_token_identifier
    if (
        value.count(_QUOTE) != _quotes(body)
        and any(value.count(name) > 1 for name in _IN_QUOTES)
        and _given_twice(value)
    ):
        return None
    code, identifier, pass_code = named.authentication_code or None, named.identifier or None, named.pass_code or None
    if not body.token or (code is None) == (identifier is None) or (code is None and pass_code is None):
        return None
    fields = _fields(body.fields_set or "")
    if isinstance(fields, Refused):
        return None
    command = Command(body.token, code, identifier, None if identifier is None else pass_code, fields)
    return command, body.request_unique_identifier or None


def _quotes(body: _RightBody) -> int:
    """Tell the quotes of a body that gives each member once, none as ``null``, and has no quote in a text."""
    named = body.access_token_identifier
    code, identifier, pass_code = named.authentication_code, named.identifier, named.pass_code
    left_out = (body.fields_set, body.request_unique_identifier, code, identifier, pass_code).count(None)
    return _ALL_QUOTES - 4 * left_out


def _given_twice(value: bytes) -> str | None:
    """The first member that an object gives more than once: what it means depends on who reads it (RFC 8259, 4)."""
    twice: list[str] = []

    def once(members: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in members)
        twice.extend(name for name, count in names.items() if count > 1)

    # Numbers are kept as they are written: one of too many digits would be an error.
    with suppress(RecursionError):  # no command is so deep, and it is refused for what it is
        json.loads(value, object_pairs_hook=once, parse_int=str, parse_float=str)
    return twice[0] if twice else None


def _kept(delivery: Delivery, max_bytes: int) -> Delivery:
    """The delivery without what is too much of its value; it was cut before, if it was larger still."""
    value, cut = delivery.value, delivery.cut
    if cut is not None:
        is_too_large = cut.value_bytes is not None and cut.value_bytes > max_bytes
        return replace(delivery, cut=replace(cut, reason=_too_large(max_bytes))) if is_too_large else delivery
    if value is None or len(value) <= max(max_bytes, KEPT_BYTES):
        return delivery
    kept, cut = shortened(value, _too_large(max_bytes))
    return replace(delivery, value=kept, cut=cut)


def shortened(value: bytes, reason: str) -> tuple[bytes, Cut]:
    """The beginning of a value that is not kept whole, and what is known of the whole."""
    return value[:KEPT_BYTES], Cut(reason, len(value), hashlib.sha256(value).digest())


def _too_large(max_bytes: int) -> str:
    return f"the command is larger than {max_bytes} bytes"


def _parse(value: bytes | None, max_bytes: int) -> dict[str, Any] | Refused:
    if value is None:
        return _malformed("the command has no value")
    if len(value) > max_bytes:
        return _malformed(_too_large(max_bytes))
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return _malformed(f"the command is not JSON in UTF-8 (line {error.lineno}, column {error.colno})")
    if type(body) is not dict:
        return _malformed(f"the command must be an object, not {_kind(body)}")
    twice = _given_twice(value)
    return body if twice is None else _malformed(f'the member "{quoted(twice)}" is given more than once')


def _judge(body: dict[str, Any]) -> Command | Refused:
    wrong = _wrong_type(body)
    if wrong is not None:
        return wrong
    login_token = body.get("token")
    if not login_token:
        return _missing("token", _UNSAID_EVENT if "specversion" in body else "")
    named = body.get("access_token_identifier")
    if named is None or named == "":
        return _missing("access_token_identifier")
    code, identifier = named.get("authentication_code") or None, named.get("identifier") or None
    if (code is None) == (identifier is None):
        how = "not both" if code is not None else "none was"
        return _invalid(
            f"exactly one of authentication_code and identifier must be given in access_token_identifier, {how}"
        )
    pass_code = named.get("pass_code") or None
    if identifier is not None and pass_code is None:
        return _missing("access_token_identifier.pass_code")
    wrong = _wrong_members(body, named)
    if wrong is not None:
        return wrong
    fields = _fields(body.get("fields_set") or "")
    if isinstance(fields, Refused):
        return fields
    return Command(login_token, code, identifier, None if identifier is None else pass_code, fields)


def _wrong_type(body: dict[str, Any]) -> Refused | None:
    for name in _BODY:
        value = body.get(name)
        if value is not None and type(value) is not str:
            return _malformed(f"{name} must be a string, not {_kind(value)}")
    named = body.get("access_token_identifier")
    if named is None or named == "":
        return None
    if type(named) is not dict:
        return _malformed(f"access_token_identifier must be an object, not {_kind(named)}")
    for name in _IDENTIFIER:
        value = named.get(name)
        if value is not None and type(value) is not str:
            return _malformed(f"access_token_identifier.{name} must be a string, not {_kind(value)}")
    return None


def _wrong_members(body: dict[str, Any], named: dict[str, Any]) -> Refused | None:
    if not body.keys() <= _BODY_MEMBERS:
        return _invalid(f'unknown member "{_first_unknown(body, _BODY_MEMBERS)}"')
    if not named.keys() <= _IDENTIFIER_MEMBERS:
        return _invalid(f'unknown member "{_first_unknown(named, _IDENTIFIER_MEMBERS)}" in access_token_identifier')
    fault = _first_text_fault(body, _BODY)
    if fault is not None:
        return _invalid(fault)
    fault = _first_text_fault(named, _IDENTIFIER)
    return None if fault is None else _invalid(f"access_token_identifier.{fault}")


def _first_text_fault(members: dict[str, Any], longest: Mapping[str, int]) -> str | None:
    for name, most in longest.items():
        text = members.get(name)
        if text is not None:
            fault = _text_fault(text, most)
            if fault is not None:
                return f"{name} {fault}"
    return None


def _text_fault(text: str, longest: int) -> str | None:
    if len(text) > longest:
        return f"is longer than {longest} characters"
    if "\0" in text:
        return "holds the character U+0000"
    return None


def _first_unknown(members: dict[str, Any], known: frozenset[str]) -> str:
    return quoted(next(name for name in members if name not in known))


def _fields(fields_set: str) -> int | Refused:
    try:
        return asked_fields(fields_set)
    except UnknownField as unknown:
        if not unknown.name:
            return _invalid("fields_set holds an empty name")
        hint = ": it takes top-level fields only" if "." in unknown.name else ""
        return _invalid(f'fields_set holds the unknown name "{quoted(unknown.name)}"{hint}')


def _request_id(body: dict[str, Any]) -> str | None:
    value = body.get("request_unique_identifier")
    return value if type(value) is str and value and _text_fault(value, LONGEST_NAME) is None else None


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")


def _malformed(message: str) -> Refused:
    return Refused(StatusCode.MALFORMED_REQUEST, message)


def _missing(member: str, hint: str = "") -> Refused:
    return Refused(StatusCode.MISSING_PARAMETER, f"{member} is not given{hint}")


def _invalid(message: str) -> Refused:
    return Refused(StatusCode.INVALID_PARAMETER, message)


# --- the headers ------------------------------------------------------------------------------------------------------


class _Headers(Value, frozen=True):
    envelope: Envelope
    fault: Refused | None
    """The first wrong header; it counts only where the body is right."""
    structured: bool | Refused = False
    """Whether the body is said to be a whole CloudEvent: then its members are not those of a command. A refusal if it
    is said to be one in a form that is not read."""


_NO_HEADERS: Final = _Headers(Envelope(), None)
_CORRELATIONS: Final = (h.CORRELATION_ID, h.KAFKA_CORRELATION_ID)


def _spec_version_fault(text: str) -> str | None:
    return None if text == h.SPEC_VERSION else f'must be "{h.SPEC_VERSION}", not "{quoted(text)}"'


def _type_fault(text: str) -> str | None:
    return None if text == h.COMMAND_TYPE else f'must be "{h.COMMAND_TYPE}", not "{quoted(text)}"'


_attribute_fault: Final = partial(_text_fault, longest=h.LONGEST_TEXT)
_tracestate_fault: Final = partial(_text_fault, longest=h.LONGEST_TRACESTATE)


def _time_fault(text: str) -> str | None:
    return _attribute_fault(text) or (None if h.is_time(text) else "is not an RFC 3339 time")


def _content_fault(text: str) -> str | None:
    if h.is_structured_content(text):
        return None
    return None if h.is_json_content(text) else f'must be "{h.JSON_CONTENT}" in UTF-8, not "{quoted(text)}"'


def _traceparent_fault(text: str) -> str | None:
    return None if h.is_traceparent(text) else "is not a W3C trace context"


def _topic_fault(text: str) -> str | None:
    return None if h.is_topic(text) else f'is not the name of a topic: "{quoted(text)}"'


def _dry_run_fault(text: str) -> str | None:
    return None if text in {h.TRUE, h.FALSE} else f'must be "{h.TRUE}" or "{h.FALSE}", not "{quoted(text)}"'


def _partition_fault(value: bytes) -> str | None:
    if len(value) != h.PARTITION_BYTES:
        return f"must be a number of {h.PARTITION_BYTES} bytes, big-endian, not of {len(value)}"
    return "must not be negative" if value[0] & 0x80 else None


_TEXT_HEADERS: Final[Mapping[str, Callable[[str], str | None]]] = {
    h.CE_SPEC_VERSION: _spec_version_fault,
    h.CE_TYPE: _type_fault,
    h.CE_ID: _attribute_fault,
    h.CE_SOURCE: _attribute_fault,
    h.CE_SUBJECT: _attribute_fault,
    h.CE_TIME: _time_fault,
    h.CONTENT_TYPE: _content_fault,
    h.TRACEPARENT: _traceparent_fault,
    h.TRACESTATE: _tracestate_fault,
    h.REPLY_TO: _topic_fault,
    h.KAFKA_REPLY_TOPIC: _topic_fault,
    h.DRY_RUN: _dry_run_fault,
}
_REPLIES: Final = frozenset((h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.KAFKA_REPLY_PARTITION))
_KNOWN: Final = frozenset((*_TEXT_HEADERS, *_CORRELATIONS, *_REPLIES))
_REPEATED: Final = frozenset(
    (h.CE_SPEC_VERSION, h.CE_TYPE, h.CE_SOURCE, h.CONTENT_TYPE, h.REPLY_TO, h.KAFKA_REPLY_TOPIC, h.DRY_RUN)
)
"""What a sender says alike in every command."""


_TWICE: Final = "is given more than once"


def _read_headers(headers: Sequence[Header]) -> _Headers:
    given: dict[str, bytes] = {}
    right: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, value in headers:
        if not value or name not in _KNOWN:
            continue
        if name in given:
            wrong[name] = _TWICE
        elif name in _CORRELATIONS:
            if len(value) > h.LONGEST_CORRELATION:
                wrong[name] = f"is longer than {h.LONGEST_CORRELATION} bytes"
        elif name == h.KAFKA_REPLY_PARTITION:
            what = _partition_fault(value)
            if what is not None:
                wrong[name] = what
        else:
            repeated = name in _REPEATED and len(value) <= h.LONGEST_TEXT
            text, what = (_read_repeated if repeated else _read)(name, value)
            if what is None:
                right[name] = text
            else:
                wrong[name] = what
        given[name] = value
    if not given:
        return _NO_HEADERS
    if h.CE_ID in given and h.CE_SOURCE not in given:
        wrong[h.CE_ID] = f"needs {h.CE_SOURCE}"
    reply = None if _REPLIES.isdisjoint(given) else _reply(given, right, wrong)
    fault = _invalid(_first_fault(given, wrong)) if wrong else None
    structured = h.CONTENT_TYPE in given and _structured(given[h.CONTENT_TYPE], wrong.get(h.CONTENT_TYPE))
    return _Headers(_envelope(given, right, wrong, reply), fault, structured)


def _first_fault(given: Mapping[str, bytes], wrong: Mapping[str, str]) -> str:
    return next(f"the header {name} {wrong[name]}" for name in given if name in wrong)


def _reply(given: Mapping[str, bytes], right: Mapping[str, str], wrong: dict[str, str]) -> ReplyTo | None:
    """Where the sender wants its answer. If anything about that is wrong it is noted, and there is no such place."""
    named = {name: right[name] for name in (h.REPLY_TO, h.KAFKA_REPLY_TOPIC) if name in right}
    if len(set(named.values())) > 1:
        wrong.setdefault(h.KAFKA_REPLY_TOPIC, f"names another topic than {h.REPLY_TO}")
    if h.REPLY_TO not in given and h.KAFKA_REPLY_TOPIC not in given:
        wrong.setdefault(h.KAFKA_REPLY_PARTITION, f"needs {h.REPLY_TO} or {h.KAFKA_REPLY_TOPIC}")
    if not _REPLIES.isdisjoint(wrong):
        return None
    header, topic = next(iter(named.items()))
    partition = given.get(h.KAFKA_REPLY_PARTITION)
    return ReplyTo(header, topic, None if partition is None else int.from_bytes(partition, "big"))


def _read(name: str, value: bytes) -> tuple[str, str | None]:
    """The text of a header, and what is wrong with it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "", "is not UTF-8"
    return text, _TEXT_HEADERS[name](text)


_read_repeated: Final = lru_cache(maxsize=256)(_read)


def _envelope(
    given: Mapping[str, bytes], right: Mapping[str, str], wrong: Mapping[str, str], reply: ReplyTo | None
) -> Envelope:
    if wrong:
        right = {name: text for name, text in right.items() if name not in wrong}
    identity, source = right.get(h.CE_ID), right.get(h.CE_SOURCE)
    # An id means something only together with its source.
    whole = identity is not None and source is not None
    return Envelope(
        ce_id=identity if whole else None,
        ce_source=source if whole else None,
        correlation=tuple([(name, given[name]) for name in _CORRELATIONS if name in given and name not in wrong]),
        traceparent=right.get(h.TRACEPARENT),
        tracestate=right.get(h.TRACESTATE),
        reply=reply,
        dry_run=right.get(h.DRY_RUN) == h.TRUE,
    )


# --- a whole CloudEvent -----------------------------------------------------------------------------------------------

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "specversion": h.CE_SPEC_VERSION,
    "id": h.CE_ID,
    "source": h.CE_SOURCE,
    "type": h.CE_TYPE,
    "time": h.CE_TIME,
    "subject": h.CE_SUBJECT,
    "datacontenttype": h.CONTENT_TYPE,
    "traceparent": h.TRACEPARENT,
    "tracestate": h.TRACESTATE,
}
"""The attributes that mean something here, and the headers that say the same in binary mode."""
_TRACE: Final = frozenset((h.TRACEPARENT, h.TRACESTATE))


def _structured(content: bytes, fault: str | None) -> bool | Refused:
    if not content.lower().startswith(h.CLOUD_EVENT_CONTENT.encode()):
        return False
    if content.lower().startswith(h.BATCH_CONTENT.encode()):
        return _invalid(f"the header {h.CONTENT_TYPE} announces a batch of CloudEvents: send one event in each message")
    return True if fault is None else _invalid(f"the header {h.CONTENT_TYPE} {fault}")


def _read_event(delivery: Delivery, read: _Headers, max_bytes: int) -> tuple[_Headers, dict[str, Any] | Refused]:
    """A CloudEvent in structured mode: its attributes count as the headers of their names, its data is the command.

    Headers of the same names are a copy of the attributes by the rules of CloudEvents, and not looked at; but the trace
    of the message itself, where there is one, is nearer than the one that the event was made in.
    """
    event = _parse(delivery.value, max_bytes)
    if isinstance(event, Refused):
        return read, event
    traced = any(name == h.TRACEPARENT and value for name, value in delivery.headers)
    names = {attribute: name for attribute, name in _ATTRIBUTES.items() if not (traced and name in _TRACE)}
    given = {attribute: event[attribute] for attribute in names if event.get(attribute) not in (None, "")}
    headers = [header for header in delivery.headers if header[0] not in names.values()]
    headers += [(names[attribute], text.encode()) for attribute, text in given.items() if type(text) is str]
    read = _read_headers(headers)
    wrong = next((attribute for attribute, value in given.items() if type(value) is not str), None)
    if wrong is not None:
        fault = _invalid(f"the attribute {wrong} must be a string, not {_kind(given[wrong])}")
        read = replace(read, fault=fault)
    return read, _data(event, max_bytes)


def _data(event: Mapping[str, Any], max_bytes: int) -> dict[str, Any] | Refused:
    data, encoded = event.get("data"), event.get("data_base64")
    if encoded is None:
        return data if type(data) is dict else _malformed(f"data must be an object, not {_kind(data)}")
    if data is not None:
        return _malformed("data and data_base64 are both given")
    if type(encoded) is not str:
        return _malformed(f"data_base64 must be a string, not {_kind(encoded)}")
    try:
        return _parse(b64decode(encoded, validate=True), max_bytes)
    except ValueError:
        return _malformed("data_base64 is not base64")


# --- secrets ----------------------------------------------------------------------------------------------------------

_SECRETS: Final = frozenset((b"token", b"pass_code"))
_TEXT: Final = b"data"
_ENCODED: Final = b"data_base64"
"""The members of a CloudEvent that may hold a whole command, by a sender's mistake as text."""
_MASK: Final = b'"***"'
# A string (perhaps one without an end), a sign, or a run of anything else.
_PIECE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)
# Where quotes do not pair up, whatever follows a secret's name and a colon or an equals sign.
_LOOSE: Final = re.compile(
    rb"""((?:token|pass_code|data_base64)[\\"']*+\s*+[:=]\s*+)(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?|'[^']*+'?|[^,}\r\n]++)""",
    re.DOTALL,
)


def masked(value: bytes | None) -> bytes | None:
    """The value as a dead letter may show it (CONTRACT 7): ``token`` and ``pass_code`` replaced, all else as it came.

    They are replaced at any depth, whatever their value, and everything between them stays byte for byte. A sender's
    mistake (a cut-off object, an array of commands, a command written as a string) holds the same secrets as a command,
    so what is no object is searched as well, loosely where it is no JSON; without secrets in it, it stays as it came.
    What a CloudEvent holds as ``data_base64``, or as text in ``data``, is looked into and written again.
    """
    if value is None:
        return None
    text = _without_secrets(value)
    if not _is_object_or_array(value):
        text = _LOOSE.sub(rb"\1" + _MASK, text)
        if text == value and b"\0" in value[:4]:
            text = _wide_without_secrets(value)
    return text


def _is_object_or_array(value: bytes) -> bool:
    try:
        return isinstance(orjson.loads(value), dict | list)
    except orjson.JSONDecodeError:
        return False


def _without_secrets(text: bytes) -> bytes:
    kept: list[bytes] = []
    copied = 0
    previous = b""
    pieces = _PIECE.finditer(text)
    for piece in pieces:
        if piece[0] == b":":
            name = _named(previous)
            if name in _SECRETS or name == _ENCODED:
                start, end = _span_of_value(pieces, len(text))
                kept += (text[copied:start], _MASK if name in _SECRETS else _encoded_without_secrets(text[start:end]))
                copied = end
            elif name == _TEXT and (piece := next(pieces, piece))[0][:1] == b'"':
                kept += (text[copied : piece.start()], _text_without_secrets(piece[0]))
                copied = piece.end()
        previous = piece[0]
    return b"".join((*kept, text[copied:]))


def _span_of_value(pieces: Iterator[re.Match[bytes]], end: int) -> tuple[int, int]:
    """Where the value that comes next starts and ends. Takes its pieces; counts brackets instead of recursing."""
    start, depth = end, 0
    for piece in pieces:
        start = min(start, piece.start())
        if piece[0] in (b"{", b"["):
            depth += 1
        elif piece[0] in (b"}", b"]"):
            depth -= 1
        if depth <= 0:
            return start, piece.end()
    return start, end


def _named(piece: bytes) -> bytes:
    """The name that a piece before a colon is, its escapes resolved."""
    if b"\\" in piece:
        try:
            return bytes(orjson.loads(piece).encode())
        except ValueError:
            return b""
    return piece.strip(b'"')


def _text_without_secrets(piece: bytes) -> bytes:
    """A piece that is a string, in which there may be a command."""
    try:
        data = orjson.loads(piece).encode()
    except ValueError:
        return _MASK
    hidden = masked(data) or b""
    return piece if hidden == data else orjson.dumps(hidden.decode("utf-8", "replace"))


def _encoded_without_secrets(piece: bytes) -> bytes:
    """The value of ``data_base64``, as JSON: what cannot be looked into is not shown."""
    if piece == b"null":
        return piece
    try:
        data = b64decode(orjson.loads(piece), validate=True)
    except (ValueError, TypeError):
        return _MASK
    hidden = masked(data)
    return piece if hidden == data or hidden is None else b'"' + b64encode(hidden) + b'"'


def _wide_without_secrets(value: bytes) -> bytes:
    """Text in UTF-16 or UTF-32 is no JSON for us, but a sender's mistake that holds the same secrets."""
    text = value.decode(json.detect_encoding(value), "replace").encode("utf-8", "replace")
    hidden = _LOOSE.sub(rb"\1" + _MASK, _without_secrets(text))
    return value if hidden == text else hidden
