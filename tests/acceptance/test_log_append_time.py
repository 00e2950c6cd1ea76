"""The clock that judges a login's expiry: the worker's, or that of the record if it is the broker's.

See CONTRACT, Login token.
"""

import math
import time

import pytest

from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import Scene, body, status
from tests.support.logins import login_token
from tests.support.pace import stretched

pytestmark = pytest.mark.real_kafka


@pytest.mark.parametrize(
    # The stamp of the commands is the broker's when it appends them, or their sender's, whose clock proves nothing.
    ("kind", "clock", "code"),
    [
        ("LogAppendTime", "append", "OK"),
        ("LogAppendTime", "processing", "EXPIRED_TOKEN"),
        pytest.param(
            "CreateTime",
            "append",
            "EXPIRED_TOKEN",
            marks=pytest.mark.slow(
                why="another topic and worker, which wait for a login to expire: 8 s",
                instead="tests/integration/test_pipeline.py::test_expiry_may_be_judged_when_the_broker_took_the_record",
            ),
        ),
    ],
)
def test_a_login_that_expired_while_its_command_waited(scene: Scene, kind: str, clock: str, code: str) -> None:
    scene.set_up(scene.topics.commands, "message.timestamp.type", kind)
    waiting, late, good = scene.new_tokens(3)
    now = int(time.time())
    until = now + math.ceil(stretched(3))
    expired_in_time = login_token(exp=until)
    expired_before = login_token(exp=now - 1)
    scene.send(
        Outgoing(body(waiting, token=expired_in_time), b"", (), 0),
        Outgoing(body(late, token=expired_before), b"", (), 0),
        Outgoing(body(good), b"", (), 0),
    )
    sent = [record.timestamp / 1000 for record in scene.seen(scene.topics.commands)]
    assert max(sent) < until, "it was to be good when the broker took it: the machine is slower than its pace"
    # Nothing but time can make a login expire.
    time.sleep(max(0.0, until + 0.01 - time.time()))
    with scene.worker(LOGIN__EXPIRY_CLOCK=clock):
        records = scene.results(3)

    assert [status(record)[0] for record in records] == [code, "EXPIRED_TOKEN", "OK"]
    check_ids_name_the_broker_stamp(scene, records)


def check_ids_name_the_broker_stamp(scene: Scene, records: list[Record]) -> None:
    commands = scene.seen(scene.topics.commands)
    for command, record in zip(commands, records, strict=True):
        place = f"/{scene.topics.commands}/{command.partition}/{command.offset}@{command.timestamp}"
        assert (record.header("command_id") or b"").decode().endswith(place)
