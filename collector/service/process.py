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
    """Let threads share freed memory, and look for garbage less often than Python would."""
    # Two arenas instead of 8 per core: threads of grpc and the scanner would each keep freed memory of their own.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, 2)
    gc.set_threshold(20_000, 20, 20)
