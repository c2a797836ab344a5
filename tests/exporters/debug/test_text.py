"""OTLP requests as text."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.exporters.debug.text import detailed, escaped, normal, short, typed
from collector.model import Signal
from tests.support import any_value, attributes, span, traces

START = 1_790_000_000_123_456_789


def spans() -> bytes:
    one = span("GET /\n\x1b[31m", {"n": 1, "ok": True}, trace=b"\xaa" * 16, span_id=b"\xbb" * 8, start=START, error=True)
    one.status.message = "boom"
    event = one.events.add(name="retry", time_unix_nano=START)
    event.attributes.extend(attributes({"attempt": 2}))
    link = one.links.add(trace_id=b"\xcc" * 16, span_id=b"\xdd" * 8)
    link.attributes.extend(attributes({"why": "batch"}))
    request = traces(one, resource={"service.name": "api"}, scope="lib")
    request.resource_spans[0].scope_spans[0].scope.version = "1.2"
    second = request.resource_spans[0].scope_spans.add()
    second.spans.add(name="odd", kind=99).status.code = 77
    return request.SerializeToString()


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    gauge = scope.metrics.add(name="temperature", unit="Cel", description="how warm").gauge
    gauge.data_points.add(as_double=1.5, time_unix_nano=START, attributes=attributes({"room": "a"}))
    gauge.data_points.add()
    total = scope.metrics.add(name="jobs").sum
    total.is_monotonic, total.aggregation_temporality = True, 2
    exemplar = total.data_points.add(as_int=7).exemplars.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8, as_int=3)
    exemplar.filtered_attributes.extend(attributes({"user": "u"}))
    total.data_points[0].exemplars.add()
    histogram = scope.metrics.add(name="duration").histogram
    histogram.data_points.add(count=3, sum=4.5, min=1, bucket_counts=[1, 2], explicit_bounds=[2.5])
    scope.metrics.add(name="size").exponential_histogram.data_points.add(count=2, sum=3, scale=4, zero_count=1)
    scope.metrics[-1].exponential_histogram.data_points[0].positive.bucket_counts.extend([1, 0])
    quantiles = scope.metrics.add(name="old").summary.data_points.add(count=1, sum=2).quantile_values
    quantiles.add(quantile=0.5, value=2)
    scope.metrics.add(name="empty")
    return request


def logs() -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.attributes.extend(attributes({"s": 1}))
    record = scope.log_records.add(time_unix_nano=START, severity_number=9, severity_text="INFO", event_name="boot", flags=1)
    record.body.CopyFrom(any_value({"a": [1, "x"]}))
    record.attributes.extend(attributes({"k": b"\x00"}))
    scope.log_records.add().body.CopyFrom(any_value("plain"))
    return request.SerializeToString()


def test_normal_spans_are_one_line_each() -> None:
    assert normal(Signal.TRACES, spans()).splitlines() == [
        "ResourceTraces #0 service.name=api",
        "ScopeTraces #0 lib@1.2",
        rf"GET /\n\x1b[31m {'aa' * 16} {'bb' * 8} n=1 ok=true",
        "ScopeTraces #1",
        "odd  ",
    ]


def test_detailed_spans_show_every_field() -> None:
    text = detailed(Signal.TRACES, spans())
    for line in (
        "Resource attributes:",
        "     -> service.name: Str(api)",
        "InstrumentationScope lib 1.2",
        f"    Trace ID       : {'aa' * 16}",
        "    Kind           : Server",
        "    Start time     : 2026-09-21 14:13:20.123456 +0000 UTC",
        "    Status code    : Error",
        "    Status message : boom",
        "     -> n: Int(1)",
        "     -> Name: retry",
        "          -> attempt: Int(2)",
        f"     -> Trace ID: {'cc' * 16}",
        "          -> why: Str(batch)",
        "    Kind           : 99",
        "    Status code    : 77",
    ):
        assert line in text.splitlines()
    assert text.count("ResourceSpans #") == 1
    assert text.count("ScopeSpans #") == 2
    assert "\x1b" not in text


def test_normal_metrics_are_one_line_for_each_point() -> None:
    assert normal(Signal.METRICS, metrics().SerializeToString()).splitlines() == [
        "ResourceMetrics #0",
        "ScopeMetrics #0",
        "temperature{room=a} 1.5",
        "temperature{} no value",
        "jobs{} 7",
        "duration{} count=3 sum=4.5 min=1 le2.5=1 leInf=2",
        "size{} count=2 sum=3 scale=4 zero=1 positive=[1, 0]@0",
        "old{} count=1 sum=2 q0.5=2",
    ]


def test_detailed_metrics_show_descriptor_points_and_exemplars() -> None:
    lines = detailed(Signal.METRICS, metrics().SerializeToString()).splitlines()
    for line in (
        "     -> Name: temperature",
        "     -> Description: how warm",
        "     -> Unit: Cel",
        "     -> DataType: ExponentialHistogram",
        "     -> IsMonotonic: true",
        "     -> AggregationTemporality: Cumulative",
        "     -> AggregationTemporality: Unspecified",
        "     -> room: Str(a)",
        "Value: 7",
        f"     -> Span ID: {'02' * 8}",
        "     -> Value: 3",
        "          -> user: Str(u)",
    ):
        assert line in lines


def test_logs_show_body_and_attributes() -> None:
    assert normal(Signal.LOGS, logs()).splitlines() == ["ResourceLog #0", "ScopeLog #0 s=1", "{a:[1,x]} k=AA==", "plain"]
    lines = detailed(Signal.LOGS, logs()).splitlines()
    for line in (
        "Body: Map({a:[1,x]})",
        "     -> k: Bytes(AA==)",
        "SeverityNumber: 9",
        "EventName: boot",
        "Flags: 1",
        "Body: Str(plain)",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [(any_value(1.5), "Double(1.5)"), (any_value([]), "Slice([])"), (AnyValue(), "Empty()"), (any_value(False), "Bool(false)")],
)
def test_values_carry_their_type(value: Any, expected: str) -> None:
    assert typed(value) == expected


def test_text_cannot_steer_a_terminal() -> None:
    assert escaped("a\x1b]0;x\x07\r\u202e") == r"a\x1b]0;x\x07\r" + r"\u202e"
    assert escaped("ordinär €") == "ordinär €"
    assert short(any_value({"\x1b": "\x1b"})) == r"{\x1b:\x1b}"
