"""Keeps the newest traces and log records in memory, for the console page and the terminal; nothing leaves the process.

Put it behind `redaction`: it shows what it is given. Oldest data goes first when `max_bytes` is reached.

Example:
    max_traces: 200
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from collector.component import Exporter, Settings
from collector.fields import ByteSize, Config
from collector.model import Payload, Signal

_TEXT = 1024
_ATTRIBUTES = 64
_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "ai.usage.promptTokens",
    "prompt_tokens",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "ai.usage.completionTokens",
    "completion_tokens",
)
_MODEL = (
    "llm.cost.model",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.model_name",
    "llm.model",
    "ai.model.id",
    "model",
)
_KIND = ("", "internal", "server", "client", "producer", "consumer")


class PeekConfig(Config):
    """How much is kept."""

    max_traces: int = Field(200, ge=1, le=10_000)
    """Newest traces kept."""
    max_logs: int = Field(1000, ge=1, le=100_000)
    """Newest log records kept."""
    max_bytes: ByteSize = 16 << 20
    """Bound of all that is kept, in bytes."""
    terminal: bool = True
    """Write one line for each trace with an LLM call or an error, and for the first span, to the own log."""


class Peek(Exporter):
    """`traces()` and `logs()` give what is kept, newest first, ready for JSON."""

    Config = PeekConfig

    def __init__(self, config: Any, settings: Settings) -> None:
        super().__init__(config, settings)
        self._traces: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._logs: deque[dict[str, Any]] = deque()
        self._bytes = 0
        self._first = True

    async def send(self, payload: Payload) -> int:
        """Keep what can be shown; metrics are shown by the prometheus exporter."""
        if payload.signal is Signal.TRACES:
            self._keep_spans(payload)
        elif payload.signal is Signal.LOGS:
            self._keep_logs(payload)
        return 0

    def traces(self) -> list[dict[str, Any]]:
        """Newest first: trace_id, spans, and what they add up to."""
        return [_trace(trace_id, spans) for trace_id, spans in reversed(self._traces.items())]

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """One trace with all its spans, None when it is not kept."""
        spans = self._traces.get(trace_id)
        return None if spans is None else {**_trace(trace_id, spans), "spans": sorted(spans, key=lambda s: s["start"])}

    def logs(self) -> list[dict[str, Any]]:
        """Log records, newest first."""
        return list(reversed(self._logs))

    def _keep_spans(self, payload: Payload) -> None:
        touched = []
        for row in _spans(payload.data):
            trace_id = row.pop("trace_id")
            if trace_id not in self._traces:
                self._traces[trace_id] = []
            self._traces.move_to_end(trace_id)
            self._traces[trace_id].append(row)
            self._bytes += row["bytes"]
            touched.append(trace_id)
        while len(self._traces) > self.config.max_traces or self._bytes > self.config.max_bytes:
            if not self._traces:
                break
            self._bytes -= sum(row["bytes"] for row in self._traces.popitem(last=False)[1])
        if self.config.terminal:
            self._tell(dict.fromkeys(touched))

    def _tell(self, trace_ids: Iterable[str]) -> None:
        for trace_id in trace_ids:
            summary = self.trace(trace_id)
            if summary is None or not (self._first or summary["models"] or summary["errors"]):
                continue
            shown = {"service": summary["service"], "span": summary["name"]}
            if summary["models"]:
                shown |= {"model": ",".join(summary["models"]), "tokens": summary["tokens"]}
            if summary["cost_usd"] is not None:
                shown["cost"] = f"${summary['cost_usd']:.6g}"
            if summary["errors"]:
                shown["errors"] = summary["errors"]
            self.settings.log.info("first trace" if self._first else "trace", extra={**shown, "trace_id": trace_id})
            self._first = False

    def _keep_logs(self, payload: Payload) -> None:
        for row in _log_records(payload.data):
            self._logs.append(row)
            self._bytes += row["bytes"]
        while self._logs and (len(self._logs) > self.config.max_logs or self._bytes > self.config.max_bytes):
            self._bytes -= self._logs.popleft()["bytes"]


def _trace(trace_id: str, spans: list[dict[str, Any]]) -> dict[str, Any]:
    root = next((s for s in spans if not s["parent"]), min(spans, key=lambda s: s["start"]))
    costs = [s["cost_usd"] for s in spans if s["cost_usd"] is not None]
    start, end = min(s["start"] for s in spans), max(s["end"] for s in spans)
    return {
        "trace_id": trace_id,
        "name": root["name"],
        "service": root["service"],
        "time": datetime.fromtimestamp(start / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration_ms": round((end - start) / 1e6, 3),
        "span_count": len(spans),
        "errors": sum(s["error"] for s in spans),
        "models": sorted({s["model"] for s in spans if s["model"]}),
        "tokens": sum(s["input_tokens"] + s["output_tokens"] for s in spans),
        "cost_usd": sum(costs) if costs else None,
    }


def _spans(data: bytes) -> Iterator[dict[str, Any]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for group in ExportTraceServiceRequest.FromString(data).resource_spans:
        service = _values(group.resource.attributes).get("service.name", "unknown_service")
        for scope in group.scope_spans:
            for span in scope.spans:
                values = _values(span.attributes)
                yield {
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name[:_TEXT],
                    "service": service,
                    "kind": _KIND[span.kind] if 0 <= span.kind < len(_KIND) else "",
                    "start": span.start_time_unix_nano,
                    "end": max(span.end_time_unix_nano, span.start_time_unix_nano),
                    "error": span.status.code == 2,
                    "status": span.status.message[:_TEXT],
                    "model": _model(values),
                    "input_tokens": _number(values, _INPUT),
                    "output_tokens": _number(values, _OUTPUT),
                    "cost_usd": values["llm.cost_usd"] if isinstance(values.get("llm.cost_usd"), float | int) else None,
                    "attributes": values,
                    "events": [event.name[:_TEXT] for event in span.events[:16]],
                    "bytes": span.ByteSize() + sys.getsizeof(values) + 1024,
                }


def _model(values: dict[str, Any]) -> str:
    if not any(key.startswith(("gen_ai.", "llm.", "ai.")) for key in values):
        return ""
    return next((str(values[key]) for key in _MODEL if values.get(key)), "")


def _log_records(data: bytes) -> Iterator[dict[str, Any]]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    for group in ExportLogsServiceRequest.FromString(data).resource_logs:
        service = _values(group.resource.attributes).get("service.name", "unknown_service")
        for scope in group.scope_logs:
            for record in scope.log_records:
                nanos = record.time_unix_nano or record.observed_time_unix_nano
                yield {
                    "time": datetime.fromtimestamp(nanos / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "service": service,
                    "severity": record.severity_text or str(record.severity_number),
                    "body": _plain(record.body),
                    "trace_id": record.trace_id.hex(),
                    "bytes": record.ByteSize() + 1024,
                }


def _values(attributes: Any) -> dict[str, Any]:
    return {entry.key[:_TEXT]: _plain(entry.value) for entry in attributes[:_ATTRIBUTES]}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "string_value":
        return value.string_value[:_TEXT]
    if kind in ("bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    if kind == "bytes_value":
        return f"{len(value.bytes_value)} bytes"
    return str(value)[:_TEXT]


def _number(values: dict[str, Any], names: Iterable[str]) -> int:
    for name in names:
        found = values.get(name)
        if isinstance(found, int | float) and not isinstance(found, bool) and found == found and 0 <= found < 1e12:
            return int(found)
    return 0
