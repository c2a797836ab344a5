"""otlp.compression: the same bytes back, and nothing hostile grows."""

from __future__ import annotations

import gzip
import importlib.util
import sys
import zlib
from collections import deque

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed, Refused, TooLarge
from collector.otlp import compression
from collector.otlp.compression import CODECS, STEP, Inflater, compress, inflate

BIG = 64 << 20


def fed(data: bytes, codec: str, size: int, cap: int = BIG) -> bytes:
    inflater = Inflater(codec, cap)
    for start in range(0, len(data), size):
        for _ in inflater.feed(data[start : start + size]):
            pass
    return inflater.close()


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=2000), repeat=st.integers(1, 2000), size=st.integers(1, 70000))
@settings(max_examples=40, deadline=None)
def test_what_was_compressed_comes_back_whatever_the_pieces(codec: str, data: bytes, repeat: int, size: int) -> None:
    body = data * repeat
    packed = compress(body, codec)
    assert fed(packed, codec, max(size, len(packed) // 500 + 1)) == body


@given(st.binary(max_size=5000), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_gzip_agrees_with_the_standard_library(data: bytes, level: int) -> None:
    assert inflate(gzip.compress(data), "gzip", BIG) == data
    assert gzip.decompress(compress(data, "gzip", level)) == data


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_inflated_as_gzip_does_or_malformed(data: bytes) -> None:
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[len(data) % len(packed)] ^= 1 << (data[0] & 7)
    try:
        expected = gzip.decompress(bytes(packed))
    except (OSError, EOFError, zlib.error):
        with pytest.raises(Malformed):
            inflate(bytes(packed), "gzip", BIG)
    else:
        assert inflate(bytes(packed), "gzip", BIG) == expected


def test_deflate_is_zlib_format() -> None:
    assert inflate(zlib.compress(b"abc"), "deflate", BIG) == b"abc"
    assert zlib.decompress(compress(b"abc", "deflate")) == b"abc"


@pytest.mark.parametrize("codec", ["", "none", "identity"])
def test_no_codec_leaves_the_bytes_alone(codec: str) -> None:
    assert compress(b"abc", codec) == b"abc"


def test_unknown_codecs_are_named() -> None:
    with pytest.raises(ValueError, match="snappy"):
        compress(b"", "snappy")
    with pytest.raises(ValueError, match="snappy"):
        Inflater("snappy", 1)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_stops_at_the_cap(codec: str) -> None:
    bomb = compress(bytes(BIG), codec)
    assert len(bomb) < BIG // 500
    inflater = Inflater(codec, 1 << 20)
    with pytest.raises(TooLarge):
        deque((None for start in range(0, len(bomb), 1000) for _ in inflater.feed(bomb[start : start + 1000])), 0)
    assert inflater.size <= (1 << 20) + STEP


@pytest.mark.parametrize("codec", CODECS)
def test_exactly_the_cap_is_allowed(codec: str) -> None:
    assert len(inflate(compress(bytes(100_000), codec), codec, 100_000)) == 100_000
    with pytest.raises(TooLarge):
        inflate(compress(bytes(100_001), codec), codec, 100_000)


@pytest.mark.parametrize("codec", CODECS)
def test_room_is_reserved_before_the_body_grows(codec: str) -> None:
    reserved = 0

    def reserve(size: int) -> None:
        nonlocal reserved
        assert reserved >= inflater.size
        reserved += size
        if reserved > 2 << 20:
            raise Refused("full")

    inflater = Inflater(codec, BIG, reserve)
    with pytest.raises(Refused):
        deque(inflater.feed(compress(bytes(8 << 20), codec)), 0)
    assert inflater.size <= 2 << 20


@pytest.mark.parametrize("codec", CODECS)
def test_a_body_cut_anywhere_is_malformed(codec: str) -> None:
    packed = compress(bytes(range(256)) * 4, codec)
    for end in range(len(packed)):
        with pytest.raises(Malformed):
            inflate(packed[:end], codec, BIG)


@pytest.mark.parametrize("codec", CODECS)
def test_trailing_garbage_is_malformed(codec: str) -> None:
    for tail in (b"\0", b"garbage and more of it"):
        with pytest.raises(Malformed):
            inflate(compress(b"abc", codec) + tail, codec, BIG)


@pytest.mark.parametrize("codec", CODECS)
def test_members_are_joined_up_to_sixteen(codec: str) -> None:
    member = compress(b"abc", codec)
    assert inflate(member * 16, codec, BIG) == b"abc" * 16
    with pytest.raises(Malformed, match="members"):
        inflate(member * 17, codec, BIG)


@pytest.mark.parametrize("codec", CODECS)
def test_a_cut_later_member_is_malformed(codec: str) -> None:
    member = compress(b"abc" * 50, codec)
    with pytest.raises(Malformed):
        inflate(member + member[:-1], codec, BIG)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_garbage_is_malformed_in_every_codec(data: bytes) -> None:
    for codec in CODECS:
        with pytest.raises(Malformed):
            inflate(b"\0" + data, codec, BIG)


def test_zstd_frames_of_every_shape_are_read() -> None:
    body = bytes(range(256)) * 3000
    for checksum in (True, False):
        for sized in (True, False):
            for level in (1, 3, 19):
                packer = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=sized)
                assert fed(packer.compress(body), "zstd", 7) == body
    stream = zstandard.ZstdCompressor().compressobj()
    assert fed(stream.compress(body) + stream.flush(), "zstd", 1000) == body


def test_a_zstd_window_beyond_eight_mebibytes_is_malformed() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(Malformed):
        inflate(stream.compress(b"abc") + stream.flush(), "zstd", BIG)


@pytest.mark.parametrize("head", [b"\x07\x00\x00", b"\xfd\xff\xff"])
def test_reserved_or_oversized_zstd_blocks_are_malformed(head: bytes) -> None:
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x00" + head + bytes(20)
    with pytest.raises(Malformed):
        inflate(frame, "zstd", BIG)


def test_the_standard_library_takes_over_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.otlp.compression._zlib", zlib)
    for codec in CODECS:
        assert inflate(compress(b"abc" * 100, codec), codec, BIG) == b"abc" * 100


def test_the_module_loads_where_isal_has_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = importlib.util.spec_from_file_location("compression_without_isal", compression.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._zlib is zlib
