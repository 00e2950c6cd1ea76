"""Record batches as a malicious sender might write them, made and compressed in little memory."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import cramjam
import lz4.frame
import zstandard
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
PLACES: Final = ("value", "key", "header", "header name")
BROKERS_LIMIT: Final = 1_048_588
"""The largest batch that a broker accepts by default (``message.max.bytes``)."""

_ZEROS: Final = bytes(1 << 20)
_BLOCK: Final = 32 * 1024
_FRONT: Final = Struct(">qiib")
_CHECKED: Final = Struct(">hiqqqhii")
_CRC: Final = Struct(">I")

Chunks = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes, and so many zeros after them."""

    data: bytes
    zeros: int = 0

    def __len__(self) -> int:
        return len(self.data) + self.zeros

    def chunks(self) -> Chunks:
        yield self.data
        for first in range(0, self.zeros, len(_ZEROS)):
            yield _ZEROS[: self.zeros - first]


@dataclass(frozen=True, slots=True)
class Written:
    """A record as written in a batch. ``None`` is null; header names are bytes: the broker does not check them."""

    key: Part | None = None
    value: Part | None = None
    headers: Sequence[tuple[Part, Part | None]] = ()

    def chunks(self, delta: int) -> Chunks:
        parts: list[Part] = [Part(b"\0" + varint(delta) + varint(delta))]
        for part in (self.key, self.value):
            parts += _sized(part)
        parts.append(Part(varint(len(self.headers))))
        for name, value in self.headers:
            parts += (*_sized(name), *_sized(value))
        yield varint(sum(map(len, parts)))
        for part in parts:
            yield from part.chunks()


def large(place: str, size: int) -> Written:
    """Return a record with so many zeros in one place."""
    zeros, small = Part(b"", size), Part(b"x")
    header = {"header": (small, zeros), "header name": (zeros, small)}.get(place, (small, small))
    return Written(zeros if place == "key" else small, zeros if place == "value" else small, (header,))


def small(value: bytes | None, key: bytes | None = None, *headers: tuple[str, bytes]) -> Written:
    """Return an ordinary record."""
    return Written(
        None if key is None else Part(key),
        None if value is None else Part(value),
        tuple((Part(name.encode()), Part(text)) for name, text in headers),
    )


def varint(number: int) -> bytes:
    """Return a number as Kafka writes it."""
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


def batch(
    records: Sequence[Written], codec: str, *, base: int = 0, timestamp: int = 1_000, spoil: bool = False
) -> bytes:
    """Return a record batch of format 2.

    The timestamps count up from ``timestamp``. ``spoil`` cuts the compressed data short.
    """
    chunks = (chunk for delta, record in enumerate(records) for chunk in record.chunks(delta))
    body = b"".join(COMPRESSED[codec](chunks))
    if spoil:
        body = body[: len(body) // 2]
    last = len(records) - 1
    checked = _CHECKED.pack(CODECS[codec], last, timestamp, timestamp + last, -1, -1, -1, len(records)) + body
    front = _FRONT.pack(base, len(checked) + _FRONT.size + _CRC.size - 12, -1, 2)
    return front + _CRC.pack(calc_crc32c(checked)) + checked


async def send(options: dict[str, Any], topic: str, partition: int, data: bytes) -> int:
    """Send a batch as it is, and return the offset that it was given. Raises the broker's error."""
    client = AIOKafkaClient(**options)
    await client.bootstrap()
    try:
        await client.add_topic(topic)
        place = TopicPartition(topic, partition)
        while (node := client.cluster.leader_for_partition(place)) in {None, -1}:
            await client.force_metadata_update()
        answer = await client.send(node, ProduceRequest(None, -1, 30_000, [(topic, [(partition, data)])]))
        [(_, [(_, code, offset, *_)])] = answer.topics
        if code:
            raise for_code(code)
        return int(offset)
    finally:
        await client.close()


def _sized(part: Part | None) -> list[Part]:
    return [Part(varint(-1))] if part is None else [Part(varint(len(part))), part]


def _gzip(chunks: Chunks) -> Chunks:
    compressor = zlib.compressobj(wbits=31)
    yield from map(compressor.compress, chunks)
    yield compressor.flush()


def _snappy(chunks: Chunks) -> Chunks:
    """Compress in blocks, as the Java client does."""
    yield b"\x82SNAPPY\0" + (1).to_bytes(4, "big") * 2
    held = b""
    for chunk in chunks:
        held += chunk
        while len(held) >= _BLOCK:
            yield from _snappy_block(held[:_BLOCK])
            held = held[_BLOCK:]
    yield from _snappy_block(held)


def _snappy_block(data: bytes) -> Chunks:
    block = bytes(cramjam.snappy.compress_raw(data))
    yield len(block).to_bytes(4, "big")
    yield block


def _lz4(chunks: Chunks) -> Chunks:
    with lz4.frame.LZ4FrameCompressor(block_linked=False) as compressor:
        yield compressor.begin()
        yield from map(compressor.compress, chunks)
        yield compressor.flush()


def _zstd(chunks: Chunks) -> Chunks:
    compressor = zstandard.ZstdCompressor().compressobj()
    yield from map(compressor.compress, chunks)
    yield compressor.flush()


COMPRESSED: Final[dict[str, Callable[[Chunks], Chunks]]] = {
    "none": iter,
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _lz4,
    "zstd": _zstd,
}
