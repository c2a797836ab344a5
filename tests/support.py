"""What tests of all rooms share: settings with real meters, OTLP builders, waiting for a condition."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.component import Settings
from collector.errors import Refused
from collector.meters import Meters
from collector.model import Batch, Signal, open_envelope

REQUEST: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}


class FakeHold:
    """A reservation against FakeBudget."""

    def __init__(self, budget: FakeBudget) -> None:
        self.budget, self.size = budget, 0

    def grow(self, size: int) -> None:
        if self.budget.used + size > self.budget.limit:
            raise Refused("data refused due to high memory usage", after=1, reason="memory")
        self.budget.used += size
        self.size += size

    def __enter__(self) -> FakeHold:
        return self

    def __exit__(self, *exc: object) -> None:
        self.budget.used -= self.size
        self.size = 0


class FakeBudget:
    """A byte budget with a limit a test can lower."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit, self.used, self.message = limit, 0, 64 << 20

    def hold(self, size: int = 0) -> FakeHold:
        hold = FakeHold(self)
        hold.grow(size)
        return hold

    def check(self) -> None:
        if self.used > self.limit:
            raise Refused("data refused due to high memory usage", after=1, reason="memory")

    def message_limit(self) -> int:
        return self.message


class FakeHost:
    """A host in any state."""

    def __init__(self) -> None:
        self.budget = FakeBudget()
        self.exporters: dict[str, Any] = {}
        self.now_state = "running"
        self.shown: dict[str, Any] = {}
        self.text = b""

    def state(self) -> str:
        return self.now_state

    def status(self) -> dict[str, Any]:
        return self.shown

    def exposition(self, accept: str, *, own: bool) -> tuple[bytes, str]:
        return self.text, "text/plain; version=0.0.4"


class Drops(Counter[tuple[Signal, str]]):
    """Counts what a component booked as dropped: `drops[Signal.TRACES, "sampled"]`."""

    def __call__(self, signal: Signal, count: int, reason: str) -> None:
        self[signal, reason] += count


def settings(component_id: str = "test", host: FakeHost | None = None) -> Settings:
    """Settings of a component under test; `.drop` is a Drops, `.meters` are real."""
    return Settings(component_id, Meters(), logging.getLogger(f"collector.{component_id}"), host or FakeHost(), Drops())


def build(cls: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A component from plain configuration, validated as the service would."""
    return cls(cls.Config.model_validate(dict(config or {})), settings(**options))


def any_value(value: object) -> AnyValue:
    """The AnyValue of a Python value."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        out = AnyValue()
        out.array_value.values.extend(any_value(v) for v in value)
        return out
    if isinstance(value, dict):
        out = AnyValue()
        out.kvlist_value.values.extend(KeyValue(key=k, value=any_value(v)) for k, v in value.items())
        return out
    return AnyValue(string_value=str(value))


def attributes(values: Mapping[str, object]) -> list[KeyValue]:
    """Attributes of a Python mapping."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def attribute(owner: Any, key: str) -> Any:
    """The Python value of one attribute of a span, log record, resource ...; None when absent."""
    for entry in owner.attributes:
        if entry.key == key:
            kind = entry.value.WhichOneof("value")
            return None if kind is None else getattr(entry.value, kind)
    return None


_random = random.Random(20261121)


def span(
    name: str = "op",
    values: Mapping[str, object] | None = None,
    *,
    trace: bytes | None = None,
    error: bool = False,
    parent: bytes = b"",
    start: int | None = None,
    duration: float = 0.1,
    span_id: bytes | None = None,
) -> Span:
    """A span; ids random but reproducible, `duration` seconds."""
    start = start if start is not None else time.time_ns()
    out = Span(
        trace_id=trace or _random.randbytes(16),
        span_id=span_id or _random.randbytes(8),
        parent_span_id=parent,
        name=name,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
        end_time_unix_nano=start + int(duration * 1e9),
        attributes=attributes(values or {}),
    )
    if error:
        out.status.code = 2  # type: ignore[assignment]
    return out


def traces(*spans: Span, resource: Mapping[str, object] | None = None, scope: str = "test") -> ExportTraceServiceRequest:
    """A request with one resource and one scope."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(attributes(resource if resource is not None else {"service.name": "api"}))
    inner = group.scope_spans.add()
    inner.scope.name = scope
    inner.spans.extend(spans)
    return request


def batch(request: Any, signal: Signal = Signal.TRACES) -> Batch:
    """An opened request."""
    return open_envelope(signal, request.SerializeToString())


def decode(batch_: Batch | None) -> Any:
    """The full request of a batch; an empty one for None."""
    return REQUEST[batch_.signal].FromString(batch_.encode()) if batch_ else ExportTraceServiceRequest()


def spans_of(batch_: Batch | None) -> list[Span]:
    """All spans of a batch."""
    return [s for group in decode(batch_).resource_spans for scope in group.scope_spans for s in scope.spans]


async def eventually(condition: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """Wait until `condition()` is true and return it; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(0.01)
