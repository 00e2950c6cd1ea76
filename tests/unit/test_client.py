"""The senders' client without a broker: matching replies to commands, reading answers, and errors without secrets."""

import asyncio
import inspect
import json
import subprocess
import sys
import threading
import traceback
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from effective_contract.client import (
    NO_RETRY,
    BlockingCommandClient,
    BrokerAway,
    ClientClosed,
    CommandClient,
    CommandError,
    CommandNotTaken,
    CommandRefused,
    CommandTimeout,
    InvalidCommand,
    LoginToken,
    RepliesLost,
    Retry,
    SetEffective,
    UnreadableReply,
    outbox,
)
from effective_contract.client.answer import read_answer
from effective_contract.client.blocking import Request
from effective_contract.client.calls import Calls, Counts
from effective_contract.client.client import COMMANDS, RESULTS
from effective_contract.client.outbox import Concealed
from effective_contract.client.transport import Headers, Hear
from effective_contract.codes import StatusCode
from tests.support.builders import record
from tests.support.pace import stretched

ROOT: Final = Path(__file__).parents[2]
NAMED: Final[dict[str, Any]] = {"ce_id": "order-7", "ce_source": "/shop"}
SECRET: Final = "nobody may read this"
OWN: Final = "replies.shop"


def result(code: str = "OK", *, data: dict[str, Any] | None = None, **status: Any) -> bytes:
    return json.dumps(
        {"data": data or {}, "status": {"code": code, "description": "", "message": "", **status}}
    ).encode()


# --- matching answers -------------------------------------------------------------------------------------------------


async def test_a_reply_goes_to_the_call_that_it_answers() -> None:
    calls: Calls[str] = Calls()
    one, other = calls.open(), calls.open()

    calls.answer(other.correlation_id, "to the other")

    assert other.reply.result() == "to the other"
    assert not one.reply.done()


async def test_a_call_is_answered_once() -> None:
    calls: Calls[str] = Calls()
    call = calls.open()

    calls.answer(call.correlation_id, "first")
    calls.answer(call.correlation_id, "second")

    assert call.reply.result() == "first"
    assert calls.counts == Counts(waiting=0, made=1, answered=1, late=1, foreign=0)


async def test_a_reply_to_a_call_that_has_ended_answers_no_later_one() -> None:
    calls: Calls[str] = Calls()
    ended = calls.open()
    calls.close(ended)
    later = calls.open()

    calls.answer(ended.correlation_id, "late")

    assert not later.reply.done()
    assert calls.counts == Counts(waiting=1, made=2, answered=0, late=1, foreign=0)


async def test_a_reply_to_a_call_that_was_cancelled_is_late() -> None:
    calls: Calls[str] = Calls()
    call = calls.open()
    call.reply.cancel()

    calls.answer(call.correlation_id, "late")

    assert calls.counts == Counts(waiting=0, made=1, answered=0, late=1, foreign=0)


@pytest.mark.parametrize("correlation_id", [None, b"", b"42"])
async def test_what_others_are_told_is_passed_over(correlation_id: bytes | None) -> None:
    calls: Calls[str] = Calls()
    call = calls.open()

    calls.answer(correlation_id, "to others")

    assert not call.reply.done()
    assert calls.counts.foreign == 1


async def test_one_clients_replies_are_foreign_to_another() -> None:
    mine: Calls[str] = Calls()
    theirs: Calls[str] = Calls()

    mine.answer(theirs.open().correlation_id, "to them")

    assert (mine.counts.late, mine.counts.foreign) == (0, 1)


async def test_ids_hold_all_the_chance_that_they_were_given() -> None:
    numbers = count(1)
    calls: Calls[str] = Calls(random=lambda size: next(numbers).to_bytes(size, "big"))

    assert [calls.open().correlation_id for _ in range(2)] == [
        b"0000000000000001-00000000000000000000000000000002",
        b"0000000000000001-00000000000000000000000000000003",
    ]


async def test_all_that_wait_can_be_told_the_same() -> None:
    calls: Calls[str] = Calls()
    waiting = [calls.open() for _ in range(3)]

    calls.end_all("the end")

    assert [call.reply.result() for call in waiting] == ["the end"] * 3
    assert calls.counts.waiting == 0


# --- reading an answer ------------------------------------------------------------------------------------------------


def test_ok_is_what_was_asked_for() -> None:
    headers = [("command_id", b"ce:ORG1:%2Fshop:order-7"), ("status_code", b"OK"), ("replayed", b"true")]

    answer = read_answer(result(data={"number": "AT1", "classification": None}), headers, **NAMED)

    assert isinstance(answer, SetEffective)
    assert answer.data == {"number": "AT1", "classification": None}
    assert (answer.replayed, answer.command_id) == (True, "ce:ORG1:%2Fshop:order-7")


def test_the_golden_result_is_read_as_it_is() -> None:
    golden = (ROOT / "tests/seed/result.json").read_bytes()

    answer = read_answer(golden, [], **NAMED)

    assert isinstance(answer, SetEffective)
    assert answer.data.keys() == json.loads(golden)["data"].keys()
    receivable = answer.data["accounts_receivable"]
    assert receivable is not None
    assert receivable.model_dump(mode="json") == json.loads(golden)["data"]["accounts_receivable"]


def test_what_a_later_version_adds_is_passed_over() -> None:
    industry = {"id": "1", "name": None, "alternative_code": None, "new": 1}

    answer = read_answer(result(data={"classification": industry, "new": []}, new=True), [], **NAMED)

    assert isinstance(answer, SetEffective)
    assert list(answer.data) == ["classification"]


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_every_other_status_is_a_refusal(code: StatusCode) -> None:
    answer = read_answer(result(code, description=code.description, message="why"), [("command_id", b"rec:1")], **NAMED)

    assert isinstance(answer, CommandRefused)
    assert (answer.code, answer.description, answer.message) == (code, code.description, "why")
    assert (answer.command_id, answer.ce_id, answer.ce_source) == ("rec:1", "order-7", "/shop")
    assert answer.retryable == (code == "INTERNAL_ERROR")
    assert answer.needs_new_login == (code in {"INVALID_TOKEN", "EXPIRED_TOKEN"})
    assert not answer.may_be_applied
    assert str(answer) == f"{code}: why"


def test_a_code_of_a_later_version_is_a_refusal_as_well() -> None:
    answer = read_answer(result("TOO_TIRED", message="later"), [], **NAMED)

    assert isinstance(answer, CommandRefused)
    assert answer.code == "TOO_TIRED"
    assert not answer.retryable


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"data": {}}', result(data={"number": 1})])
def test_what_is_no_result_is_said_so(value: bytes | None) -> None:
    with pytest.raises(UnreadableReply, match="says OK") as caught:
        read_answer(value, [("status_code", b"OK")], **NAMED)
    assert caught.value.may_be_applied


# --- refused before sending -------------------------------------------------------------------------------------------


async def refused(**members: Any) -> CommandError:
    client = CommandClient("127.0.0.1:1")
    with pytest.raises(CommandError) as caught:
        await client.set_effective(**{"token": SECRET, "authentication_code": "1", **members})
    return caught.value


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"identifier": "a@b.example", "pass_code": SECRET}, ("access_token_identifier", "exactly one of")),
        ({"authentication_code": None}, ("access_token_identifier", "exactly one of")),
        (
            {"authentication_code": None, "identifier": "a@b.example"},
            ("access_token_identifier.pass_code", "not given"),
        ),
        ({"authentication_code": "1" * 256}, ("access_token_identifier.authentication_code", "longer than 255 ")),
        ({"authentication_code": "a\0"}, ("access_token_identifier.authentication_code", "the character U+0000")),
        ({"authentication_code": "\ud83d"}, ("", "half of a surrogate pair")),
        ({"authentication_code": 7}, ("access_token_identifier.authentication_code", "must be a string, not a number")),
        ({"token": ""}, ("token", "token is not given: a command needs the login token of who asks")),
        ({"token": SECRET * 1000}, ("token", "longer than 4096 ")),
        ({"fields_set": "number,nmae"}, ("fields_set", 'the unknown name "nmae"')),
        ({"ce_id": "order-7"}, ("ce_source", "needs ce_source")),
        ({"ce_id": "", "ce_source": "/shop"}, ("ce_id", "is empty")),
        ({"ce_id": "x" * 256, "ce_source": "/shop"}, ("ce_id", "longer than 255 ")),
        ({"ce_id": "\ud83d", "ce_source": "/shop"}, ("", "the header ce_id holds half of a surrogate pair")),
        ({"key": "\ud83d"}, ("", "the key holds half of a surrogate pair")),
        ({"traceparent": "00-0-0-0"}, ("traceparent", "not a W3C trace context")),
    ],
)
async def test_a_command_that_breaks_the_contract_is_not_sent(members: dict[str, Any], fault: tuple[str, str]) -> None:
    error = await refused(**members)

    assert isinstance(error, InvalidCommand)
    assert isinstance(error, ValueError)
    assert error.fault.member == fault[0]
    assert fault[1] in str(error) == error.fault.message
    assert not error.may_be_applied


@pytest.mark.parametrize(
    "members",
    [
        {"identifier": "a@b.example", "pass_code": SECRET},
        {"authentication_code": None, "identifier": "a@b.example", "pass_code": f"{SECRET}\ud83d"},
        {"token": SECRET * 1000},
    ],
)
async def test_no_secret_is_in_an_error_of_the_client(members: dict[str, Any]) -> None:
    error = await refused(**members)

    assert isinstance(error, InvalidCommand)
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in f"{error} {error!r} {vars(error)} {error.__context__} {shown}"


async def test_a_client_that_is_not_open_sends_nothing() -> None:
    error = await refused()

    assert isinstance(error, ClientClosed)
    assert not error.may_be_applied


def test_what_is_sent_shows_in_no_log() -> None:
    concealed = Concealed(SECRET.encode())

    assert f"{concealed} {concealed!r}" == "*** ***"
    assert Concealed.reveal(concealed) == SECRET.encode()


def test_data_shows_in_no_log() -> None:
    answer = read_answer(result(data={"verification_code": SECRET}), [], **NAMED)

    assert SECRET not in repr(answer)


# --- asking again -----------------------------------------------------------------------------------------------------


def test_a_timeout_says_how_to_ask_again() -> None:
    error = CommandTimeout(timeout=2.5, sent=True, taken=True, **NAMED)

    assert str(error) == (
        "no answer of the worker within 2.5 s. The command may still be applied: ask again with ce_id='order-7' and"
        " ce_source='/shop', which is safe"
    )
    assert isinstance(error, TimeoutError)


@pytest.mark.parametrize("policy", [{"attempts": 0}, {"attempts": 2, "pause_seconds": -1.0}])
def test_a_policy_makes_sense(policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        Retry(**policy)


class Script:
    """Kafka for a client: the fate of each sending, in order. An answer is its status; ``None`` is silence."""

    def __init__(self, *story: "str | Exception | None") -> None:
        self.story = list(story)
        self.sent: list[tuple[bytes, dict[str, bytes]]] = []
        self.has_sent, self.end_of_reading = asyncio.Event(), asyncio.Event()
        self.readers: dict[str, ScriptedReplies] = {}
        self.answers_on = RESULTS
        self.unreadable: set[str] = set()

    def outbox(self, _topic: str) -> "ScriptedOutbox":
        return ScriptedOutbox(self)

    def replies(self, topic: str, hear: Hear) -> "ScriptedReplies":
        return self.readers.setdefault(topic, ScriptedReplies(self, topic, hear))


@dataclass
class ScriptedOutbox:
    script: Script

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def topics(self) -> frozenset[str]:
        return frozenset({COMMANDS, RESULTS, OWN})

    async def send(self, value: bytes, headers: Headers, _key: bytes | None) -> None:
        self.script.sent.append((value, dict(headers)))
        self.script.has_sent.set()
        next_one = self.script.story.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        reader = self.script.readers[self.script.answers_on]
        if next_one is not None and reader.opened:
            reader.hear(record(result(next_one), headers=list(headers)))


@dataclass
class ScriptedReplies:
    script: Script
    topic: str
    hear: Hear
    opened: int = 0

    async def open(self) -> None:
        if self.topic in self.script.unreadable:
            raise TopicAuthorizationFailedError(self.topic)
        self.opened += 1

    async def close(self) -> None: ...

    async def run(self) -> None:
        await self.script.end_of_reading.wait()
        raise TopicAuthorizationFailedError


def scripted(script: Script, **options: Any) -> CommandClient:
    return CommandClient("a stand-in", transport=script, **options)


async def ask(script: Script, retry: Retry = NO_RETRY, token: LoginToken = "a login") -> SetEffective:
    async with scripted(script, source="/shop", timeout=stretched(0.25)) as client:
        return await client.set_effective(token=token, authentication_code="1", retry=retry)


async def test_a_retry_sends_the_same_id_with_another_correlation_and_login() -> None:
    script = Script(None, "INTERNAL_ERROR", "OK")
    logins = iter(["first", "second", "third"])

    async def log_in() -> str:
        return next(logins)

    await ask(script, Retry(3, pause_seconds=0), log_in)

    assert [json.loads(value)["token"] for value, _ in script.sent] == ["first", "second", "third"]
    assert len({headers["ce_id"] for _, headers in script.sent}) == 1
    assert len({headers["correlation_id"] for _, headers in script.sent}) == 3


@pytest.mark.parametrize("code", [code for code in StatusCode if code not in {"OK", "INTERNAL_ERROR"}])
async def test_what_would_be_refused_again_is_not_asked_again(code: str) -> None:
    script = Script(code)

    with pytest.raises(CommandRefused) as caught:
        await ask(script, Retry(3, pause_seconds=0))

    assert len(script.sent) == 1
    assert not caught.value.may_be_applied


@pytest.mark.parametrize("end", ["EXPIRED_TOKEN", outbox.Refused(), outbox.TooLarge()])
async def test_a_refusal_says_nothing_of_an_attempt_that_was_not_answered(end: str | Exception) -> None:
    script = Script(None, end)

    with pytest.raises((CommandRefused, CommandNotTaken), match="may still be applied") as caught:
        await ask(script, Retry(3, pause_seconds=0))

    assert caught.value.may_be_applied


async def test_of_a_dry_run_nothing_comes_whatever_becomes_of_its_answer() -> None:
    script = Script(None, None, "OK")

    async with scripted(script, source="/shop", timeout=stretched(0.25)) as client:
        with pytest.raises(CommandTimeout) as caught:
            await client.set_effective(
                token="a login", authentication_code="1", retry=Retry(2, pause_seconds=0), dry_run=True
            )
        answer = await client.set_effective(token="a login", authentication_code="1")

    assert not caught.value.may_be_applied
    assert "may still be applied" not in str(caught.value)
    assert [headers.get("dry_run") for _, headers in script.sent] == [b"true", b"true", None]
    assert not answer.dry_run


def test_an_answer_to_a_dry_run_says_so() -> None:
    for code in ("OK", "ACCESS_DENIED"):
        assert read_answer(result(code), [("dry_run", b"true")], **NAMED).dry_run
        assert not read_answer(result(code), [], **NAMED).dry_run


async def test_the_last_attempts_silence_is_a_timeout() -> None:
    script = Script(None, None)

    with pytest.raises(CommandTimeout) as caught:
        await ask(script, Retry(2, pause_seconds=0))

    assert caught.value.taken
    assert len(script.sent) == 2


async def test_a_call_that_never_had_its_turn_was_not_sent() -> None:
    script = Script(None)
    async with scripted(script, max_in_flight=1) as client:
        first, closed = (
            asyncio.create_task(client.set_effective(token="a login", authentication_code="1")) for _ in range(2)
        )
        await script.has_sent.wait()
        with pytest.raises(CommandTimeout, match=r"^not sent within 0\.01 s$") as caught:
            await client.set_effective(token="a login", authentication_code="1", timeout=0.01)
    outcomes = await asyncio.gather(first, closed, return_exceptions=True)

    assert not caught.value.may_be_applied
    assert [type(outcome) for outcome in outcomes] == [ClientClosed] * 2
    assert [getattr(outcome, "may_be_applied", None) for outcome in outcomes] == [True, False]
    assert len(script.sent) == 1


async def test_calls_are_told_when_replies_can_no_longer_be_read() -> None:
    script = Script(None)
    async with scripted(script) as client:
        waiting = asyncio.create_task(client.set_effective(token="a login", authentication_code="1"))
        await script.has_sent.wait()
        script.end_of_reading.set()
        with pytest.raises(RepliesLost, match=f"the topic {RESULTS} cannot be read: this client has no right") as of_it:
            await waiting
        with pytest.raises(RepliesLost) as of_the_next:
            await client.set_effective(token="a login", authentication_code="1")

    assert (of_it.value.may_be_applied, of_the_next.value.may_be_applied) == (True, False)


# --- a reply topic of one's own ---------------------------------------------------------------------------------------


def own(script: Script) -> CommandClient:
    return scripted(script, source="/shop", reply_to=OWN, timeout=stretched(0.25))


async def once(client: CommandClient) -> SetEffective:
    return await client.set_effective(token="a login", authentication_code="1")


async def test_a_reply_topic_that_the_worker_does_not_allow_is_a_refusal_and_no_deadline() -> None:
    script = Script("INVALID_PARAMETER")
    async with own(script) as client:
        with pytest.raises(CommandRefused) as caught:
            await client.set_effective(token="a login", authentication_code="1", timeout=stretched(30))

    assert caught.value.code == "INVALID_PARAMETER"
    assert script.sent[0][1]["reply_to"] == OWN.encode()


async def test_the_results_topic_is_read_until_an_answer_comes_where_it_should_and_again_after_silence() -> None:
    script = Script("OK", "OK", None, "OK")
    script.answers_on = OWN
    async with own(script) as client:
        await once(client)
        await once(client)
        assert script.readers[RESULTS].opened == 1
        with pytest.raises(CommandTimeout):
            await once(client)
        script.answers_on = RESULTS
        await once(client)
        assert script.readers[RESULTS].opened == 2
        assert client.counts.foreign == 0


@pytest.mark.parametrize("topic", [COMMANDS, RESULTS])
def test_a_topic_of_the_workers_is_no_reply_topic(topic: str) -> None:
    with pytest.raises(ValueError, match=f"a topic of your own, not {topic}"):
        CommandClient("127.0.0.1:1", reply_to=topic)


async def test_a_timeout_says_so_where_a_refusal_of_the_reply_topic_could_not_be_seen() -> None:
    script = Script(None)
    script.unreadable, script.answers_on = {RESULTS}, OWN
    async with own(script) as client:
        with pytest.raises(CommandTimeout, match=r"does the worker allow it\? The command may"):
            await once(client)


# --- without an event loop --------------------------------------------------------------------------------------------


def blocking(script: Script) -> BlockingCommandClient:
    return BlockingCommandClient(scripted(script, source="/shop", timeout=stretched(5)))


def test_a_blocking_call_returns_its_answer_or_raises_its_refusal() -> None:
    script = Script("OK", "ACCESS_DENIED")
    logins = iter(["first", "second"])
    with blocking(script) as client:
        answer = client.set_effective(token=lambda: next(logins), authentication_code="1", ce_id="order-7")
        with pytest.raises(CommandRefused, match="ACCESS_DENIED"):
            client.set_effective(token=lambda: next(logins), authentication_code="1")
        assert client.counts.answered == 2

    assert answer.ce_id == "order-7"
    assert [json.loads(value)["token"] for value, _ in script.sent] == ["first", "second"]
    assert not [thread for thread in threading.enumerate() if thread.name == "command client"]


def test_many_blocking_calls_are_in_flight_at_once() -> None:
    script = Script(*[None] * 50)
    with blocking(script) as client:
        futures = [client.submit(token="a login", authentication_code=str(number)) for number in range(50)]
        while client.counts.waiting < 50:
            threading.Event().wait(0.001)
        futures[0].cancel()

    assert [type(future.exception()) for future in futures[1:]] == [ClientClosed] * 49
    with pytest.raises(CancelledError):
        futures[0].result()


def test_a_blocking_client_that_is_not_open_raises_and_does_not_wait() -> None:
    client = blocking(Script("OK"))
    with pytest.raises(ClientClosed, match="not open"):
        client.set_effective(token="a login", authentication_code="1")
    with client:
        client.set_effective(token="a login", authentication_code="1")
    with pytest.raises(ClientClosed, match="not open"):
        client.set_effective(token="a login", authentication_code="1", ce_id="order-7")


def test_a_blocking_client_that_cannot_be_opened_says_why() -> None:
    with (
        pytest.raises(BrokerAway, match=r"no broker answers at 127\.0\.0\.1:1: check bootstrap_servers"),
        BlockingCommandClient(CommandClient("127.0.0.1:1")),
    ):
        pytest.fail("it was opened")


def test_a_misspelt_argument_of_a_blocking_call_is_an_error_at_once() -> None:
    with blocking(Script()) as client, pytest.raises(TypeError, match="field_set"):
        client.submit(token="a login", field_set="number")  # type: ignore[call-arg]


def test_both_clients_take_the_same_arguments() -> None:
    named = inspect.signature(CommandClient.set_effective).parameters.keys() - {"self"}
    assert Request.__annotations__.keys() == named
    assert Request.__required_keys__ == {"token"}


# --- dependencies -----------------------------------------------------------------------------------------------------


def test_the_client_brings_nothing_of_the_workers() -> None:
    program = (
        "import effective_contract.client, sys; print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'worker', 'asyncpg', 'argon2', 'jwt', 'structlog', 'typer', 'aiohttp', 'msgspec', 'prometheus_client'}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


async def test_a_client_can_be_made_where_no_loop_runs() -> None:
    client = await asyncio.to_thread(CommandClient, "127.0.0.1:1")
    assert client.counts == Counts(0, 0, 0, 0, 0)
