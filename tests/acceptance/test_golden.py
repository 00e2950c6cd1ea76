"""The source method's own sample, end to end: the command, its answers, and the changes (CONTRACT, Command to 6)."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import rfc8785

from effective_contract.transition import command_name, naming_key
from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import Scene, answer
from tests.support.logins import SECRET, login_token
from tests.support.seeded import TOKEN_ID, USER_ID

pytestmark = pytest.mark.real_kafka

SEED: Final = Path(__file__).parents[1] / "seed"
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
TRACE: Final = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARTITION: Final = 2

SENT_HEADERS: Final = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"order 7/1"),
    ("ce_source", b"/shop"),
    ("ce_type", b"access_token.set_effective.v1"),
    ("ce_time", b"2026-01-02T03:04:05Z"),
    ("ce_subject", b"card"),
    ("content-type", b"application/json"),
    ("correlation_id", b"\x00\xffopaque"),
    ("traceparent", TRACE),
    ("tracestate", b"shop=1"),
    ("unknown", b"ignored"),
)


def sample() -> bytes:
    return (SEED / "command.json").read_bytes().replace(b"{{token}}", login_token().encode())


def shown_moment(text: str) -> datetime:
    assert MOMENT.fullmatch(text)
    moment = datetime.fromisoformat(text)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
    return moment


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_the_sample_command_is_answered_with_the_sample_result(scene: Scene, delivery: str) -> None:
    before = scene.every_table()
    with scene.worker(DELIVERY=delivery):
        scene.send(Outgoing(sample(), b"opaque-7", SENT_HEADERS, PARTITION))
        (result,) = scene.results(1)
        scene.wait_consumed()
    after = scene.every_table()

    assert answer(result) == json.loads((SEED / "result.json").read_bytes())
    check_result(result)
    (event,) = scene.transitions()
    check_event(event)
    assert scene.dead_letters() == []
    check_changes(before, after, answer(event))


def check_result(result: Record) -> None:
    assert (result.key, result.partition) == (b"opaque-7", PARTITION)
    headers = {name: (value or b"").decode("latin-1") for name, value in result.headers}
    assert len(headers) == len(result.headers)
    assert re.fullmatch("[0-9a-f]{32}", headers.pop("ce_id"))
    shown_moment(headers.pop("ce_time"))
    version, trace, span, flags = headers.pop("traceparent").split("-")
    assert (version, trace, flags) == ("00", TRACE.decode().split("-")[1], "01")
    assert re.fullmatch("[0-9a-f]{16}", span)
    assert span not in {"0" * 16, TRACE.decode().split("-")[2]}
    assert headers == {
        "ce_specversion": "1.0",
        "ce_source": "/effective-worker",
        "ce_type": "access_token.set_effective.result.v1",
        "content-type": "application/json",
        "causation_id": "order 7/1",
        "command_id": "ce:ORG1:%2Fshop:order%207%2F1",
        "status_code": "OK",
        "replayed": "false",
        "correlation_id": "\x00\xffopaque",
        "tracestate": "shop=1",
    }


def check_event(event: Record) -> None:
    members = answer(event)
    assert event.key == f"ORG1:{TOKEN_ID}".encode()
    hashed = {name: value for name, value in members.items() if name != "hash"}
    assert members["hash"] == hashlib.sha256(rfc8785.dumps(hashed)).hexdigest()
    occurred = members.pop("occurred_at")
    shown_moment(occurred)
    assert members.pop("lane").split("/")[2:] == [event.topic.replace("transitions", "commands"), str(PARTITION)]
    assert members == {
        "organisation": "ORG1",
        "access_token_id": TOKEN_ID,
        "version": 1,
        "from_state": "NOT_EFFECTIVE",
        "to_state": "EFFECTIVE",
        "user_id": USER_ID,
        "unit_id": "1",
        "command_id": command_name(naming_key(SECRET), "ce:ORG1:%2Fshop:order%207%2F1"),
        "cause": "API",
        "sequence": 1,
        "previous_hash": "0" * 64,
        "hash": members["hash"],
    }
    headers = {name: (value or b"").decode() for name, value in event.headers}
    assert len(headers) == len(event.headers)
    assert re.fullmatch("[0-9a-f]{32}", headers.pop("ce_id"))
    assert headers == {
        "ce_specversion": "1.0",
        "ce_source": "/effective-worker",
        "ce_type": "access_token.life_cycle_state_changed.v1",
        "ce_subject": f"ORG1:{TOKEN_ID}",
        "ce_time": occurred,
        "content-type": "application/json",
    }


def check_changes(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]], event: Any) -> None:
    """Check the changes: state, author and time (CONTRACT, Access token), and beside them only the worker's books."""
    books = {"lane", "transition", "command_record"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == books | {"access_token"}
    assert [len(before[name]) for name in sorted(books)] == [0, 0, 0]
    assert len(after["transition"]) == len(after["command_record"]) == 1

    then = {(row["organisation"], row["id"]): row for row in before["access_token"]}
    now = {(row["organisation"], row["id"]): row for row in after["access_token"]}
    assert [key for key in then if then[key] != now[key]] == [("ORG1", TOKEN_ID)]
    old, new = then["ORG1", TOKEN_ID], now["ORG1", TOKEN_ID]
    occurred = datetime.fromisoformat(event["occurred_at"]).replace(tzinfo=None)
    assert {name: new[name] for name in old if old[name] != new[name]} == {
        "life_cycle_state": "EFFECTIVE",
        "version": 1,
        "updated_date": new["updated_date"],
        "updated_by_user": USER_ID,
        "updated_by_unit": "1",
    }
    # Kept in whole seconds, and shown so.
    assert abs(new["updated_date"] - occurred) <= timedelta(seconds=1)
