"""Known LLM calls go through: the counters, Prometheus and the spans in Jaeger must all show the known cost."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import NamedTuple

import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import send
from tests.e2e.pipelines import standard
from tests.e2e.stack import Jaeger, Loki, Prometheus, Sidecar, wait_for
from tests.support import span, traces

PRICES = {
    "gpt-4o": ("openai", "2.50", "10.00"),
    "gpt-4o-mini": ("openai", "0.15", "0.60"),
    "gpt-4-turbo": ("openai", "10.00", "30.00"),
    "claude-3-5-sonnet": ("anthropic", "3.00", "15.00"),
    "claude-3-haiku": ("anthropic", "0.25", "1.25"),
}
"""US$ per million prompt and completion tokens."""
CALLS, SERVICE = 2_000, "priced-shop"


class Truth(NamedTuple):
    """What must come out."""

    cost: dict[str, Decimal]
    tokens: dict[str, int]
    requests: list[object]

    def total(self) -> float:
        """Dollars of all calls."""
        return float(sum(self.cost.values()))


def calls(service: str, seed: int) -> Truth:
    rnd, cost, tokens, requests = random.Random(seed), dict.fromkeys(PRICES, Decimal()), {"prompt": 0, "completion": 0}, []
    for start in range(0, CALLS, 250):
        made = []
        for number in range(start, start + 250):
            model = rnd.choice(list(PRICES))
            provider, prompt_price, completion_price = PRICES[model]
            prompt, completion = rnd.randint(1, 20_000), rnd.randint(1, 4_000)
            cost[model] += (prompt * Decimal(prompt_price) + completion * Decimal(completion_price)) / 1_000_000
            tokens["prompt"] += prompt
            tokens["completion"] += completion
            values = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "gen_ai.response.id": f"{service}-{number}",
                "gen_ai.usage.input_tokens": prompt,
                "gen_ai.usage.output_tokens": completion,
            }
            made.append(span(f"chat {model}", values))
        requests.append(traces(*made, resource={"service.name": service}))
    return Truth(cost, tokens, requests)


@pytest.fixture(scope="module")
def everything_kept(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> tuple[Sidecar, Truth]:
    sidecar, truth = start_sidecar(standard(jaeger, loki, share=100)), calls(SERVICE, 7)
    send(sidecar.grpc, truth.requests)
    wait_for(lambda: len(jaeger.spans(SERVICE)) == CALLS, 30, f"{CALLS} spans in Jaeger")
    return sidecar, truth


def test_the_cost_counter_equals_the_known_truth(everything_kept: tuple[Sidecar, Truth]) -> None:
    """R-401, R-402, R-404 (partly), R-549."""
    sidecar, truth = everything_kept
    print(f"counted {sidecar.total('llm_cost_usd_total'):.12f} USD, true {float(truth.total()):.12f} USD")
    assert sidecar.total("llm_cost_usd_total") == pytest.approx(truth.total(), rel=0, abs=1e-9)
    for model, cost in truth.cost.items():
        assert sidecar.total("llm_cost_usd_total", model=model) == pytest.approx(float(cost), rel=0, abs=1e-9), model


def test_tokens_and_calls_are_counted_exactly(everything_kept: tuple[Sidecar, Truth]) -> None:
    """R-546, R-547, R-405 (partly)."""
    sidecar, truth = everything_kept
    for kind, count in truth.tokens.items():
        assert sidecar.total("llm_tokens_total", type=kind) == count
    assert sidecar.total("llm_requests_total", status="success") == CALLS
    assert sidecar.total("llm_cost_unpriced_total") == 0


def test_the_costs_on_the_spans_in_jaeger_add_up_to_the_counter(everything_kept: tuple[Sidecar, Truth], jaeger: Jaeger) -> None:
    """R-409."""
    sidecar, truth = everything_kept
    spans = jaeger.spans(SERVICE)
    for key in ("gen_ai.usage.cost", "llm.cost_usd"):
        on_spans = math.fsum(float(each["tags"][key]) for each in spans)
        assert on_spans == pytest.approx(truth.total(), rel=0, abs=1e-9)
        assert on_spans == pytest.approx(sidecar.total("llm_cost_usd_total"), rel=0, abs=1e-9)
    assert {each["tags"]["llm.cost.source"] for each in spans} == {"computed"}


def test_prometheus_reads_the_same_cost(everything_kept: tuple[Sidecar, Truth], prometheus: Prometheus) -> None:
    """R-412 (partly), R-501 (partly)."""
    sidecar, truth = everything_kept
    prometheus.scrape(sidecar.metrics)
    wait_for(lambda: prometheus.query("llm_cost_usd_total"), 15, "the first scrape")
    assert prometheus.value("sum(llm_cost_usd_total)") == pytest.approx(truth.total(), rel=0, abs=1e-9)
    by_model = {
        each["metric"]["model"]: float(each["value"][1]) for each in prometheus.query("sum by (model) (llm_cost_usd_total)")
    }
    assert by_model == pytest.approx({model: float(cost) for model, cost in truth.cost.items()}, rel=0, abs=1e-9)


def test_sampling_does_not_change_cost_and_token_counters(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> None:
    """R-206: totals at 10 % equal totals at 100 %."""
    sidecar, truth = start_sidecar(standard(jaeger, loki, share=10)), calls(SERVICE + "-10", 8)
    send(sidecar.grpc, truth.requests)
    assert sidecar.total("llm_cost_usd_total") == pytest.approx(truth.total(), rel=0, abs=1e-9)
    assert sidecar.total("llm_tokens_total", type="prompt") == truth.tokens["prompt"]
    wait_for(lambda: sidecar.balance("traces", "otlp_grpc/jaeger")["delivered"] > 0, 20, "delivery")
    wait_for(lambda: jaeger.spans(SERVICE + "-10"), 20, "kept spans in Jaeger")
    assert len(jaeger.spans(SERVICE + "-10")) < CALLS / 2


def test_a_call_without_a_price_gets_no_cost_and_is_counted(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> None:
    """R-403."""
    sidecar, service = start_sidecar(standard(jaeger, loki)), "unpriced-shop"
    usage = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200}
    call = span("chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "no-such-model-9", **usage})
    send(sidecar.grpc, [traces(call, resource={"service.name": service})])
    wait_for(lambda: jaeger.spans(service), 20, "the span in Jaeger")
    (found,) = jaeger.spans(service)
    assert not [key for key in found["tags"] if "cost" in key and "source" not in key]
    assert sidecar.total("llm_cost_unpriced_total") == 1
    assert sidecar.total("llm_cost_usd_total") == 0
    wait_for(lambda: "no-such-model-9" in sidecar.tail(), 10, "the warning that names the model")


DIALECTS: dict[str, dict[str, object]] = {
    "openinference": {
        "openinference.span.kind": "LLM", "llm.system": "openai", "llm.model_name": "gpt-4o", "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 200, "llm.token_count.prompt_details.cache_read": 600, "agent.name": "planner",
        "tool.name": "search",
    },
    "openllmetry": {
        "llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.completion_tokens": 200, "gen_ai.usage.cache_read_input_tokens": 600, "agent.name": "planner", "tool.name": "search",
    },
    "vercel": {
        "operation.name": "ai.generateText.doGenerate", "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": "openai.chat", "ai.model.id": "gpt-4o", "ai.usage.promptTokens": 1000,
        "ai.usage.completionTokens": 200, "ai.usage.cachedInputTokens": 600, "agent.name": "planner", "ai.toolCall.name": "search",
    },
    "conventions": {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 600, "gen_ai.agent.name": "planner", "gen_ai.tool.name": "search",
    },
}  # fmt: skip
NORMAL = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200, "gen_ai.agent.name": "planner", "gen_ai.tool.name": "search",
}  # fmt: skip


def test_calls_of_every_dialect_show_the_same_names_in_jaeger(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> None:
    """R-703."""
    sidecar, service = start_sidecar(standard(jaeger, loki)), "dialect-shop"
    calls = [span(name, values) for name, values in DIALECTS.items() for _ in range(3)]
    failed = span("failed", {**DIALECTS["openinference"], "llm.model_name": "no-such-model-9"}, error=True)
    send(sidecar.grpc, [traces(*calls, failed, resource={"service.name": service})])
    wait_for(lambda: len(jaeger.spans(service)) == 13, 20, "13 spans in Jaeger")
    for each in jaeger.spans(service):
        tags, said = each["tags"], DIALECTS.get(each["operationName"])
        if said is None:
            assert {key: tags.get(key) for key in NORMAL} == {**NORMAL, "gen_ai.request.model": "no-such-model-9"}
            continue
        assert {key: tags[key] for key in said} == said
        assert {key: tags.get(key) for key in NORMAL} == NORMAL
        assert tags["gen_ai.usage.cost"] == pytest.approx(0.00375, abs=1e-9)
    assert sidecar.total("llm_tokens_total", type="prompt") == 13_000


CALL: dict[str, object] = {
    "llm.model": "gpt-4o",
    "llm.prompt_length": 4000,
    "llm.tokens_used": 1200,
    "llm.latency_ms": 830.5,
    "llm.cost_usd": 0.0045,
    "agent.name": "planner",
    "tool": "search",
    "status": "completed",
    "user_id": "u-17",
}
OLDER: dict[str, dict[str, object]] = {
    "llm.call": CALL,
    "llm.generate": {"model": "gpt-4o-mini", "prompt_tokens": 1000, "completion_tokens": 200},
    "agent.supervisor": {"task": "compare", "agent.type": "supervisor", "worker.selected": "writer"},
    "agent.execute": {"agent.name": "planner", "agent.type": "react", "result.length": 312, "status": "completed"},
    "tool.search": {"tool": "search", "error.type": "TimeoutError", "error.message": "no answer within 5 s"},
}
"""Spans of older instrumentation by name."""
UNDERSTOOD: dict[str, dict[str, object]] = {
    "llm.call": {
        "gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai", "gen_ai.agent.name": "planner",
        "gen_ai.tool.name": "search", "gen_ai.usage.cost": 0.0045, "llm.cost.source": "reported",
    },
    "llm.generate": {
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.provider.name": "openai", "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200, "gen_ai.usage.cost": 0.00027, "llm.cost.source": "computed",
    },
}  # fmt: skip


def test_attributes_of_older_instrumentation_stay_and_are_understood(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> None:
    """R-406 (partly), R-408, R-702."""
    sidecar, service = start_sidecar(standard(jaeger, loki)), "older-shop"
    sent = [span(name, values) for name, values in OLDER.items()]
    send(sidecar.grpc, [traces(*sent, resource={"service.name": service})])
    wait_for(lambda: len(jaeger.spans(service)) == len(OLDER), 20, "the spans in Jaeger")
    found = {each["operationName"]: each["tags"] for each in jaeger.spans(service)}
    for name, values in OLDER.items():
        assert {key: found[name][key] for key in values} == values
    for name, values in UNDERSTOOD.items():
        assert {key: found[name].get(key) for key in values} == values
    assert sidecar.total("llm_cost_usd_total", model="gpt-4o", source="reported") == 0.0045
    assert sidecar.total("llm_tokens_total", type="unknown") == 1200
    assert sidecar.total("llm_requests_total") == 2
