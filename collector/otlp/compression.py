"""Compression and capped decompression: no body, however hostile, grows beyond what was reserved for it.

Rule 1: output is produced in steps of at most STEP bytes, and room is reserved before each step. Rule 2: the cap holds for
every codec in the same way. Rule 3: concatenated members are counted (a megabyte of tiny gzip members blocked a loop for 2 s).
Rule 4: a body that ends within a member is malformed, never a shorter body. Sources: RFC 1950, 1952, 8878.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from collector.errors import Malformed, TooLarge

try:
    from isal import isal_zlib as _zlib
except ImportError:  # no wheel for this processor: the standard library gives the same bytes, slower
    import zlib as _zlib  # type: ignore[no-redef]

STEP = 256 << 10
MEMBERS = 16
_WINDOW = 8 << 20  # RFC 8878 section 3.1.1.1.2: decoders should support at least 8 MiB
_BLOCK = 128 << 10  # the most one zstd block can hold
_WBITS = {"gzip": 31, "zlib": 15, "deflate": 15}
CODECS = ("gzip", "zstd", "zlib", "deflate")
"""Content codings that are read; `deflate` is zlib's format, as HTTP has it (RFC 9110 section 8.4.1.2)."""


def compress(data: bytes, codec: str, level: int | None = None) -> bytes:
    """`data` in the coding `codec` (`gzip`, `zstd`, `zlib`, `deflate`, `none` or empty).

    gzip `level`: 0-9 as zlib counts (0-3 done by isal, fast), zstd 1-22. Raises ValueError for another codec.
    """
    if codec in ("", "none", "identity"):
        return data
    if codec == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)
    if codec not in _WBITS:
        raise ValueError(f"unknown compression: {codec}")
    level = 1 if level is None else level
    engine: Any = _zlib if 0 <= level <= 3 else zlib
    packer = engine.compressobj(level, zlib.DEFLATED, _WBITS[codec])
    packed: bytes = packer.compress(data) + packer.flush()
    return packed


def inflate(data: bytes, codec: str, cap: int) -> bytes:
    """The body behind `data`, at most `cap` bytes. Raises Malformed or TooLarge."""
    inflater = Inflater(codec, cap)
    for start in range(0, len(data), 64 << 10):
        for _ in inflater.feed(data[start : start + (64 << 10)]):
            pass
    return inflater.close()


def _unlimited(size: int) -> None:
    return None


class Inflater:
    """Takes the pieces of one compressed body and gives the body back.

    `cap`: most bytes after decompression, else TooLarge. `reserve(n)` is called before the body grows by up to `n` bytes and
    may raise. Wrong, truncated or endless input raises Malformed. Feed pieces of about 64 KiB.
    """

    def __init__(self, codec: str, cap: int, reserve: Callable[[int], None] = _unlimited, *, members: int = MEMBERS) -> None:
        if codec not in CODECS:
            raise ValueError(f"unknown compression: {codec}")
        self._codec, self._cap, self._reserve, self._left = codec, cap, reserve, members
        self._out, self._more = io.BytesIO(), b""  # gives the body back without a copy: 50 ms for 64 MiB
        self._size = self._room = 0
        self._stream: Any = None
        self._checksum = False
        self._started = False

    def feed(self, data: bytes) -> Iterator[None]:
        """Take the next piece; pauses after every step, so that the caller may let others work."""
        self._more += data
        return self._zstd() if self._codec == "zstd" else self._deflate()

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return self._size

    def close(self) -> bytes:
        """The whole body. Raises Malformed when its end is missing."""
        if not self._started or self._stream is not None or self._more:
            raise Malformed(f"{self._codec}: the body is empty or ends too early")
        return self._out.getvalue()

    def _open(self, stream: Any) -> None:
        if not self._left:
            raise Malformed(f"{self._codec}: too many members")
        self._left -= 1
        self._started = True
        self._stream = stream

    def _grow(self, step: int, data: bytes, *limit: int) -> int:
        """Let the open stream work on `data` and add what comes out, at most `step` bytes; returns how many."""
        if self._room < step:
            self._reserve(step)
            self._room += step
        try:
            piece = self._stream.decompress(data, *limit)
        except Exception as error:  # zlib.error, IsalError and ZstdError have no class in common
            raise Malformed(f"{self._codec}: broken data after {self._size} bytes") from error
        self._out.write(piece)
        self._size += len(piece)
        self._room -= len(piece)
        if self._size > self._cap:
            raise TooLarge(f"the body is larger than {self._cap} bytes after decompression")
        return len(piece)

    def _deflate(self) -> Iterator[None]:
        while self._more or self._stream is not None:
            if self._stream is None:
                self._open(_zlib.decompressobj(_WBITS[self._codec]))
            stream = self._stream
            size = self._grow(STEP, self._more, STEP)
            if stream.eof:
                self._more, self._stream = stream.unused_data, None
            else:
                self._more = stream.unconsumed_tail
                if not self._more and size < STEP:
                    return
            yield

    def _zstd(self) -> Iterator[None]:
        """zstandard has no limit on its output, so it is given one block (at most 128 KiB of output) at a time."""
        data, at = self._more, 0
        try:
            while size := self._zstd_piece(data[at : at + 18]):
                if at + size > len(data):
                    return
                if self._stream is None:
                    import zstandard

                    self._open(zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj())
                self._grow(_BLOCK, data[at : at + size])
                at += size
                if self._stream.eof:
                    self._stream = None
                yield
        finally:
            self._more = data[at:]

    def _zstd_piece(self, data: bytes) -> int:
        """Size of the frame header or block that starts here, 0 when too little is there to say (RFC 8878 section 3.1.1)."""
        if self._stream is None:
            if len(data) < 5:
                return 0
            flags = data[4]
            if data[:4] != b"\x28\xb5\x2f\xfd":
                raise Malformed("zstd: not a frame")
            self._checksum = bool(flags & 4)
            single = flags >> 5 & 1
            return 6 - single + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        if len(data) < 3:
            return 0
        head = int.from_bytes(data[:3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if kind == 3 or size > _BLOCK:
            raise Malformed(f"zstd: broken data after {self._size} bytes")
        return 3 + (1 if kind == 1 else size) + (4 if last and self._checksum else 0)
