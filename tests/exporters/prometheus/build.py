"""OTLP metrics requests for the tests of this folder, and ways to read the page back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.exporters.prometheus import Prometheus
from collector.exporters.prometheus.exposition import OPENMETRICS, TEXT, Format
from collector.model import Payload, Signal, data_points
from tests.support import attributes, build

DELTA, CUMULATIVE = 1, 2
API = {"service.name": "api", "service.instance.id": "i-1"}


def request(*metrics: Metric, resource: Mapping[str, object] | None = None, scope: str = "") -> ExportMetricsServiceRequest:
    """One resource, one scope."""
    out = ExportMetricsServiceRequest()
    group = out.resource_metrics.add()
    group.resource.attributes.extend(attributes(API if resource is None else resource))
    inner = group.scope_metrics.add()
    inner.scope.name = scope
    inner.metrics.extend(metrics)
    return out


def point(
    value: float, values: Mapping[str, object] | None = None, *, time: int = 0, start: int = 0, flags: int = 0
) -> NumberDataPoint:
    """A number; an int stays an int."""
    out = NumberDataPoint(attributes=attributes(values or {}), time_unix_nano=time, start_time_unix_nano=start, flags=flags)
    if isinstance(value, int):
        out.as_int = value
    else:
        out.as_double = value
    return out


def total(name: str, *points: NumberDataPoint, temporality: int = CUMULATIVE, monotonic: bool = True, unit: str = "") -> Metric:
    """A sum."""
    out = Metric(name=name, unit=unit, description=f"About {name}.")
    out.sum.aggregation_temporality = temporality
    out.sum.is_monotonic = monotonic
    out.sum.data_points.extend(points)
    return out


def gauge(name: str, *points: NumberDataPoint, unit: str = "") -> Metric:
    """A gauge."""
    out = Metric(name=name, unit=unit, description=f"About {name}.")
    out.gauge.data_points.extend(points)
    return out


def histogram(name: str, *points: HistogramDataPoint, temporality: int = CUMULATIVE, unit: str = "") -> Metric:
    """An explicit histogram."""
    out = Metric(name=name, unit=unit, description=f"About {name}.")
    out.histogram.aggregation_temporality = temporality
    out.histogram.data_points.extend(points)
    return out


def bucket_point(bounds: Sequence[float], counts: Sequence[int], *, total: float = 0.0, **options: Any) -> HistogramDataPoint:
    """A point whose count is that of its buckets."""
    values = options.pop("values", {})
    return HistogramDataPoint(
        count=sum(counts), sum=total, explicit_bounds=bounds, bucket_counts=counts, attributes=attributes(values), **options
    )


def exponential(name: str, *points: ExponentialHistogramDataPoint, temporality: int = CUMULATIVE) -> Metric:
    """An exponential histogram."""
    out = Metric(name=name, description=f"About {name}.")
    out.exponential_histogram.aggregation_temporality = temporality
    out.exponential_histogram.data_points.extend(points)
    return out


def exponential_point(
    scale: int, positive: Mapping[int, int], negative: Mapping[int, int] | None = None, *, zero: int = 0, **options: Any
) -> ExponentialHistogramDataPoint:
    """A point from sparse buckets: OTLP index -> count."""
    negative = negative or {}
    out = ExponentialHistogramDataPoint(
        scale=scale, zero_count=zero, count=zero + sum(positive.values()) + sum(negative.values()), **options
    )
    for side, buckets in ((out.positive, positive), (out.negative, negative)):
        if buckets:
            side.offset = min(buckets)
            side.bucket_counts.extend(buckets.get(i, 0) for i in range(min(buckets), max(buckets) + 1))
    return out


def summary(name: str, *points: SummaryDataPoint) -> Metric:
    """A summary."""
    out = Metric(name=name, description=f"About {name}.")
    out.summary.data_points.extend(points)
    return out


def payload(message: ExportMetricsServiceRequest) -> Payload:
    """What the pipeline would send."""
    count = sum(
        data_points(metric.SerializeToString())
        for group in message.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    )
    return Payload(Signal.METRICS, message.SerializeToString(), count)


class Under:
    """An exporter under test with a clock of its own."""

    def __init__(self, **config: Any) -> None:
        self.now = 1000.0
        self.exporter: Prometheus = build(Prometheus, {"endpoint": "localhost:0", **config})
        self.exporter.clock = lambda: self.now
        self.meters = self.exporter.settings.meters

    async def send(self, *metrics: Metric, **options: Any) -> int:
        """Send one request; returns the points that were not taken."""
        return await self.exporter.send(payload(request(*metrics, **options)))

    def text(self) -> str:
        """The page as text 0.0.4."""
        return self.exporter.exposition(Format(TEXT)).decode()

    def openmetrics(self) -> str:
        """The page as OpenMetrics."""
        return self.exporter.exposition(Format(OPENMETRICS)).decode()

    def samples(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Sample name -> labels and value, as a text parser reads them; both text formats must parse and say the same."""
        found = _read(parse_text(self.text()))
        assert _read(parse_openmetrics(self.openmetrics())) == found
        return found

    def values(self, name: str) -> list[float]:
        """All values of a sample name, in order."""
        return [value for _, value in self.samples().get(name, [])]

    def rejected(self, reason: str) -> float:
        """Points not taken for that reason."""
        return self.exporter._rejected.value("test", reason)


def _read(metrics: Any) -> dict[str, list[tuple[dict[str, str], float]]]:
    out: dict[str, list[tuple[dict[str, str], float]]] = {}
    for metric in metrics:
        for sample in metric.samples:
            out.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return out
