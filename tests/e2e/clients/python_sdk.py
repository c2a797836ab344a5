"""An application with the unmodified OpenTelemetry Python SDK: everything about the destination comes from OTEL_* variables.

Usage: python_sdk.py grpc|http. Prints one line of JSON with the ids and numbers the test looks for.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber, get_logger, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

DURATIONS = [0.003, 0.03, 0.3, 0.3, 3.0, 30.0]
SIZES = [1.0, 2.0, 2.0, 5.5, 1000.0, 0.0]


def main(protocol: str) -> None:
    """Send traces, metrics and logs, then say what was sent."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    spans, logs = TracerProvider(), LoggerProvider()
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    view = View(instrument_name="app.size", aggregation=ExponentialBucketHistogramAggregation())
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], views=[view])
    trace.set_tracer_provider(spans)
    set_logger_provider(logs)
    metrics.set_meter_provider(meters)
    sent = {"traces": requests(), **measurements(protocol)}
    for provider in (spans, logs, meters):
        provider.shutdown()
    print(json.dumps(sent))


def requests() -> list[str]:
    """Six requests, each with an LLM call and a log line inside; the last one fails."""
    tracer, logger, traces = trace.get_tracer("python-client"), get_logger("python-client"), []
    waited = metrics.get_meter("python-client").create_histogram("app.wait", unit="s")
    for number in range(6):
        with tracer.start_as_current_span("process_request") as parent:
            with tracer.start_as_current_span("chat gpt-4o") as span:
                span.set_attributes(
                    {
                        "gen_ai.operation.name": "chat",
                        "gen_ai.provider.name": "openai",
                        "gen_ai.request.model": "gpt-4o",
                        "gen_ai.response.id": f"python-{os.getpid()}-{number}",
                        "gen_ai.usage.input_tokens": 1000,
                        "gen_ai.usage.output_tokens": 200,
                        "user.note": "write to anna.python@example.org",
                    }
                )
                if number == 5:
                    span.set_status(trace.StatusCode.ERROR, "boom")
                waited.record(0.25)
                body = json.dumps({"event": "call finished", "request_id": f"req-{os.getpid()}-{number}", "tokens_used": 1200})
                logger.emit(
                    severity_number=SeverityNumber.INFO, severity_text="INFO", body=body, attributes={"agent_type": "react"}
                )
            traces.append(f"{parent.get_span_context().trace_id:032x}")
    return traces


def measurements(protocol: str) -> dict[str, object]:
    """A counter, a histogram and an exponential histogram with known values."""
    meter, labels = metrics.get_meter("python-client"), {"route": "/chat", "via": protocol}
    counter = meter.create_counter("app.jobs", unit="{job}", description="Jobs done")
    histogram = meter.create_histogram("app.duration", unit="s")
    exponential = meter.create_histogram("app.size", unit="By")
    for amount in (1, 2, 39):
        counter.add(amount, labels)
    for value in DURATIONS:
        histogram.record(value, labels)
    for value in SIZES:
        exponential.record(value, labels)
    return {"pid": os.getpid(), "jobs": 42, "durations": DURATIONS, "sizes": SIZES, "calls": 6, "cost": 6 * 0.0045}


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    main(sys.argv[1])
