"""Undecided traces, request by request, bounded by bytes and traces; and released spans on their way out."""

from __future__ import annotations

from collections import OrderedDict, deque

from collector.model import Group, Scope
from collector.processors.tail_sampling.chunk import Chunk, Piece

_SLACK = 32
"""When room runs out, a chunk of up to this part of the room goes as a whole."""


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
        self._chunks[chunk] = None
        self.traces.update(dict.fromkeys(chunk.bits, chunk))
        self.size += chunk.size
        self.spans += chunk.spans

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
            return chunk.pieces(chunk.bits)
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
                for part in reversed(chunk.parted(min(parts, len(chunk.bits)))):
                    self.add(part)
                    self._chunks.move_to_end(part, last=False)
            else:
                out.append(chunk)
        return out

    def _has_room(self) -> bool:
        """There is more than enough."""
        return self.size < self._max_bytes - self._slack_bytes and len(self.traces) < self._max_traces - self._slack_traces

    def _leave(self, chunk: Chunk) -> None:
        del self._chunks[chunk]
        deque(map(self.traces.__delitem__, chunk.bits), 0)
        self.size -= chunk.size
        self.spans -= chunk.spans


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
