"""Read record batches within bounds: only once it is inflated does a batch tell how large it is.

aiokafka inflates a batch whole and makes all of it at once: 200 MB out of 6 KB, on the event loop. Here a batch is
inflated a piece at a time, and its records are handed on in small batches that aiokafka's own decoder reads. A record
that is too large is cut. A batch that inflates beyond its bound is not inflated any further: of its remaining records
only the coordinates are left. Nothing is left out, so that every record can be answered.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import inf
from struct import Struct
from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from msgspec.structs import replace

from worker.errors import Unreadable
from worker.kafka.decompress import inflated
from worker.kafka.delivery import KEPT_BYTES, Cut
from worker.kafka.internals import read_fetches_with

MOST_HEADERS: Final = 1000
"""The most headers that are kept of a record that is too large."""

_LOG_OVERHEAD: Final = 12
"""The bytes of a batch's base offset and of the length of what follows."""
_HEAD: Final = Struct(">qiibIhiqqqhii")
"""The head of a batch of format 2 (Kafka's ``DefaultRecordBatch``): base offset, length, leader epoch, format, CRC,
attributes, last offset delta, first and last timestamp, producer id, epoch and sequence, count of records."""
_COUNT: Final = Struct(">i")
_COUNT_AT: Final = _HEAD.size - _COUNT.size
_FORMAT: Final = 2
_CODEC: Final = 0x07
_MORE: Final = 0x80
_SEVEN_BITS: Final = 0x7F
_MOST_BITS: Final = 70
"""The most bits of a number as Kafka writes it: ten times seven."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on inflated data, in bytes."""

    record: int = 2 * 1024 * 1024
    """The largest record that is taken whole: larger than a broker takes by default."""
    batch: int = 32 * 1024 * 1024
    """The most of a record batch that is inflated."""
    take: int = 4 * 1024 * 1024
    """The most that one read of a partition takes; at least one record, whatever its size."""


def bound_fetches(bounds: Bounds) -> None:
    """Make every consumer of this process read within these bounds."""
    read_fetches_with(partial(Records, bounds=bounds))


@dataclass(slots=True)
class Record:
    """A record as aiokafka reads it.

    aiokafka hands ``checksum`` on untouched, and no record of format 2 has one: a ``Cut`` goes there.
    """

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    checksum: Cut | None = None


class Records:
    """The record batches of one partition in the answer to a fetch; replaces aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes, *, bounds: Bounds) -> None:
        self._data = data
        self._batches = MemoryRecords(data)
        self._position = 0
        self.bounds = bounds
        self.work = 0
        """The bytes that have been read or inflated so far."""

    def worked(self, size: int) -> None:
        self.work += size

    @property
    def most_work(self) -> int:
        """The most bytes that one read of the partition may take."""
        return self.bounds.take

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        """Return the next batch, to be read within bounds. Kafka's own markers are returned as aiokafka has them.

        So is a batch of an older format: brokers since 4.0 take none, and their records lack the information.
        """
        batch = self._batches.next_batch()
        begin = self._position
        self._position += _LOG_OVERHEAD + int.from_bytes(self._data[begin + 8 : begin + _LOG_OVERHEAD], "big")
        if batch is None or batch.magic < _FORMAT or batch.is_control_batch:
            return batch
        return Batch(batch, self._data[begin : self._position], self)


class Batch:
    """One record batch, whose records are made as they are asked for."""

    def __init__(self, batch: DefaultRecordBatch, raw: bytes, records: Records) -> None:
        self._batch = batch
        self._raw = raw
        self._bounds = records.bounds
        (self._count,) = _COUNT.unpack_from(raw, _COUNT_AT)
        codec = batch.compression_type
        most = records.bounds.batch if codec else inf  # without compression it is no larger than the broker has taken
        self._inflating = Inflating(inflated(codec, raw[_HEAD.size :]), most, records.worked)

    def __getattr__(self, name: str) -> Any:
        # The offsets, the producer, and if it is transactional.
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """True if the CRC of the batch is right, as the broker sent it."""
        return bool(self._batch.validate_crc())

    def __iter__(self) -> Iterator[Any]:
        """Yield every record, in order. One of which only the offset is known has the last timestamp of the batch."""
        following = self._batch.base_offset
        try:
            for record in self._readable():
                following = record.offset + 1
                yield record
        except Unreadable as why:
            cut = Cut(_unread(why), batch_hash=_hash(self._raw))
            for offset in range(following, self._batch.next_offset):
                yield Record(offset, self._batch.max_timestamp, self._batch.timestamp_type, checksum=cut)

    def _readable(self) -> Iterator[Any]:
        inflating, seen = self._inflating, 0
        while seen < self._count:
            count, end, is_larger = _whole_records(inflating.held, self._count - seen, self._bounds.record)
            if count:
                yield from self._whole(bytes(inflating.take(end)), count)
                seen += count
            elif is_larger:
                yield from self._cut(inflating)
                seen += 1
            else:
                try:
                    inflating.grow()
                except Unreadable:
                    # The coordinates of a record that has begun are known.
                    yield from self._cut(inflating)
                    raise

    def _whole(self, records: bytes, count: int) -> Iterator[Any]:
        """Read some of the records with aiokafka's decoder, as if they alone were the batch."""
        batch = self._batch
        head = _HEAD.pack(
            batch.base_offset,
            _HEAD.size - _LOG_OVERHEAD + len(records),
            0,
            _FORMAT,
            0,
            batch.attributes & ~_CODEC,
            batch.last_offset_delta,
            batch.first_timestamp,
            batch.max_timestamp,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            count,
        )
        given = 0
        try:
            for record in DefaultRecordBatch(head + records):
                given += 1
                yield record
        except (CorruptRecordException, UnicodeDecodeError):
            # The broker checks neither keys nor header names, which may not be text.
            inflating = Inflating(iter((records,)))
            for _ in range(given):
                inflating.skip(inflating.varint())
            for _ in range(count - given):
                yield from self._cut(inflating)

    def _cut(self, inflating: "Inflating") -> Iterator[Record]:
        """Yield the next record, as much of it as is kept. Raises ``Unreadable`` if nothing after it can be read."""
        batch = self._batch
        length = inflating.varint()
        end = inflating.position + length
        inflating.skip(1)
        timestamp, delta = inflating.varint(), inflating.varint()
        stamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + timestamp
        record = Record(batch.base_offset + delta, stamp, batch.timestamp_type)
        why = Cut(f"its {length} bytes are more than the {self._bounds.record} that a record may have")
        try:
            _read(record, inflating, end, why)
        except Unreadable as broken:
            record.checksum = replace(record.checksum or why, reason=_unread(broken), batch_hash=_hash(self._raw))
            yield record
            raise
        yield record


class Inflating:
    """The inflated bytes of a batch as one stream; nothing is inflated before it is needed."""

    def __init__(self, pieces: Iterator[bytes], most: float = inf, worked: Callable[[int], object] = int) -> None:
        """``most`` is the number of bytes that may be inflated; ``worked`` is told the size of each piece."""
        self.held = bytearray()
        """Bytes that are inflated and not read yet."""
        self.position = 0
        self._pieces = pieces
        self._most = most
        self._worked = worked
        self._inflated = 0
        self._ended: Unreadable | None = None

    def grow(self) -> None:
        """Inflate another piece. Raises ``Unreadable``, the same each time, at the end of the data or at the bound."""
        if self._ended is None:
            try:
                self._take_piece()
            except Unreadable as error:
                self._ended = error
        if self._ended is not None:
            raise self._ended

    def _take_piece(self) -> None:
        if self._inflated >= self._most:
            raise Unreadable(f"it inflates to more than {self._most} bytes")
        piece = next(self._pieces, None)
        if piece is None:
            raise Unreadable("it ends early")
        self.held += piece
        self._inflated += len(piece)
        self._worked(len(piece))

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        while len(self.held) < count:
            self.grow()
        taken = bytes(self.held[:count])
        del self.held[:count]
        self.position += count
        return taken

    def skip(self, count: int, digest: Any = None) -> None:
        """Skip ``count`` bytes without holding all of them at once. ``digest`` is updated with them."""
        while count > 0:
            if not self.held:
                self.grow()
            part = self.take(min(count, len(self.held)))
            count -= len(part)
            if digest is not None:
                digest.update(part)

    def varint(self) -> int:
        """Read a number as Kafka writes it: seven bits to a byte, the lowest first, and the sign in the lowest bit."""
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & _SEVEN_BITS) << shift
            shift += 7
            if not byte & _MORE:
                return (number >> 1) ^ -(number & 1)
            if shift >= _MOST_BITS:
                raise Unreadable("a number in it has no end")


def _whole_records(held: bytearray, most: int, largest: int) -> tuple[int, int, bool]:
    """Return the number of whole records at the beginning, the end of the last of them, and if a larger one follows."""
    count = end = 0
    size = len(held)
    while count < most:
        position, shift, number = end, 0, 0
        while True:
            if position == size:
                return count, end, False
            byte = held[position]
            position += 1
            number |= (byte & _SEVEN_BITS) << shift
            shift += 7
            if byte < _MORE or shift >= _MOST_BITS:
                break
        length = number >> 1
        if length > largest:
            return count, end, True
        if position + length > size:
            return count, end, False
        count, end = count + 1, position + length
    return count, end, False


def _read(record: Record, inflating: Inflating, end: int, cut: Cut) -> None:
    """Read the parts of key, value and headers that are kept, and skip to the end of the record.

    Raises ``Unreadable`` if that is not reached; ``record`` then holds what has been read so far.
    """

    def size() -> int:
        given = inflating.varint()
        if inflating.position + given > end:
            raise Unreadable("a part of a record is larger than the record")
        return given

    def kept(size: int) -> bytes | None:
        return None if size < 0 else inflating.take(min(size, KEPT_BYTES))

    key_bytes = size()
    record.key = kept(key_bytes)
    inflating.skip(key_bytes - KEPT_BYTES)
    value_bytes = size()
    record.checksum = cut = replace(cut, value_bytes=max(0, value_bytes))
    record.value = kept(value_bytes)
    digest = hashlib.sha256(record.value or b"")
    inflating.skip(value_bytes - KEPT_BYTES, digest)
    record.checksum = replace(cut, value_hash=digest.digest())
    count, room = inflating.varint(), KEPT_BYTES
    for _ in range(min(count, MOST_HEADERS)):
        name_bytes = size()
        if name_bytes > room:
            break
        name = inflating.take(name_bytes).decode("utf-8", "replace")
        header_bytes = size()
        room -= name_bytes + header_bytes
        if room < 0:
            break
        record.headers.append((name, kept(header_bytes)))
    inflating.skip(end - inflating.position)
    if max(key_bytes, value_bytes) <= KEPT_BYTES and len(record.headers) == count:
        record.checksum = None


def _unread(why: Unreadable) -> str:
    return f"the record batch that holds it cannot be read to its end: {why}"


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
