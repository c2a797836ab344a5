"""What the sampler remembers: spans of undecided traces, bounded by bytes and traces, and decisions, bounded by number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from collector.model import Group, Scope

V = TypeVar("V")
SPAN_OVERHEAD, PIECE_OVERHEAD, TRACE_OVERHEAD = 41, 200, 400
"""Bytes CPython needs beside the payload for each span, each request of a trace and each trace."""
Piece = tuple[bytes, bytes, list[bytes]]
"""Group header, scope header, encoded spans."""


@dataclass(slots=True)
class Trace:
    """One undecided trace: its bits and times so far, and its spans."""

    id: bytes
    since: float
    bits: int
    start: int = 0
    end: int = 0
    spans: int = 0
    size: int = TRACE_OVERHEAD
    pieces: list[Piece] = field(default_factory=list)

    def extend(self, start: int, end: int) -> tuple[int, int]:
        """Take in more times; the earliest start and latest end so far."""
        self.start = min(start, self.start) if start and self.start else start or self.start
        self.end = max(end, self.end)
        return self.start, self.end


class Held:
    """Undecided traces, oldest first."""

    def __init__(self, max_bytes: int, max_traces: int) -> None:
        self.traces: OrderedDict[bytes, Trace] = OrderedDict()
        self.spans = self.size = 0
        self._max_bytes, self._max_traces = max_bytes, max_traces

    def add(self, trace: Trace, piece: Piece) -> None:
        """Hold more spans of a trace."""
        group, scope, items = piece
        count = len(items)
        # headers are shared by the traces of a request, but the last of them keeps the header alive: count it for each
        size = sum(map(len, items)) + SPAN_OVERHEAD * count + len(group) + len(scope) + PIECE_OVERHEAD
        if trace.id not in self.traces:
            self.traces[trace.id] = trace
            self.size += trace.size
        trace.pieces.append(piece)
        trace.size += size
        trace.spans += count
        self.size += size
        self.spans += count

    def take(self, trace_id: bytes) -> Trace:
        """Remove and return a trace that is held."""
        trace = self.traces.pop(trace_id)
        self.size -= trace.size
        self.spans -= trace.spans
        return trace

    def overdue(self, now: float, wait: float) -> list[Trace]:
        """Remove and return the traces held for `wait` or longer; after the clock was set back, at most twice that."""
        out: list[Trace] = []
        while self.traces:
            trace_id, trace = self.traces.popitem(last=False)
            if now - wait < trace.since <= now + wait:
                self.traces[trace_id] = trace
                self.traces.move_to_end(trace_id, last=False)
                break
            out.append(trace)
        self._left(out)
        return out

    def surplus(self) -> list[Trace]:
        """Remove and return the oldest traces until the rest has room."""
        out: list[Trace] = []
        over = self.size - self._max_bytes
        while over > 0 or len(self.traces) > self._max_traces:
            out.append(self.traces.popitem(last=False)[1])
            over -= out[-1].size
        self._left(out)
        return out

    def _left(self, traces: list[Trace]) -> None:
        self.size -= sum(trace.size for trace in traces)
        self.spans -= sum(trace.spans for trace in traces)


class Decisions(Generic[V]):
    """The latest decisions, about `size` of them: two generations, the older one is forgotten as a whole."""

    def __init__(self, size: int) -> None:
        self._limit = (size + 1) // 2
        self._new: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def known(self, ids: Collection[bytes]) -> dict[bytes, V]:
        """The decisions that are still known; asking keeps them known."""
        new, old = self._new, self._old
        found = {trace_id: new[trace_id] for trace_id in ids if trace_id in new}
        for trace_id in [trace_id for trace_id in ids if trace_id in old]:
            found[trace_id] = old.pop(trace_id)
            self.put((trace_id,), found[trace_id])
        return found

    def put(self, ids: Sequence[bytes], decision: V) -> None:
        """Remember a decision about some traces."""
        if not self._limit:
            return
        ids = ids[-self._limit :]
        if len(self._new) + len(ids) > self._limit:
            self._old, self._new = self._new, {}
        self._new.update(dict.fromkeys(ids, decision))

    def forget(self, trace_id: bytes) -> None:
        """Drop a decision that has been revised."""
        self._new.pop(trace_id, None)
        self._old.pop(trace_id, None)


def merged(groups: list[Group], pieces: list[Piece]) -> list[Group]:
    """`groups` with held spans added to the groups and scopes they came in."""
    by_header = {group.header: group for group in groups}
    for group_header, scope_header, items in pieces:
        group = by_header.get(group_header)
        if group is None:
            group = by_header[group_header] = Group(group_header, [])
            groups.append(group)
        scope = next((scope for scope in group.scopes if scope.header == scope_header and scope.heads is None), None)
        if scope is None:
            scope = Scope(scope_header, [])
            group.scopes.append(scope)
        scope.items.extend(items)
    return groups
