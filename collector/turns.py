"""Turns: large requests are worked on in slices, and between two slices of all of them together the event loop goes round once.

`asyncio.sleep(0)` lets others work too, but with twenty large requests twenty slices would run in one round of the loop. The
request that began first has the next turn: it is done, and its memory free, long before all of them would be in rotation.
"""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar
from heapq import heappop, heappush
from weakref import WeakKeyDictionary

_numbers = itertools.count()
_ticket: ContextVar[int | None] = ContextVar("ticket", default=None)


def begin() -> None:
    """A request begins here: all turns of this task from now on have its place in the queue."""
    _ticket.set(next(_numbers))


class _Turns:
    """The queue of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._running = False

    def join(self, ticket: int | None) -> asyncio.Future[None]:
        future = self._loop.create_future()
        number = next(_numbers)
        heappush(self._waiting, (number if ticket is None else ticket, number, future))
        if not self._running:
            self._running = True
            self._loop.call_soon(self._grant)
        return future

    def _grant(self) -> None:
        """Once in each round of the loop: the first that still waits works in the next round."""
        while self._waiting:
            future = heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
                self._loop.call_soon(self._grant)
                return
        self._running = False


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def turn() -> None:
    """Wait for the next turn to work on one slice: some milliseconds."""
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop)
    if queue is None:
        queue = _queues[loop] = _Turns(loop)
    await queue.join(_ticket.get())
