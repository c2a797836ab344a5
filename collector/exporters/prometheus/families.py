"""The store's families as prometheus_client metrics, ready for any of the three formats.

A sum that the sender does not report is shown as 0, as otelcol does: OpenMetrics allows neither its absence nor NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import Metric
from prometheus_client.samples import BucketSpan, NativeHistogram, Sample
from prometheus_client.utils import floatToGoString

from collector.exporters.prometheus.names import Namer
from collector.exporters.prometheus.series import Family
from collector.exporters.prometheus.store import Store
from collector.exporters.prometheus.values import Buckets, Exponential, Number, Quantiles

SCALES = range(-4, 9)
"""Scales that native histograms know; finer ones are joined, coarser ones become classic buckets."""
ZERO_THRESHOLD = 1e-128
"""Marks a native histogram without observations as native, as otelcol does."""
_TYPES = {"exponential_histogram": "histogram"}


def families(
    store: Store, *, protobuf: bool, escape: bool, timestamps: bool = False, others: frozenset[str] = frozenset()
) -> Iterator[Metric]:
    """All received families.

    `protobuf`: with native histograms, and counters under any name; `escape`: no UTF-8 names; `timestamps`: the sender's times;
    `others`: names of families beside them, which OpenMetrics must not see twice.
    """
    received = list(store.families.values())
    names = {family.name for family in received} | others
    taken: set[str] = set()
    for family in received:
        metric = _family(family, names, protobuf)
        if escape and not store.shaping.namer.escape and not _legacy(metric, taken):
            continue
        for output in list(family.outputs.values()):
            value, time = output.latest() if family.kind == "gauge" else output.current()
            labels = _escaped(output.labels) if escape and not store.shaping.namer.escape else output.labels
            at = _timestamp(time, protobuf) if timestamps and time else None
            metric.samples.extend(_samples(metric, labels, value, at, protobuf))
        yield metric
    targets = _target_info(store, escape)
    if targets.samples:
        yield targets


def _family(family: Family, names: set[str], protobuf: bool) -> Metric:
    kind = _TYPES.get(family.kind, family.kind)
    name = family.name
    if kind == "counter" and not protobuf:
        base = name.removesuffix("_total")
        if base == name or base in names or not base:
            kind = "unknown"  # text formats know no counter without _total, and OpenMetrics no family name twice
        else:
            name = base
    return Metric(name, family.help, kind)


def _samples(metric: Metric, labels: dict[str, str], value: Any, at: Any, protobuf: bool) -> Iterable[Sample]:
    name = metric.name
    if isinstance(value, Number):
        suffix = "_total" if metric.type == "counter" and not protobuf else ""
        exemplar = value.exemplar if metric.type == "counter" else None
        return [Sample(name + suffix, labels, value.value, at, exemplar)]
    if isinstance(value, Quantiles):
        return _summary(name, labels, value, at)
    if isinstance(value, Exponential):
        native = value.coarser(SCALES[-1])
        if protobuf and native.scale in SCALES:
            return [Sample(name, labels, 0, at, None, _native(native))]
        value = value.classic()
    return _classic(name, labels, value, at)


def _classic(name: str, labels: dict[str, str], value: Buckets, at: Any) -> Iterator[Sample]:
    running = accumulate(value.counts)
    for index, (bound, count) in enumerate(zip((*value.bounds, math.inf), running, strict=True)):
        shown = value.count if bound == math.inf else count
        yield Sample(f"{name}_bucket", {**labels, "le": _go(bound)}, shown, at, value.exemplars.get(index))
    yield Sample(f"{name}_count", labels, value.count, at)
    yield Sample(f"{name}_sum", labels, value.total or 0.0, at)


def _summary(name: str, labels: dict[str, str], value: Quantiles, at: Any) -> Iterator[Sample]:
    for quantile, shown in value.quantiles:
        yield Sample(name, {**labels, "quantile": _go(quantile)}, shown, at)
    yield Sample(f"{name}_count", labels, value.count, at)
    yield Sample(f"{name}_sum", labels, value.total, at)


def _go(value: float) -> str:
    """`10.0`, `1e+06`, `+Inf`: one spelling in all formats, the one of OpenMetrics, which Prometheus 3 turns every bound into."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _native(value: Exponential) -> NativeHistogram:
    positive, negative = _spans(value.positive), _spans(value.negative)
    return NativeHistogram(
        value.count,
        value.total or 0.0,
        value.scale,
        value.zero_threshold or ZERO_THRESHOLD,
        value.zero_count,
        positive[0],
        negative[0],
        positive[1],
        negative[1],
        value.exemplars,
    )


def _spans(side: Mapping[int, int]) -> tuple[list[BucketSpan], list[int]]:
    """Runs of buckets and the difference of each count to the one before; OTLP's bucket i is Prometheus' i + 1."""
    spans: list[BucketSpan] = []
    deltas: list[int] = []
    next_index, before = 0, 0
    for index in sorted(side):
        gap = index + 1 - next_index
        if spans and gap == 0:
            spans[-1] = BucketSpan(spans[-1].offset, spans[-1].length + 1)
        else:
            spans.append(BucketSpan(gap, 1))
        deltas.append(side[index] - before)
        next_index, before = index + 2, side[index]
    return spans, deltas


def _target_info(store: Store, escape: bool) -> Metric:
    metric = Metric("target", "Target metadata", "info")
    targets = list(store.targets.values())  # a copy in one step: requests go on while a scrape is written
    newest: dict[tuple[str, str], dict[str, str]] = {}
    for target in sorted(targets, key=lambda target: target.seen):
        if target.info:
            newest[target.labels["job"], target.labels["instance"]] = target.info
    escaping = escape and not store.shaping.namer.escape
    for info in newest.values():
        metric.add_sample("target_info", _escaped(info) if escaping else info, 1)
    return metric


def _timestamp(nanoseconds: int, protobuf: bool) -> float:
    """Seconds; text writers cut the product with 1000, so half a millisecond keeps the right one."""
    return nanoseconds / 1e9 if protobuf else (nanoseconds // 1_000_000) / 1e3 + 2e-7


def _escaped(labels: dict[str, str]) -> dict[str, str]:
    return Namer().labels(labels.items())


def _legacy(metric: Metric, taken: set[str]) -> bool:
    """Give a UTF-8 family a plain name for a scraper that knows no other; False when the name is gone already."""
    metric.name = Namer(suffixes=False).metric(metric.name, "", "")
    if not metric.name or metric.name in taken:
        return False
    taken.add(metric.name)
    return True
