"""Inflate compressed data a piece at a time: its inflated size is not known before."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import cramjam
import lz4.frame
import zstandard

from worker.errors import Unreadable

GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4
"""The codecs, by their numbers in a record batch. 0 is none."""
PIECE: Final = 256 * 1024
"""The most bytes that are inflated at once."""
LARGEST_BLOCK: Final = 32 * 1024 * 1024
"""The largest block of snappy that is inflated. A block is inflated as a whole, but tells its size before."""

_INPUT: Final = 64 * 1024
_LARGEST_WINDOW: Final = 1 << 27
"""The largest window of zstd: its highest level needs as much. Only memory for inflated bytes is ever touched."""
_XERIAL: Final = b"\x82SNAPPY\0"
"""The start of snappy in blocks as the Java client writes it: these 8 bytes, two versions, blocks after their sizes."""
_XERIAL_BYTES: Final = 16
_SIZE_BYTES: Final = 4
_GZIP_WINDOW: Final = 31


def inflated(codec: int, data: bytes) -> Iterator[bytes]:
    """Yield the inflated pieces, none of them empty, each made when it is asked for.

    A piece has at most ``PIECE`` bytes; of snappy it is a block, of at most ``LARGEST_BLOCK``. Data that end early just
    end. Raises ``Unreadable`` for data that are not in the codec's format, and for an unknown codec.
    """
    if codec not in _CODECS:
        raise Unreadable(f"codec {codec} is not known")
    name, pieces = _CODECS[codec]
    with _unreadable(name):
        yield from pieces(data)


@contextmanager
def _unreadable(name: str) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise Unreadable(f"it is not {name}") from error


def _parts(data: bytes) -> Iterator[bytes]:
    """Yield the compressed data in parts: a decoder that stops in the middle of one copies the rest of it."""
    return (data[first : first + _INPUT] for first in range(0, len(data), _INPUT))


def _plain(data: bytes) -> Iterator[bytes]:
    return (data[first : first + PIECE] for first in range(0, len(data), PIECE))


def _gzip(data: bytes) -> Iterator[bytes]:
    """Inflate one member after the other. Trailing data that are no member are ignored, as by other clients."""
    member, members, rest = zlib.decompressobj(_GZIP_WINDOW), 0, b""
    for part in _parts(data):
        rest += part
        while True:
            try:
                piece = member.decompress(rest, PIECE)
            except zlib.error:
                if members:
                    return
                raise
            if piece:
                yield piece
            if member.eof:
                rest, member, members = member.unused_data, zlib.decompressobj(_GZIP_WINDOW), members + 1
            else:
                rest = member.unconsumed_tail
            if not rest and len(piece) < PIECE:
                break


def _snappy(data: bytes) -> Iterator[bytes]:
    for block in _blocks(data) if data.startswith(_XERIAL) else (data,):
        size = cramjam.snappy.decompress_raw_len(block)
        if size > LARGEST_BLOCK:
            raise Unreadable(f"a block of snappy inflates to {size} bytes")
        if size:
            yield bytes(cramjam.snappy.decompress_raw(block))


def _blocks(data: bytes) -> Iterator[bytes]:
    position = _XERIAL_BYTES
    while position < len(data):
        first = position + _SIZE_BYTES
        position = first + int.from_bytes(data[position:first], "big")
        yield data[first:position]


def _lz4(data: bytes) -> Iterator[bytes]:
    frame = lz4.frame.LZ4FrameDecompressor()
    parts = _parts(data)
    while not frame.eof:
        part = next(parts, None) if frame.needs_input else b""
        if part is None:
            return
        piece = frame.decompress(part, PIECE)
        if piece:
            yield piece


def _zstd(data: bytes) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    with decoder.stream_reader(data, read_across_frames=True) as frames:
        while piece := frames.read(PIECE):
            yield piece


_CODECS: Final = {
    0: ("data", _plain),
    GZIP: ("gzip", _gzip),
    SNAPPY: ("snappy", _snappy),
    LZ4: ("lz4", _lz4),
    ZSTD: ("zstd", _zstd),
}
_ERRORS: Final = (zlib.error, zstandard.ZstdError, cramjam.DecompressionError, RuntimeError, EOFError, ValueError)
"""The errors of the decoders; lz4 has none of its own."""
