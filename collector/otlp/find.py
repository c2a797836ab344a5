"""Which encoded items may fulfil a condition on an attribute, or be a span with status ERROR, without decoding them.

A superset of the truth, as of any scan: a hit says "look inside". The compiled walker reads the keys; without it one search with
byte patterns does the same, at five times the cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from collector.otlp import plain
from collector.otlp.scan import EngineFailed, Scanner

ATTRIBUTE, ERROR = 1, 2
"""Bits of a hit: an attribute may fulfil a condition; the status may be ERROR."""
SPAN_ATTRIBUTES = 9
_HITS, _HITS_PER_ITEM = 2000, 64
_SEARCHED = 256
"""Items searched at once: a copy of 200 KB stays in the cache and in memory that is reused, a larger one does not."""


class Condition(NamedTuple):
    """An attribute key and what its value must be: anything, an integer from `low` to `high`, or one of the encoded AnyValues.

    With `prefix`, `key` is how the key begins. A condition on an integer lets through what is no integer.
    """

    key: bytes
    prefix: bool = False
    low: int | None = None
    high: int | None = None
    values: tuple[bytes, ...] | None = None


class Finder:
    """Finds spans. `patterns`: the same conditions as byte patterns, `status` the one of Status.code = ERROR, if wanted."""

    def __init__(self, conditions: Sequence[Condition], patterns: Sequence[bytes], status: bytes | None = None) -> None:
        self._keys: Any = None
        self._error = 1 << len(patterns) if status else 0
        self._scanner = Scanner([*patterns, status] if status else patterns)
        if plain.compiled is not None:
            entries = [(c.key, c.prefix, 0, c.low, c.high, c.values) for c in sorted(conditions, key=lambda c: c.key)]
            self._keys = plain.compiled.Keys(SPAN_ATTRIBUTES, 1 if status else -1, tuple(entries))

    def warm(self) -> None:
        """Compile the patterns where they are used. Raises EngineFailed."""
        if self._keys is None:
            _ = self._scanner.engine

    def find(self, items: list[bytes]) -> Mapping[int, int]:
        """Position -> bits."""
        if self._keys is not None:
            found: Mapping[int, int] = self._keys.find(items)
            return found
        marks: dict[int, int] = {}
        for start in range(0, len(items), _SEARCHED):
            marks |= {start + at: bits for at, bits in self._search(items[start : start + _SEARCHED]).items()}
        return marks

    def _search(self, items: list[bytes]) -> dict[int, int]:
        try:
            marks = self._scanner.scan(items, max(_HITS, _HITS_PER_ITEM * len(items))).marks
        except EngineFailed:  # nothing is known, so everything must be read
            return dict.fromkeys(range(len(items)), ATTRIBUTE | ERROR)
        error = self._error
        return {at: ATTRIBUTE * (bits & ~error != 0) | ERROR * (bits & error != 0) for at, bits in marks.items()}
