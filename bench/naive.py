"""The same work done the obvious way, to compare with: decode every span, loop over every attribute, stdlib `re`.

Prices LLM spans, keeps traces with an error and ten percent of the rest (otelcol's hash, 5 s window), masks personal data and
secrets in what is kept. `python -m bench.naive LISTEN TARGET` runs it as a program with a gRPC server and client.
"""

from __future__ import annotations

import re
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable

from genai_prices import Usage, calc_price
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from bench.programs import BLOCKED

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LIMIT = int((2**64 - 1) * 0.1)
_SALTED = 0x39F88FE94395B4FD  # FNV-1a of "default-hash-seed"
_WAIT = 5.0
_PATTERNS = [re.compile(text) for text in BLOCKED]
_ERROR_VALUES = ("error", "timeout")


def _rates(model: str) -> tuple[float, float]:
    million = 1_000_000
    return (
        float(calc_price(Usage(input_tokens=million), model, provider_id="openai").total_price) / million,
        float(calc_price(Usage(output_tokens=million), model, provider_id="openai").total_price) / million,
    )


class Naive:
    """A pipeline over decoded spans. `cost`: USD so far."""

    def __init__(self) -> None:
        self.cost = 0.0
        self.calls = 0
        self._rates: dict[str, tuple[float, float]] = {}
        self._sampled: set[bytes] = set()
        self._held: OrderedDict[bytes, tuple[float, list[tuple[ResourceSpans, ScopeSpans, Span]]]] = OrderedDict()

    def process(self, data: bytes, now: float) -> bytes | None:
        """An encoded request in, an encoded request out, or None when nothing was kept."""
        request = ExportTraceServiceRequest.FromString(data)
        kept: list[tuple[ResourceSpans, ScopeSpans, Span]] = []
        for group in request.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    values = {entry.key: _value(entry.value) for entry in span.attributes}
                    self._price(span, values)
                    kept += self._sample(group, scope, span, values, now)
        while self._held and next(iter(self._held.values()))[0] <= now - _WAIT:
            self._held.popitem(last=False)
        for _, _, span in kept:
            _redact(span)
        return _encode(kept) if kept else None

    def _price(self, span: Span, values: dict[str, object]) -> None:
        model = values.get("gen_ai.response.model")
        if not isinstance(model, str):
            return
        if model not in self._rates:
            self._rates[model] = _rates(model)
        rates = self._rates[model]
        tokens = values["gen_ai.usage.input_tokens"], values["gen_ai.usage.output_tokens"]
        cost = sum(int(str(count)) * rate for count, rate in zip(tokens, rates, strict=True))
        self.cost += cost
        self.calls += 1
        entry = span.attributes.add(key="llm.cost.usd")
        entry.value.double_value = cost

    def _sample(
        self, group: ResourceSpans, scope: ScopeSpans, span: Span, values: dict[str, object], now: float
    ) -> list[tuple[ResourceSpans, ScopeSpans, Span]]:
        trace, here = span.trace_id, (group, scope, span)
        if trace in self._sampled:
            return [here]
        status = values.get("http.response.status_code", 0)
        failed = span.status.code == 2 or values.get("error.type") or values.get("status") in _ERROR_VALUES
        if failed or (isinstance(status, int) and status >= 500) or share_hash(trace) <= LIMIT:
            self._sampled.add(trace)
            return [*self._held.pop(trace, (0, []))[1], here]
        self._held.setdefault(trace, (now, []))[1].append(here)
        return []


def _value(value: object) -> object:
    return getattr(value, value.WhichOneof("value") or "string_value")  # type: ignore[attr-defined]


def share_hash(trace: bytes) -> int:
    """FNV-1a 64 of otelcol's default salt and the trace id."""
    state = _SALTED
    for byte in trace:
        state = ((state ^ byte) * 0x100000001B3) & (2**64 - 1)
    return state


def _redact(span: Span) -> None:
    for entry in span.attributes:
        if entry.value.HasField("string_value"):
            text = entry.value.string_value
            for pattern in _PATTERNS:
                text = pattern.sub("****", text)
            if text != entry.value.string_value:
                entry.value.string_value = text


def _encode(kept: Iterable[tuple[ResourceSpans, ScopeSpans, Span]]) -> bytes:
    out = ExportTraceServiceRequest()
    targets: dict[int, ScopeSpans] = {}
    for group, scope, span in kept:
        target = targets.get(id(scope))
        if target is None:
            new = out.resource_spans.add()
            new.resource.CopyFrom(group.resource)
            target = targets[id(scope)] = new.scope_spans.add()
            target.scope.CopyFrom(scope.scope)
        target.spans.append(span)
    return out.SerializeToString()


def serve(listen: str, target: str) -> None:
    """Receive OTLP/gRPC on `listen`, send what is kept to `target`, until the process is ended."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    pipeline = Naive()
    send = grpc.insecure_channel(target).unary_unary(
        EXPORT,
        request_serializer=lambda data: data,
        response_deserializer=ExportTraceServiceResponse.FromString,
    )

    def export(data: bytes, _: grpc.ServicerContext) -> ExportTraceServiceResponse:
        out = pipeline.process(data, time.time())
        if out is not None:
            send(out)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(export, response_serializer=ExportTraceServiceResponse.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 64 << 20)])
    service, method = EXPORT[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(listen)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(*sys.argv[1:])
