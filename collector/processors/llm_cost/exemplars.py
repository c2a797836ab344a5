"""Which trace a bucket of a histogram leads to: only one that was kept, which is known only after the calls were counted.

So calls wait as candidates until a span of their trace leaves the chain. Until then a bucket shows what was confirmed before.
Calls become candidates when they are booked; traces that left the chain between that and their counting are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from collector.meters import Bucket, show_exemplar
from collector.model import Batch, Scope
from collector.otlp.heads import SpanHead
from collector.processors.llm_cost.tally import Call

_NONE = bytes(16)
_AGAIN, _ENOUGH = 1.0, 15.0
"""Seconds until a bucket takes its next candidate: after one that is not confirmed, and after one that is (a usual scrape)."""
_MOST = 4096
"""Candidates that wait, about 1 MB; beyond, the oldest traces are given up."""


class Exemplars:
    """The candidates of all buckets, by trace."""

    def __init__(self) -> None:
        self.fresh: set[bytes] = set()
        """Traces of the calls that were counted and not booked yet."""
        self._left: set[bytes] = set()
        self._due: dict[Bucket, float] = {}
        self._waiting: dict[bytes, dict[Bucket, tuple[float, float, float]]] = {}
        self._size = 0

    def offer(self, touched: Sequence[tuple[Bucket, float]], calls: Sequence[Call], place: int, since: float, now: float) -> None:
        """Take one call for each bucket that is due. `touched`: buckets with a value that stands at `place` in one of `calls`.

        The calls came between `since` and `now`.
        """
        due = self._due
        for bucket, value in touched:
            if due.get(bucket, now) <= now:
                call = next(call for call in calls if call[place] == value)
                _, start, duration, _, _, _, trace_id = call
                if len(trace_id) == len(_NONE) and trace_id != _NONE:
                    due[bucket] = since + _AGAIN
                    self._wait(trace_id, bucket, (value, min(start / 1e9 + duration, now), since))

    def _wait(self, trace_id: bytes, bucket: Bucket, candidate: tuple[float, float, float]) -> None:
        buckets = self._waiting.setdefault(trace_id, {})
        self._size += bucket not in buckets
        buckets[bucket] = candidate
        if self._size > _MOST:
            self._size -= len(self._waiting.pop(next(iter(self._waiting))))

    def kept(self, batch: Batch) -> None:
        """Show the candidates whose traces are in a batch that leaves the chain."""
        waiting, fresh = self._waiting, self.fresh
        for scope in batch.scopes():
            if not waiting and not fresh:
                return
            ids = trace_ids(scope)
            if fresh:
                self._left.update(fresh.intersection(ids))
            if waiting:
                self._show(waiting.keys() & ids)

    def booked(self) -> None:
        """All calls that were counted have been offered."""
        if self._left:
            self._show(self._waiting.keys() & self._left)
            self._left.clear()
        self.fresh.clear()

    def _show(self, kept: Iterable[bytes]) -> None:
        for trace_id in kept:
            buckets = self._waiting.pop(trace_id)
            self._size -= len(buckets)
            for bucket, (value, at, taken) in buckets.items():
                show_exemplar(bucket, trace_id, value, at)
                self._due[bucket] = max(self._due[bucket], taken + _ENOUGH)


def trace_ids(scope: Scope) -> Sequence[bytes]:
    """The trace id of each span."""
    if scope.trace_ids is not None:
        return scope.trace_ids
    # every encoder writes the id first; reading it there is three times cheaper than a parse
    return [item[2:18] if item[:2] == b"\n\x10" else SpanHead.FromString(item).trace_id for item in scope.items]
