"""Undecided traces that began in one request, and their spans, in one block of memory.

The usual trace begins and ends in one request, stays undecided and leaves with all others of that request: what is done for it
is done in bulk, without an object of its own. A trace that is decided alone is cut out of its chunk; spans of a trace that come
with later requests wait beside its first ones, so that all of a trace is in one place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from collector.otlp.plain import pack, select
from collector.processors.tail_sampling.evidence import Times
from collector.processors.tail_sampling.hashing import ID

_NO_ID = bytes(ID)
SPAN_OVERHEAD, OBJECT_OVERHEAD = 20, 41
"""Bytes needed beside a span's own: in a chunk for its trace id and its end; of a later request for its object and its place."""
TRACE_OVERHEAD, TIMES_OVERHEAD, EDGE_OVERHEAD, CHUNK_OVERHEAD, PIECE_OVERHEAD = 250, 250, 110, 750, 200
"""For each trace; its times, where known; each scope of a chunk; each chunk; each scope of a trace's later requests."""
_CHUNK = 512
"""Spans of a chunk, more only where one trace has more: so much is searched to take one trace."""
Piece = tuple[bytes, bytes, list[bytes]]
"""Group header, scope header, encoded spans."""
Source = tuple[bytes, bytes, list[bytes], list[bytes]]
"""Group header, scope header and, parallel, trace ids and encoded spans."""


class Chunk:
    """Traces that began in one request, with their bits and times, and their spans, one behind the other in one block of memory.

    So to hold spans and to let go of them costs about the same for one and for hundreds.
    """

    __slots__ = ("_block", "_edges", "_ends", "_ids", "_later", "_room", "_taken", "bits", "since", "size", "spans", "times")

    def __init__(self, since: float, bits: dict[bytes, int], times: dict[bytes, Times], sources: Sequence[Source]) -> None:
        """What the sources have of these traces."""
        self.since, self.bits, self.times = since, bits, times
        self.size = CHUNK_OVERHEAD + TRACE_OVERHEAD * len(bits) + TIMES_OVERHEAD * len(times)
        self._later: dict[bytes, list[Piece]] = {}
        self._room = 0
        self._pack(sources)
        self.spans = len(self._ids) // ID

    def _pack(self, sources: Sequence[Source]) -> None:
        ids, items = tuple([ids for _, _, ids, _ in sources]), tuple([items for _, _, _, items in sources])
        self._ids, self._ends, self._block, counts = pack(ids, items, self.bits)
        self._edges: list[tuple[int, bytes, bytes]] = []
        self._taken = start = 0
        self.size -= self._room
        self._room = len(self._block) + SPAN_OVERHEAD * (len(self._ids) // ID)
        for (group, scope, _, _), count in zip(sources, counts, strict=True):
            if count:
                shared = bool(self._edges) and self._edges[-1][1] is group
                self._edges.append((start, group, scope))
                self._room += EDGE_OVERHEAD + len(scope) + (0 if shared else len(group))
                start += count
        self.size += self._room

    def extend(self, trace_id: bytes, piece: Piece) -> None:
        """Spans that came with a later request."""
        self._later.setdefault(trace_id, []).append(piece)
        self.spans += len(piece[2])
        self.size += _size(piece)

    def take(self, trace_id: bytes) -> list[Piece]:
        """Remove one trace; its spans. Their room is kept until most of the bytes are gone."""
        positions = list(self._positions(trace_id))
        pieces, later = self._cut(positions), self._later.pop(trace_id, [])
        ids = bytearray(self._ids)
        for at in positions:
            ids[at * ID : at * ID + ID] = _NO_ID
        self._ids = bytes(ids)
        self._taken += sum(len(item) for _, _, items in pieces for item in items)
        del self.bits[trace_id]
        self.spans -= len(positions) + spans_of(later)
        self.size -= TRACE_OVERHEAD + sum(map(_size, later)) + (TIMES_OVERHEAD if self.times.pop(trace_id, None) else 0)
        if 2 * self._taken > len(self._block):
            self._pack(self._sources())
        return pieces + later

    def pieces(self, wanted: Collection[bytes]) -> list[Piece]:
        """All spans of wanted traces."""
        first = self._cut([at for at, trace_id in enumerate(self._names()) if trace_id in wanted])
        return first + list(chain.from_iterable(later for trace_id, later in self._later.items() if trace_id in wanted))

    def count(self, wanted: Collection[bytes]) -> int:
        """How many spans some of its traces have."""
        if len(wanted) == len(self.bits):
            return self.spans
        later = sum(spans_of(pieces) for trace_id, pieces in self._later.items() if trace_id in wanted)
        return later + sum(trace_id in wanted for trace_id in self._names())

    def states(self) -> dict[int, dict[bytes, int]]:
        """Its traces by their bits."""
        states = dict.fromkeys(self.bits.values())
        if len(states) == 1:
            return dict.fromkeys(states, self.bits)
        return {state: {trace_id: bits for trace_id, bits in self.bits.items() if bits == state} for state in states}

    def parted(self, parts: int) -> list[Chunk]:
        """Its traces in several chunks."""
        chunks = _dealt(self.since, self.bits, self.times, self._sources(), parts)
        owner = {trace_id: chunk for chunk in chunks for trace_id in chunk.bits}
        for trace_id, pieces in self._later.items():
            for piece in pieces:
                owner[trace_id].extend(trace_id, piece)
        return chunks

    def _sources(self) -> list[Source]:
        names, edges = self._names(), self._edges
        items = self._items(range(len(names)))
        ends = [start for start, _, _ in edges[1:]] + [len(names)]
        return [
            (group, scope, names[start:end], items[start:end])
            for (start, group, scope), end in zip(edges, ends, strict=False)  # no edges: one end
        ]

    def _names(self) -> list[bytes]:
        """The trace ids of all spans, zero for those that were taken."""
        ids = self._ids
        return [ids[at : at + ID] for at in range(0, len(ids), ID)]

    def _items(self, positions: Iterable[int]) -> list[bytes]:
        block, ends = self._block, memoryview(self._ends).cast("I")
        return [block[ends[at - 1] if at else 0 : ends[at]] for at in positions]

    def _cut(self, positions: list[int]) -> list[Piece]:
        """Copies of the spans there, by ascending position."""
        edges, edge = self._edges, 0
        found: dict[int, Piece] = {}
        for at, item in zip(positions, self._items(positions), strict=True):
            if len(edges) > 1:
                edge = bisect_right(edges, at, key=itemgetter(0)) - 1
            if edge not in found:
                found[edge] = (edges[edge][1], edges[edge][2], [])
            found[edge][2].append(item)
        return list(found.values())

    def _positions(self, trace_id: bytes) -> Iterator[int]:
        at = self._ids.find(trace_id)
        while at >= 0:
            if at % ID:
                at = self._ids.find(trace_id, at + 1)
            else:
                yield at // ID
                at = self._ids.find(trace_id, at + ID)


def chunks_of(since: float, bits: dict[bytes, int], times: dict[bytes, Times], sources: Sequence[Source]) -> list[Chunk]:
    """Chunks of at most _CHUNK spans, or of one trace, with what the sources have of these traces."""
    spans = 0
    for source in sources:
        spans += len(source[2])
    if spans > _CHUNK:
        sources = [(group, scope, *select(ids, items, bits)) for group, scope, ids, items in sources]
        spans = sum(len(ids) for _, _, ids, _ in sources)
    parts = min(-(-spans // _CHUNK), len(bits))
    return _dealt(since, bits, times, sources, parts) if parts > 1 else [Chunk(since, bits, times, sources)]


def _dealt(since: float, bits: dict[bytes, int], times: dict[bytes, Times], sources: Iterable[Source], parts: int) -> list[Chunk]:
    """Chunks for about the same number of traces each."""
    ids, place = list(bits), dict[bytes, int]()
    step = -(-len(ids) // parts)
    groups = [ids[start : start + step] for start in range(0, len(ids), step)]
    for number, group in enumerate(groups):
        place.update(dict.fromkeys(group, number))
    shares: list[list[Source]] = [[] for _ in groups]
    for header, scope, names, items in sources:
        share: dict[int, tuple[list[bytes], list[bytes]]] = {}
        for trace_id, item in zip(names, items, strict=True):
            if trace_id in place:
                mine = share.setdefault(place[trace_id], ([], []))
                mine[0].append(trace_id)
                mine[1].append(item)
        for number, mine in share.items():
            shares[number].append((header, scope, *mine))
    return [
        Chunk(since, {t: bits[t] for t in group}, {t: times[t] for t in group if t in times}, share)
        for group, share in zip(groups, shares, strict=True)
    ]


def _size(piece: Piece) -> int:
    # requests share a header only within themselves, so the last of their spans keeps it alive: counted for each piece
    group, scope, items = piece
    return sum(map(len, items)) + OBJECT_OVERHEAD * len(items) + len(group) + len(scope) + PIECE_OVERHEAD


def spans_of(pieces: Iterable[Piece]) -> int:
    """How many spans there are."""
    return sum(len(items) for _, _, items in pieces)
