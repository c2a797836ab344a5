"""Spans of undecided traces, held request by request and bounded by bytes and traces.

The usual trace begins and ends in one request, stays undecided and leaves with all others of that request: what is done for it
is done in bulk, without an object of its own. A trace that is decided alone is cut out of its chunk; spans of a trace that come
with later requests wait beside its first ones, so that all of a trace is in one place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from collector.model import Group, Scope
from collector.processors.tail_sampling.evidence import Times

ID = 16
_GONE, _NO_ID = b"", bytes(ID)
SPAN_OVERHEAD, SLOT_OVERHEAD = 33, 27
"""Bytes CPython needs beside a span's own: for its object; for its place in a chunk, which stays when the span is taken."""
TRACE_OVERHEAD, TIMES_OVERHEAD, EDGE_OVERHEAD, CHUNK_OVERHEAD, PIECE_OVERHEAD = 250, 250, 110, 700, 200
"""For each trace; its times, where known; each scope of a chunk; each chunk; each scope of a trace's later requests."""
_CHUNK = 512
"""Spans of a chunk, more only where one trace has more: so much is searched to take one trace."""
_SLACK = 32
"""When room runs out, a chunk of up to this part of the room goes as a whole."""
Piece = tuple[bytes, bytes, list[bytes]]
"""Group header, scope header, encoded spans."""


class Chunk:
    """Traces that began in one request, with their bits and times, and their spans."""

    __slots__ = ("_edges", "_ids", "_items", "_later", "bits", "since", "size", "spans", "times")

    def __init__(self, since: float, bits: dict[bytes, int], times: dict[bytes, Times]) -> None:
        self.since, self.bits, self.times = since, bits, times
        self.spans, self.size = 0, CHUNK_OVERHEAD + TRACE_OVERHEAD * len(bits) + TIMES_OVERHEAD * len(times)
        self._items: list[bytes] = []
        self._ids = bytearray()
        self._edges: list[tuple[int, bytes, bytes]] = []
        self._later: dict[bytes, list[Piece]] = {}

    def add(self, group: bytes, scope: bytes, ids: Iterable[bytes], items: Sequence[bytes]) -> None:
        """Spans of one scope, with the traces they belong to."""
        shared = bool(self._edges) and self._edges[-1][1] is group
        self._edges.append((len(self._items), group, scope))
        self._items += items
        self._ids += b"".join(ids)
        self.spans += len(items)
        self.size += sum(map(len, items)) + (SPAN_OVERHEAD + SLOT_OVERHEAD) * len(items)
        self.size += EDGE_OVERHEAD + len(scope) + (0 if shared else len(group))

    def extend(self, trace_id: bytes, piece: Piece) -> None:
        """Spans that came with a later request."""
        self._later.setdefault(trace_id, []).append(piece)
        self.spans += len(piece[2])
        self.size += _size(piece)

    def take(self, trace_id: bytes) -> list[Piece]:
        """Remove one trace; its spans."""
        found: dict[int, Piece] = {}
        edges, edge = self._edges, 0
        for position in self._positions(trace_id):
            if len(edges) > 1:
                edge = bisect_right(edges, position, key=itemgetter(0)) - 1
            item = self._items[position]
            if edge in found:
                found[edge][2].append(item)
            else:
                found[edge] = (edges[edge][1], edges[edge][2], [item])
            self.size -= SPAN_OVERHEAD + len(item)
            self._items[position] = _GONE
            self._ids[position * ID : position * ID + ID] = _NO_ID
        later = self._later.pop(trace_id, [])
        pieces = [*found.values(), *later]
        del self.bits[trace_id]
        self.spans -= spans_of(pieces)
        self.size -= TRACE_OVERHEAD + sum(map(_size, later)) + (TIMES_OVERHEAD if self.times.pop(trace_id, None) else 0)
        return pieces

    def pieces(self) -> list[Piece]:
        """All spans."""
        first = [(group, scope, items) for group, scope, _, found in self._scopes() if (items := list(filter(None, found)))]
        return first + list(chain.from_iterable(self._later.values()))

    def parted(self, groups: Iterable[Collection[bytes]]) -> list[Chunk]:
        """Its traces in several chunks."""
        out: list[Chunk] = []
        owner: dict[bytes, Chunk] = {}
        for ids in groups:
            out.append(Chunk(self.since, {t: self.bits[t] for t in ids}, {t: self.times[t] for t in ids if t in self.times}))
            owner.update(dict.fromkeys(ids, out[-1]))
        for group, scope, names, items in self._scopes():
            shares: dict[Chunk, tuple[list[bytes], list[bytes]]] = {}
            for trace_id, item in zip(names, items, strict=True):
                if item:
                    share = shares.setdefault(owner[trace_id], ([], []))
                    share[0].append(trace_id)
                    share[1].append(item)
            for chunk, share in shares.items():
                chunk.add(group, scope, *share)
        for trace_id, pieces in self._later.items():
            for piece in pieces:
                owner[trace_id].extend(trace_id, piece)
        return out

    def _scopes(self) -> Iterator[tuple[bytes, bytes, list[bytes], list[bytes]]]:
        """Group header, scope header, trace ids and spans."""
        ends = [start for start, _, _ in self._edges[1:]] + [len(self._items)]
        ids = bytes(self._ids)
        for (start, group, scope), end in zip(self._edges, ends, strict=True):
            names = [ids[at : at + ID] for at in range(start * ID, end * ID, ID)]
            yield group, scope, names, self._items[start:end]

    def _positions(self, trace_id: bytes) -> Iterator[int]:
        at = self._ids.find(trace_id)
        while at >= 0:
            if at % ID:
                at = self._ids.find(trace_id, at + 1)
            else:
                yield at // ID
                at = self._ids.find(trace_id, at + ID)


class Held:
    """Undecided traces, oldest first."""

    def __init__(self, max_bytes: int, max_traces: int) -> None:
        self.traces: dict[bytes, Chunk] = {}
        self.spans = self.size = 0
        self._chunks: OrderedDict[Chunk, None] = OrderedDict()
        self._max_bytes, self._max_traces = max_bytes, max_traces
        self._slack_bytes, self._slack_traces = max_bytes // _SLACK, max_traces // _SLACK

    def add(self, chunk: Chunk) -> None:
        """Hold new traces."""
        parts = min(-(-chunk.spans // _CHUNK), len(chunk.bits))
        for part in _cut(chunk, parts) if parts > 1 else (chunk,):
            self._enter(part)

    def extend(self, trace_id: bytes, piece: Piece) -> None:
        """Hold more spans of a trace."""
        chunk = self.traces[trace_id]
        self.size -= chunk.size
        chunk.extend(trace_id, piece)
        self.size += chunk.size
        self.spans += len(piece[2])

    def take(self, trace_id: bytes) -> list[Piece]:
        """Remove one trace; its spans."""
        chunk = self.traces[trace_id]
        if len(chunk.bits) == 1:
            self._leave(chunk)
            return chunk.pieces()
        self.size -= chunk.size
        self.spans -= chunk.spans
        pieces = chunk.take(trace_id)
        self.size += chunk.size
        self.spans += chunk.spans
        del self.traces[trace_id]
        return pieces

    def overdue(self, now: float, wait: float) -> list[Chunk]:
        """Remove and return what has been held for `wait` or longer; after the clock was set back, at most twice that."""
        out: list[Chunk] = []
        while self._chunks:
            chunk = next(iter(self._chunks))
            if now - wait < chunk.since <= now + wait:
                break
            self._leave(chunk)
            out.append(chunk)
        return out

    def surplus(self) -> list[Chunk]:
        """Remove and return the oldest traces until the rest has room."""
        out: list[Chunk] = []
        while self.size > self._max_bytes or len(self.traces) > self._max_traces:
            chunk = next(iter(self._chunks))
            self._leave(chunk)
            if len(chunk.bits) > 1 and self._has_room():
                parts = max(2, chunk.size // (self._slack_bytes + 1) + 1, len(chunk.bits) // (self._slack_traces + 1) + 1)
                for part in reversed(_cut(chunk, min(parts, len(chunk.bits)))):
                    self._enter(part)
                    self._chunks.move_to_end(part, last=False)
            else:
                out.append(chunk)
        return out

    def _has_room(self) -> bool:
        """There is more than enough."""
        return self.size < self._max_bytes - self._slack_bytes and len(self.traces) < self._max_traces - self._slack_traces

    def _enter(self, chunk: Chunk) -> None:
        self._chunks[chunk] = None
        self.traces.update(dict.fromkeys(chunk.bits, chunk))
        self.size += chunk.size
        self.spans += chunk.spans

    def _leave(self, chunk: Chunk) -> None:
        del self._chunks[chunk]
        deque(map(self.traces.__delitem__, chunk.bits), 0)
        self.size -= chunk.size
        self.spans -= chunk.spans


def _cut(chunk: Chunk, parts: int) -> list[Chunk]:
    ids = list(chunk.bits)
    step = -(-len(ids) // parts)
    return chunk.parted(ids[start : start + step] for start in range(0, len(ids), step))


def alike(chunk: Chunk) -> list[Chunk]:
    """Its traces in chunks of equal bits."""
    states = dict.fromkeys(chunk.bits.values())
    if len(states) == 1:
        return [chunk]
    return chunk.parted([t for t, bits in chunk.bits.items() if bits == state] for state in states)


def _size(piece: Piece) -> int:
    # requests share a header only within themselves, so the last of their spans keeps it alive: counted for each piece
    group, scope, items = piece
    return sum(map(len, items)) + SPAN_OVERHEAD * len(items) + 8 * len(items) + len(group) + len(scope) + PIECE_OVERHEAD


def spans_of(pieces: Iterable[Piece]) -> int:
    """How many spans there are."""
    return sum(len(items) for _, _, items in pieces)


def merged(groups: list[Group], pieces: list[Piece]) -> list[Group]:
    """`groups` with held spans added to the groups and scopes they came in."""
    by_header = {group.header: group for group in groups} if pieces else {}
    scopes: dict[tuple[bytes, bytes], Scope] = {}
    for group in by_header.values():
        for scope in group.scopes:
            if scope.heads is None and scope.trace_ids is None:  # those run parallel to the items
                scopes.setdefault((group.header, scope.header), scope)
    for group_header, scope_header, items in pieces:
        if group_header not in by_header:
            by_header[group_header] = Group(group_header, [])
            groups.append(by_header[group_header])
        if (group_header, scope_header) not in scopes:
            scopes[group_header, scope_header] = Scope(scope_header, [])
            by_header[group_header].scopes.append(scopes[group_header, scope_header])
        scopes[group_header, scope_header].items.extend(items)
    return groups
