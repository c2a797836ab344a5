"""Which span of a call counts: every call once, however many spans, instrumentations and resends tell of it.

Two generations of marks each, rotated by age or size: no timer and no eviction per entry. First seen wins; what was counted is
never taken back.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)
_Both: TypeAlias = tuple[dict[K, int], dict[K, int]]

COUNTED, USAGE_BELOW, NO_ID, CALL_BELOW, CALLED = 1, 2, 4, 8, 16
"""Marks of a span: its usage was counted; a child has usage; it was counted without response id; a child is a call; a call."""
_SHORT_ID = 8
_TRACE_ID = 16


class Generations(Generic[K]):
    """A dictionary that forgets: entries live between `ttl` and two `ttl` seconds, or until there are too many."""

    def __init__(self, ttl: float, most: int) -> None:
        self._ttl, self._half = ttl, max(2, most // 2)
        self._young: dict[K, int] = {}
        self._old: dict[K, int] = {}
        self._turned = 0.0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def age(self, now: float) -> None:
        """Forget what is old enough."""
        if now - self._turned >= self._ttl:
            self._turn(now, early=False)

    def get(self, key: K) -> int:
        """The marks of `key`, 0 for none."""
        return self._young.get(key, 0) | self._old.get(key, 0)

    def mark(self, key: K, bits: int, now: float) -> int:
        """Add marks; returns those that were there."""
        young, old = self.room(1, now)
        had = young.get(key, 0)
        young[key] = had | bits
        return had | old.get(key, 0)

    def has_room(self, count: int) -> bool:
        """Whether that many may be added without forgetting others."""
        return len(self._young) <= self._half - count

    def room(self, count: int, now: float) -> _Both[K]:
        """The young entries, with room for one or two more, and the old ones: to look up and mark several at once."""
        if len(self._young) > self._half - count:
            self._turn(now, early=True)
        return self._young, self._old

    def _turn(self, now: float, *, early: bool) -> None:
        if early:
            self.evicted += len(self._old)
        self._old, self._young, self._turned = self._young, {}, now


class Dedup:
    """Decides for one span at a time; spans of a batch come by end time, so that children precede their parents."""

    def __init__(self, ttl: float, most: int) -> None:
        self.marks: Generations[bytes] = Generations(ttl, most)
        self._ids: Generations[tuple[str, str]] = Generations(ttl, most)

    @property
    def evicted(self) -> int:
        """Entries forgotten before their time, because there were too many."""
        return self.marks.evicted + self._ids.evicted

    def age(self, now: float) -> None:
        """Forget what is old enough."""
        self.marks.age(now)
        self._ids.age(now)

    def usage(self, own: bytes, parent: bytes, call_id: tuple[str, str] | None, rollup: bool, now: float) -> str:
        """Why this span's usage must not be counted (resent, response_id, rollup, late_child), or empty.

        `own` and `parent` are trace id + span id; `call_id` is provider and response id.
        """
        young, old = self.marks.room(2, now)
        marks = young.get(own, 0) | old.get(own, 0) if len(own) > _TRACE_ID else 0
        above = young.get(parent, 0) | old.get(parent, 0) if len(parent) > _TRACE_ID else 0
        if marks & COUNTED:
            return "resent"
        identified, seen = call_id is not None and len(call_id[1]) >= _SHORT_ID, False
        if call_id is not None and identified:
            ids, earlier = self._ids.room(1, now)
            seen = call_id in ids or call_id in earlier
        kind = _kind(marks, above, identified and not rollup, seen) if marks or above or seen else ""
        if call_id is not None and identified and kind != "rollup":  # a sum does not speak for the call whose id it repeats
            ids[call_id] = 1
        if not kind:
            young[own] = young.get(own, 0) | (COUNTED if identified else COUNTED | NO_ID)
        if len(parent) > _TRACE_ID:
            young[parent] = young.get(parent, 0) | USAGE_BELOW
        return kind

    def take(self, owns: Sequence[bytes], parents: Sequence[bytes], call_ids: Sequence[tuple[str, str]], now: float) -> bool:
        """As `usage` for several calls that are no rollups, if it has nothing against any of them; else False, nothing done."""
        count, room = len(owns), self.room(len(owns), now)
        if room is None:
            return False
        (young, old), (ids, earlier) = room
        own, known = dict.fromkeys(owns, COUNTED), dict.fromkeys(call_ids, 1)
        above = dict.fromkeys([parent for parent in parents if len(parent) > _TRACE_ID], USAGE_BELOW)
        if len(own) < count or len(known) < count or not all(len(identity) >= _SHORT_ID for _, identity in known):
            return False
        if not all(each.keys().isdisjoint(own) for each in (young, old, above)):  # what is in brackets is looked through
            return False
        if not all(each.keys().isdisjoint(known) for each in (ids, earlier)):
            return False
        if min(map(len, owns)) <= _TRACE_ID or any(young[each] != USAGE_BELOW for each in above.keys() & young.keys()):
            return False
        if any(old[each] & COUNTED for each in above.keys() & old.keys()):
            return False
        young.update(own)
        young.update(above)
        ids.update(known)
        return True

    def _of(self, span: bytes) -> int:
        return self.marks.get(span) if len(span) > _TRACE_ID else 0  # a trace id alone names no span

    def room(self, count: int, now: float) -> tuple[_Both[bytes], _Both[tuple[str, str]]] | None:
        """Marks and ids, young and old, to be read and written by who settles `count` calls in C; None while room is scarce."""
        if not (self.marks.has_room(2 * count) and self._ids.has_room(count)):
            return None
        return self.marks.room(2, now), self._ids.room(1, now)

    def call(self, own: bytes, parent: bytes, now: float) -> bool:
        """Whether a call without usage (failed, or nothing reported) is new: not resent and no wrapper of one already seen."""
        marks = self._of(own)
        self.below(parent, CALL_BELOW, now)
        if marks & (CALLED | CALL_BELOW | USAGE_BELOW | COUNTED) or self._of(parent) & CALLED:
            return False
        self.marks.mark(own, CALLED, now)
        return True

    def below(self, parent: bytes, bits: int, now: float) -> None:
        """Tell a parent what its child is; spans without parent have none (trace id only)."""
        if len(parent) > _TRACE_ID:
            self.marks.mark(parent, bits, now)

    def climb(self, own: bytes, parent: bytes, now: float) -> None:
        """Carry the marks of a span in between up to its parent."""
        self.below(parent, self.marks.get(own) & (USAGE_BELOW | CALL_BELOW), now)


def _kind(marks: int, above: int, identified: bool, seen: bool) -> str:
    late = above & COUNTED and above & NO_ID
    if identified:
        return "response_id" if seen else "late_child" if late else ""
    if marks & USAGE_BELOW or seen:
        return "rollup"
    return "late_child" if late else ""
