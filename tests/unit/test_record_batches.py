"""Fetches read within bounds: the same records as aiokafka makes of them, and never more than allowed."""

import hashlib
import tracemalloc
from collections.abc import Sequence
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.batches import CODECS, PLACES, Part, Written, batch, large, small
from worker.kafka.delivery import KEPT_BYTES, Cut
from worker.kafka.internals import BoundedFetch
from worker.kafka.record_batches import Bounds, Record, Records

MIB: Final = 1024 * 1024
TIGHT: Final = Bounds(record=100_000, batch=4 * MIB, take=MIB)
COMPRESSING: Final = [name for name in CODECS if name != "none"]


def shown(record: Any) -> tuple[Any, ...]:
    headers = [(name, value) for name, value in record.headers]
    return (record.offset, record.timestamp, record.timestamp_type, record.key, record.value, headers, record.checksum)


def all_of(records: Any) -> list[Any]:
    found = []
    while records.has_next():
        found += list(records.next_batch())
    return found


def read(data: bytes, bounds: Bounds = TIGHT) -> list[Any]:
    return all_of(Records(data, bounds=bounds))


def cut_of(record: Any) -> Cut:
    assert isinstance(record, Record)
    assert isinstance(record.checksum, Cut)
    return record.checksum


NAMES: Final = st.text(max_size=5)
BYTES: Final = st.none() | st.binary(max_size=300) | st.integers(0, 50_000).map(bytes)
RECORDS: Final = st.lists(st.tuples(BYTES, BYTES, st.lists(st.tuples(NAMES, BYTES), max_size=3)), min_size=1)


def built(codec: int, records: Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 1, 7, 8, 9, 1 << 30)
    for delta, (key, value, headers) in enumerate(records):
        builder.append(delta, 1000 - delta, key, value, headers)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS.values())
@given(batches=st.lists(RECORDS, max_size=3))
@settings(deadline=None)
def test_ordinary_batches_are_read_as_aiokafka_reads_them(codec: int, batches: list[Any]) -> None:
    data = b"".join(built(codec, records) for records in batches)
    tiny = Bounds(record=160_000, batch=100 * MIB)

    assert list(map(shown, read(data, tiny))) == list(map(shown, all_of(MemoryRecords(data))))


def test_a_batch_says_of_itself_what_aiokafka_wants_to_know() -> None:
    data = built(4, [(b"k", b"v", [])])

    ours, theirs = Records(data, bounds=TIGHT).next_batch(), MemoryRecords(data).next_batch()

    for name in ("base_offset", "next_offset", "producer_id", "is_transactional", "is_control_batch", "magic"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.validate_crc()
    assert not Records(data[:-1] + b"x", bounds=TIGHT).next_batch().validate_crc()


def test_a_batch_that_has_not_come_whole_is_left_for_the_next_fetch() -> None:
    data = built(4, [(b"k", b"v", [])])

    records = Records(data + data[:-1], bounds=TIGHT)

    assert len(all_of(records)) == 1
    assert records.size_in_bytes() == 2 * len(data) - 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("place", PLACES)
def test_a_record_that_is_too_large_is_cut_and_its_neighbours_are_not(codec: str, place: str) -> None:
    data = batch([small(b"one"), large(place, 3 * MIB), small(b"three")], codec, base=70)

    one, two, three = read(data)

    assert [shown(each)[:2] for each in (one, two, three)] == [(70, 1000), (71, 1001), (72, 1002)]
    assert (one.value, three.value) == (b"one", b"three")
    assert one.checksum is three.checksum is None
    cut = cut_of(two)
    assert "bytes are more than the 100000" in cut.reason
    assert cut.value_bytes == (3 * MIB if place == "value" else 1)
    assert cut.value_hash == hashlib.sha256(bytes(3 * MIB) if place == "value" else b"x").digest()
    assert len(two.value) == (KEPT_BYTES if place == "value" else 1)
    assert len(two.key) == (KEPT_BYTES if place == "key" else 1)
    assert shown(two)[5] == ([("x", b"x")] if place in {"value", "key"} else [])


@pytest.mark.parametrize("codec", COMPRESSING)
@pytest.mark.parametrize("place", PLACES)
def test_a_batch_that_inflates_too_far_gives_coordinates(codec: str, place: str) -> None:
    data = batch([small(b"one"), large(place, 20 * MIB), small(b"three"), small(b"four")], codec, base=70)

    records = Records(data, bounds=TIGHT)
    one, two, three, four = all_of(records)

    assert one.value == b"one"
    assert shown(two)[:2] == (71, 1001)
    assert cut_of(two).value_bytes == {"value": 20 * MIB, "key": None}.get(place, 1)
    assert [shown(each)[:2] for each in (three, four)] == [
        (72, 1003),
        (73, 1003),
    ]  # of the batch: nothing else is known
    for each in (two, three, four):
        assert f"more than {TIGHT.batch} bytes" in cut_of(each).reason
        assert cut_of(each).batch_hash == hashlib.sha256(data).digest()
    assert records.work < TIGHT.batch + MIB


@pytest.mark.parametrize("codec", COMPRESSING)
def test_what_the_broker_took_and_cannot_be_inflated_gives_coordinates(codec: str) -> None:
    data = batch([small(bytes([number]) * 5000) for number in range(250)], codec, spoil=True)

    records = read(data)

    assert [record.offset for record in records] == list(range(250))
    assert cut_of(records[-1]).batch_hash == hashlib.sha256(data).digest()
    assert "cannot be read to its end" in cut_of(records[-1]).reason


def test_names_of_headers_that_are_no_text_stop_nobody() -> None:
    named = Written(Part(b"k"), Part(b"v"), ((Part(b"\xff\xfe"), Part(b"1")), (Part(b"mine"), None)))

    before, it, after = read(batch([small(b"before"), named, small(b"after")], "lz4"))

    assert (before.value, after.value) == (b"before", b"after")
    assert (it.key, it.value, it.checksum) == (b"k", b"v", None)
    assert list(it.headers) == [("\ufffd\ufffd", b"1"), ("mine", None)]


def test_so_many_headers_are_not_all_made() -> None:
    record = Written(None, Part(b"v"), tuple((Part(b""), None) for _ in range(100_000)))

    [many] = read(batch([record], "zstd"))

    assert len(many.headers) <= 1000
    assert "bytes are more than" in cut_of(many).reason


@pytest.mark.parametrize("codec", COMPRESSING)
def test_what_is_small_and_inflates_to_much_takes_little_memory(codec: str) -> None:
    data = batch([large("value", 200 * 10**6)], codec)
    tracemalloc.start()
    try:
        [record] = read(data, Bounds())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert cut_of(record).value_bytes == 200 * 10**6
    assert peak < 8 * MIB + 3 * len(data)


# --- one look ---------------------------------------------------------------------------------------------------------


class Assigned:
    """An assigned partition, with the members that aiokafka uses."""

    active, paused = True, False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _source: TopicPartition) -> "Assigned":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(data: bytes, bounds: Bounds) -> tuple[BoundedFetch, Assigned]:
    source, assigned = TopicPartition("commands", 0), Assigned(0)
    records = fetcher.PartitionRecords(source, Records(data, bounds=bounds), [], 0, None, None, True, 1)
    return BoundedFetch(source, partition_records=records, assignment=assigned, backoff=0), assigned


def test_a_look_takes_what_it_has_room_for_and_the_next_one_goes_on() -> None:
    data = b"".join(batch([small(b"x" * 9000)] * 100, "zstd", base=100 * number) for number in range(10))
    look, assigned = fetched(data, Bounds(take=2 * MIB))

    takes = []
    while look.has_more():
        takes.append(look.getall(10_000))
        assert not takes[-1] or assigned.position == takes[-1][-1].offset + 1

    assert [record.offset for take in takes for record in take] == list(range(1000))
    assert max(len(take) for take in takes) < 400
    assert len(takes) >= 4


def test_a_look_takes_no_more_records_than_asked_for() -> None:
    look, assigned = fetched(batch([small(b"x")] * 30, "gzip"), Bounds())

    assert [len(look.getall(20)), assigned.position] == [20, 20]
    assert [len(look.getall()), assigned.position, look.has_more()] == [10, 30, False]
    assert look.getall(20) == []


def test_a_large_record_is_a_look_of_its_own() -> None:
    look, _ = fetched(batch([small(b"a"), large("value", 9 * MIB), small(b"b")], "zstd"), Bounds(take=4 * MIB))

    assert [record.offset for record in look.getall(500)] == [0, 1]
    assert [record.offset for record in look.getall(500)] == [2]


def test_a_batch_that_was_damaged_in_the_log_is_no_senders_fault() -> None:
    data = batch([small(b"a")], "zstd")
    look, _ = fetched(data[:-1] + bytes([data[-1] ^ 1]), Bounds())

    with pytest.raises(CorruptRecordException):
        look.getall(1)


@pytest.mark.parametrize("body", [b"\x80" * 2 * MIB, b"\x01\x01", b"\x7e" + b"\x80" * 100, b"\x04\0"])
def test_what_is_no_record_gives_coordinates(body: bytes) -> None:
    """A broker accepts no such batch; other programs may still have written one into a log."""
    data = batch([small(b"x")] * 3, "none")
    spoiled = data[:61] + body
    spoiled = spoiled[:8] + (len(spoiled) - 12).to_bytes(4, "big") + spoiled[12:]

    records = read(spoiled)

    assert [record.offset for record in records] == [0, 1, 2]
    assert all("cannot be read to its end" in cut_of(record).reason for record in records)
