"""A few kilobytes that inflate to hundreds of megabytes: answered, passed, and no trouble to other commands."""

import asyncio
import hashlib
import os
import signal
import time
from typing import Any, Final

import pytest

from tests.acceptance.clients import Outgoing, Record
from tests.acceptance.scene import Scene, answer, body, status
from tests.acceptance.test_fetch_storm import peak_mib
from tests.faults.worker import faulty
from tests.support.batches import BROKERS_LIMIT, PLACES, Part, Written, batch, large, send, small

pytestmark = pytest.mark.real_kafka

MB: Final = 10**6
NOW: Final = time.time_ns() // 1_000_000
"""Milliseconds. A record that looks older than a topic keeps its records may be removed at any moment."""
MOST_MIB: Final = 400
PARTITION: Final = 1


def sent(scene: Scene, data: bytes, partition: int = PARTITION) -> int:
    """Send a batch as it is, and return the offset of its first record."""
    assert len(data) <= BROKERS_LIMIT
    options: dict[str, Any] = {"bootstrap_servers": scene.kafka.bootstrap, "request_timeout_ms": 60_000}
    return asyncio.run(send(options, scene.topics.commands, partition, data))


def number(record: Record, name: str) -> int:
    found = record.header(name)
    assert found is not None
    return int(found)


# Sizes that a broker accepts by default; a thousand megabytes where the codec makes so little of them.
LARGEST: Final = {"gzip": 1000 * MB, "snappy": 20 * MB, "lz4": 200 * MB, "zstd": 1000 * MB}


@pytest.mark.parametrize(
    "codec",
    [
        "zstd",
        "lz4",
        "snappy",
        pytest.param(
            "gzip",
            marks=pytest.mark.slow(
                why="a thousand megabytes are compressed under gzip first: 9 s",
                instead="tests/acceptance/test_inflating.py"
                "::test_a_batch_that_inflates_beyond_all_bounds_is_answered_and_passed",
            ),
        ),
    ],
)
def test_a_batch_that_inflates_beyond_all_bounds_is_answered_and_passed(scene: Scene, codec: str) -> None:
    codes = scene.new_tokens(3)
    good = small(body(codes[0]), b"key", ("correlation_id", b"first"))
    data = batch([good, large("value", LARGEST[codec]), small(body(codes[1]))], codec, timestamp=NOW)
    with scene.worker() as worker:
        offset = sent(scene, data)
        scene.send(Outgoing(body(codes[2]), b"after", partition=PARTITION))
        records = scene.results(4)
        assert peak_mib(worker.pid) < MOST_MIB
        assert (worker.probe("/livez")[0], worker.probe("/readyz")[0]) == (200, 200)
        assert worker.terminate() == 0

    goes_on = LARGEST[codec] <= 20 * MB
    codes_given = [status(record)[0] for record in records]
    assert codes_given == ["OK", "MALFORMED_REQUEST", "OK" if goes_on else "MALFORMED_REQUEST", "OK"]
    assert records[0].header("correlation_id") == b"first"
    assert "larger than" in answer(records[1])["status"]["message"]
    letters = scene.dead_letters()
    assert [number(letter, "dl_offset") for letter in letters] == [offset + 1] + [offset + 2] * (not goes_on)
    assert number(letters[0], "dl_timestamp") == NOW + 1
    assert number(letters[0], "dl_value_bytes") == LARGEST[codec]
    assert {letter.header("dl_truncated") for letter in letters} == {b"true"}
    if goes_on:
        assert letters[0].header("dl_value_sha256") == hashlib.sha256(bytes(LARGEST[codec])).hexdigest().encode()
    else:
        assert {len(letter.header("dl_batch_sha256") or b"") for letter in letters} == {64}
        assert "inflates to more than" in answer(records[2])["status"]["message"]


@pytest.mark.parametrize("place", PLACES)
def test_wherever_in_a_record_it_is(scene: Scene, place: str) -> None:
    code = scene.new_tokens(1)[0]
    with scene.worker() as worker:
        sent(scene, batch([large(place, 200 * MB)], "zstd", timestamp=NOW))
        sent(scene, batch([large(place, 20 * MB)], "zstd", timestamp=NOW))
        scene.send(Outgoing(body(code), partition=PARTITION))
        records = scene.results(3)
        assert peak_mib(worker.pid) < MOST_MIB
        assert worker.terminate() == 0

    assert [status(record)[0] for record in records] == ["MALFORMED_REQUEST", "MALFORMED_REQUEST", "OK"]


@pytest.mark.slow(
    why="twelve partitions inflate at once: 14 s",
    instead="tests/acceptance/test_inflating.py::test_a_batch_that_inflates_beyond_all_bounds_is_answered_and_passed",
)
def test_every_partition_at_once_does_not_fill_the_memory(scene: Scene) -> None:
    codes = scene.new_tokens(8)
    for partition in range(4):
        for _ in range(3):
            sent(scene, batch([small(b"x" * 60_000)] * 500, "zstd", timestamp=NOW), partition)
            sent(scene, batch([large("value", 200 * MB)], "zstd", timestamp=NOW), partition)
    scene.send(*(Outgoing(body(code), partition=n % 4) for n, code in enumerate(codes)))
    with scene.worker() as worker:
        records = scene.results(4 * 3 * 501 + 8)
        assert peak_mib(worker.pid) < MOST_MIB
        assert worker.terminate() == 0

    assert sum(status(record)[0] == "OK" for record in records) == 8


def test_a_name_of_a_header_that_is_no_text_stops_nobody(scene: Scene) -> None:
    code = scene.new_tokens(1)[0]
    named = Written(None, Part(body(code)), ((Part(b"\xff\xfe"), None),))
    with scene.worker() as worker:
        sent(scene, batch([named], "lz4", timestamp=NOW))
        [record] = scene.results(1)
        assert worker.terminate() == 0

    assert status(record) == ("OK", "false")


def test_a_worker_whose_event_loop_stands_ends_when_told_to_all_the_same(scene: Scene) -> None:
    with scene.worker(command=faulty(), DRAIN_SECONDS="2") as worker:
        os.kill(worker.pid, signal.SIGUSR1)
        worker.wait_event("standing")
        assert worker.terminate() == 1
        [ended] = worker.events("not_drained")
        assert ended["seconds"] == 2
