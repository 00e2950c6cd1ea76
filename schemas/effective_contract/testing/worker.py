"""A worker in memory: answers commands by the rules of the contract, from a few access tokens, without Kafka.

Left out: limits on failed attempts, and everything that senders do not see (records, transition events, dead letters).
``refuse_next`` gives the answers that such parts would give.
"""

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final
from urllib.parse import quote

import orjson
from pydantic import ValidationError

from effective_contract import headers as h
from effective_contract.access_token import AccessToken, LogInformation, Unit, User, field_names
from effective_contract.client import BlockingCommandClient, CommandClient
from effective_contract.client.client import COMMANDS, RESULTS
from effective_contract.client.transport import Headers
from effective_contract.codes import StatusCode
from effective_contract.methods import SET_EFFECTIVE
from effective_contract.testing.reading import Request, read
from effective_contract.testing.transport import InMemoryTransport, Reply

ORGANISATION: Final = "ORG1"
SOURCE: Final = "/effective-worker"
"""``ce_source`` of the answers."""
_NO_LOG: Final = dict.fromkeys(LogInformation.model_fields)


@dataclass(frozen=True, slots=True)
class Login:
    """A login as the worker finds it. ``account``: a consumer application's, which sees that account's tokens only."""

    organisation: str
    user: str
    unit: str
    account: str | None
    may_set_effective: bool
    is_active: bool
    is_expired: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A command that the worker was sent, and what it came to. ``status`` is ``None`` if the command was lost."""

    status: StatusCode | None
    command_id: str
    access_token_id: str | None
    """The id of the access token that it named, where it was found."""
    dry_run: bool
    key: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Outcome:
    code: StatusCode
    message: str = ""
    command_id: str | None = None
    """``None``: the ``rec:`` id, because the caller's organisation is not known."""
    token: "_Token | None" = None
    replayed: bool = False


@dataclass(slots=True)
class _Token:
    organisation: str
    data: dict[str, Any] = field(repr=False)
    pass_code: str | None = field(repr=False)

    @property
    def account(self) -> str | None:
        account = self.data["accounts_receivable"]
        return None if account is None else str(account["id"])


@dataclass(frozen=True, slots=True)
class _Fate:
    """The fate of the next command, whatever it is: a status, or a loss."""

    code: StatusCode | None = None
    message: str = ""
    is_command_lost: bool = False
    is_answer_lost: bool = False


class InMemoryWorker:
    """A worker for a sender's tests. Its state is its own, and safe to share between threads."""

    def __init__(
        self,
        access_tokens: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pass_codes: Mapping[str, str] | None = None,
        reply_topics: Iterable[str] = (),
        other_topics: Iterable[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``access_tokens`` holds, by authentication code, the members that matter; :meth:`add` has the others.

        ``pass_codes`` are by identifier. ``reply_topics`` exist and may be named in ``reply_to``; ``other_topics``
        exist, but may not. Raises ``ValueError`` for an access token that the contract does not have.
        """
        self._tokens: list[_Token] = []
        self._logins: dict[str, Login] = {}
        self._applied: dict[str, tuple[tuple[Any, ...], _Token]] = {}
        self._received: list[Received] = []
        self._fates: deque[_Fate] = deque()
        self._delay = 0.0
        self._reply_topics, self._other_topics = frozenset(reply_topics), frozenset(other_topics)
        self._clock = clock
        self._lock = Lock()
        self._transport = InMemoryTransport(self)
        for code, members in (access_tokens or {}).items():
            self.add(code, pass_code=(pass_codes or {}).get(members.get("identifier", "")), **members)

    # --- what there is ------------------------------------------------------------------------------------------------

    def add(
        self, code: str | None = None, *, organisation: str = ORGANISATION, pass_code: str | None = None, **members: Any
    ) -> str:
        """Add an access token with this authentication code, and return its id.

        Members that are not given are ``null``, but for an ``id``, a ``number``, an empty ``log_information`` and the
        state ``NOT_EFFECTIVE``. Raises ``ValueError`` for members that the contract does not have.
        """
        serial = len(self._tokens) + 1
        usual = {
            "id": hashlib.sha256(f"{organisation}:{serial}".encode()).hexdigest()[:32].upper(),
            "number": f"AT{serial:010}",
            "life_cycle_state": SET_EFFECTIVE.from_state,
            "log_information": _NO_LOG,
        }
        whole = dict.fromkeys(AccessToken.model_fields) | usual | {"authentication_code": code} | members
        try:
            data = AccessToken.model_validate_json(orjson.dumps(whole)).model_dump(mode="json")
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"no access token of the contract: {where}: {first['msg']}") from None
        with self._lock:
            self._tokens.append(_Token(organisation, data, pass_code))
        return str(data["id"])

    def access_token(self, code: str, *, organisation: str = ORGANISATION) -> dict[str, Any]:
        """Return the access token with this authentication code as it is now. Raises ``KeyError``."""
        with self._lock:
            found = self._named(organisation, "code", code)
            if found is None:
                raise KeyError(code)
            return dict(found.data)

    def login(
        self,
        *,
        organisation: str = ORGANISATION,
        user: str = "tester",
        unit: str = "1",
        account: str | None = None,
        may_set_effective: bool = True,
        is_active: bool = True,
        is_expired: bool = False,
    ) -> str:
        """Return a login token that this worker knows. Any other text is ``INVALID_TOKEN``."""
        token = f"in-memory-{secrets.token_hex(8)}"
        self._logins[token] = Login(organisation, user, unit, account, may_set_effective, is_active, is_expired)
        return token

    def expire(self, token: str) -> None:
        """Let a login expire: ``EXPIRED_TOKEN`` from now on."""
        self._logins[token] = replace(self._logins[token], is_expired=True)

    def revoke(self, token: str) -> None:
        """Revoke a login: ``INVALID_TOKEN`` from now on."""
        del self._logins[token]

    # --- what the next commands meet ----------------------------------------------------------------------------------

    def refuse_next(self, code: StatusCode | str, message: str = "", *, times: int = 1) -> None:
        """Answer the next commands with this status, whatever they are; nothing changes. Raises ``ValueError``."""
        status = StatusCode(code)
        if status is StatusCode.OK:
            raise ValueError("OK is no refusal")
        self._fates.extend([_Fate(status, message)] * times)

    def lose_next_commands(self, times: int = 1) -> None:
        """Lose the next commands: nothing happens, and no answer comes."""
        self._fates.extend([_Fate(is_command_lost=True)] * times)

    def lose_next_answers(self, times: int = 1) -> None:
        """Carry out the next commands, and lose their answers: the sender cannot know."""
        self._fates.extend([_Fate(is_answer_lost=True)] * times)

    def delay_answers(self, seconds: float) -> None:
        """Show answers so much later from now on."""
        self._delay = seconds

    # --- senders ------------------------------------------------------------------------------------------------------

    def client(
        self,
        *,
        source: str | None = None,
        reply_to: str | None = None,
        timeout: float = 30.0,
        max_in_flight: int = 10_000,
    ) -> CommandClient:
        """Return a client of this worker, which is the one of ``effective_contract.client`` in all but Kafka."""
        return CommandClient(
            "in memory",
            source=source,
            reply_to=reply_to,
            timeout=timeout,
            max_in_flight=max_in_flight,
            transport=self._transport,
        )

    def blocking_client(
        self, *, source: str | None = None, reply_to: str | None = None, timeout: float = 30.0
    ) -> BlockingCommandClient:
        """Return a client for programs without an event loop."""
        return BlockingCommandClient(self.client(source=source, reply_to=reply_to, timeout=timeout))

    @property
    def received(self) -> tuple[Received, ...]:
        """The commands that came so far, in order."""
        return tuple(self._received)

    @property
    def topics(self) -> frozenset[str]:
        """The topics that exist."""
        return frozenset({COMMANDS, RESULTS}) | self._reply_topics | self._other_topics

    def answer(self, value: bytes | None, headers: Headers = (), key: bytes | None = None) -> Reply | None:
        """Carry out one command as it is in the commands topic, and return its answer; None if it is lost.

        For senders that do not use ``effective_contract.client``.
        """
        with self._lock:
            request = read(value, headers)
            place = f"rec:in-memory/{COMMANDS}/0/{len(self._received)}@{int(self._clock().timestamp() * 1000)}"
            fate = self._fates.popleft() if self._fates else _Fate()
            outcome = None if fate.is_command_lost else self._outcome(request, fate)
            command_id = place if outcome is None else outcome.command_id or place
            status, token = (None, None) if outcome is None else (outcome.code, outcome.token)
            token_id = None if token is None else str(token.data["id"])
            self._received.append(Received(status, command_id, token_id, request.dry_run, key, tuple(headers)))
            if outcome is None or fate.is_answer_lost:
                return None
            return self._reply(request, outcome, place, key)

    def receive(self, value: bytes, headers: Headers, key: bytes | None) -> tuple[Reply, float] | None:
        """Answer a command of a client, for the transport: the answer, and the seconds until it is visible."""
        reply = self.answer(value, headers, key)
        return None if reply is None else (reply, self._delay)

    # --- the rules ----------------------------------------------------------------------------------------------------

    def _outcome(self, request: Request, fate: _Fate) -> _Outcome:
        """Judge a command in the order of CONTRACT, Statuses, and carry it out."""
        if fate.code is not None:
            return _Outcome(fate.code, fate.message)
        fault = request.fault
        if fault is not None:
            return _Outcome(fault.code, fault.message)
        if request.reply_topic is not None and request.reply_topic not in self._reply_topics:
            return _Outcome(StatusCode.INVALID_PARAMETER, self._of_reply_topic(request.reply_topic))
        login = self._logins.get(request.body["token"])
        if login is None:
            return _Outcome(StatusCode.INVALID_TOKEN, "the login token cannot be verified")
        if not login.is_active:
            return _Outcome(StatusCode.INVALID_TOKEN, "the login token's user is not known or not active")
        command_id = _senders_id(login, request)
        if login.is_expired:
            return _Outcome(StatusCode.EXPIRED_TOKEN, "log in again and send the command again", command_id)
        if not login.may_set_effective:
            return _Outcome(StatusCode.ACCESS_DENIED, f"the user lacks the right {SET_EFFECTIVE.right}", command_id)
        return self._decided(request, login, command_id)

    def _decided(self, request: Request, login: Login, command_id: str | None) -> _Outcome:
        kind, name = request.name
        token = self._named(login.organisation, kind, name)
        if token is not None and login.account not in {None, token.account}:
            token = None
        if kind == "code" and token is None:
            message = "no access token of yours has this authentication_code"
            return _Outcome(StatusCode.ACCESS_TOKEN_NOT_FOUND, message, command_id)
        given = request.body["access_token_identifier"].get("pass_code")
        if token is None or (kind == "identifier" and token.pass_code != given):
            message = "identifier and pass_code do not go together"
            return _Outcome(StatusCode.INVALID_CREDENTIALS, message, command_id)
        same = (kind, name, request.fields)
        former = None if command_id is None else self._applied.get(command_id)
        if former is not None:
            if former[0] == same:
                return _Outcome(StatusCode.OK, "", command_id, former[1], replayed=True)
            message = "this id was applied for another access token or other fields"
            return _Outcome(StatusCode.DUPLICATE_REQUEST, message, command_id)
        state = token.data["life_cycle_state"]
        if state != SET_EFFECTIVE.from_state:
            return _Outcome(StatusCode.INVALID_LIFE_CYCLE_STATE, f"the access token is {state}", command_id, token)
        changed = _Token(token.organisation, self._changed(token, login), token.pass_code)
        if not request.dry_run:
            token.data = changed.data
            if command_id is not None:
                self._applied[command_id] = (same, token)
        return _Outcome(StatusCode.OK, "", command_id, changed)

    def _changed(self, token: _Token, login: Login) -> dict[str, Any]:
        """Return the members after the change: the state, and who changed it when."""
        log = {
            **token.data["log_information"],
            "updated_date": f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
            "updated_by_user": dict.fromkeys(User.model_fields) | {"id": login.user, "username": login.user},
            "updated_by_unit": dict.fromkeys(Unit.model_fields) | {"id": login.unit},
        }
        return {**token.data, "life_cycle_state": SET_EFFECTIVE.to_state.value, "log_information": log}

    def _named(self, organisation: str, kind: str, name: str) -> _Token | None:
        member = "authentication_code" if kind == "code" else "identifier"
        mine = (token for token in self._tokens if token.organisation == organisation)
        return next((token for token in mine if token.data[member] == name), None)

    def _of_reply_topic(self, topic: str) -> str:
        if topic in {COMMANDS, RESULTS}:
            return f"the header {h.REPLY_TO} names one of the worker's own topics"
        return f"the header {h.REPLY_TO} names a topic to which no answers may be sent"

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _reply(self, request: Request, outcome: _Outcome, place: str, key: bytes | None) -> Reply:
        shown: dict[str, Any] = {}
        if outcome.code is StatusCode.OK and outcome.token is not None:
            # A verification code is revealed by a setting of the worker's only.
            members = {**outcome.token.data, "verification_code": None}
            shown = {name: members[name] for name in field_names(request.fields)}
        status = {"code": outcome.code, "description": outcome.code.description, "message": outcome.message}
        topic = request.reply_topic if request.reply_topic in self._reply_topics else RESULTS
        headers = tuple(self._headers(request, outcome, place))
        return Reply(topic or RESULTS, key, orjson.dumps({"data": shown, "status": status}), headers)

    def _headers(self, request: Request, outcome: _Outcome, place: str) -> Iterator[tuple[str, bytes]]:
        command_id = outcome.command_id or place
        is_applied = outcome.code is StatusCode.OK and not request.dry_run
        event = hashlib.sha256((command_id if is_applied else place).encode()).hexdigest()[:32]
        texts = {
            h.CE_ID: event,
            h.CE_SPEC_VERSION: h.SPEC_VERSION,
            h.CE_SOURCE: SOURCE,
            h.CE_TYPE: SET_EFFECTIVE.result_type,
            h.CE_TIME: f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            h.CONTENT_TYPE: h.JSON_CONTENT,
            h.CAUSATION_ID: _own_id(request) or place,
            h.COMMAND_ID: command_id,
            h.STATUS_CODE: outcome.code.value,
            h.REPLAYED: h.TRUE if outcome.replayed else h.FALSE,
        }
        yield from ((name, text.encode()) for name, text in texts.items())
        yield from request.correlation
        if request.dry_run:
            yield h.DRY_RUN, h.TRUE.encode()
            yield h.CE_SUBJECT, place.encode()
        if h.TRACEPARENT in request.texts:
            _, trace, _, flags = request.texts[h.TRACEPARENT].split("-")[:4]
            span = hashlib.sha256(place.encode()).hexdigest()[:16]
            yield h.TRACEPARENT, f"00-{trace}-{span}-{flags}".encode()
            if h.TRACESTATE in request.texts:
                yield h.TRACESTATE, request.texts[h.TRACESTATE].encode()


def _own_id(request: Request) -> str | None:
    if h.CE_ID in request.texts and h.CE_SOURCE in request.texts:
        return request.texts[h.CE_ID]
    return request.request_id


def _senders_id(login: Login, request: Request) -> str | None:
    """Return the command id for a sender's own id, or None if it gave none (CONTRACT, Command)."""
    parts = [login.organisation, *([] if login.account is None else [login.account])]
    if h.CE_ID in request.texts and h.CE_SOURCE in request.texts:
        return _joined("ce", *parts, request.texts[h.CE_SOURCE], request.texts[h.CE_ID])
    return None if request.request_id is None else _joined("req", *parts, request.request_id)


def _joined(kind: str, *parts: str) -> str:
    return ":".join((kind, *(quote(part, safe="") for part in parts)))
