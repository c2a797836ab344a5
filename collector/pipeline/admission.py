"""One byte budget for the whole process: reserve before allocating, refuse with a retry hint when there is no room.

Shares of the limit L (memory_limiter, else 75 % of the cgroup limit, else 768 MiB): 75 MiB for the program itself, 48 MiB for
decoding, 3/8 L for one large message, and of the rest half for requests in flight and half for queues. A watchdog on the
resident size (`sample`) is the second line: above L - spike everything is refused until memory is back. A limit below what the
program needs when idle would refuse everything for ever: then the line is drawn a little above that need (`settle`).
"""

from __future__ import annotations

import _thread
import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from collector.errors import Refused

MIB = 1 << 20
DEFAULT_LIMIT = 768 * MIB
_BASE, _DECODE = 75 * MIB, 48 * MIB
LARGEST_MESSAGE = 64 * MIB  # OTLP specification, Protocol Details: recommended limit
_WORKING_ROOM = 24 * MIB  # what the first requests load and compile comes to less than that (measured)
_LARGE_REQUEST = 8 * MIB
_PAGE = os.sysconf("SC_PAGE_SIZE")
MUCH = 1 * MIB
"""So much in one request is a large request; so much between two samples makes the next one come soon."""
QUIET = 10
"""Samples without a request in between after which freed memory is given back to the system."""
REFUSAL = "data refused due to high memory usage"


class ByteHold:
    """Bytes reserved by one request; leaving the `with` block gives them back."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget, self._size = budget, 0
        if size:
            self.grow(size)

    def grow(self, size: int) -> None:
        """Reserve `size` more bytes. Raises Refused when there is no room."""
        self._budget.take(size)
        self._size += size

    def __enter__(self) -> ByteHold:
        return self

    def __exit__(self, *exc: object) -> None:
        self._budget.give(self._size)
        self._size = 0


class ByteBudget:
    """The budget; `limit` and `spike` in bytes. Changing them on a reload keeps what is reserved."""

    def __init__(self, limit: int, spike: int) -> None:
        self.in_flight = 0
        self.resident = 0
        self.busy = self._pressed = self._trim_due = False
        self.on_large: Callable[[], object] = lambda: None
        """Told of every reservation of MUCH or more."""
        self._moved = 0
        self._quiet = QUIET
        self._idle = 0
        self.configure(limit, spike)

    def configure(self, limit: int, spike: int) -> None:
        """Use other limits from now on."""
        self.limit, self.spike = limit, min(spike, limit)
        self._large = limit * 3 // 8
        rest = max(limit - _BASE - _DECODE - self._large, 16 * MIB)
        self.request_room = self._large + rest // 2
        self.queue_room = rest // 2

    def hold(self, size: int = 0) -> ByteHold:
        """Start a reservation. Raises Refused when there is no room."""
        return ByteHold(self, size)

    def take(self, size: int) -> None:
        """Reserve bytes of requests in flight. Raises Refused."""
        self.check()
        if self.in_flight + size > self.request_room:
            raise Refused(REFUSAL, after=1, reason="memory")
        self.in_flight += size
        self._moved += size
        if size >= MUCH:
            self.on_large()

    def give(self, size: int) -> None:
        """Give reserved bytes back."""
        self.in_flight -= size
        self._quiet = 0
        self._trim_due |= size > _LARGE_REQUEST

    def settle(self, resident: int) -> None:
        """Tell the resident size when the program is ready and idle."""
        self._idle = self.resident = resident

    @property
    def line(self) -> int:
        """Resident bytes above which everything is refused."""
        return max(self.limit - self.spike, self._idle + _WORKING_ROOM if self._idle else 0)

    def check(self) -> None:
        """Raises Refused while the process is larger than it may be."""
        if self._pressed:
            raise Refused(REFUSAL, after=2, reason="memory")

    def message_limit(self) -> int:
        """The largest message taken when the user named no limit: a gRPC read needs 4.5 times its size (measured)."""
        return min(LARGEST_MESSAGE, self._large * 2 // 9)

    def sample(self, resident: int) -> None:
        """Tell the watchdog the resident size in bytes; call it every 500 ms, every 100 ms while it is `busy`, and `on_large`."""
        self.resident = resident
        self._pressed = resident > self.line
        self.busy = self._pressed or self._moved >= MUCH
        self._moved = 0
        self._quiet += 1
        if self._pressed or self._trim_due or self._quiet == QUIET:
            self._trim_due = False
            trim_aside()


def resident_bytes() -> int:
    """This process's resident size."""
    return int(os.pread(_statm(), 128, 0).split()[1]) * _PAGE


@cache
def _statm() -> int:
    """Open for good: opening it ten times a second was most of the CPU of an idle process."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory limit of this container in bytes (cgroup v2, then v1), None when there is none."""
    found = []
    for name in ("memory.max", "memory.high", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and 0 < int(text) < 1 << 50:  # v1 writes a huge number for "no limit"
            found.append(int(text))
    return min(found, default=None)


def limits(
    limit_mib: int = 0, limit_percentage: int = 0, spike_mib: int = 0, spike_percentage: int = 0, cgroup: int | None = None
) -> tuple[int, int]:
    """Limit and spike in bytes from otelcol's memory_limiter options; 0 = unset. limit_mib wins over the percentage."""
    if limit_mib:
        limit = limit_mib * MIB
    elif limit_percentage and cgroup:
        limit = cgroup * limit_percentage // 100
    else:
        limit = cgroup * 3 // 4 if cgroup else DEFAULT_LIMIT
    if spike_mib:
        return limit, spike_mib * MIB
    if spike_percentage and cgroup:
        return limit, cgroup * spike_percentage // 100
    return limit, limit // 5


def _find_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl has no malloc_trim
        return None


_trim: list[Callable[[int], int] | None] = []


def trim() -> None:
    """Give freed memory back to the system: 430 MiB stayed resident after one large request without it (measured)."""
    if not _trim:
        _trim.append(_find_trim())
    if _trim[0] is not None:
        _trim[0](0)


_trimming = _thread.allocate_lock()


def trim_aside() -> None:
    """The same, but the caller does not wait: under load it takes up to 90 ms (measured). One at a time."""
    if _trimming.acquire(blocking=False):
        try:
            _thread.start_new_thread(_trim_and_end, ())  # threading would wait until the thread runs
        except RuntimeError:  # no more threads: memory is short indeed, and the next sample tries again
            _trimming.release()


def _trim_and_end() -> None:
    try:
        trim()
    finally:
        _trimming.release()
