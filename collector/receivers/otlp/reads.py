"""Which messages may be read: their size is unknown before, so each counts as the largest until it is there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

PER_BYTE = 2.2
"""Bytes taken for each byte of a body: itself and the items cut from it."""
LONGEST, CONTENDED = 15.0, 1.0
"""Seconds a message may take to arrive; less while others wait for its place."""
TELLS = 0.1
"""Seconds in which the library tells that a client has left."""
_OVERHEAD = 2048  # bytes a call holds beside its message
_BESIDE = 4 << 20  # bytes of messages that may wait to be taken without keeping others from being read
_Call = TypeVar("_Call")


class Reads(Generic[_Call]):
    """Room for `slots` messages of `limit` bytes, being read or waiting to be taken. Threads may share it."""

    def __init__(self, slots: int, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._room = limit, slots * limit + _BESIDE
        self._clock, self._lock = clock, threading.Lock()
        self._running: dict[_Call, float] = {}
        self._waiting: OrderedDict[_Call, None] = OrderedDict()
        self._untaken = 0

    @property
    def busy(self) -> bool:
        """True while something is being read."""
        return bool(self._running)

    @property
    def running(self) -> int:
        """Messages that are being read."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Calls that wait for room."""
        return len(self._waiting)

    def enter(self, call: _Call) -> list[_Call]:
        """A call has come; returns those whose message is to be read now."""
        with self._lock:
            self._waiting[call] = None
            return self._fitting()

    def more(self) -> list[_Call]:
        """Calls whose message is to be read now, because others have arrived."""
        if not self._waiting:
            return []
        with self._lock:
            return self._fitting()

    def arrived(self, call: _Call, size: int) -> bool:
        """Its message of `size` bytes is here, and counts until `taken`; False when it was given up before."""
        with self._lock:
            if self._running.pop(call, None) is None:
                return False
            self._untaken += size + _OVERHEAD
            return True

    def leave(self, call: _Call) -> bool:
        """Its client left while it waited: it counts as arrived without a message. False when it did not wait any more."""
        with self._lock:
            if call not in self._waiting:
                return False
            del self._waiting[call]
            self._untaken += _OVERHEAD
            return True

    def taken(self, size: int) -> list[_Call]:
        """A message of `size` bytes was taken, or thrown away; returns the calls whose message is to be read now."""
        with self._lock:
            self._untaken -= size + _OVERHEAD
            return self._fitting()

    def expired(self) -> list[_Call]:
        """Calls whose message has not arrived in time; they are given up here, and count as arrived without a message."""
        with self._lock:
            since = self._clock() - (CONTENDED if self._waiting else LONGEST)
            late = [call for call, began in self._running.items() if began < since]
            for call in late:
                del self._running[call]
            self._untaken += len(late) * _OVERHEAD
            return late

    def _fitting(self) -> list[_Call]:
        calls = []
        while self._waiting and (len(self._running) + 1) * self._limit + self._untaken <= self._room:
            call, _ = self._waiting.popitem(last=False)
            self._running[call] = self._clock()
            calls.append(call)
        return calls
