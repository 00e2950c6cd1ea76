"""The senders' client without a broker: matching replies to commands, reading answers, and errors without secrets."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import TopicAuthorizationFailedError

from effective_contract.client import (
    NO_RETRY,
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
from effective_contract.client import client as client_module
from effective_contract.client.answer import read_answer
from effective_contract.client.calls import Calls, Counts
from effective_contract.client.outbox import Concealed
from effective_contract.codes import StatusCode
from tests.support.builders import record
from tests.support.pace import stretched

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = {"ce_id": "order-7", "ce_source": "/shop"}
SECRET: Final = "nobody may read this"


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
        ({"token": ""}, ("token", "at least 1 ")),
        ({"token": SECRET * 1000}, ("token", "at most 4096 ")),
        ({"fields_set": "number,nmae"}, ("fields_set", "unknown field name")),
        ({"ce_id": "order-7"}, ("ce_source", "needs a source")),
        ({"ce_id": "", "ce_source": "/shop"}, ("ce_id", "at least 1 ")),
        ({"traceparent": "00-0-0-0"}, ("traceparent", "not a W3C trace context")),
    ],
)
async def test_a_command_that_breaks_the_contract_is_not_sent(members: dict[str, Any], fault: tuple[str, str]) -> None:
    error = await refused(**members)

    assert isinstance(error, InvalidCommand)
    assert isinstance(error, ValueError)
    [(name, what)] = error.faults
    assert (name, fault[1] in what) == (fault[0], True)
    assert not error.may_be_applied


async def test_no_secret_is_in_an_error_of_the_client() -> None:
    error = await refused(identifier="a@b.example", pass_code=SECRET)

    assert error.__cause__ is None
    assert error.__suppress_context__
    assert SECRET not in f"{error} {error!r} {vars(error)}"


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

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *story: "str | Exception | None") -> None:
        self.story = list(story)
        self.sent: list[tuple[bytes, dict[str, bytes]]] = []
        self.has_sent, self.end_of_reading = asyncio.Event(), asyncio.Event()
        self.hear: Callable[[ConsumerRecord], None]
        script = self

        class ScriptedOutbox:
            def __init__(self, *_: object) -> None: ...

            async def open(self) -> None: ...

            async def close(self) -> None: ...

            async def topics(self) -> set[str]:
                return {"access-token.set-effective.commands", "access-token.set-effective.results"}

            async def send(self, value: bytes, headers: list[tuple[str, bytes]], _key: bytes | None) -> None:
                script.sent.append((value, dict(headers)))
                script.has_sent.set()
                next_one = script.story.pop(0)
                if isinstance(next_one, Exception):
                    raise next_one
                if next_one is not None:
                    script.hear(record(result(next_one), headers=headers))

        class ScriptedReplies:
            def __init__(self, _topic: str, _options: object, hear: Callable[[ConsumerRecord], None]) -> None:
                script.hear = hear

            async def open(self) -> None: ...

            async def close(self) -> None: ...

            async def run(self) -> None:
                await script.end_of_reading.wait()
                raise TopicAuthorizationFailedError

        monkeypatch.setattr(client_module, "Outbox", ScriptedOutbox)
        monkeypatch.setattr(client_module, "Replies", ScriptedReplies)


async def ask(retry: Retry = NO_RETRY, token: LoginToken = "a login") -> SetEffective:
    async with CommandClient("a stand-in", source="/shop", timeout=stretched(0.25)) as client:
        return await client.set_effective(token=token, authentication_code="1", retry=retry)


async def test_a_retry_sends_the_same_id_with_another_correlation_and_login(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, None, "INTERNAL_ERROR", "OK")
    logins = iter(["first", "second", "third"])

    async def log_in() -> str:
        return next(logins)

    await ask(Retry(3, pause_seconds=0), log_in)

    assert [json.loads(value)["token"] for value, _ in script.sent] == ["first", "second", "third"]
    assert len({headers["ce_id"] for _, headers in script.sent}) == 1
    assert len({headers["correlation_id"] for _, headers in script.sent}) == 3


@pytest.mark.parametrize("code", [code for code in StatusCode if code not in {"OK", "INTERNAL_ERROR"}])
async def test_what_would_be_refused_again_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    script = Script(monkeypatch, code)

    with pytest.raises(CommandRefused) as caught:
        await ask(Retry(3, pause_seconds=0))

    assert len(script.sent) == 1
    assert not caught.value.may_be_applied


@pytest.mark.parametrize("end", ["EXPIRED_TOKEN", outbox.Refused(), outbox.TooLarge()])
async def test_a_refusal_says_nothing_of_an_attempt_that_was_not_answered(
    monkeypatch: pytest.MonkeyPatch, end: str | Exception
) -> None:
    Script(monkeypatch, None, end)

    with pytest.raises((CommandRefused, CommandNotTaken), match="may still be applied") as caught:
        await ask(Retry(3, pause_seconds=0))

    assert caught.value.may_be_applied


async def test_of_a_dry_run_nothing_comes_whatever_becomes_of_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, None, None, "OK")

    async with CommandClient("a stand-in", source="/shop", timeout=stretched(0.25)) as client:
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


async def test_the_last_attempts_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, None, None)

    with pytest.raises(CommandTimeout) as caught:
        await ask(Retry(2, pause_seconds=0))

    assert caught.value.taken
    assert len(script.sent) == 2


async def test_a_call_that_never_had_its_turn_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, None)
    async with CommandClient("a stand-in", max_in_flight=1) as client:
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


async def test_calls_are_told_when_replies_can_no_longer_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, None)
    async with CommandClient("a stand-in") as client:
        waiting = asyncio.create_task(client.set_effective(token="a login", authentication_code="1"))
        await script.has_sent.wait()
        script.end_of_reading.set()
        with pytest.raises(RepliesLost, match="TopicAuthorizationFailedError") as of_it:
            await waiting
        with pytest.raises(RepliesLost) as of_the_next:
            await client.set_effective(token="a login", authentication_code="1")

    assert (of_it.value.may_be_applied, of_the_next.value.may_be_applied) == (True, False)


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
