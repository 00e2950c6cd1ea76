"""Bad inputs, each with the status it must be answered with (CONTRACT, Result), over the seed fixture.

None of them may stop the worker, change an access token, fail its neighbours in a batch, or leak a secret.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

from effective_contract.codes import StatusCode
from tests.support.logins import segment, signed
from tests.support.seeded import CODE, EFFECTIVE_CODE, IDENTIFIER, PASS_CODE, PENDING_CODE
from worker.kafka.delivery import Header

MAX_BYTES: Final = 65_536
CANARY_TOKEN: Final = "canary-login-token-4f1d"
CANARY_PASS_CODE: Final = "canary-pass-code-4f1d"
TOKEN_PLACE: Final = "{{token}}"

_WIDE_CODE: Final = "".join(chr(ord(digit) + 0xFEE0) for digit in CODE)
_MISTAKEN: Final = "f\u0456elds_set"
"""Looks like ``fields_set``."""

Mint = Callable[..., str]
"""``mint(organisation="ORG1", user="mpadmin", unit="1", **claims)``: a login token signed with the worker's secret."""
Login = Callable[[Mint, str], str]
"""Signs the login token of a row, given the mint and the worker's secret."""
Stage = Literal["decode", "login", "database"]


@dataclass(frozen=True)
class BadInput:
    """One row. ``stage`` names the step that refuses it: the decoder, the check of the login token, or Postgres."""

    name: str
    status: StatusCode
    value: bytes | None
    headers: tuple[Header, ...] = ()
    says: str = ""
    """Text that the message must contain, so that its reader knows which member is meant."""
    stage: Stage = "decode"
    login: Login | None = None
    """Signs the login token that stands for ``{{token}}`` in the value."""

    def written(self, mint: Mint, secret: str) -> bytes | None:
        """Return the value to send. Rows that the decoder refuses carry the canary instead of a login token."""
        if self.value is None or self.login is None:
            return self.value
        return self.value.replace(TOKEN_PLACE.encode(), self.login(mint, secret).encode())


_ABSENT: Final = object()


def _members(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not _ABSENT}


def body(**changes: Any) -> bytes:
    """Return a good command by code with these members changed."""
    good = {"token": CANARY_TOKEN, "access_token_identifier": {"authentication_code": CODE}}
    return orjson.dumps(_members(good, changes))


def by_code(**changes: Any) -> bytes:
    """Return a good command with these members of its identifier changed."""
    return body(access_token_identifier=_members({"authentication_code": CODE}, changes))


def by_identifier(**changes: Any) -> bytes:
    """Return a good command by identifier with these members of its identifier changed."""
    good = {"identifier": IDENTIFIER, "pass_code": CANARY_PASS_CODE}
    return body(access_token_identifier=_members(good, changes))


# --- MALFORMED_REQUEST ------------------------------------------------------------------------------------------------

_RAW: Final = b'{"token":"' + CANARY_TOKEN.encode() + b'","access_token_identifier":{"authentication_code":%s}}'


def _malformed(name: str, value: bytes | None, says: str = "") -> BadInput:
    return BadInput(name, StatusCode.MALFORMED_REQUEST, value, says=says)


_MALFORMED: Final = [
    _malformed("no value", None, "no value"),
    _malformed("empty value", b"", "not JSON"),
    _malformed("blank value", b" \r\n\t", "not JSON"),
    _malformed("not JSON", b"set it effective, please", "not JSON"),
    _malformed("form data", b"authentication_code=99021047380", "not JSON"),
    _malformed("cut off", body()[:-1], "not JSON"),
    _malformed("cut off within the token", b'{"token":"' + CANARY_TOKEN.encode(), "not JSON"),
    _malformed("two documents", body() + body(), "not JSON"),
    _malformed("something after the object", body() + b"x", "not JSON"),
    _malformed("a comma too many", body()[:-1] + b",}", "not JSON"),
    _malformed("single quotes", body().replace(b'"', b"'"), "not JSON"),
    _malformed("names without quotes", b'{token: "' + CANARY_TOKEN.encode() + b'"}', "not JSON"),
    _malformed("a comment", b"/* please */" + body(), "not JSON"),
    _malformed("quotes that do not pair up", body().replace(b'"token"', b'"to"ken","token"'), "not JSON"),
    _malformed("a byte-order mark", b"\xef\xbb\xbf" + body(), "not JSON"),
    _malformed("UTF-16", body().decode().encode("utf-16"), "not JSON"),
    _malformed("UTF-16 without a mark", body().decode().encode("utf-16-le"), "not JSON"),
    _malformed("UTF-32", body().decode().encode("utf-32"), "not JSON"),
    _malformed("not UTF-8", _RAW % b'"\xff\xfe"', "not JSON"),
    _malformed("Latin-1", _RAW % '"café"'.encode("latin-1"), "not JSON"),
    _malformed("an overlong encoding of U+0000", _RAW % b'"\xc0\x80"', "not JSON"),
    _malformed("a surrogate in UTF-8", _RAW % b'"\xed\xa0\x80"', "not JSON"),
    _malformed("an escaped high surrogate alone", _RAW % rb'"\ud800"', "not JSON"),
    _malformed("an escaped low surrogate alone", _RAW % rb'"\udc00"', "not JSON"),
    _malformed("escaped surrogates in the wrong order", _RAW % rb'"\udc00\ud800"', "not JSON"),
    _malformed("a surrogate in a member's name", b'{"\\ud800":1,' + body()[1:], "not JSON"),
    _malformed("a raw control character", _RAW % b'"99\x0121"', "not JSON"),
    _malformed("a raw U+0000", _RAW % b'"99\x0021"', "not JSON"),
    _malformed("only U+0000", b"\0", "not JSON"),
    _malformed("a bad escape", _RAW % rb'"\x39"', "not JSON"),
    _malformed("NaN", _RAW % b"NaN", "not JSON"),
    _malformed("Infinity", _RAW % b"-Infinity", "not JSON"),
    _malformed("a number beyond every double", _RAW % b"1e999", "not JSON"),
    _malformed("an integer of 5 000 digits", _RAW % (b"9" * 5000)),
    _malformed("an integer with a leading zero", _RAW % b"099021047380", "not JSON"),
    _malformed("10 000 arrays deep", b"[" * 10_000 + b"]" * 10_000, "not JSON"),
    _malformed("10 000 objects deep", b'{"token":' * 5_000 + b"1" + b"}" * 5_000, "not JSON"),
    _malformed("10 000 deep beside a good command", body()[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "not"),
    _malformed("10 000 deep and never closed", body()[:-1] + b',"x":' + b"[" * 10_000, "not JSON"),
    _malformed("larger than a command may be", body(fields_set=" " * MAX_BYTES), f"larger than {MAX_BYTES} bytes"),
    _malformed("one byte too large", body() + b" " * (MAX_BYTES + 1 - len(body())), f"larger than {MAX_BYTES} bytes"),
    _malformed("null", b"null", "must be an object, not null"),
    _malformed("true", b"true", "must be an object, not a boolean"),
    _malformed("a number", b"99021047380", "must be an object, not a number"),
    _malformed("a string", b'"99021047380"', "must be an object, not a string"),
    _malformed("an array", b"[]", "must be an object, not an array"),
    _malformed("an array of commands", b"[" + body() + b"," + body() + b"]", "must be an object, not an array"),
    _malformed(
        "a command written as a string", orjson.dumps(by_identifier().decode()), "must be an object, not a string"
    ),
    _malformed("a command behind a schema's number", b"\0\0\0\0\7" + by_identifier(), "not JSON"),
    _malformed("a command in a log line", b"2026-01-01 INFO sent " + by_identifier(), "not JSON"),
    _malformed("token is a number", body(token=1), "token must be a string, not a number"),
    _malformed("token is a boolean", body(token=False), "token must be a string, not a boolean"),
    _malformed("token is an object", body(token={"jwt": CANARY_TOKEN}), "token must be a string, not an object"),
    _malformed("token is an array", body(token=[CANARY_TOKEN]), "token must be a string, not an array"),
    _malformed(
        "access_token_identifier is a string",
        body(access_token_identifier=CODE),
        "access_token_identifier must be an ob",
    ),
    _malformed("access_token_identifier is an array", body(access_token_identifier=[CODE]), "access_token_identifier"),
    _malformed("access_token_identifier is 0", body(access_token_identifier=0), "access_token_identifier"),
    _malformed("access_token_identifier is false", body(access_token_identifier=False), "access_token_identifier"),
    _malformed("authentication_code is a number", by_code(authentication_code=99021047380), "authentication_code"),
    _malformed("authentication_code is a huge integer", _RAW % (b"9" * 40), "authentication_code"),
    _malformed("authentication_code is an object", by_code(authentication_code={}), "authentication_code"),
    _malformed("authentication_code is an empty array", by_code(authentication_code=[]), "authentication_code"),
    _malformed("identifier is a number", by_identifier(identifier=5), "identifier must be a string"),
    _malformed("pass_code is a number", by_identifier(pass_code=7), "pass_code must be a string"),
    _malformed("pass_code is an array", by_identifier(pass_code=[CANARY_PASS_CODE]), "pass_code must be a string"),
    _malformed("pass_code is false beside a code", by_code(pass_code=False), "pass_code must be a string"),
    _malformed("fields_set is an array", body(fields_set=["number"]), "fields_set must be a string, not an array"),
    _malformed("fields_set is false", body(fields_set=False), "fields_set must be a string"),
    _malformed("request_unique_identifier is a number", body(request_unique_identifier=1), "request_unique_identifier"),
    _malformed("token twice", b'{"token":"' + CANARY_TOKEN.encode() + b'",' + body()[1:], '"token" is given more than'),
    _malformed("token twice the same", body()[:-1] + b"," + body()[1:], "is given more than once"),
    _malformed("token twice, once in escapes", b'{"\\u0074oken":"x",' + body()[1:], '"token" is given more than once'),
    _malformed("token twice, first null", b'{"token":null,' + body()[1:], '"token" is given more than once'),
    _malformed("fields_set twice, last null", body(fields_set="number")[:-1] + b',"fields_set":null}', "fields_set"),
    _malformed(
        "a code twice",
        body().replace(b'"authentication_code":', b'"authentication_code":"1","authentication_code":'),
        "more than once",
    ),
    _malformed(
        "pass_code twice",
        by_identifier().replace(b'"pass_code":', b'"pass_code":"' + CANARY_PASS_CODE.encode() + b'","pass_code":'),
        "more than once",
    ),
    _malformed("an unknown member twice", b'{"colour":1,"colour":2,' + body()[1:], '"colour" is given more than once'),
    _malformed("a wrong type beside a missing token", body(token=_ABSENT, fields_set=1), "fields_set"),
]

# --- MISSING_PARAMETER ------------------------------------------------------------------------------------------------


def _missing(name: str, value: bytes, says: str) -> BadInput:
    return BadInput(name, StatusCode.MISSING_PARAMETER, value, says=f"{says} is not given")


_MISSING: Final = [
    _missing("an empty object", b"{}", "token"),
    _missing("no token", body(token=_ABSENT), "token"),
    replace(
        _missing("an event without its content type", b'{"specversion":"1.0","data":' + body() + b"}", "token"),
        says="a whole CloudEvent needs the header content-type: application/cloudevents+json",
    ),
    _missing("token is null", body(token=None), "token"),
    _missing("token is empty", body(token=""), "token"),
    _missing("only a token", body(access_token_identifier=_ABSENT), "access_token_identifier"),
    _missing("access_token_identifier is null", body(access_token_identifier=None), "access_token_identifier"),
    _missing("access_token_identifier is empty", body(access_token_identifier=""), "access_token_identifier"),
    _missing("no pass_code", by_identifier(pass_code=_ABSENT), "access_token_identifier.pass_code"),
    _missing("pass_code is null", by_identifier(pass_code=None), "access_token_identifier.pass_code"),
    _missing("pass_code is empty", by_identifier(pass_code=""), "access_token_identifier.pass_code"),
    _missing("no token beside an unknown member", body(token=_ABSENT, colour="red"), "token"),
    _missing("no token beside both ways to name", body(token="", access_token_identifier={}), "token"),
    replace(
        _missing("no token beside a bad header", body(token=_ABSENT), "token"), headers=(("ce_specversion", b"0.3"),)
    ),
    _missing(
        "no pass_code beside an unknown field", by_identifier(pass_code="")[:-1] + b',"fields_set":"x"}', "pass_code"
    ),
]

# --- INVALID_PARAMETER: the body --------------------------------------------------------------------------------------


def _invalid(name: str, value: bytes, says: str) -> BadInput:
    return BadInput(name, StatusCode.INVALID_PARAMETER, value, says=says)


_INVALID: Final = [
    _invalid("both ways to name", by_code(identifier=IDENTIFIER, pass_code=CANARY_PASS_CODE), "exactly one of"),
    _invalid("both ways and no pass_code", by_code(identifier=IDENTIFIER), "exactly one of"),
    _invalid("neither way to name", body(access_token_identifier={}), "exactly one of"),
    _invalid(
        "both ways null", body(access_token_identifier={"authentication_code": None, "identifier": ""}), "exactly"
    ),
    _invalid("only a pass_code", body(access_token_identifier={"pass_code": CANARY_PASS_CODE}), "exactly one of"),
    _invalid("an unknown member", body(colour="red"), 'unknown member "colour"'),
    _invalid("an unknown member that is null", body(colour=None), 'unknown member "colour"'),
    _invalid("a mistyped fields_set", body(field_set="number"), 'unknown member "field_set"'),
    _invalid("a member in another case", body(Fields_Set="number"), 'unknown member "Fields_Set"'),
    _invalid("a member with a blank", body(**{" fields_set": "number"}), 'unknown member " fields_set"'),
    _invalid("a member with a homoglyph", body(**{_MISTAKEN: "number"}), "unknown member"),
    _invalid("a member without a name", body(**{"": "number"}), 'unknown member ""'),
    _invalid("a member named U+0000", body(**{"\0": 1}), 'unknown member "?"'),
    _invalid("a member named by a control sequence", body(**{"\x1b[2J\u202e": 1}), 'unknown member "?[2J?"'),
    _invalid("a member with a long name", body(**{"n" * 5000: 1}), "unknown member"),
    _invalid("1 000 deep in an unknown member", body()[:-1] + b',"x":' + b"[" * 1000 + b"]" * 1000 + b"}", '"x"'),
    _invalid("a polluted prototype", body(__proto__={"token": "x"}), 'unknown member "__proto__"'),
    _invalid("pass_code at the top", body(pass_code=CANARY_PASS_CODE), 'unknown member "pass_code"'),
    _invalid("an unknown member of the identifier", by_code(number="AT0000000671"), '"number" in access_token_ident'),
    _invalid("token within the identifier", by_code(token=CANARY_TOKEN), 'unknown member "token" in access_token_id'),
    _invalid("token is too long", body(token="x" * 4097), "token is longer than 4096 characters"),
    _invalid(
        "authentication_code is too long", by_code(authentication_code="9" * 256), "authentication_code is longer"
    ),
    _invalid(
        "authentication_code of 256 astral characters",
        by_code(authentication_code="\U0001d7e1" * 256),
        "is longer than 255",
    ),
    _invalid("identifier is too long", by_identifier(identifier="a" * 256), ".identifier is longer than 255"),
    _invalid("pass_code is too long", by_identifier(pass_code="p" * 256), "pass_code is longer than 255"),
    _invalid("fields_set is too long", body(fields_set="number," * 600), "fields_set is longer than 4096"),
    _invalid("request_unique_identifier is too long", body(request_unique_identifier="r" * 256), "request_unique_id"),
    _invalid("U+0000 in the token", body(token=CANARY_TOKEN + "\0"), "token holds the character U+0000"),
    _invalid(
        "U+0000 in the authentication_code", by_code(authentication_code=CODE + "\0"), "authentication_code holds"
    ),
    _invalid("U+0000 in the identifier", by_identifier(identifier="\0polina@example.com"), ".identifier holds"),
    _invalid("U+0000 in the pass_code", by_identifier(pass_code=CANARY_PASS_CODE + "\0"), "pass_code holds"),
    _invalid("U+0000 in the fields_set", body(fields_set="num\0ber"), "fields_set holds the character U+0000"),
    _invalid("U+0000 in the request id", body(request_unique_identifier="r\0"), "request_unique_identifier holds"),
    _invalid("an unknown field", body(fields_set="number,colour"), 'unknown name "colour"'),
    _invalid("a field in another case", body(fields_set="Number"), 'unknown name "Number"'),
    _invalid("pass_code asked for", body(fields_set="pass_code"), 'unknown name "pass_code"'),
    _invalid("a dotted path", body(fields_set="accounts_receivable.name"), 'unknown name "accounts_receivable.name"'),
    _invalid("fields parted by semicolons", body(fields_set="number;id"), 'unknown name "number;id"'),
    _invalid("fields parted by blanks", body(fields_set="number id"), 'unknown name "number id"'),
    _invalid("an asterisk", body(fields_set="*"), 'unknown name "*"'),
    _invalid("SQL in fields_set", body(fields_set="number FROM access_token; --"), "fields_set"),
    _invalid("an empty name between commas", body(fields_set="number,,id"), "fields_set holds an empty name"),
    _invalid("a comma at the end", body(fields_set="number,"), "fields_set holds an empty name"),
    _invalid("only a comma", body(fields_set=","), "fields_set holds an empty name"),
    _invalid("a long unknown field", body(fields_set="f" * 4000), "unknown name"),
]

# --- INVALID_PARAMETER: the headers -----------------------------------------------------------------------------------

_TRACE: Final = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_SOURCE: Final = ("ce_source", b"/shop")


def _header(name: str, *headers: Header, says: str) -> BadInput:
    return BadInput(name, StatusCode.INVALID_PARAMETER, body(), headers, says=says)


_GOOD: Final = {"token": CANARY_TOKEN, "access_token_identifier": {"identifier": "i", "pass_code": CANARY_PASS_CODE}}


def _event(
    name: str, changes: dict[str, Any], *, says: str, status: StatusCode = StatusCode.INVALID_PARAMETER
) -> BadInput:
    """Return a good CloudEvent in structured mode, with these members changed."""
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "access_token.set_effective.v1", "data": _GOOD}
    written = orjson.dumps(_members(event, changes))
    return BadInput(name, status, written, (("content-type", b"application/cloudevents+json"),), says=says)


def _malformed_event(name: str, changes: dict[str, Any], says: str) -> BadInput:
    return _event(name, changes, says=says, status=StatusCode.MALFORMED_REQUEST)


def _encoded(value: bytes) -> dict[str, Any]:
    """Put this into an event's data, in base64."""
    return {"data": _ABSENT, "data_base64": base64.b64encode(value).decode()}


_HEADERS: Final = [
    _malformed_event(
        "an event whose data has a member twice", _encoded(body()[:-1] + b"," + body()[1:]), "more than once"
    ),
    _header("another ce_specversion", ("ce_specversion", b"0.3"), says="ce_specversion"),
    _header("ce_specversion with a blank", ("ce_specversion", b"1.0 "), says="ce_specversion"),
    _header("another ce_type", ("ce_type", b"access_token.set_effective.v2"), says="ce_type"),
    _header("ce_type in another case", ("ce_type", b"Access_Token.Set_Effective.V1"), says="ce_type"),
    _header("ce_id without ce_source", ("ce_id", b"1"), says="ce_id needs ce_source"),
    _header("ce_id with an empty ce_source", ("ce_id", b"1"), ("ce_source", b""), says="ce_id needs ce_source"),
    _header("ce_id is too long", ("ce_id", b"i" * 256), _SOURCE, says="ce_id is longer"),
    _header("ce_source is too long", ("ce_id", b"1"), ("ce_source", b"s" * 256), says="ce_source is longer"),
    _header("ce_id is not UTF-8", ("ce_id", b"\xff"), _SOURCE, says="ce_id is not UTF-8"),
    _header(
        "ce_source holds a surrogate", ("ce_id", b"1"), ("ce_source", b"\xed\xa0\x80"), says="ce_source is not UTF-8"
    ),
    _header("U+0000 in ce_id", ("ce_id", b"a\0b"), _SOURCE, says="ce_id holds"),
    _header("U+0000 in ce_source", ("ce_id", b"1"), ("ce_source", b"\0"), says="ce_source holds"),
    _header("ce_id twice", ("ce_id", b"1"), ("ce_id", b"2"), _SOURCE, says="ce_id is given more than once"),
    _header("ce_id twice the same", ("ce_id", b"1"), ("ce_id", b"1"), _SOURCE, says="ce_id is given more than once"),
    _header("ce_time without a zone", ("ce_time", b"2026-01-01T00:00:00"), says="ce_time"),
    _header("ce_time on no day", ("ce_time", b"2026-02-30T00:00:00Z"), says="ce_time"),
    _header("ce_time in seconds", ("ce_time", b"1767225600"), says="ce_time"),
    _header("ce_subject is too long", ("ce_subject", b"s" * 256), says="ce_subject"),
    _header("ce_subject is not UTF-8", ("ce_subject", b"\xc3\x28"), says="ce_subject"),
    _header("XML", ("content-type", b"text/xml"), says="content-type"),
    _header("JSON in Latin-1", ("content-type", b"application/json; charset=iso-8859-1"), says="content-type"),
    _malformed_event("an event without data", {"data": _ABSENT}, "data must be an object, not null"),
    _malformed_event("an event whose data is text", {"data": orjson.dumps(_GOOD).decode()}, "data must be an object"),
    _malformed_event("an event with data twice", {**_encoded(body()), "data": _GOOD}, "both given"),
    _malformed_event("an event with data in base64 that is none", {**_encoded(b""), "data_base64": "!"}, "not base64"),
    _malformed_event("an event with data in base64 that is a number", {**_encoded(b""), "data_base64": 7}, "a string"),
    _malformed_event("an event with data in base64 that is cut off", _encoded(body()[:-1]), "not JSON"),
    _malformed_event("an event with data in base64 that is an array", _encoded(b"[" + body() + b"]"), "an object"),
    _malformed_event("an event with a token that is a number", {"data": {**_GOOD, "token": 1}}, "token must be"),
    _event("an event of another type", {"type": "something.else"}, says="ce_type"),
    _event("an event of another version", {"specversion": "0.3"}, says="ce_specversion"),
    _event("an event with an id and no source", {"source": None}, says="ce_id needs ce_source"),
    _event("an event whose id is a number", {"id": 7}, says="the attribute id must be a string, not a number"),
    _event("an event whose id is nought", {"id": 0}, says="the attribute id must be a string, not a number"),
    _event("an event at no time", {"time": "noon"}, says="ce_time"),
    _event("an event with a trace that is none", {"traceparent": "00-1"}, says="traceparent"),
    _event("an event with data in XML", {"datacontenttype": "text/xml"}, says="content-type"),
    _event("an event with a mistaken member in its data", {"data": {**_GOOD, "colour": "red"}}, says="colour"),
    _header(
        "a batch of CloudEvents", ("content-type", b"application/cloudevents-batch+json"), says="one event in each"
    ),
    _header("an event in XML", ("content-type", b"application/cloudevents+xml"), says="content-type"),
    _header(
        "an event in Latin-1", ("content-type", b"application/cloudevents+json; charset=latin-1"), says="content-type"
    ),
    _header(
        "content-type of an event, twice",
        ("content-type", b"application/cloudevents+json"),
        ("content-type", b"application/cloudevents+json"),
        says="content-type is given more than once",
    ),
    _header("reply_to is no topic", ("reply_to", b"a topic"), says="reply_to is not the name of a topic"),
    _header("reply_to is a directory", ("reply_to", b".."), says="reply_to is not the name of a topic"),
    _header("reply_to is not UTF-8", ("reply_to", b"\xff"), says="reply_to is not UTF-8"),
    _header("reply_to twice", ("reply_to", b"a"), ("reply_to", b"a"), says="reply_to is given more than once"),
    _header("kafka_replyTopic is too long", ("kafka_replyTopic", b"t" * 250), says="kafka_replyTopic is not the name"),
    _header("two reply topics", ("reply_to", b"a"), ("kafka_replyTopic", b"b"), says="another topic than reply_to"),
    _header("kafka_replyPartition alone", ("kafka_replyPartition", b"\0\0\0\1"), says="needs reply_to or"),
    _header(
        "kafka_replyPartition that is text",
        ("reply_to", b"elsewhere"),
        ("kafka_replyPartition", b"17"),
        says="kafka_replyPartition must be a number of 4 bytes",
    ),
    _header(
        "kafka_replyPartition below nought",
        ("reply_to", b"elsewhere"),
        ("kafka_replyPartition", b"\xff\xff\xff\xff"),
        says="kafka_replyPartition must not be negative",
    ),
    _header("correlation_id is too long", ("correlation_id", b"c" * 1025), says="correlation_id is longer"),
    _header("correlation_id twice", ("correlation_id", b"a"), ("correlation_id", b"b"), says="correlation_id is given"),
    _header("kafka_correlationId is too long", ("kafka_correlationId", b"\0" * 1025), says="kafka_correlationId"),
    _header("traceparent is no trace", ("traceparent", b"hello"), says="traceparent"),
    _header("traceparent in capitals", ("traceparent", _TRACE.upper()), says="traceparent"),
    _header("traceparent without a trace", ("traceparent", b"00-" + b"0" * 32 + _TRACE[35:]), says="traceparent"),
    _header("traceparent without a span", ("traceparent", _TRACE[:36] + b"0" * 16 + b"-01"), says="traceparent"),
    _header("traceparent with a fifth part", ("traceparent", _TRACE + b"-more"), says="traceparent"),
    _header("traceparent of version ff", ("traceparent", b"ff" + _TRACE[2:]), says="traceparent"),
    _header("traceparent with a line feed", ("traceparent", _TRACE + b"\n"), says="traceparent"),
    _header("traceparent twice", ("traceparent", _TRACE), ("traceparent", _TRACE), says="traceparent is given more"),
    _header("tracestate is too long", ("traceparent", _TRACE), ("tracestate", b"t" * 513), says="tracestate"),
]

# --- INVALID_TOKEN: the login token itself ----------------------------------------------------------------------------


def _read_claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def _text(text: str) -> Login:
    return lambda _mint, _secret: text


def _claims(**changes: Any) -> Login:
    """Return a good login with these claims changed, ``...`` for one left out, and signed as they are."""

    def login(mint: Mint, secret: str) -> str:
        claims = {name: value for name, value in {**_read_claims(mint()), **changes}.items() if value is not ...}
        return signed(json.dumps(claims).encode(), secret=secret)

    return login


def _raw_claims(text: bytes) -> Login:
    """Return a good login whose payload ends in these raw members."""
    return lambda mint, secret: signed(
        json.dumps(_read_claims(mint())).encode()[:-1] + b"," + text + b"}", secret=secret
    )


def _head(head: bytes, digest: str = "sha256") -> Login:
    return lambda mint, secret: signed(json.dumps(_read_claims(mint())).encode(), head, secret=secret, digest=digest)


def _payload(payload: bytes) -> Login:
    return lambda _mint, secret: signed(payload, secret=secret)


def _minted(**arguments: Any) -> Login:
    return lambda mint, _secret: mint(**arguments)


_UNSIGNED: Final = b'{"alg":"none","typ":"JWT"}'


def _unsigned(mint: Mint, _secret: str) -> str:
    _, payload, _ = mint().split(".")
    return f"{segment(_UNSIGNED)}.{payload}."


def _tampered(mint: Mint, _secret: str) -> str:
    head, _, signature = mint().split(".")
    return f"{head}.{segment(json.dumps({**_read_claims(mint()), 'org': 'ORG2'}).encode())}.{signature}"


def _login(name: str, login: Login, says: str = "login token") -> BadInput:
    return BadInput(name, StatusCode.INVALID_TOKEN, body(token=TOKEN_PLACE), says=says, stage="login", login=login)


_LOGINS: Final = [
    _login("a token that is no JWT", _text(CANARY_TOKEN)),
    _login("a token of one blank", _text(" ")),
    _login("a token of dots", _text("..")),
    _login("a token of four parts", _text("a.b.c.d")),
    _login("a token with letters beyond ASCII", _text("ключ.ключ.ключ")),
    _login("a token of astral characters", _text("\U0001d7e1" * 4096)),
    _login("a token of 4 096 characters", _text("x" * 4096)),
    _login("a login without its signature", lambda mint, _: mint().rpartition(".")[0] + "."),
    _login("a login without its last part", lambda mint, _: mint().rpartition(".")[0]),
    _login("a login changed after signing", _tampered),
    _login("a login signed with another secret", _minted(secret="another secret, as long as it has to be")),
    _login(
        "a login signed with an empty secret",
        lambda mint, _: signed(json.dumps(_read_claims(mint())).encode(), secret=""),
    ),
    _login("alg none", _unsigned),
    _login("alg nOnE with a signature", _head(b'{"alg":"nOnE"}')),
    _login("alg HS384", _head(b'{"alg":"HS384"}', "sha384")),
    _login("alg HS512", _head(b'{"alg":"HS512"}', "sha512")),
    _login("alg RS256", _head(b'{"alg":"RS256"}')),
    _login("alg in another case", _head(b'{"alg":"hs256"}')),
    _login("no alg", _head(b'{"typ":"JWT"}')),
    _login("alg is a list", _head(b'{"alg":["HS256"]}')),
    _login("a head that is a list", _head(b"[]")),
    _login("a head that is no JSON", _head(b"\xff")),
    _login("a critical extension nobody knows", _head(b'{"alg":"HS256","crit":["exp2"],"exp2":1}')),
    _login("a head 1 000 deep", _head(b'{"alg":"HS256","x":' + b"[" * 1100 + b"]" * 1100 + b"}")),
    _login("a head 100 deep", _head(b'{"alg":"HS256","x":' + b"[" * 100 + b"]" * 100 + b"}")),
    _login("a payload that is no JSON", _payload(b"hello")),
    _login("a payload that is a list", _payload(b"[1]")),
    _login("a payload that is null", _payload(b"null")),
    _login("a payload that is not UTF-8", _payload(b'{"jti":"\xff"}')),
    _login("a payload 1 000 deep", _raw_claims(b'"x":' + b"[" * 1100 + b"]" * 1100)),
    _login("a payload 100 deep", _raw_claims(b'"x":' + b"[" * 100 + b"]" * 100)),
    *(_login(f"no claim {name}", _claims(**{name: ...}), name) for name in ("jti", "usr", "org", "oun", "iat", "exp")),
    _login("claim org is null", _claims(org=None), "org"),
    _login("claim org is a number", _claims(org=1), "org"),
    _login("claim org is empty", _claims(org=""), "org"),
    _login("claim org holds U+0000", _claims(org="ORG1\0"), "org"),
    _login("claim org holds a lone surrogate", _claims(org="ORG1\ud800"), "org"),
    _login("claim org is too long", _claims(org="O" * 256), "org"),
    _login("claim usr is a list", _claims(usr=["mpadmin"]), "usr"),
    _login("claim usr holds U+0000", _claims(usr="mpadmin\0"), "usr"),
    _login("claim usr holds a lone surrogate", _claims(usr="\udfff"), "usr"),
    _login("claim oun is a number", _claims(oun=1), "oun"),
    _login("claim oun is true", _claims(oun=True), "oun"),
    _login("claim jti is an object", _claims(jti={}), "jti"),
    _login("claim jti holds U+0000", _claims(jti="\0"), "jti"),
    _login("claim jti is a huge integer", _raw_claims(b'"jti":' + b"9" * 1500), ""),
    _login("claim exp is true", _claims(exp=True), "exp"),
    _login("claim exp is a word", _claims(exp="tomorrow"), "exp"),
    _login("claim exp is a negative number", _claims(exp=-1), "exp"),
    _login("claim exp is a huge integer", _claims(exp=10**400), "exp"),
    _login("claim exp has digits without end", _raw_claims(b'"exp":' + b"9" * 2500), ""),
    _login("claim exp is a huge text", _claims(exp="9" * 400), "exp"),
    _login("claim exp is in another alphabet", _claims(exp="١٢٣٤٥٦٧٨٩٠"), "exp"),
    _login("claim exp is NaN", _raw_claims(b'"exp":NaN'), ""),
    _login("claim exp is Infinity", _raw_claims(b'"exp":Infinity'), ""),
    _login("claim exp is 1e999", _raw_claims(b'"exp":1e999'), ""),
    _login("claim exp is a list", _claims(exp=[4102444800]), "exp"),
    _login("claim exp is an ISO time", _claims(exp="2100-01-01T00:00:00Z"), "exp"),
    _login("claim iat is false", _claims(iat=False), "iat"),
    _login("claim iat lies in the future", _claims(iat=4102444800), "future"),
    _login("claim cii without acr", _claims(cii="shop"), "cii"),
    _login("claim acr without cii", _claims(acr="8C1E866074D743EE834E910A28C1E582"), "acr"),
    _login("claim acr is a number", _claims(cii="shop", acr=8), "acr"),
    _login("claim cii holds U+0000", _claims(cii="\0", acr="8C1E866074D743EE834E910A28C1E582"), "cii"),
]

# --- what Postgres knows ----------------------------------------------------------------------------------------------


def _holder(name: str, status: StatusCode, login: Login, says: str, value: bytes | None = None) -> BadInput:
    command = body(token=TOKEN_PLACE) if value is None else value
    return BadInput(name, status, command, says=says, stage="database", login=login)


_PAST: Final = 1_700_000_000

_HOLDERS: Final = [
    _holder("a revoked login", StatusCode.INVALID_TOKEN, _minted(jti="revoked-login-1"), "revoked"),
    _holder("an unknown organisation", StatusCode.INVALID_TOKEN, _minted(organisation="ORG9"), "organisation"),
    _holder("an organisation in another case", StatusCode.INVALID_TOKEN, _minted(organisation="org1"), "organisation"),
    _holder("an organisation with a blank", StatusCode.INVALID_TOKEN, _minted(organisation="ORG1 "), "organisation"),
    _holder(
        "SQL in the organisation",
        StatusCode.INVALID_TOKEN,
        _minted(organisation="ORG1'; DROP TABLE access_token; --"),
        "organisation",
    ),
    _holder("an unknown user", StatusCode.INVALID_TOKEN, _minted(user="nobody"), "user"),
    _holder("a user in another case", StatusCode.INVALID_TOKEN, _minted(user="MPAdmin"), "user"),
    _holder(
        "a user of another organisation", StatusCode.INVALID_TOKEN, _minted(organisation="ORG2", user="reader"), "user"
    ),
    _holder("an inactive user", StatusCode.INVALID_TOKEN, _minted(user="leaver"), "user"),
    _holder("a unit that is not the organisation's", StatusCode.INVALID_TOKEN, _minted(unit="2"), "unit"),
    _holder("an expired login", StatusCode.EXPIRED_TOKEN, _claims(iat=_PAST - 7200, exp=_PAST), "log in"),
    _holder("a login expired by text", StatusCode.EXPIRED_TOKEN, _claims(exp=str(_PAST)), "log in"),
    _holder("a login expired by a fraction", StatusCode.EXPIRED_TOKEN, _claims(exp=_PAST + 0.5), "log in"),
    _holder("a login that never lived", StatusCode.EXPIRED_TOKEN, _claims(exp=0), "log in"),
    _holder(
        "a user without the right", StatusCode.ACCESS_DENIED, _minted(user="reader"), "ACCESS_TOKENS.SET_EFFECTIVE"
    ),
]


def _named(name: str, status: StatusCode, login: Login, says: str, **identifier: str) -> BadInput:
    return _holder(name, status, login, says, body(token=TOKEN_PLACE, access_token_identifier=identifier))


def _not_found(name: str, code: str, login: Login | None = None) -> BadInput:
    status = StatusCode.ACCESS_TOKEN_NOT_FOUND
    return _named(name, status, login or _minted(), "authentication_code", authentication_code=code)


def _refused(name: str, identifier: str, pass_code: str, login: Login | None = None) -> BadInput:
    status = StatusCode.INVALID_CREDENTIALS
    says = "identifier and pass_code"
    return _named(name, status, login or _minted(), says, identifier=identifier, pass_code=pass_code)


_CONSUMER: Final = _minted(cii="shop", acr="another account")

_NAMES: Final = [
    _not_found("an unknown code", "00000000000"),
    _not_found("a code with a blank", CODE + " "),
    _not_found("a code with a line feed", CODE + "\n"),
    _not_found("a code in other digits", _WIDE_CODE),
    _not_found("a pattern for a code", "9902104738_"),
    _not_found("a percent sign for a code", "%"),
    _not_found("SQL for a code", "' OR '1'='1"),
    _not_found("a number for a code", "AT0000000671"),
    _not_found("a code of 255 astral characters", "\U0001d7e1" * 255),
    _not_found("a code that says null", "null"),
    _not_found("a code of another organisation", "99021047383", _minted(organisation="ORG2")),
    _not_found("a code of another account", CODE, _CONSUMER),
    _refused("a wrong pass code", IDENTIFIER, CANARY_PASS_CODE),
    _refused("a pass code in another case", IDENTIFIER, PASS_CODE.upper()),
    _refused("a pass code with a blank", IDENTIFIER, PASS_CODE + " "),
    _refused("the secret of nobody", "nobody@example.com", PASS_CODE),
    _refused("an identifier in another case", IDENTIFIER.title(), PASS_CODE),
    _refused("a code as identifier", CODE, PASS_CODE),
    _refused("an identifier of another organisation", IDENTIFIER, PASS_CODE, _minted(organisation="ORG2")),
    _refused("an identifier of another account", IDENTIFIER, PASS_CODE, _CONSUMER),
    _named(
        "an effective token",
        StatusCode.INVALID_LIFE_CYCLE_STATE,
        _minted(),
        "EFFECTIVE",
        authentication_code=EFFECTIVE_CODE,
    ),
    _named(
        "a token to be verified",
        StatusCode.INVALID_LIFE_CYCLE_STATE,
        _minted(),
        "PENDING_VERIFICATION",
        authentication_code=PENDING_CODE,
    ),
]

BAD_INPUTS: Final[tuple[BadInput, ...]] = (
    *_MALFORMED,
    *_MISSING,
    *_INVALID,
    *_HEADERS,
    *_LOGINS,
    *_HOLDERS,
    *_NAMES,
)
