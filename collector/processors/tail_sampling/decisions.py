"""What the sampler has decided lately, so that late spans follow."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Generic, TypeVar

V = TypeVar("V")


class Decisions(Generic[V]):
    """The latest decisions, about `size` of them: two generations, the older one is forgotten as a whole."""

    def __init__(self, size: int) -> None:
        self._limit = (size + 1) // 2
        self._new: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def tables(self) -> tuple[dict[bytes, V], dict[bytes, V]]:
        """What is remembered, in two parts."""
        return self._new, self._old

    def known(self, ids: Collection[bytes]) -> dict[bytes, V]:
        """The decisions that are still known; asking keeps them known."""
        new, old = self._new, self._old
        found = {} if new.keys().isdisjoint(ids) else {trace_id: new[trace_id] for trace_id in ids if trace_id in new}
        if not old.keys().isdisjoint(ids):
            for trace_id in [trace_id for trace_id in ids if trace_id in old]:
                found[trace_id] = old.pop(trace_id)
                self.put({trace_id: found[trace_id]})
        return found

    def put(self, decisions: dict[bytes, V]) -> None:
        """Remember decisions; the last of them, if there are more than have room."""
        if not self._limit:
            return
        if len(decisions) > self._limit:
            decisions = dict(islice(decisions.items(), len(decisions) - self._limit, None))
        if len(self._new) + len(decisions) > self._limit:
            self._old, self._new = self._new, {}
        self._new.update(decisions)

    def forget(self, trace_id: bytes) -> None:
        """Drop a decision that has been revised."""
        self._new.pop(trace_id, None)
        self._old.pop(trace_id, None)
