"""``effective-worker send`` without a broker: wrong usage, every way to have no answer, and how an answer is shown."""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import errors as kafka
from typer.testing import CliRunner

from effective_contract.access_token import Unit
from effective_contract.client import (
    BrokerAway,
    ClientError,
    CommandNotTaken,
    CommandRefused,
    CommandTimeout,
    CommandTooLarge,
    NoSuchTopic,
    RepliesLost,
    SetEffective,
    UnreadableReply,
)
from effective_contract.codes import StatusCode
from tests.support import preloaded
from tests.support.logins import login_token
from tests.support.waiting import run_to_end
from worker.cli import application
from worker.cli import send as command
from worker.cli.send import document, lines
from worker.demo.servers.processes import free_port
from worker.operations import send
from worker.operations.login_source import LoginSource
from worker.operations.send import NoAnswer, NotSent, Request, Sending
from worker.settings import KafkaSettings, Settings

CANARY: Final = "canary-pass-code"
LOGIN: Final = login_token()
BY_CODE: Final = ("send", "--code", "C1", "--login-token", LOGIN)
BY_PASS_CODE: Final = ("send", "--identifier", "polina@example.com", "--login-token", LOGIN, "--pass-code-file")
NAMED: Final[dict[str, Any]] = {"ce_id": "order 7", "ce_source": "/shop"}
ASK_AGAIN: Final = "ask again, which is safe, with the same options and --id 'order 7' --source /shop"
CLASSES: Final = ("Error", "Exception", "Command", "Kafka", "Replies", "Unreadable", "<", "Traceback")
"""Parts of names of classes, and of their instances' ``repr``."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "WORKER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", **more}


def called(
    *arguments: str, given: str | None = None, cwd: Path = preloaded.ROOT, more: dict[str, str] | None = None
) -> tuple[int, str, str]:
    if given is None:
        done = preloaded.run_to_end(arguments, cwd=cwd, env=environment(**more or {}))
    else:
        program = [sys.executable, "-m", "worker", *arguments]
        env = environment(
            PYTHONPATH=os.pathsep.join((str(preloaded.ROOT), str(preloaded.ROOT / "schemas"))), **more or {}
        )
        done = run_to_end(program, cwd=cwd, env=env, given=given)
    assert "Traceback" not in done.stderr, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in (CANARY, LOGIN))
    return done.returncode, done.stdout, done.stderr


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("send",), "give one of --code and --identifier"),
        ((*BY_CODE, "--identifier", "a@b.example"), "give one of --code and --identifier"),
        (("send", "--code", "", "--login-token", LOGIN), "--code: empty"),
        (("send", "--code", "C1"), "--login-token-command: give one of them"),
        ((*BY_CODE, "--login-token-command", "true"), "give one of them"),
        (("send", "--code", "C1", "--login-token", CANARY), "--login-token: this is no login token"),
        ((*BY_CODE, "--pass-code-file", "-"), "goes with --identifier"),
        (BY_PASS_CODE[:-1], "where there is no terminal to ask"),
        ((*BY_PASS_CODE, "no-such-file"), "--pass-code-file: cannot be read: No such file or directory"),
        ((*BY_PASS_CODE, "-"), "holds no pass code"),
        ((*BY_PASS_CODE, "."), "--pass-code-file: cannot be read: Is a directory"),
        ((*BY_CODE, "--fields", "number,nummer"), '--fields: fields_set holds the unknown name "nummer"'),
        ((*BY_CODE, "--fields", "a.b", "--id", ""), "--id: ce_id is empty"),
        ((*BY_CODE, "--source", ""), "--source: ce_source is empty"),
        ((*BY_CODE, "--id", "x" * 256), "--id: the header ce_id is longer than 255 characters"),
        (
            ("send", "--code", "C" * 256, "--login-token", LOGIN),
            "--code: access_token_identifier.authentication_code is longer",
        ),
        ((*BY_CODE, "--reply-to", "a/b"), '--reply-to: the header reply_to is not the name of a topic: "a/b"'),
        ((*BY_CODE, "--reply-to", "access-token.transitions"), "--reply-to: the worker answers in none of its own"),
        ((*BY_CODE, "--key", "\udcff"), "an option is not valid UTF-8"),
        ((*BY_CODE, "--timeout", "0"), "--timeout"),
        ((*BY_CODE, "--timeout", "inf"), "--timeout: not a number of seconds"),
        ((*BY_CODE, "--timeout", "nan"), "--timeout"),
        ((*BY_CODE, "--attempts", "0"), "--attempts"),
        ((*BY_CODE, "--loud"), "--loud"),
        ((*BY_CODE, "file"), "unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value)[:40].replace(LOGIN, "LOGIN") if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_named_and_exits_2(arguments: tuple[str, ...], words: str, as_json: bool) -> None:
    code, out, err = called(*arguments, *(["--json"] if as_json else []))
    assert code == 2
    assert "Usage:" in err
    assert words in " ".join(err.split())
    if as_json:
        found = json.loads(out)
        assert words in " ".join(found.pop("error").split())
        assert found == {"may_be_applied": False, "ce_id": None, "ce_source": None}
    else:
        assert out == ""


@pytest.mark.parametrize("held", [f"{CANARY}\n{CANARY}\n", "x" * 5000, "", "\n"], ids=len)
def test_what_is_no_pass_code_is_wrong_usage(held: str) -> None:
    code, _, err = called(*BY_PASS_CODE, "-", given=held)
    assert code == 2
    assert any(what in err for what in ("holds more than one line", "holds no pass code", "longer than 255 characters"))


def test_a_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "pass-code").write_bytes(b"\xff\xfe")
    code, _, err = called(*BY_PASS_CODE, "pass-code", cwd=tmp_path)
    assert (code, "--pass-code-file: not UTF-8 text" in err) == (2, True)


@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_settings_exit_2_with_a_line_for_each(as_json: bool) -> None:
    wrong = {"WORKER_MAX_BATCH": "many", "WORKER_KAFKA__GROUP": "g"}
    code, out, err = called(*BY_CODE, *(["--json"] if as_json else []), more=wrong)
    assert code == 2
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["WORKER_KAFKA__GROUP", "WORKER_MAX_BATCH"]
    assert all(name in json.loads(out)["error"] for name in wrong) if as_json else out == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_broker_that_is_away_is_one_line_and_exit_1(as_json: bool) -> None:
    away = f"127.0.0.1:{free_port()}"
    options = ["--json"] if as_json else []
    code, out, err = called(*BY_CODE, *options, more={"WORKER_KAFKA__BOOTSTRAP_SERVERS": away})
    line = f"kafka: no broker answers at {away} (connection refused); check WORKER_KAFKA__BOOTSTRAP_SERVERS"
    assert (code, err) == (1, f"error: {line}\n")
    unsent = {"error": line, "may_be_applied": False, "ce_id": None, "ce_source": None}
    assert json.loads(out) == unsent if as_json else out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--login-token-file", "expired"), "the login token has expired"),
        (("--login-token-file", "canary"), "this is no login token"),
        (("--login-token-command", "echo no >&2; false"), "ended with 1: no"),
    ],
    ids=str,
)
def test_without_a_login_nothing_is_sent(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    (tmp_path / "expired").write_text(login_token(exp=1), encoding="utf-8")
    (tmp_path / "canary").write_text(CANARY, encoding="utf-8")
    code, out, err = called("send", "--code", "C1", "--json", *options, cwd=tmp_path)
    assert code == 1
    assert [words in line for line in err.splitlines()] == [True]
    assert words in json.loads(out)["error"]
    assert json.loads(out)["may_be_applied"] is False


# --- the pass code ----------------------------------------------------------------------------------------------------


class Unsent(Exception):
    """The command would have been sent now."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return the requests that would have been sent."""
    requests: list[Request] = []

    def sending(settings: Settings, request: Request, login: LoginSource) -> Sending:
        requests.append(request)
        raise Unsent

    monkeypatch.setattr(command, "Sending", sending)
    return requests


@pytest.mark.parametrize("held", [" two words ", " two words \n", " two words \r\n"], ids=repr)
def test_a_pass_code_is_its_line_without_the_end(asked: list[Request], held: str, tmp_path: Path) -> None:
    file = tmp_path / "pass-code"
    file.write_bytes(held.encode())
    for source, given in ((str(file), ""), ("-", held)):
        assert isinstance(
            CliRunner().invoke(application("send"), [*BY_PASS_CODE, source], input=given).exception, Unsent
        )
    assert [request.pass_code for request in asked] == [" two words "] * 2


@pytest.mark.parametrize("options", [(), ("--pass-code-file", "-")], ids=str)
def test_a_person_at_a_terminal_is_asked_for_it(
    asked: list[Request], options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def prompted(prompt: str) -> str:
        prompts.append(prompt)
        return CANARY

    monkeypatch.setattr(getpass, "getpass", prompted)
    monkeypatch.setattr(command.sys, "stdin", Terminal())  # type: ignore[attr-defined]
    with pytest.raises(Unsent):
        application("send")([*BY_PASS_CODE[:-1], *options], standalone_mode=False)
    assert ([request.pass_code for request in asked], prompts) == ([CANARY], ["pass code: "])


class Terminal:
    def isatty(self) -> bool:
        return True


def test_a_request_shows_no_credential() -> None:
    shown = repr(Request("secret code", "polina@example.com", CANARY, "", "1", "/shop"))
    assert not any(secret in shown for secret in ("secret code", "polina", CANARY))


# --- no answer --------------------------------------------------------------------------------------------------------


class Client:
    """The client of senders, which raises or returns what it is told to, and asks for the login as often as that."""

    def __init__(self, *outcomes: Any, opening: ClientError | None = None) -> None:
        self._outcomes = list(outcomes)
        self._opening = opening
        self.options: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}

    def __call__(self, *_: Any, **options: Any) -> "Client":
        self.options = options
        return self

    async def __aenter__(self) -> "Client":
        if self._opening is not None:
            raise self._opening
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def set_effective(self, *, token: Callable[[], Any], **asked: Any) -> Any:
        self.asked = asked
        for outcome in self._outcomes:
            await token()
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return outcome
        return await asyncio.Event().wait()


def request(**changed: Any) -> Request:
    return Request(
        **({"authentication_code": "C1", "identifier": None, "pass_code": None, "fields_set": ""} | NAMED | changed)
    )


def sending(client: Client, monkeypatch: pytest.MonkeyPatch, *logins: str, **changed: Any) -> Sending:
    monkeypatch.setattr(send, "CommandClient", client)
    left = list(logins or (LOGIN,))

    async def fetch() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    login = LoginSource(fetch, clock=lambda: 0.0, renewable=True)
    return Sending(Settings(kafka=KafkaSettings(bootstrap_servers="kafka:9092")), request(**changed), login)


def caused(error: Exception, *causes: Exception) -> Any:
    """Return an error with the errors that led to it, the last one first."""
    at: BaseException = error
    for cause in causes:
        at.__cause__ = cause
        at = cause
    return error


def away() -> BrokerAway:
    return BrokerAway("127.0.0.1:1", OSError(), seconds=1)


FORBIDDEN: Final = kafka.TopicAuthorizationFailedError("any")


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (
            caused(away(), TimeoutError()),
            "kafka: no broker can be used: no answer in time",
        ),
        (
            caused(away(), FORBIDDEN),
            "allow READ on topic access-token.set-effective.results",
        ),
        (
            caused(away(), kafka.ClusterAuthorizationFailedError("any")),
            "allow WRITE on topic access-token.set-effective.commands",
        ),
        (NoSuchTopic("nowhere"), "kafka: the topic nowhere does not exist, or this login may not see it"),
    ],
    ids=str,
)
async def test_a_client_that_cannot_be_opened_has_sent_nothing(
    opening: ClientError, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotSent) as caught:
        await sending(Client(opening=opening), monkeypatch).run()
    assert words in str(caught.value)
    assert not any(name in str(caught.value) for name in CLASSES)


def late(*, sent: bool = True, taken: bool = True) -> CommandTimeout:
    return CommandTimeout(timeout=2.0, sent=sent, taken=taken, **NAMED)


MAY: Final[dict[str, Any]] = {"may_be_applied": True, **NAMED}
MAY_NOT: Final[dict[str, Any]] = {"may_be_applied": False, **NAMED}


@pytest.mark.parametrize(
    ("error", "words", "may_be_applied"),
    [
        (late(), "no answer from a worker within 2 s: is one running?", True),
        (late(taken=False), "kafka: the broker has not confirmed the command within 2 s", True),
        (late(sent=False, taken=False), "kafka: the broker has not confirmed the command within 2 s", False),
        (CommandTooLarge("the topic takes no command of 9 bytes", **MAY_NOT), "takes no command of 9 bytes", False),
        (
            caused(CommandNotTaken("no", **MAY_NOT), send.NotSent(), FORBIDDEN),
            "allow WRITE on topic access-token.set-effective.commands",
            False,
        ),
        (caused(CommandNotTaken("no", **MAY_NOT), kafka.InvalidTimestampError()), "does not take the command", False),
        (
            RepliesLost("TopicAuthorizationFailedError", **MAY),
            "answers cannot be read: allow READ on topic access-token.set-effective.results",
            True,
        ),
        (UnreadableReply(status_code="\x1b[31mOK", **NAMED), r"status_code is '\x1b[31mOK'", True),
    ],
    ids=str,
)
async def test_without_an_answer_it_says_whether_to_ask_again_and_how(
    error: Exception, words: str, may_be_applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoAnswer) as caught:
        await sending(Client(error), monkeypatch).run()
    said = str(caught.value)
    assert words in said
    assert (caught.value.may_be_applied, ASK_AGAIN in said) == (may_be_applied, may_be_applied)
    assert (caught.value.ce_id, caught.value.ce_source) == ("order 7", "/shop")
    assert not any(name in said.replace("The command", "").replace("WORKER_KAFKA", "") for name in CLASSES)


async def test_a_dry_run_may_never_be_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswer) as caught:
        await sending(Client(late()), monkeypatch, dry_run=True).run()
    assert (caught.value.may_be_applied, "ask again" in str(caught.value)) == (False, False)


async def test_a_refusal_of_the_reply_topic_that_cannot_be_seen_is_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = CommandTimeout(timeout=2.0, sent=True, taken=True, is_refusal_unseen=True, **NAMED)
    with pytest.raises(NoAnswer, match=r"If mine is not in its WORKER_TOPICS__REPLY_TO_ALLOWED, it has refused"):
        await sending(Client(unseen), monkeypatch, reply_to="mine").run()


async def test_a_login_that_ends_between_attempts_leaves_the_first_one_open(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(None, None)
    with pytest.raises(NoAnswer, match="no login token") as caught:
        await sending(client, monkeypatch, login_token(exp=1.5), login_token(exp=2.5), "nothing", attempts=2).run()
    assert caught.value.may_be_applied


async def test_a_worker_that_knows_no_dry_runs_has_taken_it_for_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswer, match="too old to know dry runs") as caught:
        await sending(Client(ok(dry_run=False)), monkeypatch, dry_run=True).run()
    assert caught.value.may_be_applied
    assert await sending(Client(ok(dry_run=True)), monkeypatch, dry_run=True).run() == ok(dry_run=True)


async def test_who_stops_it_is_told_whether_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sending(Client(None), monkeypatch)
    assert str(before.interrupted()) == "interrupted before the command was sent"
    running = asyncio.create_task(before.run())
    for _ in range(10):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "interrupted before the answer came. The command may still be applied" in str(before.interrupted())
    assert ASK_AGAIN in str(before.interrupted())


async def test_the_client_gets_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(ok())
    await sending(client, monkeypatch, key="card-1", reply_to="mine", timeout=3.0, fields_set="number").run()
    assert (client.options["reply_to"], client.options["open_timeout"]) == ("mine", 3.0)
    assert client.options["commands"] == "access-token.set-effective.commands"
    assert client.options["connection"]["security_protocol"] == "PLAINTEXT"
    expected = {"authentication_code": "C1", "fields_set": "number", "key": "card-1", "timeout": 3.0, **NAMED}
    assert expected.items() <= client.asked.items()


# --- answers ----------------------------------------------------------------------------------------------------------

OWNER: Final[Any] = {"name": "Polina\x1b[2J", "demographics": {"date_of_birth": {"month": 3, "year": None}}}


def ok(data: Any = None, message: str = "", *, replayed: bool = False, dry_run: bool = False) -> SetEffective:
    shown: Any = {} if data is None else data
    return SetEffective(shown, replayed, "ce:ORG1:%2Fshop:order-7", message, "order-7", "/shop", dry_run)


def refused(*, dry_run: bool = False) -> CommandRefused:
    return CommandRefused(
        code=StatusCode.INVALID_LIFE_CYCLE_STATE,
        description="Only a not effective access token can be set as effective.",
        message="the access token is EFFECTIVE",
        command_id="ce:ORG1:%2Fshop:order-7",
        ce_id="order-7",
        ce_source="/shop",
        dry_run=dry_run,
    )


IDS: Final = ["", "command_id  ce:ORG1:%2Fshop:order-7", "ce_id       order-7", "ce_source   /shop"]


def test_an_answer_is_shown_status_first_and_its_objects_indented() -> None:
    unit = Unit(id="1", name="Shop", group_name=None, community_name=None, alternative_code=None, description=None)
    data = {"number": "AT1", "udf_float_1": 12.5, "identifier": "", "verified_by_user": None, "account_owner": OWNER}
    data["unit"] = unit
    assert list(lines(ok(data))) == [
        "OK",
        "number            AT1",
        "udf_float_1       12.5",
        'identifier        ""',
        "verified_by_user  null",
        "account_owner",
        r"  name  Polina\x1b[2J",
        "  demographics",
        "    date_of_birth",
        "      month  3",
        "      year   null",
        "unit",
        "  id                1",
        "  name              Shop",
        "  group_name        null",
        "  community_name    null",
        "  alternative_code  null",
        "  description       null",
        *IDS,
    ]


@pytest.mark.parametrize(
    ("answer", "head"),
    [
        (ok(replayed=True), "OK (replayed)"),
        (ok(dry_run=True), "OK (dry run)"),
        (
            ok(message="the access token is gone", replayed=True, dry_run=True),
            "OK (dry run, replayed): the access token is gone",
        ),
        (
            refused(),
            "INVALID_LIFE_CYCLE_STATE: Only a not effective access token can be set as effective:"
            " the access token is EFFECTIVE",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_line_is_the_status(answer: Any, head: str) -> None:
    assert list(lines(answer)) == [head, *IDS]


def test_the_document_of_an_answer_has_the_same_members_whatever_it_is() -> None:
    applied, not_applied = document(ok({"number": "AT1"})), document(refused(dry_run=True))
    assert applied == {
        "status": {"code": "OK", "description": "", "message": ""},
        "data": {"number": "AT1"},
        "command_id": "ce:ORG1:%2Fshop:order-7",
        "replayed": False,
        "dry_run": False,
        "ce_id": "order-7",
        "ce_source": "/shop",
    }
    assert not_applied.keys() - applied.keys() == {"may_be_applied"}
    assert (not_applied["data"], not_applied["dry_run"]) == ({}, True)
    assert not_applied["status"]["message"] == "the access token is EFFECTIVE"


class Answered:
    """A sending that has this answer."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __call__(self, *_: Any) -> "Answered":
        return self

    async def run(self) -> Any:
        return self._answer


def test_a_refusal_after_an_attempt_without_an_answer_says_that_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = refused()
    for is_open in (False, True):
        refusal.may_be_applied = is_open
        monkeypatch.setattr(command, "Sending", Answered(refusal))
        done = CliRunner().invoke(application("send"), [*BY_CODE, "--json"])
        assert (done.exit_code, json.loads(done.stdout)["may_be_applied"]) == (3, is_open)
        assert ("that one may still be applied" in done.stderr) == is_open
