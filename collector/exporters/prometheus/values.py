"""What one series holds: a number, explicit buckets, exponential buckets or quantiles. Immutable; `plus` adds two exactly.

A scrape reads values while requests replace them, so none is ever changed in place. Longer than most files:
the four kinds are read side by side.
Source: opentelemetry-proto metrics.proto; Prometheus native histograms (schema -4..8).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from prometheus_client.samples import Exemplar, Timestamp

from collector.exporters.prometheus.names import label_name, text

MAX_COUNT = 1 << 62
"""Beyond it a count does not fit the signed deltas of a native histogram."""
MAX_BOUNDS = 1024
MAX_BUCKETS = 320
"""Exponential buckets of one sign; more are joined by halving the resolution (SDKs keep 160)."""

MAX_EXEMPLARS = 10
"""Of an exponential histogram."""


class Unusable(ValueError):
    """A data point that cannot be shown; the message is the reason it is counted under."""


@dataclass(frozen=True, slots=True)
class Number:
    """A counter's or gauge's value; ints stay exact."""

    value: int | float
    exemplar: Exemplar | None = None

    def plus(self, other: Number) -> Number:
        """The sum, with the newer exemplar."""
        return Number(self.value + other.value, other.exemplar or self.exemplar)

    def after(self, older: Number) -> Number:
        """The same with the exemplar of an older state where it has none: SDKs send each exemplar once."""
        return self if self.exemplar or not older.exemplar else replace(self, exemplar=older.exemplar)


@dataclass(frozen=True, slots=True)
class Buckets:
    """An explicit histogram: `counts[i]` values up to `bounds[i]`, one more for the rest; `total` None when not reported."""

    count: int
    total: float | None
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)

    def plus(self, other: Buckets) -> Buckets:
        """The sum; where bounds differ, over the bounds that both have, which keeps every bucket exact."""
        if self.bounds != other.bounds:
            shared = tuple(bound for bound in self.bounds if bound in set(other.bounds))
            return self._over(shared).plus(other._over(shared))
        counts = tuple(map(int.__add__, self.counts, other.counts))
        exemplars = {**self.exemplars, **other.exemplars} if self.exemplars else other.exemplars
        return Buckets(self.count + other.count, _total(self.total, other.total), self.bounds, counts, exemplars)

    def after(self, older: Buckets) -> Buckets:
        """The same with the exemplars of an older state in buckets that have none."""
        if not older.exemplars:
            return self
        return replace(self, exemplars={**_placed(tuple(older.exemplars.values()), self.bounds), **self.exemplars})

    def _over(self, shared: tuple[float, ...]) -> Buckets:
        out, pending, kept = [], 0, set(shared)
        for bound, count in zip(self.bounds, self.counts, strict=False):
            pending += count
            if bound in kept:
                out.append(pending)
                pending = 0
        return Buckets(self.count, self.total, shared, (*out, self.count - sum(out)))


@dataclass(frozen=True, slots=True)
class Exponential:
    """An exponential histogram: bucket i of `positive` counts values in (2**(i/2**scale), 2**((i+1)/2**scale)]."""

    count: int
    total: float | None
    scale: int
    zero_count: int
    zero_threshold: float
    positive: Mapping[int, int]
    negative: Mapping[int, int]
    exemplars: tuple[Exemplar, ...] = ()

    def plus(self, other: Exponential) -> Exponential:
        """The sum at the coarser of both scales and the wider of both zero buckets."""
        scale = min(self.scale, other.scale)
        zero = max(self.zero_threshold, other.zero_threshold)
        left, right = self.coarser(scale).widened(zero), other.coarser(scale).widened(zero)
        zero = max(left.zero_threshold, right.zero_threshold)
        if left.zero_threshold != right.zero_threshold:
            left, right = left.widened(zero), right.widened(zero)
        return Exponential(
            self.count + other.count,
            _total(self.total, other.total),
            scale,
            left.zero_count + right.zero_count,
            zero,
            _sum(left.positive, right.positive),
            _sum(left.negative, right.negative),
            other.exemplars or self.exemplars,
        ).bounded()

    def after(self, older: Exponential) -> Exponential:
        """The same with the newest exemplars of both."""
        return replace(self, exemplars=(*older.exemplars, *self.exemplars)[-MAX_EXEMPLARS:]) if older.exemplars else self

    def coarser(self, scale: int) -> Exponential:
        """The same at a lower `scale`: each step joins two neighbours, no count is lost."""
        step = self.scale - scale
        if step <= 0:
            return self
        return replace(self, scale=scale, positive=_shift(self.positive, step), negative=_shift(self.negative, step))

    def widened(self, threshold: float) -> Exponential:
        """The same with a zero bucket up to `threshold`, and on to the end of a bucket that it cuts."""
        if threshold <= self.zero_threshold:
            return self
        cut = [i for side in (self.positive, self.negative) for i in side if upper(i - 1, self.scale) < threshold]
        if cut:
            threshold = max(threshold, upper(max(cut), self.scale))
        limit = max(cut) if cut else None
        moved = sum(n for side in (self.positive, self.negative) for i, n in side.items() if limit is not None and i <= limit)
        keep = [{i: n for i, n in side.items() if limit is None or i > limit} for side in (self.positive, self.negative)]
        return replace(self, zero_count=self.zero_count + moved, zero_threshold=threshold, positive=keep[0], negative=keep[1])

    def bounded(self) -> Exponential:
        """The same with at most MAX_BUCKETS buckets of each sign."""
        out = self
        while max(len(out.positive), len(out.negative)) > MAX_BUCKETS:
            out = out.coarser(out.scale - 1)
        return out

    def classic(self) -> Buckets:
        """The same counts as explicit buckets, for formats without native histograms and for scales below -4."""
        steps: dict[float, int] = {}
        for index in sorted(self.negative, reverse=True):
            _put(steps, -upper(index - 1, self.scale), self.negative[index])
        if self.zero_count:
            _put(steps, self.zero_threshold, self.zero_count)
        for index in sorted(self.positive):
            _put(steps, upper(index, self.scale), self.positive[index])
        bounds = tuple(bound for bound in sorted(steps) if bound < math.inf)
        counts = tuple(steps[bound] for bound in bounds)
        filled = Buckets(self.count, self.total, bounds, (*counts, self.count - sum(counts)))
        return replace(filled, exemplars=_placed(self.exemplars, bounds))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A summary: `quantiles` are pairs of quantile and value."""

    count: int
    total: float
    quantiles: tuple[tuple[float, float], ...]

    def plus(self, other: Quantiles) -> Quantiles:
        """Counts and sums add up; quantiles cannot, so the newer ones stand."""
        return Quantiles(self.count + other.count, self.total + other.total, other.quantiles)

    def after(self, older: Quantiles) -> Quantiles:
        """The same: summaries have no exemplars."""
        return self


AnyValue = Number | Buckets | Exponential | Quantiles


def plus(left: AnyValue, right: AnyValue) -> AnyValue:
    """The sum of two of a kind; one that no longer fits an exposition starts over, which Prometheus reads as a reset."""
    total = left.plus(right)  # type: ignore[arg-type]
    if not isinstance(total, Number) and total.count > MAX_COUNT:
        return right
    return total


def upper(index: int, scale: int) -> float:
    """Upper bound of an exponential bucket; infinite where a float ends."""
    exponent = (index + 1) * 2.0**-scale
    return 2.0**exponent if exponent < 1024 else math.inf


def number(point: Any, *, finite: bool = False) -> Number:
    """From a NumberDataPoint; `finite` for deltas, which one NaN would spoil for good. Raises Unusable."""
    kind = point.WhichOneof("value")
    if kind is None:
        raise Unusable("malformed")
    value = getattr(point, kind)
    if finite and not math.isfinite(value):
        raise Unusable("malformed")
    return Number(value, exemplar(point.exemplars[-1]) if point.exemplars else None)


def buckets(point: Any) -> Buckets:
    """From a HistogramDataPoint. Raises Unusable when bounds and counts do not fit each other."""
    bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    if not counts and not bounds:
        counts = (point.count,)
    if len(bounds) > MAX_BOUNDS:
        raise Unusable("too_many_buckets")
    ascending = all(a < b for a, b in pairwise(bounds)) and not any(map(math.isnan, bounds))
    if len(counts) != len(bounds) + 1 or not ascending or not sum(counts) <= point.count <= MAX_COUNT:
        raise Unusable("malformed")
    if bounds and bounds[-1] == math.inf:
        bounds, counts = bounds[:-1], (*counts[:-2], counts[-2] + counts[-1])
    found = tuple(exemplar(entry) for entry in point.exemplars)
    return Buckets(point.count, point.sum if point.HasField("sum") else None, bounds, counts, _placed(found, bounds))


def exponential(point: Any) -> Exponential:
    """From an ExponentialHistogramDataPoint. Raises Unusable when the counts do not add up."""
    sides = [{i: n for i, n in enumerate(side.bucket_counts, side.offset) if n} for side in (point.positive, point.negative)]
    inside = point.zero_count + sum(sides[0].values()) + sum(sides[1].values())
    threshold = point.zero_threshold
    if inside != point.count or point.count > MAX_COUNT or not 0 <= threshold < math.inf or not -64 <= point.scale <= 64:
        raise Unusable("malformed")
    total = point.sum if point.HasField("sum") else None
    found = tuple(exemplar(entry) for entry in point.exemplars[-MAX_EXEMPLARS:])
    return Exponential(point.count, total, point.scale, point.zero_count, threshold, sides[0], sides[1], found).bounded()


def quantiles(point: Any) -> Quantiles:
    """From a SummaryDataPoint; quantiles outside 0..1 and repeated ones are left out. Raises Unusable."""
    if point.count > MAX_COUNT or len(point.quantile_values) > MAX_BOUNDS:
        raise Unusable("malformed")
    found = {entry.quantile: entry.value for entry in point.quantile_values if 0 <= entry.quantile <= 1}
    return Quantiles(point.count, point.sum, tuple(sorted(found.items())))


def exemplar(entry: Any) -> Exemplar:
    """trace_id and span_id first, then attributes while they fit OpenMetrics' 128 characters."""
    labels = {}
    if entry.trace_id:
        labels["trace_id"] = entry.trace_id.hex()
    if entry.span_id:
        labels["span_id"] = entry.span_id.hex()
    room = 128 - sum(len(key) + len(value) for key, value in labels.items())
    for pair in entry.filtered_attributes:
        name, content = label_name(pair.key), text(pair.value)
        if name and name not in labels and len(name) + len(content) <= room:
            labels[name] = content
            room -= len(name) + len(content)
    value = float(getattr(entry, entry.WhichOneof("value") or "as_double"))
    time = entry.time_unix_nano
    return Exemplar(labels, value, Timestamp(time // 1_000_000_000, time % 1_000_000_000) if time else None)


def _placed(found: tuple[Exemplar, ...], bounds: tuple[float, ...]) -> Mapping[int, Exemplar]:
    return {bisect_left(bounds, entry.value): entry for entry in found}


def _total(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left + right


def _sum(left: Mapping[int, int], right: Mapping[int, int]) -> dict[int, int]:
    out = dict(left)
    for index, count in right.items():
        out[index] = out.get(index, 0) + count
    return out


def _shift(side: Mapping[int, int], step: int) -> dict[int, int]:
    out: dict[int, int] = {}
    for index, count in side.items():
        out[index >> step] = out.get(index >> step, 0) + count
    return out


def _put(steps: dict[float, int], bound: float, count: int) -> None:
    steps[bound] = steps.get(bound, 0) + count
