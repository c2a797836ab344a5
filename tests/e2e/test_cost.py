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
    """R-409, R-703 (partly)."""
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


OLDER = {
    "llm.model": "gpt-4o",
    "llm.prompt_length": 4000,
    "llm.tokens_used": 1200,
    "llm.latency_ms": 830.5,
    "llm.cost_usd": 0.0045,
    "agent.name": "planner",
    "agent.type": "react",
    "tool": "search",
    "user_id": "u-17",
    "result.length": 312,
    "worker.selected": "writer",
}


def test_attributes_of_older_instrumentation_stay_and_are_understood(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> None:
    """R-406 (partly), R-408, R-702 (partly)."""
    sidecar, service = start_sidecar(standard(jaeger, loki)), "older-shop"
    send(sidecar.grpc, [traces(span("llm.call", OLDER), resource={"service.name": service})])
    (found,) = wait_for(lambda: jaeger.spans(service), 20, "the span in Jaeger")
    assert {key: found["tags"][key] for key in OLDER} == OLDER
    assert found["tags"]["gen_ai.usage.cost"] == 0.0045
    assert found["tags"]["llm.cost.source"] == "reported"
    assert sidecar.total("llm_cost_usd_total", model="gpt-4o", source="reported") == 0.0045
    assert sidecar.total("llm_tokens_total", type="unknown") == 1200
