"""Dead letters without a broker: reading, choosing and judging them, and turning them back into commands."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from effective_contract.codes import StatusCode
from tests.support.builders import NOW, OUTGOING, WHERE, delivery, record, refused
from tests.support.clocks import Clock
from tests.support.logins import login_token
from worker.cli import application
from worker.cli.dead_letters import exit_code, facts, line
from worker.journey.messages import dead_letter_message
from worker.journey.model import Refused
from worker.kafka.delivery import Coordinates, Delivery, Header
from worker.operations.dead_letters.letters import Chosen, Letter, Place, Source, letter_of
from worker.operations.dead_letters.plan import Item, Readers, Replay, State, Why, judge, known
from worker.operations.dead_letters.renewed import REPLAY_SOURCE, Renewed
from worker.operations.login_source import (
    LoginExpired,
    LoginFailed,
    LoginSource,
    LoginToken,
    NotALogin,
    from_command,
    from_file,
    read_login,
)

READERS: Final = Readers("cluster", "group", {"commands": frozenset(range(4)), "bulk": frozenset({0})}, 65_536)
FRESH: Final = read_login(login_token(exp=1))
BY_CODE: Final[dict[str, Any]] = {"token": "old", "access_token_identifier": {"authentication_code": "1"}}
BY_IDENTIFIER: Final = {"token": "old", "access_token_identifier": {"identifier": "x", "pass_code": "p"}}
STRUCTURED: Final = ("content-type", b"application/cloudevents+json")
REC: Final = WHERE.command_id


def buried(
    value: bytes | Any,
    headers: tuple[Header, ...] = (),
    *,
    code: StatusCode = StatusCode.INTERNAL_ERROR,
    organisation: str | None = "ORG1",
    where: Coordinates = WHERE,
    whole: bool = True,
) -> Letter:
    """Return the readable part of a command that a worker has given up."""
    written = value if isinstance(value, bytes) else orjson.dumps(value)
    command = delivery(written, headers, where=where, key=b"the key")
    answered = refused(command, Refused(code, "why"), organisation=organisation)
    message = dead_letter_message(answered, OUTGOING, whole=whole)
    return letter_of(record(message.value, message.key, message.headers, offset=17))


def sent(letter: Letter, login: LoginToken | None = FRESH) -> Delivery:
    again = judge(letter, READERS, login)
    assert isinstance(again, Renewed), again
    return again.delivery


def body_of(delivery: Delivery) -> Any:
    return json.loads(delivery.value or b"")


# --- reading and choosing ---------------------------------------------------------------------------------------------


def test_a_dead_letter_is_read_as_the_worker_wrote_it() -> None:
    letter = buried(BY_CODE, (("ce_id", b"7"), ("mine", b"\xff")))

    assert (letter.place, letter.source) == (Place(0, 17), Source("commands", 3, 41, 1_700_000_000_123))
    assert (letter.code, letter.reason, letter.attempts, letter.failed_at) == ("INTERNAL_ERROR", "why", 1, NOW)
    assert (letter.group, letter.worker, letter.organisation) == ("group", "host:7", "ORG1")
    assert letter.command_headers == (("ce_id", b"7"), ("mine", b"\xff"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["dl_topic", "dl_partition", "dl_offset", "dl_timestamp", "dl_failed_at", "dl_attempts"])
            | st.text(),
            st.none()
            | st.binary()
            | st.sampled_from([b"1", b"-1", "²".encode(), b"2026-03-04", b"0001-01-01T00:00:00+23:00", b"9" * 400]),
        ),
        max_size=8,
    ),
    st.none() | st.binary(),
)
def test_whatever_stands_in_the_topic_is_read_and_judged(
    headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    letter = letter_of(record(value, None, headers))

    assert judge(letter, READERS, FRESH)
    Chosen(reason="x", since=NOW).takes(letter)
    assert orjson.dumps(facts(letter))
    assert line(letter).isprintable()


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (Chosen(), True),
        (Chosen(codes=frozenset({"INTERNAL_ERROR"})), True),
        (Chosen(codes=frozenset({"MALFORMED_REQUEST"})), False),
        (Chosen(since=NOW), True),
        (Chosen(since=NOW + timedelta(seconds=1)), False),
        (Chosen(until=NOW), False),
        (Chosen(until=NOW + timedelta(seconds=1)), True),
        (Chosen(partitions=frozenset({0})), True),
        (Chosen(partitions=frozenset({3})), False),
        (Chosen(reason="WHY"), True),
        (Chosen(reason="because"), False),
        (Chosen(source_topic="commands"), True),
        (Chosen(source_topic="command"), False),
        (Chosen(organisation="ORG1"), True),
        (Chosen(organisation="ORG2"), False),
        (Chosen(at=frozenset({Place(0, 17), Place(0, 1)})), True),
        (Chosen(at=frozenset({Place(17, 0)})), False),
        (Chosen(codes=frozenset({"INTERNAL_ERROR"}), organisation="ORG2"), False),
    ],
)
def test_a_filter_takes_what_it_names(chosen: Chosen, taken: bool) -> None:
    assert chosen.takes(buried(BY_CODE)) is taken


# --- refused before sending -------------------------------------------------------------------------------------------

NOT_SENT: Final = {
    "nothing of a worker's": (letter_of(record(b"{}", b"k")), Why.NO_LETTER, ""),
    "another group's": (replace(buried(BY_CODE), group="others"), Why.OTHER_GROUP, "others"),
    "a topic that is not read": (buried(BY_CODE, where=Coordinates("c", "old", 0, 1, 2)), Why.NO_TOPIC, "old/0"),
    "a partition that is gone": (buried(BY_CODE, where=Coordinates("c", "bulk", 1, 1, 2)), Why.NO_TOPIC, "bulk/1"),
    "cut off": (buried(b"x" * 99_999, whole=False), Why.CUT, ""),
    "no JSON": (buried(b"nonsense", code=StatusCode.MALFORMED_REQUEST), Why.REFUSED, "MALFORMED_REQUEST: "),
    "no object": (buried(b"[1]", code=StatusCode.MALFORMED_REQUEST), Why.REFUSED, "MALFORMED_REQUEST: "),
    "a wrong type": (buried(BY_CODE | {"fields_set": 7}), Why.REFUSED, "MALFORMED_REQUEST: fields_set"),
    "too large": (buried(BY_CODE | {"fields_set": "x" * 70_000}), Why.REFUSED, "MALFORMED_REQUEST: the command is"),
    "a wrong header": (buried(BY_CODE, (("ce_id", b"7"),)), Why.REFUSED, "INVALID_PARAMETER: the header ce_id"),
    "an event without data": (buried({"id": "1"}, (STRUCTURED,)), Why.REFUSED, "MALFORMED_REQUEST: data"),
    "an event that is no base64": (
        buried({"data_base64": "!"}, (STRUCTURED,)),
        Why.REFUSED,
        "MALFORMED_REQUEST: data_base64",
    ),
    "a pass code that is gone": (buried(BY_IDENTIFIER), Why.ONLY_ITS_SENDER, ""),
    "a pass code that is gone in an event": (
        buried({"id": "1", "source": "/s", "data": BY_IDENTIFIER}, (STRUCTURED,)),
        Why.ONLY_ITS_SENDER,
        "",
    ),
    "another organisation's": (buried(BY_CODE, organisation="ORG2"), Why.OTHER_ORGANISATION, "ORG2"),
    "nested too deeply": (
        buried(
            b'{"id": "1", "source": "/s", "x": %s, "data": %s}' % (b"[" * 400 + b"]" * 400, orjson.dumps(BY_CODE)),
            (STRUCTURED,),
        ),
        Why.REFUSED,
        "it is nested too deeply",
    ),
}


@pytest.mark.parametrize("name", NOT_SENT)
def test_what_is_not_sent_says_why(name: str) -> None:
    letter, why, detail = NOT_SENT[name]

    judged = judge(letter, READERS, FRESH)

    assert isinstance(judged, tuple), judged
    assert judged[0] is why
    assert judged[1].startswith(detail)
    assert FRESH.text not in str(judged)


def test_a_pass_code_beside_an_authentication_code_is_not_missed() -> None:
    named = {"authentication_code": "1", "pass_code": "p"}

    assert body_of(sent(buried({"token": "old", "access_token_identifier": named})))["access_token_identifier"] == {
        "authentication_code": "1",
        "pass_code": "***",
    }


def test_without_a_login_token_every_organisation_is_planned_for() -> None:
    assert isinstance(judge(buried(BY_CODE, organisation="ORG2"), READERS, None), Renewed)


def test_a_login_token_of_the_wrong_type_is_mended_by_a_fresh_one() -> None:
    letter = buried(BY_CODE | {"token": 7}, code=StatusCode.MALFORMED_REQUEST, organisation=None)

    assert body_of(sent(letter))["token"] == FRESH.text


# --- sending again ----------------------------------------------------------------------------------------------------


def test_a_command_with_an_id_goes_back_as_it_came_with_a_fresh_login() -> None:
    headers = (
        ("ce_id", b"7"),
        ("ce_source", b"/shop"),
        ("correlation_id", b"\xff"),
        ("reply_to", b"shop.replies"),
        ("mine", b"kept"),
    )

    again = sent(buried(BY_CODE | {"fields_set": "id"}, headers))

    assert (again.key, again.headers) == (b"the key", headers)
    assert again.coordinates == WHERE
    assert body_of(again) == BY_CODE | {"token": FRESH.text, "fields_set": "id"}


def test_an_id_in_the_body_is_kept_and_none_is_added() -> None:
    again = sent(buried(BY_CODE | {"request_unique_identifier": "order 7"}))

    assert again.headers == ()
    assert body_of(again)["request_unique_identifier"] == "order 7"


def test_a_command_without_an_id_gets_one_that_is_always_the_same() -> None:
    first, second = (sent(buried(BY_CODE, (("correlation_id", b"1"),))) for _ in range(2))

    assert first == second
    assert dict(first.headers) == {
        "correlation_id": b"1",
        "ce_id": REC.encode(),
        "ce_source": REPLAY_SOURCE.encode(),
        "ce_specversion": b"1.0",
        "ce_type": b"access_token.set_effective.v1",
    }


def test_what_a_sender_said_of_its_events_is_kept_and_its_half_of_an_id_replaced() -> None:
    given_before = (("ce_specversion", b"1.0"), ("ce_id", b""), ("ce_source", b"/shop"), ("ce_type", b""))

    headers = sent(buried(BY_CODE, given_before)).headers

    assert len(dict(headers)) == len(headers)
    assert dict(headers)["ce_source"] == REPLAY_SOURCE.encode()
    assert dict(headers)["ce_id"] == REC.encode()


def test_an_id_made_of_long_names_is_short_enough_for_a_header() -> None:
    where = Coordinates("cluster", "c" * 249, 3, 41, 1_700_000_000_123)
    readers = replace(READERS, partitions={where.topic: frozenset({3})})

    again = judge(buried(BY_CODE, where=where), readers, FRESH)

    assert isinstance(again, Renewed)
    assert len(again.envelope.ce_id or "") == 32


@pytest.mark.parametrize("encoded", [False, True], ids=["data", "data_base64"])
@pytest.mark.parametrize("named", [False, True], ids=["without an id", "with an id"])
def test_a_whole_event_gets_its_login_where_its_command_is(encoded: bool, named: bool) -> None:
    data = {"data_base64": b64encode(orjson.dumps(BY_CODE)).decode()} if encoded else {"data": BY_CODE}
    own = {"id": "7", "source": "/shop"} if named else {}

    again = judge(buried({**own, **data, "colour": "red"}, (STRUCTURED,)), READERS, FRESH)

    assert isinstance(again, Renewed)
    assert again.command.login_token == FRESH.text
    assert (again.envelope.ce_id, again.envelope.ce_source) == (("7", "/shop") if named else (REC, REPLAY_SOURCE))
    assert again.delivery.headers == (STRUCTURED,)
    assert body_of(again.delivery)["colour"] == "red"
    assert b"old" not in (again.delivery.value or b"")


SMALL: Final = st.integers(-(2**63), 2**63 - 1)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=255),
    st.sampled_from([None, "", "id", "number, id"]),
    st.dictionaries(
        st.text().filter(lambda name: not name.startswith("data")), st.text() | st.none() | SMALL, max_size=3
    ),
    st.booleans(),
)
def test_nothing_but_the_login_changes_in_a_command(
    code: str, fields_set: str | None, extensions: dict[str, Any], structured: bool
) -> None:
    named = {"authentication_code": code}
    command = {
        "token": "old",
        "access_token_identifier": named,
        "fields_set": fields_set,
        "request_unique_identifier": "7",
    }
    event = {f"x{name}": value for name, value in extensions.items()} | {"data": command}
    letter = buried(event, (STRUCTURED,)) if structured else buried(command)

    body = body_of(sent(letter))

    renewed = command | {"token": FRESH.text}
    assert body == (event | {"data": renewed} if structured else renewed)


def test_no_secret_is_in_what_a_value_shows_of_itself() -> None:
    again = judge(buried(BY_CODE | {"request_unique_identifier": "7"}), READERS, FRESH)

    assert FRESH.text not in repr(again) + repr(FRESH)
    assert "the key" not in repr(buried(BY_CODE))


# --- answers since then -----------------------------------------------------------------------------------------------

BEFORE, SINCE = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("answers", "why", "detail"),
    [
        ([], None, ""),
        ([("ACCESS_DENIED", BEFORE, None)], None, ""),
        ([("INVALID_LIFE_CYCLE_STATE", BEFORE, None)], None, ""),
        ([("EXPIRED_TOKEN", SINCE, None), ("ACCESS_DENIED", SINCE, None)], None, ""),
        ([("INVALID_LIFE_CYCLE_STATE", SINCE, None)], Why.ANSWERED, "INVALID_LIFE_CYCLE_STATE at 2026-"),
        ([("EXPIRED_TOKEN", SINCE, None), ("OK", SINCE, b"same")], Why.APPLIED, "at 2026-"),
        ([("OK", BEFORE, b"same")], Why.APPLIED, "at 2026-"),
        ([("OK", SINCE, b"other"), ("DUPLICATE_REQUEST", SINCE, None)], Why.ANSWERED, "its id was applied for another"),
    ],
)
def test_what_was_answered_since_decides_whether_it_is_sent(
    answers: list[tuple[str, datetime, bytes | None]], why: Why | None, detail: str
) -> None:
    rows: list[Any] = [{"status": status, "decided_at": moment, "digest": digest} for status, moment, digest in answers]

    item = known(Item(Place(0, 0), "INTERNAL_ERROR", None), NOW, b"same", rows, recorded=True)

    assert item.why is why
    assert item.detail.startswith(detail)


def test_what_nobody_knows_any_more_is_sent_and_said() -> None:
    item = Item(Place(0, 0), "INTERNAL_ERROR", None, detail="whose")

    gone = known(item, NOW, b"", [], recorded=False)

    assert gone.why is None
    assert gone.detail == "whose; its record is gone, so whether it was answered since is not known"


# --- the accounts -----------------------------------------------------------------------------------------------------


def test_every_item_is_in_one_state_and_the_states_sum_up() -> None:
    item, place = Item(Place(0, 0), "INTERNAL_ERROR", None), Source("commands", 0, 1, 2)
    states = {
        State.LEFT_OUT: replace(item, why=Why.CUT),
        State.PLANNED: item,
        State.UNCONFIRMED: replace(item, handed=True),
        State.UNANSWERED: replace(item, handed=True, sent=place),
        State.APPLIED: replace(item, handed=True, sent=place, status="OK"),
        State.REPLAYED: replace(item, handed=True, sent=place, status="OK", replayed=True),
        State.REFUSED: replace(item, handed=True, sent=place, status="EXPIRED_TOKEN"),
        State.FAILED: replace(item, handed=True, sent=place, status="INTERNAL_ERROR"),
    }
    found = Replay()
    for number, each in enumerate(states.values()):
        found.put(replace(each, place=Place(0, number)))

    assert {state: each.state for state, each in states.items()} == {state: state for state in State}
    assert found.counts() == dict.fromkeys(State, 1)
    assert (found.refused(), found.left_out()) == ({"EXPIRED_TOKEN": 1}, {Why.CUT: 1})


# --- login tokens -----------------------------------------------------------------------------------------------------


class Fetched:
    """Login tokens, one after another, each valid for so long."""

    def __init__(self, *expiries: int) -> None:
        self.left = [login_token(exp=expiry) for expiry in expiries]

    async def __call__(self) -> str:
        return f"  {self.left.pop(0)}\n"


def test_a_login_token_is_fetched_again_before_it_expires() -> None:
    clock = Clock(0.0)
    source = LoginSource(Fetched(1000, 2000), clock=clock, renewable=True)

    async def at(moment: float) -> float:
        clock.now = moment
        return (await source.current()).expires_at

    async def each() -> list[float]:
        return [await at(moment) for moment in (0, 939, 940, 1939)]

    assert asyncio.run(each()) == [1000, 1000, 2000, 2000]


def test_a_login_token_that_was_given_once_is_used_until_it_expires_and_not_longer() -> None:
    clock = Clock(0.0)
    source = LoginSource(Fetched(1000), clock=clock, renewable=False)

    assert asyncio.run(source.current()).organisation == "ORG1"
    clock.now = 999
    assert asyncio.run(source.current()).expires_at == 1000
    clock.now = 1000
    with pytest.raises(LoginExpired):
        asyncio.run(source.current())


@pytest.mark.parametrize(
    "text", ["", "canary", "a.b.c", login_token(org=None), login_token(exp="canary"), login_token(org=7)]
)
def test_what_is_no_login_token_is_said_without_repeating_it(text: str) -> None:
    with pytest.raises(NotALogin) as caught:
        read_login(text)

    assert caught.value.__cause__ is None
    assert not text or text not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("false", "ended with 1"),
        ("no-such-command", "ended with 127"),
        ("echo canary canary", "no login token, or more than one"),
    ],
)
def test_a_command_that_gives_no_login_token_is_said_without_its_words(command: str, says: str) -> None:
    with pytest.raises(LoginFailed, match=says) as caught:
        asyncio.run(from_command(command))

    assert "canary" not in str(caught.value)


def test_a_login_token_is_what_a_command_prints_or_a_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{FRESH.text}\n")

    assert read_login(asyncio.run(from_command(f"cat '{file}'"))) == FRESH
    assert read_login(asyncio.run(from_file(file))) == FRESH
    with pytest.raises(NotALogin, match="No such file or directory"):
        asyncio.run(from_file(tmp_path / "none"))


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "17"),
        ("show", "²/1"),
        ("list", "--code", "OK"),
        ("list", "--since", "yesterday"),
        ("list", "--until", "2026-03-04T05:06:07"),
        ("list", "--until", "0001-01-01T00:00:00+23:00"),
        ("list", "--at", "0/1/2"),
        ("list", "--limit", "0"),
        ("replay", "--rate", "0"),
        ("replay", "--login-token-file", "no-such-file"),
        ("replay", "--login-token", FRESH.text, "--login-token-command", "echo canary"),
    ],
    # Without the login, which differs in every process: the processes must agree on a test's name.
    ids=lambda arguments: " ".join(argument for argument in arguments if argument != FRESH.text),
)
def test_what_cannot_be_meant_exits_2(arguments: Sequence[str]) -> None:
    done = CliRunner().invoke(application(), ["dead-letters", *arguments])

    assert done.exit_code == 2
    assert "Usage:" in done.stderr
    assert FRESH.text not in done.output


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ((), 0),
        (({"why": Why.CUT}, {"status": "OK"}, {"status": "OK", "replayed": True}), 0),
        (({"status": "OK"}, {"status": "EXPIRED_TOKEN"}), 3),
        (({"status": "OK"}, {"status": "INTERNAL_ERROR"}), 3),
        (({"status": "INTERNAL_ERROR"}, {"handed": True}), 1),
        (({"status": "INTERNAL_ERROR"}, {}), 1),
        (({"status": "EXPIRED_TOKEN"}, {"sent": Source("commands", 0, 1, 2)}), 1),
    ],
)
def test_the_exit_code_says_how_it_went(items: Sequence[dict[str, Any]], code: int) -> None:
    found = Replay(carried_out=True)
    for number, members in enumerate(items):
        found.put(replace(Item(Place(0, number), "INTERNAL_ERROR", None), **members))

    assert exit_code(found) == code
    found.stopped = "kafka: away"
    assert exit_code(found) == 1
