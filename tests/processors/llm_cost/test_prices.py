"""Prices of one's own: order, globs, dates, discounts, aliases, files; and what is refused."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from collector.catalog import Catalog
from collector.config.load import load
from collector.errors import ConfigError
from collector.meters import Instrument
from collector.processors.llm_cost.options import LABELS, Options
from tests.processors.llm_cost.calls import call, cost, made, ns, sums, through
from tests.support import attribute


def price(model: str = "my-model", **more: Any) -> dict[str, Any]:
    match = {"model": model, **{k: more.pop(k) for k in ("provider", "server") if k in more}}
    return {"match": match, **({"input": 1.0, "output": 2.0} if not more or set(more) <= {"from", "until"} else {}), **more}


def test_an_own_price_is_used_before_the_catalogue() -> None:
    """R-404."""
    processor = made(prices=[price("gpt-4o")])
    (after,) = through(processor, call())
    assert attribute(after, "llm.cost_usd") == pytest.approx(0.0014, abs=1e-9)
    assert attribute(after, "llm.cost.price_version").startswith("config:")
    assert cost(processor, call("gpt-4o-mini")) == pytest.approx(0.00027, abs=1e-9)


def test_an_explicit_zero_is_free_and_counts_as_priced() -> None:
    """R-404."""
    processor = made(prices=[price("llama-3*", server="vllm.internal", input=0, output=0)])
    one = call("llama-3-70b", more={"gen_ai.provider.name": "vllm", "server.address": "vllm.internal"})
    assert cost(processor, one) == 0.0
    assert sums(processor, "unpriced", -1) == {}
    assert cost(processor, call("llama-3-70b", more={"gen_ai.provider.name": "vllm", "server.address": "other"})) is None
    assert set(sums(processor, "cost", 2)) == {"llama-3*"}


@pytest.mark.parametrize(
    ("model", "more", "rate"),
    [
        ("own-7b-chat", {}, 1),
        ("own-7b-chat", {"gen_ai.provider.name": "azure"}, 2),
        ("own-7b-x", {}, 3),
        ("own-8b", {}, 4),
        ("OWN-7B-CHAT", {}, 1),
    ],
)
def test_the_more_exact_match_decides(model: str, more: dict[str, object], rate: float) -> None:
    processor = made(
        prices=[
            price("own-*", input=4, output=0),
            price("own-7b*", input=3, output=0),
            price("own-7b-chat", input=1, output=0),
            price("own-7b-chat", provider="azure", input=2, output=0),
        ]
    )
    assert cost(processor, call(model, 1_000_000, 0, more=more)) == rate


def test_prices_follow_their_dates_and_then_the_catalogue() -> None:
    """R-404."""
    rules = [
        price("gpt-4o", input=7, output=0, **{"from": "2026-01-01", "until": "2026-02-01"}),
        price("gpt-4o", input=8, output=0, **{"from": date(2026, 2, 1)}),
    ]
    processor = made(prices=rules)
    costs = [
        cost(processor, call(tokens_in=1_000_000, tokens_out=0, start=ns(f"{day}T00:00")))
        for day in ("2026-01-31", "2026-02-01", "2025-12-31")
    ]
    assert costs == [7, 8, 2.5]


def test_a_discount_is_taken_from_the_catalogues_price() -> None:
    processor = made(prices=[{"match": {"model": "claude-*"}, "discount_percent": 12}])
    (after,) = through(processor, call("claude-3-haiku"))
    assert attribute(after, "llm.cost_usd") == pytest.approx(0.0005 * 0.88, abs=1e-9)
    assert attribute(after, "llm.cost.price_version").endswith("-12%")
    assert cost(processor, call("claude-of-tomorrow-x", more={"gen_ai.provider.name": "vllm"})) is None
    assert sums(processor, "unpriced", -1) == {"no_unit_price": 1}


def test_all_rates_of_a_price_count() -> None:
    rates = {
        "input": 1, "output": 2, "cache_read": 0.5, "cache_write": 3, "cache_write_1h": 4, "reasoning": 5, "per_request": 0.25,
        "tiers_above": {2_000_000: {"input": 10}, "5000000": {"input": 20, "output": 30}},
    }  # fmt: skip
    processor = made(prices=[{"match": {"model": "mine"}, **rates}])
    million = 1_000_000
    more = {
        "gen_ai.usage.cache_read.input_tokens": 200_000, "gen_ai.usage.cache_write.input_tokens": 300_000,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 100_000, "gen_ai.usage.reasoning.output_tokens": 100_000,
    }  # fmt: skip
    assert cost(processor, call("mine", million, million, more=more)) == pytest.approx(0.5 + 0.1 + 0.6 + 0.4 + 1.8 + 0.5 + 0.25)
    assert cost(processor, call("mine", 3 * million, million)) == pytest.approx(30 + 2 + 0.25)
    assert cost(processor, call("mine", 6 * million, million)) == pytest.approx(120 + 30 + 0.25)


def test_what_a_price_leaves_out_costs_as_its_parent() -> None:
    processor = made(prices=[price("mine", input=1, output=2)])
    more = {"gen_ai.usage.cache_read.input_tokens": 500, "gen_ai.usage.reasoning.output_tokens": 100}
    assert cost(processor, call("mine", more=more)) == pytest.approx(0.0014, abs=1e-9)


def test_a_flat_price_per_call_is_a_complete_price() -> None:
    assert cost(made(prices=[price("mine", per_request=0.01)]), call("mine")) == 0.01


def test_an_alias_gives_a_deployment_the_price_of_its_model() -> None:
    """R-404."""
    processor = made(aliases={"my-deployment": "azure/gpt-4o", "prod-*": "openai/gpt-4o-mini", "prod-big-*": "openai/gpt-4o"})
    assert cost(processor, call("my-deployment")) == pytest.approx(0.0045, abs=1e-9)
    assert cost(processor, call("PROD-x")) == pytest.approx(0.00027, abs=1e-9)
    assert cost(processor, call("prod-big-1")) == pytest.approx(0.0045, abs=1e-9)
    assert set(sums(processor, "requests", 1, 2)) == {("azure", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4o")}


def test_an_alias_may_lead_to_an_own_price() -> None:
    processor = made(aliases={"front": "acme/mine"}, prices=[price("mine", provider="acme")])
    assert cost(processor, call("front")) == pytest.approx(0.0014, abs=1e-9)


def test_a_price_file_adds_and_is_read_again_on_demand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R-404."""
    file = tmp_path / "prices.yaml"
    file.write_text("prices: [{match: {model: mine}, input: 1, output: 2, from: 2020-01-01}]\naliases: {front: x/mine}\n")
    processor = made(prices_file=str(file))
    (after,) = through(processor, call("front"))
    assert attribute(after, "llm.cost_usd") == pytest.approx(0.0014, abs=1e-9)
    assert attribute(after, "llm.cost.price_version").startswith("file:")
    file.write_text("prices: [{match: {model: mine}, input: 10, output: 20}]\n")
    assert processor.reload_prices()
    assert cost(processor, call("mine")) == pytest.approx(0.014, abs=1e-9)
    for bad in ("prices: [", "prices: [{match: {model: mine}, input: -1}]", "price: []"):
        file.write_text(bad)
        assert not processor.reload_prices()
    assert "the old prices stay" in caplog.text
    assert cost(processor, call("mine")) == pytest.approx(0.014, abs=1e-9)
    assert sums(processor, "reloads", 0) == {"success": 1, "error": 3}
    file.write_text("")
    assert processor.reload_prices()


def test_a_missing_price_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"llm_cost: .*nowhere"):
        made(prices_file=str(tmp_path / "nowhere.yaml"))


def test_file_and_configuration_must_not_overlap(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("prices: [{match: {model: mine}, input: 1, output: 2}]")
    with pytest.raises(ConfigError, match="overlap"):
        made(prices_file=str(file), prices=[price("mine")])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prices": [price(input=-1)]}, "greater than or equal to 0"),
        ({"prices": [price(input=float("inf"))]}, "finite"),
        ({"prices": [price(discount_percent=101)]}, "less than or equal to 100"),
        ({"prices": [price(discount_percent=5, input=1)]}, "either prices"),
        ({"prices": [{"match": {"model": "x"}}]}, "either prices"),
        ({"prices": [price(discount_percent=5, tiers_above={1: {"input": 1}})]}, "tiers_above does not go"),
        ({"prices": [{"input": 1}]}, "match needs"),
        ({"prices": [price(**{"from": "2026-02-01", "until": "2026-01-01"})]}, "from must be before until"),
        ({"prices": [price(**{"from": "soon"})]}, "write 2026-01-31"),
        ({"prices": [price(), price("MY-MODEL")]}, "overlap"),
        ({"prices": [price("a*x"), price("a*y")]}, "overlap"),
        ({"prices": [price(unit=1)]}, "Extra inputs"),
        ({"prices": [price(**{"from": 2026})]}, "date"),
        ({"prices": [price(tiers_above=5)]}, "dictionary"),
        ({"aliases": {"x": "gpt-4o"}}, "provider/model"),
        ({"labels": ["model"]}, "labels starts with"),
        ({"labels": [*LABELS, "status"]}, "cannot be a label"),
        ({"labels": [*LABELS, "1st"]}, "cannot be a label"),
        ({"labels": [*LABELS, "a.b", "a_b"]}, "cannot be a label"),
        ({"attributes": ["all"]}, "Input should be"),
        ({"currency": {"code": "EUR"}}, "currency is not supported: not there yet"),
        ({"auto_update": True}, "auto_update is not supported: not there yet"),
        ({"reload_interval": "10s"}, "reload_interval is not supported: not there yet"),
        ({"budgets": []}, "budgets is not supported: not there yet"),
        ({"compat": ["old"]}, "Input should be"),
        ({"legacy_names": True}, "legacy_names is not supported: not there yet"),
        ({"token_type_names": "otel"}, "token_type_names is not supported: not there yet"),
        ({"estimate_missing_usage": True}, "estimate_missing_usage is not supported: not there yet"),
        ({"price_log_events": True}, "price_log_events is not supported: not there yet"),
        ({"dedup": {"rollup_wait": "5s"}}, "rollup_wait is not supported: not there yet"),
        ({"limits": {"series": 2000}}, "series is not supported: not there yet"),
        ({"tiers": {"batch": -1}}, "greater than or equal to 0"),
        ({"high_cost_usd": 0}, "greater than 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_fix(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Options.model_validate(config)


@pytest.mark.parametrize(
    "prices",
    [
        [price(until="2026-01-01"), price(**{"from": "2026-01-01"})],
        [price(provider="azure"), price(provider="openai")],
        [price(server="a"), price(server="b")],
        [price("a*"), price("b*")],
        [price("a"), price("b")],
    ],
)
def test_prices_between_which_something_decides_are_accepted(prices: list[dict[str, Any]]) -> None:
    assert len(Options.model_validate({"prices": prices}).prices) == 2


PAGE = (Path(__file__).parents[3] / "docs/llm-cost.md").read_text()
REST = """
receivers: {otlp: {protocols: {grpc: {}}}}
exporters: {debug: {}}
service: {pipelines: {traces: {receivers: [otlp], processors: [llm_cost], exporters: [debug]}}}
"""


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
def test_every_configuration_of_the_page_works(block: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block + REST)
    loaded = load([str(file)], catalog=Catalog([]), environ={}, relax_unset_env=True)
    assert loaded.resolved is not None, "\n".join(problem.render() for problem in loaded.errors)
    processor = made(**yaml.safe_load(block)["processors"]["llm_cost"])
    assert cost(processor, call()) == pytest.approx(0.0045, abs=1e-9)


def test_the_page_names_every_metric_and_attribute() -> None:
    from collector.processors.llm_cost.stamp import WRITTEN

    families = [entry for entry in vars(made()._accounting.counters).values() if isinstance(entry, Instrument)]
    names = [family._family._name for family in families]
    assert [name for name in names if name not in PAGE] == []
    assert [name for name in WRITTEN if name not in PAGE] == []
