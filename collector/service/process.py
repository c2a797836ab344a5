"""What is settled for the whole process: its allocator, its garbage collector, its kind of loop, what it keeps in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import mmap
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from collector.otlp.plain import COMPILED
from collector.pipeline.admission import trim

WALKER = "compiled" if COMPILED else "python"
"""Which way plain requests take."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, else None for Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def tune_memory() -> None:
    """Let threads share freed memory, keep some of it for the next request, look for garbage less often than Python would."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Two arenas instead of 8 per core: threads of grpc and the scanner would each keep freed memory of their own.
        mallopt(-8, 2)
        # Bodies and joined requests of up to 8 MiB come from memory that was used before: mapping and clearing fresh pages
        # for each took a quarter of the CPU of large requests. What is kept is given back when it is quiet (ByteBudget).
        mallopt(-3, 8 << 20)
        mallopt(-1, 16 << 20)
    gc.set_threshold(20_000, 20, 20)


def import_aiohttp() -> None:
    """Import it without the certificates of the system: it reads them twice at import, 0.08 s and 2 MiB, for clients of its own.

    Ours bring their own. A component of a user that relies on them gets them with its first connection.
    """
    waiting: list[ssl.SSLContext] = []
    cls: Any = ssl.SSLContext  # asyncio has imported ssl long before
    load = cls.load_default_certs
    cls.load_default_certs = lambda context, *_: waiting.append(context)
    cls.set_default_verify_paths = lambda context: waiting.append(context)
    try:
        import aiohttp  # noqa: F401
    finally:
        cls.load_default_certs = load
        del cls.set_default_verify_paths  # the inherited one again
    for context in waiting:
        context.__class__ = _LateTrust


class _LateTrust(ssl.SSLContext):
    """A context that reads the certificates of the system when it is first used."""

    _trusting = False

    def wrap_bio(self, *arguments: Any, **options: Any) -> Any:
        self._trust()
        return super().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> Any:
        self._trust()
        return super().wrap_socket(*arguments, **options)

    def _trust(self) -> None:
        if not self._trusting:
            self.load_default_certs()
            self._trusting = True


def settle_memory() -> None:
    """Give back what only the start needed: call it when all is built and warm, never after a reload.

    What exists now stays for good, so garbage collection need not look at it again.
    """
    gc.collect()
    gc.freeze()  # after a reload the old graph would never be collected
    trim()


_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \d+ +/")


def release_code(smaps: Path = Path("/proc/self/smaps")) -> int:
    """Let go of the pages of program files; returns the bytes of address space they were in.

    Most of them only the start ran: 20 MiB resident. Those in use come back from the system's page cache as they are touched, for
    some microseconds each. Only code that nobody ever wrote to: a page with a breakpoint or a relocation would be lost.
    """
    released = 0
    with contextlib.suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        with smaps.open() as lines:
            for start, size in _unwritten(lines):
                if advise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED) == 0:
                    released += size
    return released


def _unwritten(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Address and size of every mapping of a file's code without a page of its own."""
    start = end = 0
    for line in smaps:
        if found := _MAPPING.match(line):
            start, end = int(found[1], 16), int(found[2], 16)
        elif line[:1] in "0123456789abcdef":
            end = 0
        elif end and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                yield start, end - start
            end = 0
