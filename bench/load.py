"""The "512 request": 512 spans of about 753 bytes and 12 attributes, the same for every program that is measured.

A tenth of the spans are LLM calls with a prompt of 1 KB, 2 % of the traces have an error, 1 % of the spans hold personal data.
Trace ids are fresh in every request: repeating them makes sampling look cheap. Everything follows from the seed. A `Template`
makes many requests out of one by giving it other trace ids, which takes microseconds, so that the load itself costs little.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import shake_128

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

SPANS, LONGEST_TRACE = 512, 8
LLM, ERROR, PERSONAL = 0.10, 0.02, 0.01
CANARY = "canary"
"""Part of every planted mail address; none may leave."""
Call = tuple[str, int, int]
"""Model, input tokens, output tokens of one LLM span."""
_MODELS = ("gpt-4o", "gpt-4o-mini")
_TEXT = "the order was packed and left our house this morning by train it should reach you before the weekend"
_WORDS = _TEXT.split()
_START = 1_780_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded export request and what a program must make of it."""

    data: bytes
    traces: dict[bytes, int]
    failed: frozenset[bytes]
    calls: dict[bytes, list[Call]]
    spans: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a span carries: its `own` attributes, `extra` ones of `size` bytes each; `personal`: the share with a mail address."""

    extra: int = 0
    size: int = 0
    own: bool = True
    personal: float = PERSONAL


USUAL = Shape()


def requests(seed: int = 1, spans: int = SPANS, shape: Shape = USUAL) -> Iterator[Request]:
    """An endless stream of requests, all different."""
    dice = random.Random(seed)
    while True:
        yield _request(dice, spans, shape)


@dataclass(frozen=True, slots=True)
class Template:
    """A request whose ids are replaced: `places` are (offset, number of the trace), `answers` offsets of ids of LLM responses.

    `hexed`: trace ids are hex digits, as in JSON.
    """

    data: bytes
    items: int
    sizes: list[int] = field(default_factory=list)
    failed: frozenset[int] = frozenset()
    calls: dict[int, list[Call]] = field(default_factory=dict)
    places: list[tuple[int, int]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    hexed: bool = False

    @classmethod
    def of(cls, request: Request, text: bytes = b"") -> Template:
        """From a request, or from `text`, the same request as JSON."""
        numbers = {trace: number for number, trace in enumerate(request.traces)}
        ids = [trace.hex().encode() if text else b"\x0a\x10" + trace for trace in numbers]
        before, data = 0 if text else 2, text or request.data
        found = re.finditer(b"|".join(map(re.escape, ids)), data)
        number_of = dict(zip(ids, numbers.values(), strict=True))
        return cls(
            data,
            request.spans,
            list(request.traces.values()),
            frozenset(numbers[trace] for trace in request.failed),
            {numbers[trace]: calls for trace, calls in request.calls.items()},
            [(match.start() + before, number_of[match.group()]) for match in found],
            [match.start(1) for match in re.finditer(rb"chatcmpl-([0-9a-f]{24})", data)],
            bool(text),
        )

    def ids(self, number: int) -> list[bytes]:
        """The trace ids of request `number`."""
        text = shake_128(number.to_bytes(8)).digest(16 * len(self.sizes))
        return [text[at : at + 16] for at in range(0, len(text), 16)]

    def fresh(self, number: int) -> bytes:
        """The request with the ids of `number`."""
        if not self.places:
            return self.data
        ids = [trace.hex().encode() for trace in self.ids(number)] if self.hexed else self.ids(number)
        out, width = bytearray(self.data), 32 if self.hexed else 16
        for offset, trace in self.places:
            out[offset : offset + width] = ids[trace]
        answers = shake_128(number.to_bytes(8)).hexdigest(12 * len(self.answers)).encode()
        for at, offset in enumerate(self.answers):
            out[offset : offset + 24] = answers[24 * at : 24 * at + 24]
        return bytes(out)


def logs(seed: int, records: int) -> Template:
    """Log records of about 300 bytes, one in a hundred with an address."""
    dice, out = random.Random(seed), ExportLogsServiceRequest()
    group = out.resource_logs.add()
    _resource(group)
    scope = group.scope_logs.add()
    for _ in range(records):
        record = scope.log_records.add(time_unix_nano=_START + dice.randrange(10**12), severity_number=9, severity_text="INFO")
        mail = f" {CANARY}{dice.randrange(10**6)}@example.com" if dice.random() < PERSONAL else ""
        record.body.string_value = _text(dice, 160) + mail
        record.attributes.extend(_attributes({"logger.name": "shop.orders", "thread.name": "worker-3", "code.lineno": 217}))
    return Template(out.SerializeToString(), records)


def metrics(seed: int, points: int) -> Template:
    """Sums of `points` series in metrics of ten."""
    dice, out = random.Random(seed), ExportMetricsServiceRequest()
    group = out.resource_metrics.add()
    _resource(group)
    scope = group.scope_metrics.add()
    for number in range(points // 10):
        metric = scope.metrics.add(name=f"shop.orders.{number}", unit="1")
        metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2  # type: ignore[assignment]
        for series in range(10):
            point = metric.sum.data_points.add(start_time_unix_nano=_START, time_unix_nano=_START + 10**9)
            point.as_int = dice.randrange(10**6)
            point.attributes.extend(_attributes({"http.route": f"/api/v1/orders/{series}", "http.response.status_code": 200}))
    return Template(out.SerializeToString(), points)


def _request(dice: random.Random, spans: int, shape: Shape) -> Request:
    out = ExportTraceServiceRequest()
    group = out.resource_spans.add()
    _resource(group)
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.requests", "0.59b0"
    traces: dict[bytes, int] = {}
    failed: set[bytes] = set()
    calls: dict[bytes, list[Call]] = {}
    while len(scope.spans) < spans:
        trace, size = dice.randbytes(16), min(dice.randint(1, LONGEST_TRACE), spans - len(scope.spans))
        traces[trace] = size
        wrong = dice.randrange(size) if dice.random() < ERROR else -1
        for number in range(size):
            span = _span(dice, trace)
            if shape.own and dice.random() < LLM:
                calls.setdefault(trace, []).append(_llm(dice, span, shape))
            elif shape.own:
                _http(dice, span, shape)
            else:
                span.name = "GET"
            span.attributes.extend(_attributes({f"app.extra.{i}": _text(dice, shape.size) for i in range(shape.extra)}))
            if number == wrong:
                span.status.code, span.status.message = 2, "upstream did not answer"  # type: ignore[assignment]
                failed.add(trace)
            scope.spans.append(span)
    return Request(out.SerializeToString(), traces, frozenset(failed), calls, spans)


def _resource(group: ResourceSpans | ResourceLogs | ResourceMetrics) -> None:
    values = {"service.name": "shop", "service.version": "3.1.4", "k8s.pod.name": "shop-7d9f8b6c5-x2x4z", "host.name": "node-17"}
    group.resource.attributes.extend(_attributes(values))


def _span(dice: random.Random, trace: bytes) -> Span:
    start = _START + dice.randrange(10**12)
    return Span(
        trace_id=trace,
        span_id=dice.randbytes(8),
        parent_span_id=dice.randbytes(8),
        start_time_unix_nano=start,
        end_time_unix_nano=start + dice.randrange(10**6, 10**9),
        flags=0x101,
    )


def _http(dice: random.Random, span: Span, shape: Shape) -> None:
    number = dice.randrange(10**6)
    span.name, span.kind = "POST /api/v1/orders/{id}/lines", Span.SPAN_KIND_SERVER
    values: dict[str, object] = {
        "http.request.method": "POST",
        "http.response.status_code": dice.choice((200, 200, 201, 404)),
        "http.route": "/api/v1/orders/{id}/lines",
        "url.path": f"/api/v1/orders/{number}/lines",
        "url.scheme": "https",
        "server.address": "orders.shop.svc.cluster.local",
        "server.port": 8443,
        "network.protocol.version": "1.1",
        "user_agent.original": "python-requests/2.32.3 opentelemetry-instrumentation/0.59b0",
        "app.note": _text(dice, 120),
        "app.step": dice.choice(("reserve", "charge", "ship")),
        "thread.name": f"ThreadPoolExecutor-0_{number % 16}",
    }
    if dice.random() < shape.personal:
        values["app.note"] = f"{_text(dice, 60)} {CANARY}{number}@example.com"
    span.attributes.extend(_attributes(values))


def _llm(dice: random.Random, span: Span, shape: Shape) -> Call:
    model, used = dice.choice(_MODELS), (dice.randint(50, 4000), dice.randint(1, 1000))
    span.name, span.kind = f"chat {model}", Span.SPAN_KIND_CLIENT
    prompt = _text(dice, 1024)
    if dice.random() < shape.personal:
        prompt = f"{prompt[:500]} {CANARY}{dice.randrange(10**6)}@example.com {prompt[500:]}"
    values = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": f"chatcmpl-{dice.randbytes(12).hex()}",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.usage.input_tokens": used[0],
        "gen_ai.usage.output_tokens": used[1],
        "gen_ai.prompt": prompt,
        "server.address": "api.openai.com",
        "app.step": "answer",
    }
    span.attributes.extend(_attributes(values))
    return model, *used


def _text(dice: random.Random, size: int) -> str:
    return " ".join(dice.choices(_WORDS, k=size // 4))[:size]


def _attributes(values: dict[str, object]) -> list[KeyValue]:
    kinds = {str: "string_value", int: "int_value", float: "double_value"}
    return [KeyValue(key=key, value=AnyValue(**{kinds[type(value)]: value})) for key, value in values.items()]
