"""The bounded state behind a scrape: families of series, fed by OTLP metrics, kept until they expire.

A source is one stream of the sender (metric, full resource, scope, attributes); an output is one exposed label set. Mostly
they are one to one; where several sources meet in one output (values folded into `__overflow__`, resources with the same job and
instance) the output shows their sum, and what an expired source had counted stays in it, so that no counter ever falls.
Longer than other files because every rule that takes, folds, refuses or forgets a point touches the same books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    SummaryDataPoint,
)

from collector.exporters.prometheus import values
from collector.exporters.prometheus.names import join, text
from collector.exporters.prometheus.series import Family, Origin, Output, Shaping, Source, Target, target_of
from collector.exporters.prometheus.values import AnyValue, Unusable, plus
from collector.meters import OVERFLOW
from collector.model import slim_schema

MAX_SERIES = 10_000
"""Sources of one metric (reliability.md section 3)."""
MAX_BYTES = 64 << 20
"""Estimated size of all sources together."""
_FAMILY, _SOURCE = 2000, 600
DELTA, CUMULATIVE = 1, 2
_NO_VALUE = 1
_KINDS: dict[str, tuple[Any, Callable[[Any], AnyValue]]] = {
    "gauge": (NumberDataPoint, values.number),
    "sum": (NumberDataPoint, values.number),
    "histogram": (HistogramDataPoint, values.buckets),
    "exponential_histogram": (ExponentialHistogramDataPoint, values.exponential),
    "summary": (SummaryDataPoint, values.quantiles),
}
_CLAIMS = {
    "histogram": ("", "_bucket", "_sum", "_count"),
    "exponential_histogram": ("", "_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}
_OWN_LABEL = {"histogram": "le", "exponential_histogram": "le", "summary": "quantile"}
_schema = slim_schema(
    "collector.prometheus",
    {
        "Metric": [("name", 1, 9, False), ("description", 2, 9, False), ("unit", 3, 9, False)]
        + [(kind, number, "Data", False) for kind, number in
           (("gauge", 5), ("sum", 7), ("histogram", 9), ("exponential_histogram", 10), ("summary", 11))],
        "Data": [("points", 1, 12, True), ("temporality", 2, 5, False), ("monotonic", 3, 8, False)],
    },
)  # fmt: skip
_Metric = _schema["Metric"]


class Store:
    """Takes metrics, forgets what has expired, hands out families. Raises nothing on any input."""

    def __init__(self, shaping: Shaping) -> None:
        self.shaping = shaping
        self.families: dict[str, Family] = {}
        self.targets: dict[bytes, Target] = {}
        self.claims: dict[str, str] = {}
        self.size = 0
        self._overflow: Callable[[str], None] = lambda label: None
        self._reject: Callable[[str, str], None] = lambda reason, name: None

    def report(self, overflow: Callable[[str], None], reject: Callable[[str, str], None]) -> None:
        """From now on tell `overflow(label)` about each folded value, `reject(reason, name)` about each point left out."""
        self._overflow, self._reject = overflow, reject

    def target(self, header: bytes, now: float) -> Target:
        """The resource of an encoded ResourceMetrics without scopes."""
        attributes = ResourceMetrics.FromString(header).resource.attributes
        key = _digest(sorted(entry.SerializeToString(deterministic=True) for entry in attributes))
        found = self.targets.get(key)
        if found is None:
            found = target_of(key, {entry.key: text(entry.value) for entry in attributes}, self.shaping, now)
            if len(self.targets) < MAX_SERIES and self.size < MAX_BYTES:
                self.targets[key] = found
                self.size += found.size
        found.seen = now
        return found

    def origin(self, target: Target, header: bytes) -> Origin:
        """Resource and scope, from an encoded ScopeMetrics without metrics."""
        decoded = ScopeMetrics.FromString(header)
        scope, labels = decoded.scope, dict(target.labels)
        key = _digest([target.key, decoded.schema_url.encode(), scope.SerializeToString(deterministic=True)])
        if self.shaping.scope_labels:
            pairs = [("name", scope.name), ("version", scope.version), ("schema_url", decoded.schema_url)]
            pairs += [(entry.key, text(entry.value)) for entry in scope.attributes]
            labels = join(labels, self.shaping.namer.labels((f"otel_scope_{name}", value) for name, value in pairs))
        return Origin(key, target, labels)

    def add(self, item: bytes, origin: Origin, now: float) -> Iterator[bool]:
        """Merge one encoded Metric; yields after each data point whether it was taken, so that a caller can pause."""
        try:
            metric = _Metric.FromString(item)
        except DecodeError:
            self._reject("malformed", "")
            yield False
            return
        for descriptor, data in metric.ListFields():
            if descriptor.name not in _KINDS:
                continue
            kind, named = _kind(descriptor.name, data)
            name = self.shaping.namer.metric(metric.name, metric.unit, named)
            for encoded in data.points:
                try:
                    self._point(name, metric.description or metric.name, kind, descriptor.name, data, encoded, origin, now)
                    yield True
                except (Unusable, DecodeError) as reason:
                    self._reject(str(reason) if isinstance(reason, Unusable) else "malformed", name)
                    yield False

    def _point(
        self, name: str, description: str, kind: str, otlp: str, data: Any, encoded: bytes, origin: Origin, now: float
    ) -> None:
        message, read = _KINDS[otlp]
        point = message.FromString(encoded)
        key = _digest([origin.key, *sorted(entry.SerializeToString(deterministic=True) for entry in point.attributes)])
        if point.flags & _NO_VALUE:
            family = self.families.get(name)
            if family is not None and family.kind == kind and key in family.sources:
                self._remove(family, key)
            return
        delta = otlp in ("sum", "histogram", "exponential_histogram") and data.temporality == DELTA
        value = values.number(point, finite=delta) if message is NumberDataPoint else read(point)
        _check(otlp, data, value)
        family = self._family(name, description, kind)
        source = family.sources.get(key)
        if source is None:
            self._create(family, key, value, point, origin, delta, now)
        else:
            self._update(source, value, point, delta, kind, now)

    def _family(self, name: str, description: str, kind: str) -> Family:
        if not name:
            raise Unusable("no_name")
        family = self.families.get(name)
        if family is None:
            claims = tuple(name + suffix for suffix in _CLAIMS.get(kind, ("",)))
            if self.size + _FAMILY >= MAX_BYTES:
                raise Unusable("series_limit")
            if name == "target_info" or any(claim in self.claims for claim in claims):
                raise Unusable("name_conflict")
            family = self.families[name] = Family(name, description[:1000], kind, claims)
            self.size += _FAMILY
            self.claims.update(dict.fromkeys(claims, name))
        elif family.kind != kind:
            raise Unusable("type_conflict")
        return family

    def _create(self, family: Family, key: bytes, value: AnyValue, point: Any, origin: Origin, delta: bool, now: float) -> None:
        if len(family.sources) >= MAX_SERIES or self.size >= MAX_BYTES:
            self._beyond(family, value, point, delta, now)
            return
        labels = self._labels(family, point, origin)
        self._place(family, key, labels, value, point, now)

    def _place(self, family: Family, key: bytes, labels: dict[str, str], value: AnyValue, point: Any, now: float) -> Source:
        identity = tuple(sorted(labels.items()))
        output = family.outputs.get(identity) or Output(labels)
        heavy = weight(value)
        size = _SOURCE + heavy + sum(len(a) + len(b) for a, b in identity)
        source = Source(value, point.time_unix_nano, now, output, size, heavy)
        output.sources.append(source)
        family.outputs[identity] = output  # only now: a scrape must never meet an output without a source
        family.sources[key] = source
        self.size += size
        return source

    def _beyond(self, family: Family, value: AnyValue, point: Any, delta: bool, now: float) -> None:
        """Points of series over the cap: deltas add up in one overflow series, others cannot be added without their past."""
        if not delta or self.size >= MAX_BYTES + (1 << 20):
            raise Unusable("series_limit")
        self._overflow("__series__")
        if family.overflow is None:
            labels = {**dict(self.shaping.constant), "job": OVERFLOW, "instance": OVERFLOW}
            family.overflow = self._place(family, b"overflow", labels, value, point, now)
            return
        family.overflow.value = plus(family.overflow.value, value)
        family.overflow.seen, family.overflow.time = now, max(family.overflow.time, point.time_unix_nano)

    def _update(self, source: Source, value: AnyValue, point: Any, delta: bool, kind: str, now: float) -> None:
        time = point.time_unix_nano
        if delta:
            if time and time <= source.time:
                raise Unusable("out_of_order")
            value = plus(source.value, value)
        elif time < source.time:
            return  # an older cumulative value or gauge is part of, or replaced by, the newer one that is shown
        elif kind != "gauge" and _reset(source.value, value):
            if len(source.output.sources) > 1:
                source.output.retire(source, value)
        elif kind != "gauge" and type(value) is type(source.value):
            value = value.after(source.value)  # type: ignore[arg-type]
        growth = weight(value) - source.weight
        if growth > 0 and self.size >= MAX_BYTES:
            raise Unusable("series_limit")
        source.weight += growth
        source.size += growth
        self.size += growth
        source.value, source.time, source.seen = value, time, now

    def _labels(self, family: Family, point: Any, origin: Origin) -> dict[str, str]:
        shaping = self.shaping
        attributes = [(entry.key, text(entry.value)) for entry in point.attributes]
        if origin.target.attributes:
            attributes = list({**dict(attributes), **origin.target.attributes}.items())
        capped: dict[str, str] = {}
        for name, value in shaping.namer.labels(attributes).items():
            capped[f"key_{name}" if name == _OWN_LABEL.get(family.kind) else name] = self._capped(family, name, value)
        return join(join(dict(shaping.constant), origin.labels), capped)

    def _capped(self, family: Family, name: str, value: str) -> str:
        seen = family.seen.setdefault(name, set())
        if value in seen or not self.shaping.label_limit:
            return value
        if len(seen) < self.shaping.label_limit - 1:
            seen.add(value)
            return value
        self._overflow(name)
        return OVERFLOW

    def expire(self, before: float) -> None:
        """Forget sources and resources not heard of since `before`."""
        for family in list(self.families.values()):
            old = [key for key, source in family.sources.items() if source.seen < before]
            for key in old:
                self._remove(family, key)
            if old and family.name in self.families:
                used = {name for output in family.outputs.values() for name in output.labels}
                family.seen = {name: seen for name, seen in family.seen.items() if name in used}
        for key in [key for key, target in self.targets.items() if target.seen < before]:
            self.size -= self.targets.pop(key).size

    def _remove(self, family: Family, key: bytes) -> None:
        source = family.sources.pop(key)
        self.size -= source.size
        output = source.output
        if len(output.sources) > 1:
            if family.kind == "gauge":
                output.leave(source)
            else:
                output.retire(source, None)
        else:
            del family.outputs[tuple(sorted(output.labels.items()))]
        if source is family.overflow:
            family.overflow = None
        if not family.sources:
            del self.families[family.name]
            self.size -= _FAMILY
            for claim in family.claims:
                del self.claims[claim]


def _kind(otlp: str, data: Any) -> tuple[str, str]:
    """Type, and type for the name: up-down sums are gauges to Prometheus, but get no `_ratio`."""
    if otlp == "sum":
        return ("counter", "counter") if data.monotonic else ("gauge", "sum")
    return otlp, otlp


def _check(otlp: str, data: Any, value: AnyValue) -> None:
    if otlp in ("sum", "histogram", "exponential_histogram") and data.temporality not in (DELTA, CUMULATIVE):
        raise Unusable("no_temporality")
    falls = isinstance(value, values.Number) and value.value < 0
    if falls and otlp == "sum" and data.monotonic and data.temporality == DELTA:
        raise Unusable("malformed")


def _reset(old: AnyValue, new: AnyValue) -> bool:
    if isinstance(old, values.Number) or isinstance(new, values.Number):
        return isinstance(old, values.Number) and isinstance(new, values.Number) and new.value < old.value
    return new.count < old.count


def weight(value: AnyValue) -> int:
    """Estimated bytes of a value's buckets."""
    if isinstance(value, values.Buckets):
        return 72 * len(value.bounds) + 400 * len(value.exemplars)
    if isinstance(value, values.Exponential):
        return 100 * (len(value.positive) + len(value.negative))
    return 64 * len(value.quantiles) if isinstance(value, values.Quantiles) else 0


def _digest(parts: list[bytes]) -> bytes:
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(4, "big") + part)
    return hashed.digest()
