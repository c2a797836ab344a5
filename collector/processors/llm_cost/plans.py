"""What all spans of one shape have in common, found out once: names, labels, price, how to read the counts, what to write.

A plan is made by the thorough path from the second span of a shape, so both paths decide by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from collector.processors.llm_cost.attributes import Stamp, stamp_for
from collector.processors.llm_cost.call import Origin, Seen
from collector.processors.llm_cost.normalized import Missing
from collector.processors.llm_cost.prices import PriceBook, Resolved
from collector.processors.llm_cost.rates import Entry, flat_rates
from collector.processors.llm_cost.shapes import COUNT, Shape
from collector.processors.llm_cost.usage import (
    COUNTS,
    Emitter,
    Usage,
    compose,
    disjoint,
    plain_usage,
    ruling,
    time_to_first_token,
)

_MOST, _WIDEST, _LONGEST, _LAST = 4096, 64, 4096, (1 << 63) - 1
Compose = Callable[[Sequence[int]], Usage | None]
Fixed = tuple[int, int, tuple[float, ...] | None, Callable[[Usage], float], Stamp, Callable[[Usage], bytes] | None, str]
"""From and until when (ns), rates if the price is flat, price, stamp, what encodes missing counts, provider."""


@dataclass(slots=True, eq=False)
class Plan:
    """How to settle a span of one shape."""

    origin: Origin
    labels: tuple[str, ...]
    status: str
    reason: str
    """Why there is no amount, should there be none."""
    name: str
    limited: bool
    rollup: bool
    calls: bool
    split: bool
    """Input and output are known apart."""
    provider: str
    usage: Compose
    divisor: int
    """What the time to the first token is to be divided by."""
    resolved: Resolved
    sets: tuple[str, ...]
    missing: Missing
    entry: Entry | None = None
    stamp: Stamp | None = None
    complete: bool = False
    """The price has all main units."""
    fixed: Fixed | None = None
    """What settles the plan's calls without a further look, while the price lasts; None when each needs one."""

    def price(self, at: int, book: PriceBook) -> Entry | None:
        """The price of a span that started then (ns); None as long as input and output are not known apart."""
        if not self.split:
            return None
        entry = self.entry
        if entry is None or not entry.from_ns <= at < entry.until_ns:
            entry = book.entry(self.resolved, at)
            own = self.resolved.own
            lasting = entry is not None and (not own or own[0].entry is entry)
            self.entry = entry if lasting else None  # with several own prices, another may begin within the period of this one
            self.stamp = stamp_for(self.resolved, entry, self.sets, self.missing.words) if entry is not None else None
            self.complete = entry is not None and not entry.partial and {"input", "output"} <= entry.bands[0][1].keys()
            self.fixed = self._fixed()
        return entry

    def _fixed(self) -> Fixed | None:
        entry, stamp = self.entry, self.stamp
        if entry is None or stamp is None or not self.complete or self.rollup:
            return None
        lasts = max(entry.from_ns, 0), min(entry.until_ns, _LAST)
        return *lasts, flat_rates(entry.bands), entry.price, stamp, self.missing.counts, self.provider


Quick = tuple[int, int, Plan, bytes, bytes, bytes, Usage | None, str | None, float | None, bytes]
"""A span that has a plan: end, start, plan, item, own, parent (as in Seen), usage, response id, time to first token, trace id.

A plain tuple, because it is made and taken apart for every call.
"""


class Plans:
    """Plans by shape, at most 4096. A shape gets its plan when it comes for the second time: some are unique."""

    def __init__(self) -> None:
        self._known: dict[Shape, Plan | None] = {}
        self.get = self._known.get

    def clear(self) -> None:
        """Forget all, because prices changed."""
        self._known.clear()

    def repeated(self, shape: Shape) -> bool:
        """Whether it was there before; from now on it was."""
        if shape in self._known:
            return True
        if _is_small(shape):
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[shape] = None
        return False

    def keep(self, shape: Shape, plan: Plan) -> None:
        """Remember the plan of a repeated shape."""
        self._known[shape] = plan


def _is_small(shape: Shape) -> bool:
    if len(shape) == 2:
        return len(shape[1]) <= _LONGEST
    _, _, name, written, same = shape
    return len(written) + len(same) <= _WIDEST and sum(map(len, (name, *written, *same))) <= _LONGEST


def composer(seen: Seen, kinds: Mapping[str, int], rules: list[dict[str, str]]) -> Compose:
    """From the counts of a span, in the order they were written, to its usage."""
    written = [place for place, entry in enumerate(seen.span.attributes) if kinds.get(entry.key) == COUNT]
    fields = seen.found.fields
    slots = {name: written.index(fields[name][0][2]) for name in COUNTS if name in fields}
    if slots.keys() - {"total_tokens"} == {"input_tokens", "output_tokens"}:
        given, out = slots["input_tokens"], slots["output_tokens"]
        return lambda counts: plain_usage(counts[given], counts[out])
    emitter = Emitter(seen.origin.scope, seen.origin.version, seen.span.name, seen.provider, seen.request_model)
    apart, rule = disjoint(seen.found), ruling(seen.found, emitter, rules)
    places = tuple(slots.items())
    if not rule:
        return lambda counts: compose({name: counts[place] for name, place in places}, [], apart, lambda *_: rule)
    inputs = [written.index(position) for _, _, position in fields.get("input_tokens", ())]

    def usage(counts: Sequence[int]) -> Usage | None:
        def exclusive(given: int, cached: int) -> bool | None:
            return not any(counts[place] == given - cached for place in inputs)

        return compose({name: counts[place] for name, place in places}, [], apart, exclusive)

    return usage


def divisor(seen: Seen, first: float | None) -> int:
    """1000 when the emitter writes the time to the first token in milliseconds."""
    return 1 if first is None or time_to_first_token(seen.found, seen.origin.scope) == first else 1000
