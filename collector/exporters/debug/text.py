"""OTLP requests as text, in the layout of otelcol's debug exporter. Pure; unprintable characters are escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal

_KINDS = dict(enumerate(("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")))
_STATUS = dict(enumerate(("Unset", "Ok", "Error")))
_TEMPORALITY = dict(enumerate(("Unspecified", "Delta", "Cumulative")))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {"string_value": "Str", "bool_value": "Bool", "int_value": "Int", "double_value": "Double", "bytes_value": "Bytes"}


def escaped(text: str) -> str:
    """The text with control characters, line breaks and the like as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(value: Any) -> str:
    """An AnyValue in few characters."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    inner = getattr(value, kind)
    if kind == "array_value":
        return "[" + ",".join(short(entry) for entry in inner.values) + "]"
    if kind == "kvlist_value":
        return "{" + ",".join(f"{escaped(entry.key)}:{short(entry.value)}" for entry in inner.values) + "}"
    if kind == "bytes_value":
        return base64.b64encode(inner).decode()
    return escaped(inner) if kind == "string_value" else str(inner).lower() if kind == "bool_value" else str(inner)


def typed(value: Any) -> str:
    """An AnyValue with its type, as `Str(x)`."""
    kind = value.WhichOneof("value")
    name = {None: "Empty", "array_value": "Slice", "kvlist_value": "Map"}.get(kind) or _TYPES.get(kind, kind)
    return f"{name}({short(value)})"


def normal(signal: Signal, data: bytes) -> str:
    """One line for each span, log record or data point, below one for each resource and scope."""
    return "\n".join(_NORMAL[signal](data))


def detailed(signal: Signal, data: bytes) -> str:
    """Everything in the request."""
    return "\n".join(_DETAILED[signal](data))


def _pairs(attributes: Iterable[Any]) -> str:
    return "".join(f" {escaped(entry.key)}={short(entry.value)}" for entry in attributes)


def _head(number: int, kind: str, header: Any) -> str:
    name = f" {escaped(header.name)}" if getattr(header, "name", "") else ""
    version = f"@{escaped(header.version)}" if getattr(header, "version", "") else ""
    return f"{kind} #{number}{name}{version}{_pairs(header.attributes)}"


def _normal_traces(data: bytes) -> Iterator[str]:
    for number, group in enumerate(ExportTraceServiceRequest.FromString(data).resource_spans):
        yield _head(number, "ResourceTraces", group.resource)
        for inner, scope in enumerate(group.scope_spans):
            yield _head(inner, "ScopeTraces", scope.scope)
            for span in scope.spans:
                yield f"{escaped(span.name)} {span.trace_id.hex()} {span.span_id.hex()}{_pairs(span.attributes)}"


def _normal_logs(data: bytes) -> Iterator[str]:
    for number, group in enumerate(ExportLogsServiceRequest.FromString(data).resource_logs):
        yield _head(number, "ResourceLog", group.resource)
        for inner, scope in enumerate(group.scope_logs):
            yield _head(inner, "ScopeLog", scope.scope)
            for record in scope.log_records:
                yield f"{short(record.body)}{_pairs(record.attributes)}"


def _normal_metrics(data: bytes) -> Iterator[str]:
    for number, group in enumerate(ExportMetricsServiceRequest.FromString(data).resource_metrics):
        yield _head(number, "ResourceMetrics", group.resource)
        for inner, scope in enumerate(group.scope_metrics):
            yield _head(inner, "ScopeMetrics", scope.scope)
            for metric in scope.metrics:
                for _, points in _points(metric):
                    for point in points:
                        labels = ",".join(f"{escaped(entry.key)}={short(entry.value)}" for entry in point.attributes)
                        yield f"{escaped(metric.name)}{{{labels}}} {_figures(point)}"


def _points(metric: Any) -> Iterator[tuple[str, Any]]:
    kind = metric.WhichOneof("data")
    if kind is not None:
        yield kind, getattr(metric, kind).data_points


def _figures(point: Any) -> str:
    """The value, or count, sum, bounds and quantiles, on one line."""
    if hasattr(point, "as_int"):
        kind = point.WhichOneof("value")
        return str(getattr(point, kind)) if kind else "no value"
    out = [f"count={point.count}", f"sum={point.sum:g}"]
    ends = [name for name in ("min", "max") if name in point.DESCRIPTOR.fields_by_name and point.HasField(name)]
    out += [f"{name}={getattr(point, name):g}" for name in ends]
    if hasattr(point, "explicit_bounds"):
        bounds = [*(f"le{bound:g}" for bound in point.explicit_bounds), "leInf"]
        out += [f"{bound}={count}" for bound, count in zip(bounds, point.bucket_counts, strict=False)]
    if hasattr(point, "quantile_values"):
        out += [f"q{quantile.quantile:g}={quantile.value:g}" for quantile in point.quantile_values]
    if hasattr(point, "scale"):
        out += [f"scale={point.scale}", f"zero={point.zero_count}"]
        out += [f"{name}={list(side.bucket_counts)}@{side.offset}" for name, side in _sides(point) if side.bucket_counts]
    return " ".join(out)


def _sides(point: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("positive", point.positive), ("negative", point.negative)


def _time(nanoseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).strftime("%Y-%m-%d %H:%M:%S.%f") + " +0000 UTC"


def _attributes(attributes: Any, title: str = "Attributes", indent: str = "") -> Iterator[str]:
    if attributes:
        yield f"{indent}{title}:"
        for entry in attributes:
            yield f"{indent}     -> {escaped(entry.key)}: {typed(entry.value)}"


def _fields(values: dict[str, object]) -> Iterator[str]:
    width = max(map(len, values))
    for name, value in values.items():
        yield f"    {name:<{width}} : {value}"


def _groups(groups: Any, kind: str) -> Iterator[tuple[Any, list[str]]]:
    """Each scope with the lines above its items."""
    for number, group in enumerate(groups):
        lines = [f"Resource{kind} #{number}", f"Resource SchemaURL: {escaped(group.schema_url)}"]
        lines += _attributes(group.resource.attributes, "Resource attributes")
        for inner, scope in enumerate(getattr(group, f"scope_{kind.lower()}")):
            lines += [f"Scope{kind} #{inner}", f"Scope{kind} SchemaURL: {escaped(scope.schema_url)}"]
            lines.append(f"InstrumentationScope {escaped(scope.scope.name)} {escaped(scope.scope.version)}".rstrip())
            lines += _attributes(scope.scope.attributes, "InstrumentationScope attributes")
            yield scope, lines
            lines = []


def _detailed_traces(data: bytes) -> Iterator[str]:
    for scope, lines in _groups(ExportTraceServiceRequest.FromString(data).resource_spans, "Spans"):
        yield from lines
        for number, span in enumerate(scope.spans):
            yield f"Span #{number}"
            yield from _fields(
                {
                    "Trace ID": span.trace_id.hex(),
                    "Parent ID": span.parent_span_id.hex(),
                    "ID": span.span_id.hex(),
                    "Name": escaped(span.name),
                    "Kind": _KINDS.get(span.kind, span.kind),
                    "TraceState": escaped(span.trace_state),
                    "Start time": _time(span.start_time_unix_nano),
                    "End time": _time(span.end_time_unix_nano),
                    "Status code": _STATUS.get(span.status.code, span.status.code),
                    "Status message": escaped(span.status.message),
                }
            )
            yield from _attributes(span.attributes)
            for position, event in enumerate(span.events):
                yield f"SpanEvent #{position}"
                yield f"     -> Name: {escaped(event.name)}"
                yield f"     -> Timestamp: {_time(event.time_unix_nano)}"
                yield from _attributes(event.attributes, indent="     ")
            for position, link in enumerate(span.links):
                yield f"SpanLink #{position}"
                yield f"     -> Trace ID: {link.trace_id.hex()}"
                yield f"     -> ID: {link.span_id.hex()}"
                yield from _attributes(link.attributes, indent="     ")


def _detailed_logs(data: bytes) -> Iterator[str]:
    for scope, lines in _groups(ExportLogsServiceRequest.FromString(data).resource_logs, "Logs"):
        yield from lines
        for number, record in enumerate(scope.log_records):
            yield f"LogRecord #{number}"
            yield f"ObservedTimestamp: {_time(record.observed_time_unix_nano)}"
            yield f"Timestamp: {_time(record.time_unix_nano)}"
            yield f"SeverityText: {escaped(record.severity_text)}"
            yield f"SeverityNumber: {record.severity_number}"
            if record.event_name:
                yield f"EventName: {escaped(record.event_name)}"
            yield f"Body: {typed(record.body)}"
            yield from _attributes(record.attributes)
            yield f"Trace ID: {record.trace_id.hex()}"
            yield f"Span ID: {record.span_id.hex()}"
            yield f"Flags: {record.flags}"


def _detailed_metrics(data: bytes) -> Iterator[str]:
    for scope, lines in _groups(ExportMetricsServiceRequest.FromString(data).resource_metrics, "Metrics"):
        yield from lines
        for number, metric in enumerate(scope.metrics):
            yield f"Metric #{number}"
            yield "Descriptor:"
            for name in ("name", "description", "unit"):
                yield f"     -> {name.capitalize()}: {escaped(getattr(metric, name))}"
            for kind, points in _points(metric):
                yield f"     -> DataType: {kind.title().replace('_', '')}"
                yield from _temporality(getattr(metric, kind))
                for position, point in enumerate(points):
                    yield f"{'NumberDataPoints' if hasattr(point, 'as_int') else 'DataPoints'} #{position}"
                    yield from _attributes(point.attributes, "Data point attributes")
                    yield f"StartTimestamp: {_time(point.start_time_unix_nano)}"
                    yield f"Timestamp: {_time(point.time_unix_nano)}"
                    yield f"Value: {_figures(point)}"
                    yield from _exemplars(point)


def _temporality(data: Any) -> Iterator[str]:
    if hasattr(data, "is_monotonic"):
        yield f"     -> IsMonotonic: {str(data.is_monotonic).lower()}"
    if hasattr(data, "aggregation_temporality"):
        number = data.aggregation_temporality
        yield f"     -> AggregationTemporality: {_TEMPORALITY.get(number, number)}"


def _exemplars(point: Any) -> Iterator[str]:
    for position, exemplar in enumerate(getattr(point, "exemplars", ())):
        kind = exemplar.WhichOneof("value")
        yield f"Exemplar #{position}"
        yield f"     -> Trace ID: {exemplar.trace_id.hex()}"
        yield f"     -> Span ID: {exemplar.span_id.hex()}"
        yield f"     -> Timestamp: {_time(exemplar.time_unix_nano)}"
        yield f"     -> Value: {getattr(exemplar, kind) if kind else ''}"
        yield from _attributes(exemplar.filtered_attributes, "Filtered attributes", "     ")


_NORMAL = {Signal.TRACES: _normal_traces, Signal.LOGS: _normal_logs, Signal.METRICS: _normal_metrics}
_DETAILED = {Signal.TRACES: _detailed_traces, Signal.LOGS: _detailed_logs, Signal.METRICS: _detailed_metrics}
