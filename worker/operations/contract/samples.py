"""Golden pairs: a command and its answer for every status, reply topics and whole events, over the demo's fixture.

They are true: a worker is sent each of them in this order, and must answer with the sample. Values that differ from run
to run (moments, offsets, everything derived from them) are written here as they were on one imagined day.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from effective_contract import access_token as t
from effective_contract import headers as h
from effective_contract.codes import StatusCode
from effective_contract.states import LifeCycleState
from effective_contract.transition import FIRST_PREVIOUS_HASH, command_name, event_hash, naming_key

TOKEN: Final = "{{token}}"  # noqa: S105 - the place of one
"""The placeholder of the sender's login token."""
MOMENT: Final = "2026-01-02T03:04:05.678901Z"
_MASKED: Final = "***"
_SECOND: Final = MOMENT[:19]
_TIMESTAMP: Final = 1767323045000
_TOPIC: Final = "access-token.set-effective.commands"
_CLUSTER: Final = "4L6g3nShT-eMCtK--X86sw"
_GROUP: Final = "effective-worker"
DIGEST_KEY: Final = "the digest key of all the samples"
"""The digest key of the worker that wrote them (the first of ``WORKER_DIGEST_KEYS``)."""
PARTITION: Final = 3
REPLIES: Final = "replies.shop"
"""The topic in which a sender wants its answers."""
_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c"

Headers = Mapping[str, str]
S = StatusCode
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record. ``value`` is an object to write as JSON, or the bytes themselves."""

    key: str
    headers: Headers
    value: Any = field(repr=False)
    topic: str = ""
    """The topic, where it is not the usual one of such records."""

    @property
    def is_json(self) -> bool:
        return not isinstance(self.value, bytes)

    @property
    def is_structured(self) -> bool:
        """True for a command whose value is a whole CloudEvent, with the command as its ``data``."""
        return h.is_structured_content(self.headers.get(h.CONTENT_TYPE, ""))


@dataclass(frozen=True, slots=True)
class Login:
    """The user whose login token replaces ``{{token}}``."""

    organisation: str = "ORG1"
    user: str = "mpadmin"
    unit: str = "1"
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One command and everything that follows from it. Sent in the order of ``SAMPLES``, to one partition."""

    name: str
    about: str
    status: StatusCode
    command: Record
    result: Record
    login: Login | None = None
    transition: Record | None = None
    dead_letter: Record | None = None
    given: str = ""
    """A condition that must hold before, beside the fixture and the samples ahead."""


def shown(record: Record) -> dict[str, Any]:
    """Return a record as the pack writes it: an object as ``value``, other bytes as ``value_base64``."""
    value = {"value": record.value} if record.is_json else {"value_base64": base64.b64encode(record.value).decode()}
    topic = {"topic": record.topic} if record.topic else {}
    return {**topic, "key": record.key, "headers": dict(record.headers), **value}


def document(sample: Sample) -> dict[str, Any]:
    """Return a sample as the pack writes it."""
    login = sample.login
    return {
        "name": sample.name,
        "about": sample.about,
        "status": sample.status.value,
        **({"given": sample.given} if sample.given else {}),
        **({} if login is None else {"login": _shown_login(login)}),
        "command": shown(sample.command),
        "result": shown(sample.result),
        **({} if sample.transition is None else {"transition": shown(sample.transition)}),
        **({} if sample.dead_letter is None else {"dead_letter": shown(sample.dead_letter)}),
    }


def _shown_login(login: Login) -> dict[str, Any]:
    return {
        "organisation": login.organisation,
        "user": login.user,
        "unit": login.unit,
        "expired": login.expired,
    }


# --- the access tokens of the fixture ---------------------------------------------------------------------------------


def _with(model: type[M], **members: Any) -> M:
    """Return an instance whose other members are ``null``."""
    return model.model_validate(dict.fromkeys(model.model_fields) | members)


_IRAN: Final = _with(t.Country, alternative_code="IRN", name="IRAN (ISLAMIC REPUBLIC OF)", id="231")
_POLINA: Final = _with(
    t.AccountOwner,
    name="Polina Kestora",
    last_name="Kestora",
    first_name="Polina",
    id="F038161F36C845B98CEE7361A8C92157",
    life_cycle_state="FINANCIAL",
    type="PERSON",
    demographics=_with(
        t.Demographics,
        name_day=_with(t.MonthDay),
        date_of_birth=_with(t.CalendarDate),
        id_number="112233",
        gender="FEMALE",
        country_of_residence=_IRAN,
    ),
)
_ACCOUNT: Final = _with(
    t.AccountsReceivable,
    number="ACR0000000069",
    name="ACR0000000069 Polina Kestora",
    id="8C1E866074D743EE834E910A28C1E582",
    life_cycle_state="ACTIVE",
    account_owner=_POLINA,
)
_PARTICIPANT: Final = _with(
    t.RewardsParticipant,
    number="RP0000000010",
    id="942D9960056A497FB3BC65EDDF7D8D81",
    life_cycle_state="EFFECTIVE",
    accounts_receivable=_ACCOUNT,
)
_ADMIN: Final = t.User(
    id="6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01",
    username="mpadmin",
    person_name="MPAdministrator",
    email="mpadmin@example.com",
)
_UNIT: Final = t.Unit(
    id="1",
    name="Admin Unit",
    group_name="Main Group",
    community_name="Community",
    alternative_code="adminunit",
    description="admin unit",
)
_FIRST: Final = "4D1F0C6E9B7A4F5C8E2B7A90D3C61F55"
_SECOND_ID: Final = "707E27653A665A42B7092AB3BBD46376"
_GOLDEN_DATA: Final = {
    "number": "AT0000000671",
    "verified_by_user": None,
    "accounts_receivable": _ACCOUNT.model_dump(mode="json"),
    "rewards_participant": _PARTICIPANT.model_dump(mode="json"),
}
_WHOLE_DATA: Final = _with(
    t.AccessToken,
    id=_SECOND_ID,
    number="AT0000000674",
    life_cycle_state=LifeCycleState.EFFECTIVE,
    authentication_code="99021047383",
    identifier="polina@example.com",
    accounts_receivable=_ACCOUNT,
    log_information=_with(
        t.LogInformation,
        updated_date=_SECOND,
        updated_by_user=_ADMIN,
        updated_by_unit=_UNIT,
    ),
).model_dump(mode="json")


# --- building the records ---------------------------------------------------------------------------------------------


def _place(offset: int) -> str:
    return f"rec:{_CLUSTER}/{_TOPIC}/{PARTITION}/{offset}@{_TIMESTAMP + offset}"


def _id(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _event(event_type: str, identity: str) -> dict[str, str]:
    return {
        h.CE_ID: _id(identity),
        h.CE_SPEC_VERSION: h.SPEC_VERSION,
        h.CE_SOURCE: "/effective-worker",
        h.CE_TYPE: event_type,
        h.CE_TIME: MOMENT,
        h.CONTENT_TYPE: h.JSON_CONTENT,
    }


def _result(
    command: Record,
    status: StatusCode,
    command_id: str,
    offset: int,
    *,
    message: str = "",
    data: Any = None,
    replayed: bool = False,
) -> Record:
    sent = command.headers
    is_applied = status is S.OK and h.DRY_RUN not in sent
    headers = _event(h.RESULT_TYPE, command_id if is_applied else _place(offset)) | {
        h.CAUSATION_ID: _own_id(command) or _place(offset),
        h.COMMAND_ID: command_id,
        h.STATUS_CODE: status.value,
        h.REPLAYED: "true" if replayed else "false",
    }
    headers |= {name: sent[name] for name in (h.CORRELATION_ID, h.KAFKA_CORRELATION_ID) if name in sent}
    if h.DRY_RUN in sent:
        headers |= {h.DRY_RUN: h.TRUE, h.CE_SUBJECT: _place(offset)}
    if h.TRACEPARENT in sent:
        headers[h.TRACEPARENT] = f"{_TRACE}-{_id(command_id)[:16]}-01"
    value = {
        "data": data or {},
        "status": {"code": status.value, "description": status.description, "message": message},
    }
    return Record(command.key, headers, value, sent.get(h.REPLY_TO) or sent.get(h.KAFKA_REPLY_TOPIC) or "")


def _own_id(command: Record) -> str | None:
    """Return the id that its sender gave the command."""
    if command.is_structured:
        return str(command.value["id"])
    body = command.value if command.is_json else {}
    return command.headers.get(h.CE_ID) or body.get("request_unique_identifier")


def _transition(token: str, command_id: str, sequence: int, previous_hash: str) -> Record:
    members = {
        "organisation": "ORG1",
        "access_token_id": token,
        "version": 1,
        "from_state": LifeCycleState.NOT_EFFECTIVE.value,
        "to_state": LifeCycleState.EFFECTIVE.value,
        "occurred_at": MOMENT,
        "user_id": _ADMIN.id,
        "unit_id": _UNIT.id,
        "command_id": command_name(naming_key(DIGEST_KEY), command_id),
        "cause": "API",
        "lane": f"{_CLUSTER}/{_GROUP}/{_TOPIC}/{PARTITION}",
        "sequence": sequence,
        "previous_hash": previous_hash,
    }
    key = f"ORG1:{token}"
    headers = {**_event(h.TRANSITION_TYPE, f"{key}:1"), h.CE_SUBJECT: key}
    return Record(key, headers, {**members, "hash": event_hash(members)})


def _dead_letter(command: Record, status: StatusCode, message: str, offset: int) -> Record:
    headers = {
        **command.headers,
        "dl_code": status.value,
        "dl_reason": message,
        "dl_topic": _TOPIC,
        "dl_partition": str(PARTITION),
        "dl_offset": str(offset),
        "dl_timestamp": str(_TIMESTAMP + offset),
        "dl_consumer_group": _GROUP,
        "dl_worker": "worker-1",
        "dl_attempts": "1",
        "dl_failed_at": MOMENT,
    }
    if status is StatusCode.INTERNAL_ERROR:
        headers["dl_organisation"] = "ORG1"
    return Record(command.key, headers, {**command.value, "token": _MASKED} if command.is_json else command.value)


# --- the samples ------------------------------------------------------------------------------------------------------


def _command(identifier: Mapping[str, str], fields_set: str = "number,life_cycle_state", **members: Any) -> Any:
    return {"token": TOKEN, "access_token_identifier": dict(identifier), "fields_set": fields_set, **members}


def _code(number: str) -> dict[str, str]:
    return {"authentication_code": number}


def _named(order: str, **more: str) -> dict[str, str]:
    return {
        h.CE_SPEC_VERSION: h.SPEC_VERSION,
        h.CE_ID: order,
        h.CE_SOURCE: "/shop",
        h.CE_TYPE: h.COMMAND_TYPE,
        h.CONTENT_TYPE: h.JSON_CONTENT,
        **more,
    }


def _refused(
    offset: int,
    name: str,
    about: str,
    sent: Record,
    *,
    status: StatusCode,
    says: str,
    known: bool = False,
    login: Login | None = None,
    given: str = "",
) -> Sample:
    """Return a refused sample. ``known``: its organisation was verified first, so it goes by its sender's id."""
    command_id = f"ce:ORG1:%2Fshop:{sent.headers[h.CE_ID]}" if known else _place(offset)
    kept = status in {S.MALFORMED_REQUEST, S.INTERNAL_ERROR}
    return Sample(
        name,
        about,
        status,
        sent,
        _result(sent, status, command_id, offset, message=says),
        login=login,
        dead_letter=_dead_letter(sent, status, says, offset) if kept else None,
        given=given,
    )


def _repeated(offset: int, name: str, about: str, sent: Record, *, given: str = "") -> Sample:
    """Return the first command sent again, in whatever form."""
    result = _result(sent, S.OK, _FIRST_ID, offset, data=_GOLDEN_DATA, replayed=True)
    return Sample(name, about, S.OK, sent, result, login=Login(), given=given)


def _sent(value: Any, **headers: str) -> Record:
    return Record("card-1", headers, value)


def _unreadable() -> Iterator[Sample]:
    """Yield the commands that are refused before the login token is checked."""
    yield _refused(
        0,
        "malformed-request",
        "No JSON at all.",
        _sent(b"set effective, please", correlation_id="0"),
        status=S.MALFORMED_REQUEST,
        says="the command is not JSON in UTF-8 (line 1, column 1)",
    )
    yield _refused(
        1,
        "missing-parameter",
        "No login token.",
        _sent({"access_token_identifier": _code("99021047380")}, correlation_id="1"),
        status=S.MISSING_PARAMETER,
        says="token is not given",
    )
    yield _refused(
        2,
        "invalid-parameter",
        "A field that no access token has.",
        _sent(_command(_code("99021047380"), "number,pass_code"), correlation_id="2"),
        status=S.INVALID_PARAMETER,
        says='fields_set holds the unknown name "pass_code"',
    )


def _unauthorised() -> Iterator[Sample]:
    """Yield the commands that the login token does not allow."""
    command = _command(_code("99021047380"))
    yield _refused(
        3,
        "invalid-token",
        "A login token without a valid signature.",
        _sent({**command, "token": "not a login token"}, **_named("order-3")),
        status=S.INVALID_TOKEN,
        says="the login token cannot be verified",
    )
    yield _refused(
        4,
        "expired-token",
        "A login token of yesterday.",
        _sent(command, **_named("order-4")),
        status=S.EXPIRED_TOKEN,
        says="log in again and send the command again",
        login=Login(expired=True),
        known=True,
    )
    yield _refused(
        5,
        "access-denied",
        "A user without the right.",
        _sent(command, **_named("order-5")),
        status=S.ACCESS_DENIED,
        says="the user lacks the right ACCESS_TOKENS.SET_EFFECTIVE",
        login=Login(user="reader"),
        known=True,
    )
    yield _refused(
        6,
        "access-token-not-found",
        "A code that no access token has.",
        _sent(_command(_code("00000000000")), **_named("order-6")),
        status=S.ACCESS_TOKEN_NOT_FOUND,
        says="no access token of yours has this authentication_code",
        login=Login(),
        known=True,
    )
    named = {"identifier": "polina@example.com", "pass_code": "not this one"}
    yield _refused(
        7,
        "invalid-credentials",
        "A wrong pass code. An unknown identifier is answered the same.",
        _sent(_command(named), **_named("order-7")),
        status=S.INVALID_CREDENTIALS,
        says="identifier and pass_code do not go together",
        login=Login(),
        known=True,
    )


_TRACED: Final = _named("order-8", correlation_id="8", traceparent=f"{_TRACE}-b7ad6b7169203331-01")
_FIRST_ID: Final = "ce:ORG1:%2Fshop:order-8"


def _answered() -> Iterator[Sample]:
    """Yield the commands that become effective, the first one after a dry run of it."""
    rehearsed = _sent(_command(_code("99021047380"), ",".join(_GOLDEN_DATA)), **_TRACED, dry_run=h.TRUE)
    yield Sample(
        "dry-run",
        "The next command as a dry run, under the same id: answered as it will be, and nothing changes.",
        S.OK,
        rehearsed,
        _result(rehearsed, S.OK, _FIRST_ID, 8, data=_GOLDEN_DATA),
        login=Login(),
    )
    first = _sent(_command(_code("99021047380"), ",".join(_GOLDEN_DATA)), **_TRACED)
    first_change = _transition(_FIRST, _FIRST_ID, 1, FIRST_PREVIOUS_HASH)
    yield Sample(
        "ok",
        "An access token by its authentication code.",
        S.OK,
        first,
        _result(first, S.OK, _FIRST_ID, 9, data=_GOLDEN_DATA),
        login=Login(),
        transition=first_change,
    )
    named = {"identifier": "polina@example.com", "pass_code": "correct horse 7"}
    body = _command(named, "", request_unique_identifier="request-9")
    second, second_id = Record("card-2", {}, body), "req:ORG1:request-9"
    yield Sample(
        "ok-all-fields",
        "By identifier and pass code, without a header, and the whole access token in the answer.",
        S.OK,
        second,
        _result(second, S.OK, second_id, 10, data=_WHOLE_DATA),
        login=Login(),
        transition=_transition(_SECOND_ID, second_id, 2, first_change.value["hash"]),
    )


def _answered_again() -> Iterator[Sample]:
    """Yield commands that repeat an id or name an effective access token, and one that cannot be processed."""
    yield _repeated(
        11,
        "ok-replayed",
        "The first one sent again, with a fresh login token: the same answer, and nothing changes.",
        _sent(_command(_code("99021047380"), ",".join(_GOLDEN_DATA)), **_TRACED),
    )
    yield _refused(
        12,
        "duplicate-request",
        "Another request under an id that was applied.",
        _sent(_command(_code("99021047384")), **_named("order-8")),
        status=S.DUPLICATE_REQUEST,
        says="this id was applied for another access token or other fields",
        login=Login(),
        known=True,
    )
    yield _refused(
        13,
        "invalid-life-cycle-state",
        "An access token that is effective already.",
        _sent(_command(_code("99021047381")), **_named("order-12")),
        status=S.INVALID_LIFE_CYCLE_STATE,
        says="the access token is EFFECTIVE",
        login=Login(),
        known=True,
    )
    yield _refused(
        14,
        "internal-error",
        "A row that the database refuses for a reason of its own.",
        _sent(_command(_code("99021047384")), **_named("order-13")),
        status=S.INTERNAL_ERROR,
        says="CheckViolationError of poison",
        login=Login(),
        given="A check constraint by the name of poison forbids that this access token becomes effective.",
    )


def _other_forms() -> Iterator[Sample]:
    """Yield the first command in the forms that other clients send it in. Each is answered like a repetition."""
    body = _command(_code("99021047380"), ",".join(_GOLDEN_DATA))
    allowed = f"The topic {REPLIES} exists, and the worker's allow-list of reply topics has it."
    yield _repeated(
        15,
        "reply-to",
        "The first one again, answered on a topic that its sender names.",
        _sent(body, **_named("order-8", correlation_id="15", reply_to=REPLIES)),
        given=allowed,
    )
    replying = {h.KAFKA_REPLY_TOPIC: REPLIES, h.KAFKA_CORRELATION_ID: "16"}
    yield _repeated(
        16,
        "kafka-reply-topic",
        "The same with the headers that the ReplyingKafkaTemplate of Spring sends.",
        _sent(body, **_named("order-8", **replying)),
        given=allowed,
    )
    event = {
        "specversion": h.SPEC_VERSION,
        "id": "order-8",
        "source": "/shop",
        "type": h.COMMAND_TYPE,
        "data": body,
    }
    yield _repeated(
        17,
        "structured",
        "The first one again as a CloudEvent in structured mode: attributes and command in one JSON object.",
        _sent(event, **{h.CONTENT_TYPE: h.STRUCTURED_CONTENT, h.CORRELATION_ID: "17"}),
    )


SAMPLES: Final = (*_unreadable(), *_unauthorised(), *_answered(), *_answered_again(), *_other_forms())
"""All samples, in the order in which to send them."""
