"""Writes metrics in the format a scraper asks for: text 0.0.4, OpenMetrics 1.0, or protobuf, which carries native histograms.

The text formats are prometheus_client's; the protobuf format is a stream of io.prometheus.client.MetricFamily messages, each with
its length before it (client_model, metrics.proto).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from google.protobuf.proto import serialize_length_prefixed
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Exemplar, NativeHistogram, Sample, Timestamp

from collector.model import slim_schema

TEXT, OPENMETRICS, PROTOBUF = "text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"
_DOUBLE, _INT64, _UINT64, _INT32, _STRING, _UINT32, _SINT32, _SINT64 = 1, 3, 4, 5, 9, 13, 17, 18
_schema = slim_schema(
    "collector.exposition",
    {
        "MetricFamily": [("name", 1, _STRING, False), ("help", 2, _STRING, False), ("type", 3, _INT32, False),
                         ("metric", 4, "Metric", True)],
        "Metric": [("label", 1, "Label", True), ("gauge", 2, "Single", False), ("counter", 3, "Single", False),
                   ("summary", 4, "Summary", False), ("untyped", 5, "Single", False), ("timestamp_ms", 6, _INT64, False),
                   ("histogram", 7, "Histogram", False)],
        "Label": [("name", 1, _STRING, False), ("value", 2, _STRING, False)],
        "Single": [("value", 1, _DOUBLE, False), ("exemplar", 2, "Exemplar", False)],
        "Summary": [("count", 1, _UINT64, False), ("sum", 2, _DOUBLE, False), ("quantile", 3, "Quantile", True)],
        "Quantile": [("quantile", 1, _DOUBLE, False), ("value", 2, _DOUBLE, False)],
        "Histogram": [("count", 1, _UINT64, False), ("sum", 2, _DOUBLE, False), ("bucket", 3, "Bucket", True),
                      ("schema", 5, _SINT32, False), ("zero_threshold", 6, _DOUBLE, False), ("zero_count", 7, _UINT64, False),
                      ("negative_span", 9, "Span", True), ("negative_delta", 10, _SINT64, True),
                      ("positive_span", 12, "Span", True), ("positive_delta", 13, _SINT64, True),
                      ("exemplars", 16, "Exemplar", True)],
        "Bucket": [("count", 1, _UINT64, False), ("upper_bound", 2, _DOUBLE, False), ("exemplar", 3, "Exemplar", False)],
        "Span": [("offset", 1, _SINT32, False), ("length", 2, _UINT32, False)],
        "Exemplar": [("label", 1, "Label", True), ("value", 2, _DOUBLE, False), ("timestamp", 3, "Time", False)],
        "Time": [("seconds", 1, _INT64, False), ("nanos", 2, _INT32, False)],
    },
)  # fmt: skip
_TYPES = {"counter": 0, "gauge": 1, "summary": 2, "unknown": 3, "histogram": 4, "info": 1, "stateset": 1}


@dataclass(frozen=True, slots=True)
class Format:
    """What a scraper gets; `utf8`: it takes names of any characters."""

    kind: str
    utf8: bool = False

    @property
    def content_type(self) -> str:
        """For the Content-Type header."""
        escaping = f"; escaping={ALLOWUTF8}" if self.utf8 else ""
        if self.kind == PROTOBUF:
            return f"{PROTOBUF}; proto=io.prometheus.client.MetricFamily; encoding=delimited{escaping}"
        version = "1.0.0" if self.kind == OPENMETRICS or self.utf8 else "0.0.4"
        return f"{self.kind}; version={version}; charset=utf-8{escaping}"


def negotiate(accept: str, *, openmetrics: bool = True) -> Format:
    """The best format of an Accept header; text 0.0.4 when it names none that we write."""
    offers = []
    for position, entry in enumerate(accept.split(",")):
        kind, *rest = (part.strip() for part in entry.split(";"))
        options = dict(part.replace('"', "").split("=", 1) for part in rest if "=" in part)
        try:
            quality = float(options.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0 and _known(kind.lower(), options, openmetrics):
            utf8 = options.get("escaping") == ALLOWUTF8
            offers.append((-quality, position, Format(kind.lower(), utf8 and options.get("version") != "0.0.4")))
    return min(offers, key=lambda offer: offer[:2])[2] if offers else Format(TEXT)


def _known(kind: str, options: dict[str, str], openmetrics: bool) -> bool:
    if kind == PROTOBUF:
        proto = options.get("proto", "io.prometheus.client.MetricFamily")
        return proto == "io.prometheus.client.MetricFamily" and options.get("encoding") == "delimited"
    if kind == OPENMETRICS:
        return openmetrics
    return kind == TEXT


def write(metrics: Iterable[Metric], chosen: Format) -> bytes:
    """All families in the chosen format."""
    if chosen.kind == PROTOBUF:
        return b"".join(_delimited(metric) for metric in metrics)
    escaping = ALLOWUTF8 if chosen.utf8 else UNDERSCORES
    if chosen.kind == OPENMETRICS:
        out: bytes = generate_openmetrics(_Families(metrics), escaping=escaping, version="1.0.0")  # type: ignore[no-untyped-call]
        return out
    return generate_latest(_Families(metrics), escaping=escaping)


class _Families:
    """What prometheus_client's writers read from."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _delimited(metric: Metric) -> bytes:
    name = metric.name
    if metric.type in ("counter", "info") and metric.samples:
        name = metric.samples[0].name
    family = _schema["MetricFamily"](name=name, help=metric.documentation, type=_TYPES.get(metric.type, 3))
    if metric.type in ("histogram", "summary"):
        _grouped(family, metric)
    else:
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                _single(family, metric.type, sample)
    out = BytesIO()
    serialize_length_prefixed(family, out)
    return out.getvalue() if metric.samples else b""


def _entry(family: Any, labels: dict[str, str], sample: Sample, without: str = "") -> Any:
    entry = family.metric.add()
    for name, value in sorted(labels.items()):
        if name != without:
            entry.label.add(name=name, value=value)
    if sample.timestamp is not None:
        entry.timestamp_ms = round(float(sample.timestamp) * 1000)
    return entry


def _single(family: Any, kind: str, sample: Sample) -> None:
    entry = _entry(family, sample.labels, sample)
    member = getattr(entry, {"counter": "counter", "unknown": "untyped"}.get(kind, "gauge"))
    member.SetInParent()
    member.value = sample.value
    if sample.exemplar is not None:
        _exemplar(member.exemplar, sample.exemplar)


def _grouped(family: Any, metric: Metric) -> None:
    """Buckets, quantiles, count and sum of one label set become one entry."""
    entries: dict[tuple[tuple[str, str], ...], Any] = {}
    own = "le" if metric.type == "histogram" else "quantile"
    for sample in metric.samples:
        plain = tuple(sorted((name, value) for name, value in sample.labels.items() if name != own))
        entry = entries.get(plain)
        if entry is None:
            entry = entries[plain] = _entry(family, sample.labels, sample, without=own)
        member = getattr(entry, metric.type)
        member.SetInParent()
        if sample.native_histogram is not None:
            _native(member, sample.native_histogram)
        elif sample.name.endswith("_count") and own not in sample.labels:
            member.count = int(sample.value)
        elif sample.name.endswith("_sum") and own not in sample.labels:
            member.sum = sample.value
        elif own == "quantile" and own in sample.labels:
            member.quantile.add(quantile=float(sample.labels[own]), value=sample.value)
        elif own in sample.labels:
            _bucket(member, sample)


def _bucket(histogram: Any, sample: Sample) -> None:
    bound = float(sample.labels["le"])
    bucket = histogram.bucket.add(count=int(sample.value), upper_bound=math.inf if bound == math.inf else bound)
    if sample.exemplar is not None:
        _exemplar(bucket.exemplar, sample.exemplar)


def _native(histogram: Any, native: NativeHistogram) -> None:
    histogram.count, histogram.sum = int(native.count_value), native.sum_value
    histogram.schema, histogram.zero_threshold = native.schema, native.zero_threshold
    histogram.zero_count = int(native.zero_count)
    for spans, target in ((native.pos_spans, histogram.positive_span), (native.neg_spans, histogram.negative_span)):
        for span in spans or ():
            target.add(offset=span.offset, length=span.length)
    histogram.positive_delta.extend(native.pos_deltas or ())
    histogram.negative_delta.extend(native.neg_deltas or ())
    for exemplar in native.nh_exemplars or ():
        if exemplar.timestamp is not None:  # Prometheus refuses exemplars of native histograms without a time
            _exemplar(histogram.exemplars.add(), exemplar)


def _exemplar(target: Any, exemplar: Exemplar) -> None:
    for name, value in exemplar.labels.items():
        target.label.add(name=name, value=value)
    target.value = exemplar.value
    time = exemplar.timestamp
    if isinstance(time, Timestamp):
        target.timestamp.seconds, target.timestamp.nanos = time.sec, time.nsec
    elif time is not None:
        target.timestamp.seconds, target.timestamp.nanos = int(time), int(time % 1 * 1e9)
