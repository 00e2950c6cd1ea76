"""The whole table of bad inputs through Kafka, with good commands among them: each gets its answer, and nothing else.

One worker is given them all, once; the tests check the outcome.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from effective_contract.codes import StatusCode
from tests.acceptance.clients import Outgoing, Record, read_to_end
from tests.acceptance.scene import PARTITIONS, Scene, answer, body, history
from tests.contract.bad_inputs import BAD_INPUTS, CANARY_PASS_CODE, CANARY_TOKEN, BadInput
from tests.support.logins import login_token
from tests.support.seeded import IDENTIFIER, PASS_CODE
from worker.kafka.delivery import KEPT_BYTES

pytestmark = pytest.mark.real_kafka

LOGIN_SECRET: Final = "canary-login-secret-4f1d-and-a-second-half"
SECOND_SECRET: Final = "canary-retired-secret-4f1d-and-a-second-half"
VERIFICATION_CODE: Final = "canary-verification-code-4f1d"
A_LOGIN: Final = re.compile(r"eyJ[\w-]{8,}\.")
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

Tables = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Sent:
    """A command. ``row`` is ``None`` for a good one."""

    row: BadInput | None
    outgoing: Outgoing
    command: Record
    result: Record

    @property
    def name(self) -> str:
        return "a good one" if self.row is None else self.row.name


@dataclass(frozen=True, slots=True)
class Aftermath:
    """The state before, the commands sent, and everything observable afterwards."""

    scene: Scene
    sent: list[Sent]
    good_codes: list[str]
    before: Tables
    after: Tables
    dead_letters: list[Record]
    transitions: list[Record]
    shown: Mapping[str, str] = field(repr=False)
    """The process's outputs, by their source."""
    exit_code: int


def mint(*arguments: Any, **claims: Any) -> str:
    return login_token(*arguments, **{"secret": LOGIN_SECRET, **claims})


def commands(codes: list[str]) -> Iterator[tuple[BadInput | None, Outgoing]]:
    """Yield each bad input with a good command behind it in its partition; the last names its token by identifier."""
    for place, (row, code) in enumerate(zip(BAD_INPUTS, codes, strict=True)):
        key = f"key {place}".encode()
        value = row.written(mint, LOGIN_SECRET)
        yield row, Outgoing(value, key, row.headers, place % PARTITIONS)
        yield None, Outgoing(body(code, token=mint()), key, (), place % PARTITIONS)
    named = {"identifier": IDENTIFIER, "pass_code": PASS_CODE}
    yield None, Outgoing(body("", token=mint(), access_token_identifier=named), b"by identifier", (), 0)


@pytest.fixture(scope="module")
def aftermath(shared_scene: Scene) -> Aftermath:
    """Give one worker everything, with its log at its most verbose."""
    scene = shared_scene
    codes = scene.new_tokens(len(BAD_INPUTS))
    scene.set_effective()
    scene.execute("UPDATE access_token SET verification_code = $1", VERIFICATION_CODE)
    before = scene.every_table()
    rows, outgoing = zip(*commands(codes), strict=True)
    scene.send(*outgoing)
    secrets = f"{LOGIN_SECRET},{SECOND_SECRET}"
    with scene.worker(LOG__LEVEL="debug", LOGIN__SECRETS=secrets) as worker:
        scene.wait_consumed()
        shown = {path: json.dumps(worker.probe(path)[1]) for path in ("/readyz", "/livez")}
        shown["/metrics"] = worker.metrics()
        shown["/events"] = worker.event()
        exit_code = worker.terminate()
    shown["logs"] = worker.logs()
    by_partition = {
        topic: {place: [r for r in records if r.partition == place] for place in range(PARTITIONS)}
        for topic in (scene.topics.commands, scene.topics.results)
        for records in [read_to_end(scene.kafka.bootstrap, topic)]
    }
    turns = {topic: {place: iter(records) for place, records in found.items()} for topic, found in by_partition.items()}
    assert [len(found) for found in by_partition[scene.topics.commands].values()] == [
        len(found) for found in by_partition[scene.topics.results].values()
    ]
    sent = [
        Sent(
            row,
            out,
            *(next(turns[topic][out.partition or 0]) for topic in (scene.topics.commands, scene.topics.results)),
        )
        for row, out in zip(rows, outgoing, strict=True)
    ]
    return Aftermath(
        scene, sent, codes, before, scene.every_table(), scene.dead_letters(), scene.transitions(), shown, exit_code
    )


def test_none_stops_the_worker(aftermath: Aftermath) -> None:
    assert aftermath.exit_code == 0
    assert "lane_failed" not in aftermath.shown["logs"]
    assert "lane_lost" not in aftermath.shown["logs"]


def test_each_gets_its_status_and_no_data(aftermath: Aftermath) -> None:
    given = {each.name: answer(each.result)["status"]["code"] for each in aftermath.sent}
    assert given == {row.name: row.status for row in BAD_INPUTS} | {"a good one": "OK"}
    for each in aftermath.sent:
        if each.row is None:
            continue
        result = answer(each.result)
        assert result["data"] == {}, each.name
        assert result["status"]["description"] == StatusCode(each.row.status).description, each.name
        assert each.row.says in result["status"]["message"], each.name
        assert each.result.key == each.command.key
        assert each.result.header("status_code") == each.row.status.encode()
        assert each.result.header("replayed") == b"false"


def test_none_fails_its_neighbours(aftermath: Aftermath) -> None:
    answers = [answer(each.result) for each in aftermath.sent if each.row is None]
    assert [found["status"]["code"] for found in answers] == ["OK"] * (len(BAD_INPUTS) + 1)
    assert [found["data"]["authentication_code"] for found in answers[:-1]] == aftermath.good_codes
    assert {found["data"]["verification_code"] for found in answers} == {None}


def test_none_changes_an_access_token(aftermath: Aftermath) -> None:
    before = {(row["organisation"], row["id"]): row for row in aftermath.before["access_token"]}
    after = {(row["organisation"], row["id"]): row for row in aftermath.after["access_token"]}
    changed = {key for key, row in after.items() if row != before[key]}
    by_identifier = {key for key, row in after.items() if row["identifier"] == IDENTIFIER}
    assert before.keys() == after.keys()
    assert changed == {("ORG1", code) for code in aftermath.good_codes} | by_identifier
    events = [(answer(event)["organisation"], answer(event)["access_token_id"]) for event in aftermath.transitions]
    assert len(events) == len(history(aftermath.scene)) == len(changed)
    assert set(events) == changed
    untouched = aftermath.before.keys() - {"access_token", "lane", "transition", "command_record", "attempt"}
    assert {name: aftermath.after[name] for name in untouched} == {name: aftermath.before[name] for name in untouched}


def test_a_wrong_correlation_is_not_echoed(aftermath: Aftermath) -> None:
    echoed = {each.name for each in aftermath.sent if each.result.header("correlation_id") is not None}
    assert not echoed


def test_what_is_malformed_has_a_dead_letter_and_nothing_else_has(aftermath: Aftermath) -> None:
    malformed = [each for each in aftermath.sent if each.row and each.row.status is StatusCode.MALFORMED_REQUEST]
    by_place = {
        (letter.header("dl_partition"), letter.header("dl_offset")): letter for letter in aftermath.dead_letters
    }
    assert len(by_place) == len(aftermath.dead_letters) == len(malformed)
    for each in malformed:
        command = each.command
        letter = by_place[str(command.partition).encode(), str(command.offset).encode()]
        assert (letter.key, letter.partition) == (command.key, command.partition), each.name
        headers = {name: (value or b"").decode() for name, value in letter.headers}
        assert len(headers) == len(letter.headers)
        assert MOMENT.fullmatch(headers.pop("dl_failed_at"))
        assert headers.pop("dl_worker")
        own = {name: (value or b"").decode() for name, value in command.headers}
        assert headers == own | {
            "dl_code": "MALFORMED_REQUEST",
            "dl_reason": answer(each.result)["status"]["message"],
            "dl_topic": aftermath.scene.topics.commands,
            "dl_partition": str(command.partition),
            "dl_offset": str(command.offset),
            "dl_timestamp": str(command.timestamp),
            "dl_consumer_group": aftermath.scene.group,
            "dl_attempts": "1",
            **cut_of(command.value),
        }, each.name
        check_value(each.name, command.value, letter.value)


def cut_of(sent: bytes | None) -> dict[str, str]:
    """Return the headers of a dead letter for a value that it does not keep whole."""
    if sent is None or len(sent) <= KEPT_BYTES:
        return {}
    whole = {"dl_value_bytes": str(len(sent)), "dl_value_sha256": hashlib.sha256(sent).hexdigest()}
    return {"dl_truncated": "true", **whole}


def check_value(name: str, sent: bytes | None, kept: bytes | None) -> None:
    """Check for the original bytes, or the same object without its secrets (CONTRACT, Dead letter)."""
    if sent is not None and len(sent) > KEPT_BYTES:
        assert kept is not None, name
        assert sent[:KEPT_BYTES].endswith(kept[-KEPT_BYTES // 2 :]), name
        assert b'"token":"***"' in kept, name
        assert not A_LOGIN.search(kept.decode()), name
    elif sent is None or not any(secret in sent.replace(b"\0", b"") for secret in (b"token", b"pass_code")):
        assert kept == sent, name
    elif (expected := without_secrets(sent)) is not None:
        shown = json.loads(kept or b"")
        if "specversion" in expected:  # tests of the decoder cover what may be shown of an event's data
            expected, shown = ({**whole, "data": None, "data_base64": None} for whole in (expected, shown))
        assert shown == expected, name


def without_secrets(value: bytes | None) -> Any:
    """Return the object with its secrets replaced, ``None`` if it is no object."""
    try:
        body = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    named = body.get("access_token_identifier")
    masked = {name: "***" if name == "token" else member for name, member in body.items()}
    if isinstance(named, dict) and "pass_code" in named:
        masked["access_token_identifier"] = {**named, "pass_code": "***"}
    data = body.get("data")
    if isinstance(data, dict):
        masked["data"] = without_secrets(json.dumps(data).encode())
    elif isinstance(data, str):
        masked["data"] = json.dumps(without_secrets(data.encode()), separators=(",", ":"))
    return masked


def test_no_secret_is_seen_anywhere(aftermath: Aftermath) -> None:
    secrets = {
        "a login token that is none": CANARY_TOKEN,
        "a wrong pass code": CANARY_PASS_CODE,
        "a pass code": PASS_CODE,
        "the login secret": LOGIN_SECRET,
        "the retired login secret": SECOND_SECRET,
        "the password of the DSN": unquote(urlsplit(aftermath.scene.database.worker_dsn).password or ""),
        "a verification code": VERIFICATION_CODE,
    }
    assert all(len(secret) > 10 for secret in secrets.values())
    seen = [
        (where, name)
        for where, text in everything_shown(aftermath)
        for name, secret in secrets.items()
        if secret in text
    ]
    assert seen == []
    # Any login token at all, whole or in part.
    assert [where for where, text in everything_shown(aftermath) if A_LOGIN.search(text)] == []


def test_the_search_for_secrets_would_find_one(aftermath: Aftermath) -> None:
    # An import leaves rows only while it is under way, and nothing is lost here.
    unused = {"import_run", "import_bad_line", "command_loss", "erasure"}
    assert {name for name, text in everything_shown(aftermath) if not text} == unused
    everywhere = dict(everything_shown(aftermath))
    assert "lane_started" in everywhere["logs"]
    assert "answers_total" in everywhere["/metrics"]
    assert "NOT_EFFECTIVE" in everywhere["access_token"]
    assert "$argon2id$" in everywhere["access_token"]
    assert CANARY_TOKEN in everywhere_sent(aftermath)
    assert A_LOGIN.search(everywhere_sent(aftermath))


def everything_shown(aftermath: Aftermath) -> Iterator[tuple[str, str]]:
    yield from aftermath.shown.items()
    yield "results", text_of(each.result for each in aftermath.sent)
    yield "transitions", text_of(aftermath.transitions)
    yield "dead letters", text_of(aftermath.dead_letters)
    for name, rows in aftermath.after.items():
        cells = (cell for row in rows for column, cell in row.items() if column != "verification_code")
        yield name, "\n".join(text_of_cell(cell) for cell in cells)


def everywhere_sent(aftermath: Aftermath) -> str:
    return text_of(each.command for each in aftermath.sent)


def text_of(records: Any) -> str:
    """Return every byte of the records; UTF-16 loses its zeros, so that a secret in it is found too."""
    pieces = (
        piece or b""
        for record in records
        for piece in (record.key, record.value, *(value for _, value in record.headers))
    )
    return b"\n".join(pieces).replace(b"\0", b"").decode("latin-1")


def text_of_cell(cell: Any) -> str:
    return cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)
