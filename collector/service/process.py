"""What is settled for the whole process before the loop runs: its allocator, its garbage collector, its kind of loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable

from collector.otlp.plain import COMPILED

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
