"""What a call costs: the amounts that are known to the last digit."""

from __future__ import annotations

import pytest

from tests.processors.llm_cost.calls import call, cost, made, ns, raw
from tests.support import attribute

CLAUDE = "claude-sonnet-4-5"
CACHED = {"gen_ai.usage.cache_read.input_tokens": 600, "gen_ai.usage.cache_creation.input_tokens": 300}


@pytest.mark.parametrize(
    ("model", "truth"),
    [
        ("gpt-4o", 0.0045),
        ("gpt-4o-mini", 0.00027),
        ("gpt-4-turbo", 0.016),
        ("claude-3-5-sonnet", 0.006),
        ("claude-3-haiku", 0.0005),
        ("gpt-4o-2024-08-06", 0.0045),
        ("gpt-4o-mini-2024-07-18", 0.00027),
    ],
)
def test_the_users_models_cost_what_the_users_table_says(model: str, truth: float) -> None:
    """R-401, R-402, R-404."""
    assert cost(made(), call(model)) == pytest.approx(truth, abs=1e-9)


def test_cached_tokens_are_part_of_the_input() -> None:
    """R-424."""
    assert cost(made(), call(CLAUDE, more=CACHED)) == pytest.approx(0.004605, abs=1e-9)


def test_tokens_cached_for_an_hour_cost_their_own_rate() -> None:
    one_hour = {**CACHED, "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 300}
    assert cost(made(), call(CLAUDE, more=one_hour)) == pytest.approx(0.00528, abs=1e-9)


def test_an_exclusive_emitter_costs_the_same() -> None:
    assert cost(made(), call(CLAUDE, 100, more=CACHED)) == pytest.approx(0.004605, abs=1e-9)


def test_reasoning_is_part_of_the_output() -> None:
    """R-424."""
    more = {"gen_ai.usage.cache_read.input_tokens": 600, "gen_ai.usage.reasoning.output_tokens": 64}
    assert cost(made(), call(more=more)) == pytest.approx(0.00375, abs=1e-9)


@pytest.mark.parametrize(("tokens", "truth"), [(200_000, 0.260), (200_001, 0.5150025)])
def test_a_tier_is_a_cliff(tokens: int, truth: float) -> None:
    assert cost(made(), call("gemini-2.5-pro", tokens, 1000)) == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize(("tier", "truth"), [("default", 0.01125), ("batch", 0.005625), ("flex", 0.005625), ("priority", 0.0225)])
def test_the_service_tier_decides_the_price_once_it_has_one(tier: str, truth: float) -> None:
    after = call("gpt-5", 1000, 1000, more={"openai.response.service_tier": tier}, start=ns("2026-10-15T00:00"))
    before = call("gpt-5", 1000, 1000, more={"openai.response.service_tier": tier}, start=ns("2026-10-11T00:00"))
    assert cost(made(), after) == pytest.approx(truth, abs=1e-9)
    assert cost(made(), before) == pytest.approx(0.01125, abs=1e-9)


def test_the_price_is_that_of_the_spans_start() -> None:
    processor = made()
    assert cost(processor, call("o3", 1_000_000, 0, start=ns("2025-06-09T12:00"))) == pytest.approx(10.0, abs=1e-9)
    assert cost(processor, call("o3", 1_000_000, 0, start=ns("2025-06-10T12:00"))) == pytest.approx(2.0, abs=1e-9)
    assert cost(processor, call("o3", 1_000_000, 0, start=ns("2025-06-09T13:00"))) == pytest.approx(10.0, abs=1e-9)


@pytest.mark.parametrize("start", [0, ns("2031-01-01T00:00")])
def test_a_missing_or_future_start_takes_the_price_of_the_arrival(start: int) -> None:
    assert cost(made(), call("o3", 1_000_000, 0, start=start)) == pytest.approx(2.0, abs=1e-9)


def test_an_hourly_price_follows_the_clock_of_the_span() -> None:
    processor = made()
    peak = cost(processor, raw(_deepseek(), start=ns("2025-05-01T12:00")))
    off_peak = cost(processor, raw(_deepseek(), start=ns("2025-05-01T20:00")))
    assert peak == pytest.approx(0.27, abs=1e-9)
    assert off_peak == pytest.approx(0.135, abs=1e-9)


def _deepseek() -> dict[str, object]:
    return {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "deepseek", "gen_ai.request.model": "deepseek-chat",
        "gen_ai.usage.input_tokens": 1_000_000, "gen_ai.usage.output_tokens": 0,
    }  # fmt: skip


def test_the_price_version_names_catalogue_and_first_day() -> None:
    """R-404, R-409."""
    from tests.processors.llm_cost.calls import through

    (span,) = through(made(), call("o3", start=ns("2025-06-11T00:00")))
    assert attribute(span, "llm.cost.price_version").endswith("@2025-06-10")
    assert attribute(span, "llm.cost.model") == "openai/o3"
    assert attribute(span, "llm.cost.source") == "computed"
    assert attribute(span, "llm.cost.currency") == "USD"
    assert attribute(span, "gen_ai.usage.cost") == attribute(span, "llm.cost_usd")
