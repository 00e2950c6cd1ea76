"""The client: one call is one command, sent as often as its ``retry`` says, and its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, TypeAlias
from uuid import uuid4

import orjson
from aiokafka import errors as kafka

from effective_contract.client import outbox
from effective_contract.client.answer import Answer, SetEffective, read_answer
from effective_contract.client.calls import Call, Calls, Counts
from effective_contract.client.elsewhere import Elsewhere
from effective_contract.client.errors import (
    BrokerAway,
    ClientClosed,
    CommandError,
    CommandNotTaken,
    CommandRefused,
    CommandTimeout,
    CommandTooLarge,
    InvalidCommand,
    NoSuchTopic,
    RepliesLost,
)
from effective_contract.client.transport import Headers, Kafka, Reading, Reply, Transport
from effective_contract.headers import (
    CE_ID,
    CE_SOURCE,
    CE_SPEC_VERSION,
    CE_TYPE,
    COMMAND_TYPE,
    CONTENT_TYPE,
    CORRELATION_ID,
    DRY_RUN,
    JSON_CONTENT,
    REPLY_TO,
    SPEC_VERSION,
    TRACEPARENT,
    TRACESTATE,
    TRUE,
)
from effective_contract.methods import METHODS
from effective_contract.rules.body import fault_of
from effective_contract.rules.faults import Fault, invalid
from effective_contract.rules.headers import first_fault, read_headers

COMMANDS: Final = "access-token.set-effective.commands"
RESULTS: Final = "access-token.set-effective.results"
_NO_TEXT: Final = "holds half of a surrogate pair, which is no text"

LoginToken: TypeAlias = str | Callable[[], Awaitable[str]]
"""A login token, or a function that returns one before each attempt: a login lives two hours, a retry may take longer.
"""


@dataclass(frozen=True, slots=True)
class Retry:
    """The number of times a command is sent under one id: again after a timeout, or if its refusal is ``retryable``.

    A call takes up to ``attempts`` times its timeout, and the pauses between.
    """

    attempts: int
    pause_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.pause_seconds < 0:
            raise ValueError("at least one attempt, and no negative pause")


NO_RETRY: Final = Retry(1)


@dataclass(frozen=True, slots=True)
class _Lost:
    """The error for a waiting call, in place of a reply."""

    error: type[CommandError]
    what: str


@dataclass(frozen=True, slots=True)
class _Identity:
    ce_id: str
    ce_source: str

    @property
    def members(self) -> dict[str, str]:
        return {CE_ID: self.ce_id, CE_SOURCE: self.ce_source}


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A command to send, without the parts that differ between attempts."""

    identity: _Identity
    is_dry_run: bool
    headers: Headers
    key: bytes | None
    command: Callable[[str], bytes] = field(repr=False)
    """Return its bytes, with that login token."""


class CommandClient:
    """A client that sends commands and gives each caller its own answer. ``async with`` opens and closes it.

    Any number of calls may wait at once; at most ``max_in_flight`` of them are sent, the others wait for their turn.
    Replies are read from ``reply_to``, a topic of the sender's own that the worker must allow, or else from the shared
    topic ``results``, which has the answers to all senders. That one is read as well while no answer has come on
    ``reply_to``: a worker that does not allow the topic says so there. ``connection`` holds aiokafka's own arguments,
    the same for producer and consumer: ``security_protocol``, ``ssl_context``, ``sasl_mechanism``,
    ``request_timeout_ms`` and the like.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        commands: str = COMMANDS,
        results: str = RESULTS,
        reply_to: str | None = None,
        source: str | None = None,
        timeout: float = 30.0,
        max_in_flight: int = 10_000,
        open_timeout: float = 30.0,
        connection: Mapping[str, Any] | None = None,
        transport: Transport | None = None,
    ) -> None:
        """``source`` is the ``ce_source`` of every command that has none of its own; timeouts are in seconds.

        ``transport`` stands in for Kafka (``effective_contract.testing``). Raises ``ValueError`` if ``reply_to`` is one
        of the worker's topics.
        """
        if reply_to in {commands, results}:
            raise ValueError(f"reply_to must be a topic of your own, not {reply_to}")
        options = {"bootstrap_servers": bootstrap_servers, "client_id": "command-client", **(connection or {})}
        transport = transport or Kafka(options)
        self._servers = _listed(options["bootstrap_servers"])
        self._topics = (commands, reply_to or results)
        self._reply_to = reply_to
        self._given_source = source
        self._own_source = f"urn:uuid:{uuid4()}"
        self._timeout = timeout
        self._open_timeout = open_timeout
        self._calls: Calls[Reply | _Lost] = Calls()
        self._slots = asyncio.Semaphore(max_in_flight)
        self._outbox = transport.outbox(commands)
        self._replies: Reading = transport.replies(reply_to or results, self._hear)
        self._elsewhere = None if reply_to is None else Elsewhere(transport.replies(results, self._hear_elsewhere))
        self._reading: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._lost = _Lost(ClientClosed, "the client is not open")

    @property
    def counts(self) -> Counts:
        """The counts so far, for example of late replies."""
        return self._calls.counts

    async def __aenter__(self) -> "CommandClient":
        """Connect, and note where the reply topic ends. Raises ``BrokerAway`` or ``NoSuchTopic``."""
        try:
            async with asyncio.timeout(self._open_timeout):
                await self._outbox.open()
                missing = set(self._topics) - await self._outbox.topics()
                if missing:
                    raise NoSuchTopic(min(missing))
                await self._replies.open()
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            await self._disconnect()
            raise BrokerAway(self._servers, error, seconds=self._open_timeout) from error
        except BaseException:
            await self._disconnect()
            raise
        self._reading = asyncio.create_task(self._replies.run(), name="replies")
        self._reading.add_done_callback(self._reading_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client. Calls that still wait get ``ClientClosed``."""
        self._lose(_Lost(ClientClosed, "the client was closed"))
        ending = {task for task in (self._reading, *self._sending) if task is not None}
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        await self._disconnect()

    async def set_effective(
        self,
        *,
        token: LoginToken,
        authentication_code: str | None = None,
        identifier: str | None = None,
        pass_code: str | None = None,
        fields_set: str | None = None,
        ce_id: str | None = None,
        ce_source: str | None = None,
        key: str | bytes | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - for each attempt, and its error has the id to ask again with
        retry: Retry = NO_RETRY,
    ) -> SetEffective:
        """Set one access token effective: named by ``authentication_code``, or by ``identifier`` and ``pass_code``.

        ``fields_set`` are the fields to return, comma-separated; without it, all. ``ce_id`` names the command for good:
        sent again under it, at any time and by any sender, the command is applied once and answered ``OK`` again, with
        ``replayed``. Without one the client makes up an id; a given one needs a ``ce_source`` (the client's ``source``,
        by default). ``key`` is an opaque, stable id of the access token, which keeps its commands in order; never a
        code or an identifier (CONTRACT, Topics). ``timeout`` is in seconds, for each attempt.

        A ``dry_run`` changes nothing, and is answered as it would be (CONTRACT, Command).

        Raises the errors of ``effective_contract.client.errors``: ``CommandRefused`` for every status but ``OK``.
        """
        identity = self._identity(ce_id, ce_source)
        given = {TRACEPARENT: traceparent, TRACESTATE: tracestate, DRY_RUN: TRUE if dry_run else None}
        headers = self._headers(identity, given)
        members = {
            "access_token_identifier": {
                "authentication_code": authentication_code,
                "identifier": identifier,
                "pass_code": pass_code,
            },
            "fields_set": fields_set,
        }
        outgoing = _Outgoing(
            identity,
            dry_run,
            headers,
            _in_utf_8(key, "the key", identity) if isinstance(key, str) else key,
            lambda login: _encoded({"token": login, **members}, identity),
        )
        return await self._set_effective(outgoing, token, self._timeout if timeout is None else timeout, retry)

    async def _set_effective(
        self, outgoing: _Outgoing, token: LoginToken, seconds: float, retry: Retry
    ) -> SetEffective:
        is_unanswered = False
        for left in reversed(range(retry.attempts)):
            try:
                answer = await self._attempt(outgoing, token, seconds)
                if isinstance(answer, SetEffective):
                    return answer
                raise answer
            except CommandError as error:
                # A refusal of this attempt says nothing about an earlier one that is still on its way.
                error.may_be_applied = (error.may_be_applied or is_unanswered) and not outgoing.is_dry_run
                is_unanswered = error.may_be_applied
                again = isinstance(error, CommandTimeout) or (isinstance(error, CommandRefused) and error.retryable)
                if not left or not again:
                    raise
            await asyncio.sleep(retry.pause_seconds)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, outgoing: _Outgoing, token: LoginToken, seconds: float) -> Answer:
        """Send it once and return the answer to this sending, refusals included. Raises other ``CommandError``."""
        identity = outgoing.identity
        value = outgoing.command(token if isinstance(token, str) else await token())
        if self._reading is None or self._reading.done():
            raise self._lost.error(self._lost.what, may_be_applied=False, **identity.members)
        # Each attempt has its own id: the refusal of an earlier one, for example an expired login, is not its answer.
        call = self._calls.open()
        sending: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(seconds), self._slots:
                if self._elsewhere is not None:
                    await self._elsewhere.watch()
                if not call.reply.done():  # it is done if the client was closed while the call waited for its turn
                    headers = [*outgoing.headers, (CORRELATION_ID, call.correlation_id)]
                    sending = self._send(value, headers, outgoing.key)
                    await _answered(sending, call)
        except TimeoutError:
            if not call.reply.done():
                raise self._unanswered(sending, seconds, identity) from None
        except outbox.TooLarge as error:
            what = f"the topic takes no command of {len(value)} bytes"
            raise CommandTooLarge(what, may_be_applied=False, **identity.members) from error
        except outbox.Refused as error:
            what = "the broker does not take the command"
            raise CommandNotTaken(what, may_be_applied=False, **identity.members) from error
        finally:
            self._calls.close(call)
            if sending is not None:
                sending.cancel()
        reply = call.reply.result()
        if isinstance(reply, _Lost):
            raise reply.error(reply.what, may_be_applied=sending is not None, **identity.members)
        return read_answer(reply.value, reply.headers, **identity.members)

    def _unanswered(self, sending: "asyncio.Task[None] | None", seconds: float, identity: _Identity) -> CommandTimeout:
        sent, taken = sending is not None, sending is not None and sending.done()
        unseen = False
        if taken and self._elsewhere is not None:
            self._elsewhere.doubt()
            unseen = not self._elsewhere.is_readable
        return CommandTimeout(timeout=seconds, sent=sent, taken=taken, is_refusal_unseen=unseen, **identity.members)

    def _send(self, value: bytes, headers: Headers, key: bytes | None) -> "asyncio.Task[None]":
        sending = asyncio.create_task(self._outbox.send(value, headers, key))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        sending.add_done_callback(outbox.seen)
        return sending

    def _identity(self, ce_id: str | None, ce_source: str | None) -> _Identity:
        if ce_id is None:
            return _Identity(str(uuid4()), ce_source or self._given_source or self._own_source)
        source = ce_source or self._given_source
        if not ce_id:
            raise InvalidCommand(invalid("ce_id is empty", CE_ID), ce_id=ce_id, ce_source=source or "")
        if source is None:
            raise InvalidCommand(
                invalid("ce_id needs ce_source: an id of one's own needs a source", CE_SOURCE),
                ce_id=ce_id,
                ce_source="",
            )
        return _Identity(ce_id, source)

    def _headers(self, identity: _Identity, given: Mapping[str, str | None]) -> Headers:
        texts = {
            CE_SPEC_VERSION: SPEC_VERSION,
            CE_TYPE: COMMAND_TYPE,
            CONTENT_TYPE: JSON_CONTENT,
            **identity.members,
            **{name: text for name, text in given.items() if text is not None},
        }
        if self._reply_to is not None:
            texts[REPLY_TO] = self._reply_to
        headers = [(name, _in_utf_8(text, f"the header {name}", identity)) for name, text in texts.items()]
        read, _, wrong = read_headers(headers, METHODS.of_type)
        fault = first_fault(read, wrong)
        if fault is not None:
            raise InvalidCommand(fault, **identity.members)
        return headers

    def _hear(self, reply: Reply) -> None:
        correlation_id = _correlation_of(reply.headers)
        if self._elsewhere is not None and self._calls.waits(correlation_id):
            self._elsewhere.rest()
        self._calls.answer(correlation_id, reply)

    def _hear_elsewhere(self, reply: Reply) -> None:
        correlation_id = _correlation_of(reply.headers)
        if self._calls.waits(correlation_id):  # all others' answers are there, too
            self._calls.answer(correlation_id, reply)

    def _reading_ended(self, reading: "asyncio.Task[None]") -> None:
        if not reading.cancelled():
            self._lose(
                _Lost(RepliesLost, f"the topic {self._topics[1]} cannot be read: this client has no right to it")
            )

    def _lose(self, lost: _Lost) -> None:
        self._lost = lost
        self._calls.end_all(lost)

    async def _disconnect(self) -> None:
        if self._elsewhere is not None:
            await self._elsewhere.close()
        await self._replies.close()
        await self._outbox.close()


async def _answered(sending: "asyncio.Task[None]", call: "Call[Reply | _Lost]") -> None:
    """Wait for the reply, which may come before the broker acknowledges the command."""
    either: set[asyncio.Future[Any]] = {sending, call.reply}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not call.reply.done():
        sending.result()
        await asyncio.wait({call.reply})


def _encoded(members: Mapping[str, Any], identity: _Identity) -> bytes:
    fault = fault_of(members)
    if fault is not None:
        if fault.member == "token" and not members["token"]:
            fault = Fault(fault.code, f"{fault.message}: a command needs the login token of who asks", "token")
        raise InvalidCommand(fault, **identity.members)
    try:
        return orjson.dumps(_given(members))
    except TypeError:
        # Not chained: the error may hold its input, which includes the login token.
        raise InvalidCommand(invalid(f"the command {_NO_TEXT}"), **identity.members) from None


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members without those that are not given, at both levels."""
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in members.items()
        if value is not None
    }


def _in_utf_8(text: str, what: str, identity: _Identity) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidCommand(invalid(f"{what} {_NO_TEXT}"), **identity.members) from None


def _listed(servers: str | Sequence[str]) -> str:
    return servers if isinstance(servers, str) else ",".join(servers)


def _correlation_of(headers: Iterable[tuple[str, bytes]]) -> bytes | None:
    return next((content for name, content in headers if name == CORRELATION_ID), None)
