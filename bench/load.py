"""The "512 request": 512 spans of about 753 bytes and 12 attributes, the same for every program that is measured.

A tenth of the spans are LLM calls with a prompt of 1 KB, 2 % of the traces have an error, 1 % of the spans hold personal data.
Trace ids are fresh in every request: repeating them makes sampling look cheap. Everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

SPANS, LONGEST_TRACE = 512, 8
LLM, ERROR, PERSONAL = 0.10, 0.02, 0.01
CANARY = "canary"
"""Part of every planted mail address; none may leave."""
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
    tokens: dict[str, tuple[int, int]]
    spans: int


def requests(seed: int = 1, spans: int = SPANS) -> Iterator[Request]:
    """An endless stream of requests, all different."""
    dice = random.Random(seed)
    while True:
        yield _request(dice, spans)


def _request(dice: random.Random, spans: int) -> Request:
    out = ExportTraceServiceRequest()
    group = out.resource_spans.add()
    _resource(group)
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.requests", "0.59b0"
    traces: dict[bytes, int] = {}
    failed: set[bytes] = set()
    tokens = dict.fromkeys(_MODELS, (0, 0))
    while len(scope.spans) < spans:
        trace, size = dice.randbytes(16), min(dice.randint(1, LONGEST_TRACE), spans - len(scope.spans))
        traces[trace] = size
        wrong = dice.randrange(size) if dice.random() < ERROR else -1
        for number in range(size):
            span = _span(dice, trace)
            if dice.random() < LLM:
                model, used = _llm(dice, span)
                tokens[model] = (tokens[model][0] + used[0], tokens[model][1] + used[1])
            else:
                _http(dice, span)
            if number == wrong:
                span.status.code, span.status.message = 2, "upstream did not answer"  # type: ignore[assignment]
                failed.add(trace)
            scope.spans.append(span)
    return Request(out.SerializeToString(), traces, frozenset(failed), tokens, spans)


def _resource(group: ResourceSpans) -> None:
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


def _http(dice: random.Random, span: Span) -> None:
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
    if dice.random() < PERSONAL:
        values["app.note"] = f"{_text(dice, 60)} {CANARY}{number}@example.com"
    span.attributes.extend(_attributes(values))


def _llm(dice: random.Random, span: Span) -> tuple[str, tuple[int, int]]:
    model, used = dice.choice(_MODELS), (dice.randint(50, 4000), dice.randint(1, 1000))
    span.name, span.kind = f"chat {model}", Span.SPAN_KIND_CLIENT
    prompt = _text(dice, 1024)
    if dice.random() < PERSONAL:
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
    return model, used


def _text(dice: random.Random, size: int) -> str:
    return " ".join(dice.choices(_WORDS, k=size // 4))[:size]


def _attributes(values: dict[str, object]) -> list[KeyValue]:
    kinds = {str: "string_value", int: "int_value", float: "double_value"}
    return [KeyValue(key=key, value=AnyValue(**{kinds[type(value)]: value})) for key, value in values.items()]
