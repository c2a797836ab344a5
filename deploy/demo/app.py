"""The demo application: an unmodified OpenTelemetry SDK, a shop assistant that calls a fake LLM, and a few mistakes.

Every request passes the six kinds of work worth a span: entry at the gateway, an agent message, a tool, a database query,
an external service, a message broker. One in twelve fails. Prompts contain an invented customer's address, which must not
be found in any backend. Usage: app.py [--requests N] [--rate PER_SECOND] [--port PORT]; without N it runs until it is ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import fake_llm
from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber, get_logger, set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

MODELS = ["gpt-4o", "gpt-4o", "gpt-4o-mini", "gpt-4o-mini", "gpt-4-turbo", "boom"]
PROMPT = "Customer jo.demo@example.org, card 4111 1111 1111 1111, asks: where is my parcel?"


class Demo:
    """One application with its providers."""

    def __init__(self, llm_port: int) -> None:
        self.llm = f"http://127.0.0.1:{llm_port}/v1/chat/completions"
        self.spans, self.logs = TracerProvider(), LoggerProvider()
        self.meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=5000)])
        self.spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=1000))
        self.logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(), schedule_delay_millis=1000))
        trace.set_tracer_provider(self.spans)
        set_logger_provider(self.logs)
        metrics.set_meter_provider(self.meters)
        self.tracer, self.logger = trace.get_tracer("demo"), get_logger("demo.agent")
        meter = metrics.get_meter("demo")
        self.requests = meter.create_counter("demo.requests", unit="{request}", description="Requests answered")
        self.duration = meter.create_histogram("demo.request.duration", unit="s", description="Time to answer")

    @contextmanager
    def span(self, name: str, kind: SpanKind = SpanKind.INTERNAL, **values: object) -> Iterator[trace.Span]:
        """A span whose attribute names are written with two underscores for each dot."""
        attributes = {key.replace("__", "."): value for key, value in values.items()}
        with self.tracer.start_as_current_span(name, kind=kind, attributes=attributes) as span:  # type: ignore[arg-type]
            time.sleep(random.uniform(0.001, 0.01))
            yield span

    def request(self, number: int) -> None:
        """Answer one request."""
        began, request_id = time.monotonic(), f"demo-{number}"
        route = {"http__request__method": "POST", "http__route": "/chat"}
        with self.span("POST /chat", SpanKind.SERVER, request_id=request_id, **route) as entry:
            try:
                with self.span("agent.supervisor", agent__name="supervisor", agent__type="supervisor"):
                    self.work(random.choice(MODELS), request_id)
                status = 200
            except urllib.error.HTTPError as error:
                error.close()
                status = 502
            entry.set_attribute("http.response.status_code", status)
            self.say("request answered", request_id, status)
        self.requests.add(1, {"route": "/chat", "status": str(status)})
        self.duration.record(time.monotonic() - began, {"route": "/chat"})

    def work(self, model: str, request_id: str) -> None:
        """What the agent does."""
        with self.span("tool.search", tool="search"):
            with self.span("SELECT orders", SpanKind.CLIENT, db__system__name="postgresql", db__operation__name="SELECT"):
                pass
            with self.span("GET", SpanKind.CLIENT, http__request__method="GET", server__address="parcels.example.org"):
                pass
        with self.span("send answers", SpanKind.PRODUCER, messaging__system="kafka", messaging__destination__name="answers"):
            pass
        self.call(model, request_id)

    def call(self, model: str, request_id: str) -> None:
        """One LLM call, described by the OpenTelemetry conventions for generative AI."""
        messages = [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]
        about = {"gen_ai__operation__name": "chat", "gen_ai__provider__name": "openai", "gen_ai__request__model": model}
        with self.span(f"chat {model}", SpanKind.CLIENT, gen_ai__input__messages=json.dumps(messages), **about) as span:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]}).encode()
            with urllib.request.urlopen(urllib.request.Request(self.llm, body), timeout=5) as reply:
                answer = json.load(reply)
            span.set_attributes(
                {
                    "gen_ai.response.id": answer["id"],
                    "gen_ai.response.model": answer["model"],
                    "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
                    "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
                    "gen_ai.usage.cache_read.input_tokens": answer["usage"]["prompt_tokens_details"]["cached_tokens"],
                }
            )
            self.say(f"asked {model}: {PROMPT}", request_id, 200)

    def say(self, event: str, request_id: str, status: int) -> None:
        """One log line as structlog would write it."""
        bad = status >= 500
        self.logger.emit(
            severity_number=SeverityNumber.ERROR if bad else SeverityNumber.INFO,
            severity_text="ERROR" if bad else "INFO",
            body=json.dumps({"event": event, "request_id": request_id, "status": status}),
        )

    def close(self) -> None:
        """Send what is left."""
        for provider in (self.spans, self.logs, self.meters):
            provider.shutdown()


def main() -> None:
    """Run until ended or until N requests are done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = fake_llm.serve(options.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    demo = Demo(server.server_address[1])
    for number in itertools.islice(itertools.count(), options.requests or None):
        demo.request(number)
        if ended.wait(1 / options.rate):
            break
    demo.close()
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
