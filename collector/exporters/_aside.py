"""One thread for what Python computes too long for the event loop.

One for all exporters: a second gains nothing, as only one at a time runs Python, and each lets the loop wait another 5 ms
whenever the loop has let go of the interpreter, several times in a slice of a large request. So while this one computes the
loop waits 1 ms at most; for good, that costs ordinary requests 5 % more CPU. Not for what waits: a slow disk holds up others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_YIELD = 0.001
_thread = ThreadPoolExecutor(1, thread_name_prefix="exporters")


def prepare() -> None:
    """Start the thread, before there is work for it: under load the system may take 0.1 s for that, and who starts it waits."""
    _thread.submit(int)


async def aside(compute: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """What `compute` returns, after those that were asked for before. Cancelled before its turn, it does not run."""
    return await asyncio.get_running_loop().run_in_executor(_thread, lambda: _yielding(lambda: compute(*arguments, **named)))


def _yielding(compute: Callable[[], _T]) -> _T:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _YIELD))
    try:
        return compute()
    finally:
        sys.setswitchinterval(before)
