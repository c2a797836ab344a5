"""The bounded queue of one destination: what waits, what waits for its next try, and what may be joined into one send.

Records in flight stay charged until they leave. Payloads are joined with `b"".join`: concatenated encoded requests are one
valid request.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from collector.fields import Queue
from collector.model import Payload, Signal

LARGEST_SEND = 4 << 20  # reliability rule 4: requests are cut at item borders to at most 4 MiB
_OVERHEAD = 1024  # bytes charged for each queued record beside its payload


class Outcome:
    """What a waiting client is told: the first failure, or success after the last part of its payload."""

    def __init__(self, parts: int) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = parts

    def expect(self, more: int) -> None:
        """A part was cut into more parts."""
        self._left += more

    def settle(self, error: Exception | None = None) -> None:
        """One part is decided."""
        self._left -= 1
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
            self.future.exception()  # known: nobody needs to be warned when another outcome answers the client first
        elif self._left == 0:
            self.future.set_result(None)


@dataclass(slots=True, eq=False)
class Record:
    """Payloads of one signal that are sent together, and what happened to them so far."""

    payload: Payload
    attempts: int = 0
    first_try: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    alone: bool = False
    """Sent as it is: half of something that was too large, or tried before."""
    turn: int = 0
    """Number of its present wait for another try, 0 when it does not wait for one."""
    decided: bool = False
    """Booked and gone from the queue."""

    @property
    def size(self) -> int:
        """Bytes charged to the queue."""
        return len(self.payload.data) + _OVERHEAD

    @property
    def abandoned(self) -> bool:
        """True when every client that waits for it has left without an answer: it still holds the data."""
        return bool(self.outcomes) and all(outcome.future.cancelled() for outcome in self.outcomes)


_Entry = tuple[float, int, Record]


def _waits(entry: _Entry) -> bool:
    return entry[2].turn == entry[1]


def _first(heap: list[_Entry]) -> _Entry | None:
    """The first entry whose record still waits."""
    while heap and not _waits(heap[0]):
        heapq.heappop(heap)
    return heap[0] if heap else None


def _tidied(heap: list[_Entry], waiting: int) -> list[_Entry]:
    """The heap without entries that would be skipped, once they are more than half: they hold payloads that have left."""
    if len(heap) > 2 * waiting:
        heap = [entry for entry in heap if _waits(entry)]
        heapq.heapify(heap)
    return heap


class _Lane:
    """Records of one signal that are ready to be sent, in order; `measured` is what they hold in units of the batch's sizer."""

    __slots__ = ("_measure", "measured", "records")

    def __init__(self, measure: Callable[[Record], int]) -> None:
        self.records: deque[Record] = deque()
        self.measured = 0
        self._measure = measure

    def push(self, record: Record, *, front: bool) -> None:
        (self.records.appendleft if front else self.records.append)(record)
        self.measured += self._measure(record)

    def pop(self) -> Record:
        record = self.records.popleft()
        self.measured -= self._measure(record)
        return record


def _age(lane: _Lane) -> float:
    return lane.records[0].payload.born


class RecordQueue:
    """`room` answers whether more fits, `next` what is due, joined up to `largest` bytes; times are monotonic seconds."""

    def __init__(self, settings: Queue, max_bytes: int, largest: int = LARGEST_SEND) -> None:
        self.settings, self.max_bytes, self.largest = settings, max_bytes, min(largest, LARGEST_SEND)
        self._ready = {signal: _Lane(self._measure) for signal in Signal}
        self._later: list[_Entry] = []  # heap by due time
        self._ages: list[_Entry] = []  # the same records, heap by age; entries whose turn is over are skipped in both
        self._delayed = 0
        self._sequence = itertools.count(1)
        self.bytes = self.records = 0
        self.items: dict[Signal, int] = dict.fromkeys(Signal, 0)

    def __len__(self) -> int:
        """Records that wait, without those in flight."""
        return sum(len(lane.records) for lane in self._ready.values()) + self._delayed

    def used(self) -> int:
        """Fill level in units of `sizer`."""
        sizer = self.settings.sizer
        return self.records if sizer == "requests" else self.bytes if sizer == "bytes" else sum(self.items.values())

    def room(self, size: int) -> bool:
        """True when a payload of `size` bytes fits. An empty queue takes anything."""
        if not self.records:
            return True
        return self.used() < self.settings.queue_size and self.bytes + size + _OVERHEAD <= self.max_bytes

    def add(self, record: Record, *, front: bool = False) -> bool:
        """Charge a record and let it wait. False when it changes nothing about what is due when: it joins others that wait."""
        lane = self._ready[record.payload.signal]
        lane.push(record, front=front)
        self._charge(record, 1)
        return len(lane.records) == 1 or front or self._fill_wait(lane) <= 0

    def leave(self, record: Record) -> None:
        """A record is decided: its room is free."""
        self._charge(record, -1)

    def _charge(self, record: Record, sign: int) -> None:
        self.bytes += sign * record.size
        self.records += sign
        self.items[record.payload.signal] += sign * record.payload.items

    def delay(self, record: Record, due: float) -> None:
        """A record in flight waits for its next try."""
        record.alone, record.turn = True, next(self._sequence)
        heapq.heappush(self._later, (due, record.turn, record))
        heapq.heappush(self._ages, (record.payload.born, record.turn, record))
        self._delayed += 1

    def _no_longer_delayed(self, record: Record) -> None:
        record.turn = 0
        self._delayed -= 1
        self._ages, self._later = _tidied(self._ages, self._delayed), _tidied(self._later, self._delayed)

    def hasten(self, due: float) -> None:
        """No record waits longer than until `due` (the destination is up again)."""
        self._later = [(min(entry[0], due), *entry[1:]) for entry in self._later if _waits(entry)]
        heapq.heapify(self._later)

    def pop_oldest(self) -> Record | None:
        """Take out the record that was accepted first; None when all are in flight."""
        waiting = [lane.records[0] for lane in self._ready.values() if lane.records]
        if (delayed := _first(self._ages)) is not None:
            waiting.append(delayed[2])
        if not waiting:
            return None
        oldest = min(waiting, key=lambda record: record.payload.born)
        if oldest.turn:
            self._no_longer_delayed(oldest)
        else:
            self._ready[oldest.payload.signal].pop()
        return oldest

    def next(self, now: float, *, flush: bool, turn: list[Signal] | None = None) -> tuple[Record | None, float | None]:
        """What is due, joined; else the seconds until something will be (None: nothing waits). `flush`: do not wait to fill.

        With `turn` only a record of these signals, the first that has one, as small as it came: it may well be lost.
        """
        while (entry := _first(self._later)) is not None and entry[0] <= now:
            record = heapq.heappop(self._later)[2]
            self._no_longer_delayed(record)
            self._ready[record.payload.signal].push(record, front=True)
        waits, due = [] if entry is None else [entry[0] - now], []
        for signal in self._ready if turn is None else turn:
            lane = self._ready[signal]
            if lane.records:
                if turn is not None:
                    return lane.pop(), None
                wait = 0.0 if flush else self._fill_wait(lane, now)
                if wait > 0:
                    waits.append(wait)
                else:
                    due.append(lane)
        if due:  # the oldest goes first: a signal that always has something must not hold back another one for ever
            return self._join(min(due, key=_age)), None
        return None, max(min(waits), 0.001) if waits else None

    def _fill_wait(self, lane: _Lane, now: float | None = None) -> float:
        """Seconds until its first record is due; without `now`, more than 0 when time alone decides."""
        batch, first = self.settings.batch, lane.records[0]
        if first.alone or first.outcomes or batch.flush_timeout <= 0 or lane.measured >= batch.min_size:
            return 0.0
        return batch.flush_timeout if now is None else first.payload.born + batch.flush_timeout - now

    def _measure(self, record: Record) -> int:
        sizer = self.settings.batch.sizer
        return record.payload.items if sizer == "items" else len(record.payload.data) if sizer == "bytes" else 1

    def _join(self, lane: _Lane) -> Record:
        first, queue = lane.pop(), lane.records
        if first.alone:
            return first
        parts, size, measured = [first], len(first.payload.data), self._measure(first)
        most = self.settings.batch.max_size
        while queue and not queue[0].alone and queue[0].payload.metadata == first.payload.metadata:
            size += len(queue[0].payload.data)
            measured += self._measure(queue[0])
            if size > self.largest or (most and measured > most):
                break
            parts.append(lane.pop())
        if len(parts) == 1:
            return first
        payloads = [part.payload for part in parts]
        data, items = b"".join(p.data for p in payloads), sum(p.items for p in payloads)
        payload = Payload(first.payload.signal, data, items, first.payload.born, first.payload.metadata)
        joined = Record(payload, outcomes=[outcome for part in parts for outcome in part.outcomes])
        self.bytes -= (len(parts) - 1) * _OVERHEAD
        self.records -= len(parts) - 1
        return joined
