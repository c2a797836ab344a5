"""Compiled prices against the library they were compiled from."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from collector.processors.llm_cost.catalogue import Catalogue, Listed, canonical
from collector.processors.llm_cost.rates import date_ns
from collector.processors.llm_cost.usage import Usage
from tests.processors.llm_cost.calls import NOW, call, cost, made

USAGES = [
    Usage(1000, 0, 0, 0, 200),
    Usage(300, 500, 200, 0, 700, reasoning=64),
    Usage(10, 5, 3, 7, 11),
    Usage(300_001, 500, 0, 0, 700),
]


def oracle_usage(usage: Usage) -> Any:
    from genai_prices import Usage as Theirs

    return Theirs(
        input_tokens=usage.prompt,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.write_5m + usage.write_1h,
        cache_write_5m_tokens=usage.write_5m,
        cache_write_1h_tokens=usage.write_1h,
        output_tokens=usage.output,
        output_reasoning_tokens=usage.reasoning,
    )


def instants(model: Any) -> list[datetime]:
    at = [datetime.fromtimestamp(NOW, UTC)]
    if isinstance(model.prices, list):
        starts = [c.constraint.start_date for c in model.prices if hasattr(c.constraint, "start_date")]
        at += [datetime.fromtimestamp(date_ns(day) / 1e9, UTC) for day in starts]
        at += [datetime.fromtimestamp(date_ns(day) / 1e9 - 1, UTC) for day in starts]
    return at


def test_compiled_prices_equal_the_librarys_own_calculation() -> None:
    """R-402."""
    catalogue = Catalogue()
    compared = 0
    for provider in catalogue.providers:
        for model in provider.models[::9]:
            listed = Listed(provider.id, model, True)
            for at in instants(model)[:4]:
                entry = catalogue.entry(listed, int(at.timestamp() * 1e9), "", {})
                for usage in USAGES:
                    if entry is None:
                        continue
                    try:
                        truth = model.calc_price(oracle_usage(usage), provider, genai_request_timestamp=at).total_price
                    except ValueError:
                        continue  # overlapping units that only the library refuses
                    assert entry.price(usage) == pytest.approx(float(truth), rel=1e-9, abs=1e-15), (provider.id, model.id, usage)
                    compared += 1
    assert compared > 1000


@pytest.mark.parametrize("tier", ["batch", "flex", "priority"])
def test_tier_prices_equal_the_librarys(tier: str) -> None:
    catalogue = Catalogue()
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    at = datetime.fromtimestamp(NOW, UTC)
    compared = 0
    for provider in catalogue.providers:
        for model in [m for m in provider.models if m.price_variants][::3]:
            entry = catalogue.entry(Listed(provider.id, model, True), int(NOW * 1e9), tier, {})
            assert entry is not None
            if entry.partial:
                continue
            for usage in USAGES:
                truth = model.calc_price(oracle_usage(usage), provider, genai_request_timestamp=at, price_context=context)
                assert entry.price(usage) == pytest.approx(float(truth.total_price), rel=1e-9)
                compared += 1
    assert compared > 10


def test_a_model_without_prices_is_free_only_if_its_name_says_so() -> None:
    """R-403."""
    catalogue = Catalogue()
    free = silent = 0
    for provider in catalogue.providers:
        for model in provider.models:
            if isinstance(model.prices, list) or any(v is not None for v in vars(model.prices).values()):
                continue
            entry = catalogue.entry(Listed(provider.id, model, True), int(NOW * 1e9), "", {})
            if model.id.endswith(":free"):
                free += 1
                assert entry is not None
                assert entry.price(USAGES[0]) == 0.0
            else:
                silent += 1
                assert entry is None
    assert free > 50
    assert silent > 5


@pytest.mark.parametrize(
    ("given", "meant"),
    [("azure.ai.openai", "azure"), ("GCP.Gemini", "google"), ("openai.chat", "openai"), ("xai", "x-ai"), ("mine", "mine")],
)
def test_every_generation_of_provider_names_means_a_catalogue_id(given: str, meant: str) -> None:
    assert canonical(given) == meant


def test_every_alias_is_a_provider_of_the_catalogue() -> None:
    from collector.processors.llm_cost.dialects import data

    ids = {provider.id for provider in Catalogue().providers}
    assert set(data()["provider_alias"].values()) | set(data()["model_prefix_provider"].values()) <= ids


@pytest.mark.parametrize(
    ("provider", "model", "server"),
    [
        ("openai", "openai/gpt-4o", ""),
        ("", "openai:gpt-4o", ""),
        ("langchain", "gpt-4o", "api.openai.com"),
        ("strange", "gpt-4o", ""),
        ("OpenAI", "GPT-4o", ""),
        ("openai", "ft:gpt-4o-2024-08-06:acme::1", ""),
        ("gemini", "models/gemini-2.5-pro", ""),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", ""),
        ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
        ("", "anthropic/claude-sonnet-4-5", ""),
        ("", "gpt-4o", "my.gateway.internal"),
    ],
)
def test_names_as_clients_write_them_find_their_price(provider: str, model: str, server: str) -> None:
    """R-407."""
    more = {"gen_ai.provider.name": provider or None, "server.address": server or None}
    assert cost(made(), call(model, more=more)) is not None


def test_the_response_model_wins_over_the_request_model() -> None:
    """R-407."""
    more = {"gen_ai.response.model": "gpt-4o-mini-2024-07-18"}
    assert cost(made(), call("gpt-4o", more=more)) == pytest.approx(0.00027, abs=1e-9)
    assert cost(made(), call("gpt-4o", more={"gen_ai.response.model": "mystery"})) == pytest.approx(0.0045, abs=1e-9)


def test_a_model_on_an_own_server_is_never_priced_as_somebody_elses() -> None:
    more = {"gen_ai.provider.name": "ollama"}
    assert cost(made(), call("gpt-4o", more=more)) is None


def test_an_endless_model_name_has_no_price() -> None:
    assert cost(made(), call("gpt-4o" * 1000)) is None


def test_the_cache_of_resolved_names_is_bounded() -> None:
    from collector.processors.llm_cost.prices import Call

    book = made()._accounting._book
    for i in range(4200):
        book.resolve(Call("ollama", f"m{i}", "", "", ""))
    assert len(book._known) == 4096


def test_many_price_periods_of_one_model_stay_bounded() -> None:
    catalogue = Catalogue()
    provider = next(p for p in catalogue.providers if p.id == "deepseek")
    listed = catalogue.model(provider, "deepseek-chat")
    assert listed is not None
    for day in range(80):
        catalogue.entry(listed, int(NOW * 1e9) - day * 86_400 * 10**9, f"tier{day}", {})
    assert len(listed.entries) <= 64


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys; from tests.processors.llm_cost.calls import made; p = made(); "
        "assert not [m for m in sys.modules if m.startswith('genai_prices')]; "
        "p.preload(); assert 'genai_prices' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_named_in_two_ways_is_compiled_once() -> None:
    catalogue = Catalogue()
    provider = next(p for p in catalogue.providers if p.id == "openai")
    assert catalogue.model(provider, "gpt-4o") is catalogue.model(provider, "gpt-4o-2024-08-06")
    assert catalogue.model(provider, "no-such-model") is None
