"""One span, read: what was called, with what usage, how it ended. No prices and no state here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from collector.processors.llm_cost.dialects import Dialects, Found, data, matches, meaningful, text
from collector.processors.llm_cost.usage import Emitter, Usage, money, named, read_usage, seconds, truth

_OPERATIONS = {  # other emitters' words -> the conventions' words
    "llm": "chat", "chat_model": "chat", "generation": "chat", "embedding": "embeddings", "completion": "text_completion",
    "reranker": "rerank", "agent": "invoke_agent", "workflow": "invoke_workflow", "tool": "execute_tool",
    "ai.toolcall": "execute_tool", "retriever": "retrieval",
}  # fmt: skip
_RATE_LIMIT = ("ratelimit", "rate_limit", "toomanyrequests", "too_many_requests", "throttl", "resource_exhausted", "429")


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Who sent the span: one object per distinct headers, compared by identity."""

    service: str = "unknown"
    resource: tuple[tuple[str, str], ...] = ()
    scope: str = ""
    version: str = ""
    named: bool = False
    """The span's name matters too."""


@dataclass(slots=True)
class Seen:
    """A span that tells of a language model. Times are nanoseconds, `own` and `parent` trace id + span id."""

    item: bytes
    span: Any
    found: Found
    origin: Origin
    start: int
    end: int
    own: bytes
    parent: bytes
    provider: str
    response_model: str
    request_model: str
    operation: str
    rollup: bool
    usage: Usage | None
    reported: float | None
    """USD said by the emitter; None when there is none above 0 (or a 0 that is meant)."""
    calls: bool
    """Whether the span is a call even if it carries no usage."""

    @property
    def duration(self) -> float:
        """Seconds, never negative; a span that has none may say it in an attribute."""
        if self.end > self.start:
            return (self.end - self.start) / 1e9
        return (self.found.pick("latency_millis", seconds) or 0.0) / 1e3

    @property
    def status(self) -> str:
        """`success`, `error` or `timeout` (R-410)."""
        kind = (self.found.pick("error_type", text) or "").lower()
        word = (self.found.pick("status_word", text) or "").lower()
        if any(sign in kind for sign in ("timeout", "timed_out", "deadline")) or word == "timeout":
            return "timeout"
        return "error" if kind or word == "error" or self.span.status.code == 2 else "success"

    @property
    def rate_limited(self) -> bool:
        """HTTP 429, or an error type that says so (R-421)."""
        if self.found.pick("http_status", seconds) == 429:
            return True
        kind = (self.found.pick("error_type", text) or "").lower()
        return any(sign in kind for sign in _RATE_LIMIT)


@lru_cache(1024)
def _operation(raw: str) -> tuple[str, bool, bool]:
    """The conventions' word, whether it is an inference, whether it sums up others."""
    lower = raw.lower()
    inference = any(matches(pattern, raw) for pattern in data()["inference_operations"])
    rollup = any(matches(pattern, raw) for pattern in data()["rollup_operations"])
    if lower.startswith("ai."):
        embeds = "embed" in lower
        lower = ("embeddings" if embeds else "chat") if inference else "invoke_agent" if rollup and not embeds else lower
    return _OPERATIONS.get(lower, lower)[:64], inference, rollup and not inference


@lru_cache(256)
def _sole_carrier(scope: str) -> bool:
    return any(matches(rule["scope"], scope) for rule in data()["sole_carrier"])


def look(item: bytes, origin: Origin, dialects: Dialects, rules: list[dict[str, str]]) -> Seen | None:
    """The call in an encoded span; None when it tells of none. Raises protobuf's DecodeError."""
    span = Span.FromString(item)
    found = dialects.read(span.attributes)
    if not meaningful(found):
        return None
    raw = found.pick("operation", text)
    operation, inference, rollup = _operation(raw[:128]) if raw else ("unknown", False, False)
    provider = found.pick("provider", text) or ""
    request = found.pick("request_model", text) or ""
    emitter = Emitter(origin.scope, origin.version, span.name, provider, request)
    usage = read_usage(found, emitter, rules)
    cost = _reported(found)
    response = found.pick("response_model", text) or "" if usage or cost is not None or inference else ""
    return Seen(
        item, span, found, origin, span.start_time_unix_nano, span.end_time_unix_nano,
        span.trace_id + span.span_id, span.trace_id + span.parent_span_id, provider, response, request, operation,
        rollup and not _sole_carrier(origin.scope), usage, cost,
        inference or (not raw and bool(found.strong & {"request_model", "response_model"})),
    )  # fmt: skip


def _reported(found: Found) -> float | None:
    if not found.has("cost_reported"):
        return None
    if (found.pick("cost_currency", text) or "USD").upper() != "USD":
        return None
    cost = found.pick("cost_reported", money)
    if cost is None and found.pick("gateway_cache_hit", truth):
        return 0.0
    return cost


def kept_amounts(seen: Seen) -> set[str]:
    """Cost attributes of the span that must not be overwritten: usable amounts, and the 0 of a gateway's cache hit."""
    zero = seen.reported == 0.0
    kept = set()
    for name, value in seen.found.values("written"):
        if money(value) is not None or (zero and seconds(value) == 0):
            kept.add(name)
    return kept


@lru_cache(512)
def origin_of(group_header: bytes, scope_header: bytes) -> Origin:
    """The sender behind two encoded headers. Raises protobuf's DecodeError."""
    scope, version = _scope(scope_header)
    return Origin(*_resource(group_header), scope, version, named(scope))


@lru_cache(256)
def _resource(header: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    values = {e.key: e.value.string_value for e in ResourceSpans.FromString(header).resource.attributes if e.value.string_value}
    return values.get("service.name", "unknown"), tuple(values.items())


@lru_cache(256)
def _scope(header: bytes) -> tuple[str, str]:
    scope = ScopeSpans.FromString(header).scope
    return scope.name, scope.version
