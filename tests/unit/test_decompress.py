"""Compressed data, inflated a piece at a time: the same bytes, few of them at once, and no surprise."""

import zlib
from contextlib import suppress
from typing import Final

import cramjam
import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import CODECS, COMPRESSED
from worker.errors import Unreadable
from worker.kafka.decompress import GZIP, LARGEST_BLOCK, LZ4, PIECE, SNAPPY, ZSTD, inflated

COMPRESSING: Final = [name for name in CODECS if name != "none"]
LARGE: Final = bytes(range(256)) * 5000 + bytes(3 * PIECE)


def compressed(codec: str, data: bytes) -> bytes:
    return b"".join(COMPRESSED[codec](iter((data,))))


def inflate(codec: int, data: bytes) -> bytes:
    pieces = list(inflated(codec, data))
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary() | st.integers(0, 3 * PIECE).map(bytes))
def test_what_was_compressed_comes_back(codec: str, data: bytes) -> None:
    assert inflate(CODECS[codec], compressed(codec, data)) == data


@pytest.mark.parametrize("codec", CODECS)
def test_more_than_a_piece_comes_in_pieces(codec: str) -> None:
    assert inflate(CODECS[codec], compressed(codec, LARGE)) == LARGE


@pytest.mark.parametrize("codec", COMPRESSING)
def test_no_more_is_inflated_than_is_asked_for(codec: str) -> None:
    pieces = inflated(CODECS[codec], compressed(codec, LARGE)[:-8])  # read to its end, it would be found broken

    assert LARGE.startswith(next(pieces))


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        pytest.param(GZIP, zlib.compress(LARGE, wbits=31), id="gzip"),
        pytest.param(GZIP, zlib.compress(LARGE[:9], wbits=31) + zlib.compress(LARGE[9:], wbits=31), id="two members"),
        pytest.param(GZIP, zlib.compress(LARGE, wbits=31) + b"\0" * 7 + b"not gzip", id="a member and more"),
        pytest.param(LZ4, lz4.frame.compress(LARGE, block_linked=True, content_checksum=True), id="linked blocks"),
        pytest.param(LZ4, lz4.frame.compress(LARGE, block_size=lz4.frame.BLOCKSIZE_MAX4MB), id="large blocks"),
        pytest.param(ZSTD, zstandard.compress(LARGE), id="zstd of known size"),
        pytest.param(ZSTD, zstandard.compress(LARGE[:9]) + zstandard.compress(LARGE[9:]), id="two frames"),
        pytest.param(ZSTD, bytes.fromhex("502a4d1803000000ffffff") + zstandard.compress(LARGE), id="a frame to skip"),
        pytest.param(ZSTD, zstandard.compress(LARGE, 22), id="the highest level"),
    ],
)
def test_every_form_that_a_broker_takes_is_read(codec: int, data: bytes) -> None:
    assert inflate(codec, data) == LARGE


def test_snappy_is_read_without_blocks_too_and_then_at_once() -> None:
    assert list(inflated(SNAPPY, bytes(cramjam.snappy.compress_raw(LARGE)))) == [LARGE]


def test_snappy_in_blocks_is_known_whatever_version_it_says_to_be_of() -> None:
    data = bytearray(compressed("snappy", LARGE))
    data[8:16] = bytes.fromhex("0000000200000001")

    assert inflate(SNAPPY, bytes(data)) == LARGE


@pytest.mark.parametrize("size", [LARGEST_BLOCK + 1, 2**32 - 1])
def test_a_block_of_snappy_is_not_inflated_if_it_says_to_be_too_large(size: int) -> None:
    written, number = bytearray(), size
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)

    with pytest.raises(Unreadable, match=str(size)):
        list(inflated(SNAPPY, bytes(written) + b"\0\0"))


@pytest.mark.parametrize("codec", COMPRESSING)
@given(data=st.binary(min_size=1))
def test_what_is_not_in_the_format_is_unreadable_or_short(codec: str, data: bytes) -> None:
    with suppress(Unreadable):
        assert len(inflate(CODECS[codec], data)) < 100 * len(data)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_what_is_cut_gives_its_beginning_at_most(codec: str) -> None:
    data = compressed(codec, LARGE)
    got = bytearray()
    with suppress(Unreadable):
        for piece in inflated(CODECS[codec], data[: len(data) // 2]):
            got += piece

    assert LARGE.startswith(bytes(got))
    assert len(got) < len(LARGE)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_nobody_knows_is_unreadable(codec: int) -> None:
    with pytest.raises(Unreadable, match=str(codec)):
        list(inflated(codec, b"data"))
