"""Builders of LLM spans for the tests of `llm_cost`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.processors.llm_cost import LlmCost
from tests.support import attribute, batch, build, span, spans_of, traces

NOW = 1_795_000_000.0  # 2026-11-18
START = int(NOW * 1e9) - 10**9


def made(**config: Any) -> LlmCost:
    """A processor that loads the catalogue with the first LLM span."""
    processor: LlmCost = build(LlmCost, {"preload": False, **config}, component_id="llm_cost")
    return processor


def call(model: str = "gpt-4o", tokens_in: object = 1000, tokens_out: object = 200, *, name: str = "chat", more: Mapping[str, object] | None = None,
         **options: Any) -> Span:  # fmt: skip
    """A span as the current conventions write it; `more` adds or, with None, removes attributes."""
    values: dict[str, object] = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": tokens_in, "gen_ai.usage.output_tokens": tokens_out, **(more or {}),
    }  # fmt: skip
    return span(name, {k: v for k, v in values.items() if v is not None}, **{"start": START, **options})


def raw(values: Mapping[str, object], name: str = "op", **options: Any) -> Span:
    """A span with just these attributes."""
    return span(name, values, **{"start": START, **options})


def through(
    processor: LlmCost, *spans: Span, scope: str = "test", version: str = "", resource: Mapping[str, object] | None = None
) -> list[Span]:
    """The spans after one batch went through the processor."""
    request = traces(*spans, scope=scope, resource=resource)
    request.resource_spans[0].scope_spans[0].scope.version = version
    return spans_of(processor.process(batch(request), NOW))


def cost(processor: LlmCost, one: Span, **options: Any) -> float | None:
    """The cost a single span gets."""
    return attribute(through(processor, one, **options)[0], "llm.cost_usd")


def sums(processor: LlmCost, family: str, *positions: int) -> dict[Any, float]:
    """Series of one counter, summed over all labels but those at `positions`."""
    instrument = getattr(processor._accounting.counters, family)
    out: dict[Any, float] = {}
    for labels, value in instrument.series().items():
        key = tuple(labels[i] for i in positions)
        key = key[0] if len(key) == 1 else key
        out[key] = out.get(key, 0.0) + value
    return out


def ns(text: str) -> int:
    """Nanoseconds of a UTC time such as 2025-06-09T12:00."""
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M")) - time.timezone) * 10**9
