"""Counters, reasons, attributes: nothing is silently zero, nothing is overwritten, ordinary spans stay as they are."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from collector.model import Signal
from collector.otlp import plain
from collector.otlp.scan import EngineFailed
from tests.processors.llm_cost.calls import NOW, START, call, cost, made, raw, sums, through
from tests.support import attribute, batch, span, spans_of, traces

UNKNOWN: dict[str, object] = {"gen_ai.operation.name": "chat", "gen_ai.system": "anthropic"}
BARE = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}


def reasons(processor: Any) -> dict[str, float]:
    return sums(processor, "unpriced", -1)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (call("claude-sonet-9-9", more=UNKNOWN), "unknown_model"),
        (call("", more={"gen_ai.request.model": None}), "no_model"),
        (call(more=BARE), "no_usage"),
        (raw({"llm.model": "gpt-4o", "llm.tokens_used": 1200}), "no_split"),
        (call(tokens_in=float("nan")), "bad_value"),
        (call(tokens_out=-5), "bad_value"),
        (raw({"llm.model": "gpt-4o", "llm.tokens_used": "lots"}), "bad_value"),
        (call("google/gemma-3", more={"gen_ai.system": "openrouter"}), "unknown_model"),
        (call("text-embedding-3-small", 8, 8, more={"gen_ai.system": "openai"}), "no_unit_price"),
    ],
)
def test_a_call_without_price_says_why_and_never_zero(one: Any, reason: str) -> None:
    """R-403, R-406."""
    processor = made()
    (after,) = through(processor, one)
    assert reasons(processor) == {reason: 1}
    assert not [entry.key for entry in after.attributes if "cost" in entry.key]
    assert sums(processor, "requests", -1) == {"success": 1}
    assert sums(processor, "cost", -1) == {}


def test_a_known_model_without_price_is_no_unit_price() -> None:
    """R-403."""
    from collector.processors.llm_cost.catalogue import Catalogue

    provider, model = next(
        (p.id, m.id)
        for p in Catalogue().providers
        for m in p.models
        if not isinstance(m.prices, list) and not any(vars(m.prices).values()) and not m.id.endswith(":free")
    )
    processor = made()
    assert cost(processor, call(model, more={"gen_ai.provider.name": provider})) is None
    assert reasons(processor) == {"no_unit_price": 1}


def test_tokens_of_an_unpriced_call_still_count() -> None:
    """R-406."""
    processor = made()
    through(processor, raw({"llm.model": "gpt-4o", "llm.tokens_used": 1200}), call("nobody-knows"))
    assert sums(processor, "tokens", -1) == {"unknown": 1200, "prompt": 1000, "completion": 200}


def test_a_failed_call_is_free_and_not_unpriced() -> None:
    """R-410."""
    processor = made()
    through(processor, call(more={**BARE, "error.type": "openai.RateLimitError"}), call(more=BARE, error=True))
    through(processor, call(more={**BARE, "error.type": "APITimeoutError"}), call(more={**BARE, "status": "timeout"}))
    through(processor, call(more={**BARE, "status": "error", "http.response.status_code": 429}))
    assert sums(processor, "requests", -1) == {"error": 3, "timeout": 2}
    assert reasons(processor) == {}
    assert sums(processor, "rate_limited", 0, 1) == {("openai", "gpt-4o"): 2}


def test_a_failed_call_with_usage_costs_what_it_used() -> None:
    """R-410."""
    assert cost(made(), call(error=True)) == pytest.approx(0.0045, abs=1e-9)


def test_a_reported_cost_is_used_and_kept() -> None:
    """R-408, R-409."""
    processor = made()
    (after,) = through(processor, call(more={"llm.cost_usd": 0.5}))
    assert attribute(after, "llm.cost_usd") == 0.5
    assert attribute(after, "gen_ai.usage.cost") == 0.5
    assert attribute(after, "llm.cost.source") == "reported"
    assert sums(processor, "cost", -1) == {"reported": 0.5}
    assert sums(processor, "mismatch") == {(): 1}
    one = call(more={"llm.cost_usd": 0.5})
    through(processor, one)
    through(processor, one)
    assert sums(processor, "mismatch") == {(): 2}


def test_a_reported_cost_close_to_ours_is_no_mismatch() -> None:
    processor = made()
    through(processor, call(more={"llm.cost_usd": 0.0046}))
    assert sums(processor, "mismatch") == {}


def test_a_reported_cost_prices_what_has_no_split() -> None:
    """R-406."""
    processor = made()
    through(processor, raw({"llm.model": "gpt-4o", "llm.tokens_used": 1200, "llm.cost_usd": "0.02"}))
    assert sums(processor, "cost", -1) == {"reported": 0.02}
    assert reasons(processor) == {}


def test_without_prefer_reported_ours_counts_but_theirs_is_not_overwritten() -> None:
    """R-408."""
    processor = made(prefer_reported=False)
    (after,) = through(processor, call(more={"llm.cost_usd": 0.5}))
    assert sums(processor, "cost", -1) == {"computed": pytest.approx(0.0045)}
    assert attribute(after, "llm.cost_usd") == 0.5
    assert attribute(after, "gen_ai.usage.cost") == pytest.approx(0.0045)


def test_a_reported_cost_in_another_currency_is_not_taken() -> None:
    processor = made()
    through(processor, call(more={"gen_ai.usage.cost.amount": 0.5, "gen_ai.usage.cost.currency": "EUR"}))
    assert sums(processor, "cost", -1) == {"computed": pytest.approx(0.0045)}


@pytest.mark.parametrize("placeholder", [0, 0.0, float("nan"), "n/a", -1.0, True])
def test_a_placeholder_cost_is_replaced(placeholder: object) -> None:
    (after,) = through(made(), call(more={"gen_ai.usage.cost": placeholder}))
    assert [entry.value.double_value for entry in after.attributes if entry.key == "gen_ai.usage.cost"] == [pytest.approx(0.0045)]


def test_the_zero_of_a_gateways_cache_is_real() -> None:
    processor = made()
    (after,) = through(processor, call(more={"litellm.cost.total": 0.0, "gen_ai.usage.cost": 0.0, "litellm.cache_hit": "True"}))
    assert attribute(after, "llm.cost_usd") == 0.0
    assert [entry.value.double_value for entry in after.attributes if entry.key == "gen_ai.usage.cost"] == [0.0]
    assert sums(processor, "cost", -1) == {"reported": 0.0}


SETS = {
    "default": {
        "gen_ai.usage.cost",
        "llm.cost_usd",
        "llm.cost.source",
        "llm.cost.currency",
        "llm.cost.model",
        "llm.cost.price_version",
    },
    "otel": {"gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency", "gen_ai.usage.cost.source", "llm.cost.source"},
    "openinference": {"llm.cost.total", "llm.cost.prompt", "llm.cost.completion", "llm.cost.source"},
    "details": {"llm.cost.input", "llm.cost.output", "llm.cost.cache_read", "llm.cost.cache_write", "llm.cost.source"},
}


@pytest.mark.parametrize("name", SETS)
def test_each_set_writes_its_attributes(name: str) -> None:
    """R-409."""
    before = call()
    (after,) = through(made(attributes=[name]), before)
    assert {entry.key for entry in after.attributes} - {entry.key for entry in before.attributes} == SETS[name]


def test_sets_combine_and_their_parts_add_up() -> None:
    one = call(
        "claude-sonnet-4-5", more={"gen_ai.usage.cache_read.input_tokens": 600, "gen_ai.usage.cache_write.input_tokens": 300}
    )
    (after,) = through(made(attributes=["default", "otel", "openinference", "details"]), one)
    parts = [attribute(after, f"llm.cost.{part}") for part in ("input", "output", "cache_read", "cache_write")]
    assert parts == [pytest.approx(v) for v in (0.0003, 0.003, 0.00018, 0.001125)]
    assert attribute(after, "llm.cost.prompt") + attribute(after, "llm.cost.completion") == pytest.approx(0.004605)
    assert attribute(after, "gen_ai.usage.cost.amount") == attribute(after, "llm.cost.total") == pytest.approx(0.004605)
    assert attribute(after, "gen_ai.usage.cost.source") == "local"
    assert attribute(after, "gen_ai.usage.cost") is None


def test_parts_of_a_tiered_price_follow_the_tier() -> None:
    (after,) = through(made(attributes=["details"]), call("gemini-2.5-pro", 200_001, 1000))
    assert attribute(after, "llm.cost.output") == pytest.approx(0.015)


def test_a_tier_without_price_gives_a_partial_cost_and_says_so() -> None:
    processor = made()
    (after,) = through(processor, call("claude-3-haiku", more={"gen_ai.response.service_tier": "priority"}))
    assert attribute(after, "llm.cost.partial") is True
    assert attribute(after, "llm.cost.partial_units") == "service_tier"
    assert reasons(processor) == {"no_unit_price": 1}
    assert cost(made(tiers={"priority": 2.0}), call("claude-3-haiku", more={"gen_ai.response.service_tier": "priority"})) == 0.001


def test_an_unreadable_total_beside_a_good_split_does_not_matter() -> None:
    (after,) = through(made(), call(more={"gen_ai.usage.total_tokens": "NaN"}))
    assert attribute(after, "llm.cost.partial") is None
    assert attribute(after, "llm.cost_usd") == pytest.approx(0.0045)


def test_an_unreadable_cache_count_gives_a_partial_cost() -> None:
    (after,) = through(made(), call(more={"gen_ai.usage.cache_read.input_tokens": "NaN"}))
    assert attribute(after, "llm.cost.partial_units") == "cache_read"


def test_ordinary_spans_are_not_even_copied() -> None:
    processor = made()
    before = batch(traces(*(span("GET /", {"http.method": "GET", "user.id": str(n), "model": "x"}) for n in range(20))))
    items = list(before.items())
    after = processor.process(before, NOW)
    assert after is before
    assert after.raw is not None
    assert all(a is b for a, b in zip(after.items(), items, strict=True))


def test_beside_llm_spans_ordinary_ones_keep_their_bytes_and_places() -> None:
    request = traces(span("a"), call(), span("b"), call("nobody-knows"), resource={"service.name": "shop"})
    other = traces(call("gpt-4o-mini"), resource={})
    request.resource_spans.extend(other.resource_spans)
    before = batch(request)
    items = before.items()
    after = made().process(before, NOW)
    assert after.raw is None
    same = [a is b for a, b in zip(after.items(), items, strict=True)]
    assert same == [True, False, True, True, False]
    assert after.items()[1].startswith(items[1])


def test_unknown_fields_of_a_span_survive_even_when_a_placeholder_is_replaced() -> None:
    extra = b"\xfa\x3f\x03new"  # field 1023
    before = batch(traces(call(more={"gen_ai.usage.cost": 0.0})))
    scope = next(before.scopes())
    scope.items[0] += extra
    after = made().process(before, NOW)
    assert extra in after.items()[0]
    assert attribute(spans_of(after)[0], "llm.cost_usd") == pytest.approx(0.0045)


def test_labels_name_service_provider_model_and_operation() -> None:
    """R-412, R-546, R-547, R-549."""
    processor = made()
    through(processor, call(more={"gen_ai.system": "az.ai.openai"}), resource={"service.name": "shop"})
    assert list(sums(processor, "requests", 0, 1, 2, 3, 4)) == [("shop", "azure", "gpt-4o", "chat", "success")]
    assert sums(processor, "tokens", 2, 4) == {("gpt-4o", "prompt"): 1000, ("gpt-4o", "completion"): 200}
    assert sums(processor, "cost", 2) == {"gpt-4o": pytest.approx(0.0045)}


def test_latency_and_cost_per_request_are_histograms_with_the_agreed_bounds() -> None:
    """R-413, R-548."""
    processor = made()
    through(processor, call(duration=1.5))
    text = processor.settings.meters
    from prometheus_client import generate_latest

    lines = generate_latest(text.derived).decode().splitlines()
    bounds = [ln.split('le="')[1].split('"')[0] for ln in lines if ln.startswith("llm_latency_seconds_bucket")]
    assert bounds == ["0.1", "0.5", "1.0", "2.0", "5.0", "10.0", "20.0", "30.0", "60.0", "+Inf"]
    assert 'le="1.0"' in next(ln for ln in lines if ln.startswith("llm_cost_per_request_usd_bucket") and 'le="1.0"' in ln)
    assert any(ln.startswith("llm_cost_usd_total{") for ln in lines)


def exposed(processor: Any, prefix: str) -> list[str]:
    from prometheus_client import generate_latest

    lines = generate_latest(processor.settings.meters.derived).decode().splitlines()
    return [line for line in lines if line.startswith(prefix) and "_bucket" not in line]


def mixed(processor: Any) -> None:
    through(processor, call(duration=0.5), call(more={**BARE, "error.type": "timeout"}, duration=0.5))


def test_the_names_of_arc_are_raised_on_request() -> None:
    """R-516, R-517, R-518, R-519."""
    processor = made(compat=["arc"])
    mixed(processor)
    assert exposed(processor, "arc_llm_") == [
        'arc_llm_calls_total{model="gpt-4o",status="success"} 1.0',
        'arc_llm_calls_total{model="gpt-4o",status="error"} 1.0',
        'arc_llm_tokens_total{model="gpt-4o",type="prompt"} 1000.0',
        'arc_llm_tokens_total{model="gpt-4o",type="completion"} 200.0',
        'arc_llm_cost_dollars_total{model="gpt-4o"} 0.0045000000000000005',
        'arc_llm_duration_seconds_count{model="gpt-4o"} 2.0',
        'arc_llm_duration_seconds_sum{model="gpt-4o"} 1.0',
    ]


def test_the_names_of_octollm_are_raised_on_request() -> None:
    """R-536, R-537, R-538, R-539."""
    processor = made(compat=["octollm"])
    mixed(processor)
    assert exposed(processor, "llm_api_") == [
        'llm_api_calls_total{model="gpt-4o",provider="openai",status="success"} 1.0',
        'llm_api_calls_total{model="gpt-4o",provider="openai",status="error"} 1.0',
        'llm_api_tokens_total{model="gpt-4o",provider="openai",type="prompt"} 1000.0',
        'llm_api_tokens_total{model="gpt-4o",provider="openai",type="completion"} 200.0',
        'llm_api_cost_dollars_total{model="gpt-4o",provider="openai"} 0.0045000000000000005',
        'llm_api_duration_seconds_count{model="gpt-4o",provider="openai"} 2.0',
        'llm_api_duration_seconds_sum{model="gpt-4o",provider="openai"} 1.0',
    ]


def test_without_request_there_are_no_other_names() -> None:
    processor = made()
    mixed(processor)
    assert exposed(processor, "arc_llm_") == exposed(processor, "llm_api_") == []


def test_listed_attributes_become_labels() -> None:
    """R-414."""
    processor = made(labels=["service", "provider", "model", "operation", "user_tier", "team", "deployment.zone"])
    more = {"user_tier": "gold", "litellm.team.alias": "red"}
    through(processor, call(more=more), resource={"service.name": "s", "deployment.zone": "eu"})
    assert list(sums(processor, "cost", 4, 5, 6)) == [("gold", "red", "eu")]


def test_ten_thousand_models_stay_within_the_cap_and_the_sums_stay_exact() -> None:
    """R-504."""
    processor = made()
    for start in range(0, 10_000, 1000):
        through(processor, *(call(f"m{n}", more={"gen_ai.provider.name": "vllm"}) for n in range(start, start + 1000)))
    names = sums(processor, "unpriced", 2)
    assert len(names) <= 99
    assert sum(names.values()) == 10_000
    assert set(sums(processor, "requests", 2)) == {"unknown"}
    assert len(processor._accounting.complaints._waiting) <= 100


def test_an_unknown_model_is_named_once_a_day_with_its_nearest_neighbour(caplog: pytest.LogCaptureFixture) -> None:
    """R-403."""
    processor = made()
    for _ in range(3):
        through(processor, call("claude-sonet-4-5", more=UNKNOWN))
        with caplog.at_level(logging.WARNING):
            processor.tick(NOW)
    assert [record.getMessage() for record in caplog.records] == [
        "no price for model 'claude-sonet-4-5' (provider anthropic, service api); "
        'nearest known: "claude-sonnet-4-5"; add it under processors.llm_cost.prices or aliases'
    ]


def test_beyond_a_hundred_models_one_line_an_hour_sums_up(caplog: pytest.LogCaptureFixture) -> None:
    processor = made()
    complaints = processor._accounting.complaints
    for n in range(150):
        complaints.note("p", f"m{n}", "s", "no_unit_price", NOW)
    with caplog.at_level(logging.WARNING):
        for second in range(200):
            processor.tick(NOW + second)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 101
    assert messages.count("50 calls of further models had no price") == 1
    complaints.note("p", "m0", "s", "no_unit_price", NOW + 90_000)
    complaints.note("p", "m149", "s", "no_unit_price", NOW + 90_000)
    assert len(complaints._waiting) == 2


def test_a_dear_call_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """R-419."""
    processor = made()
    with caplog.at_level(logging.WARNING):
        through(processor, call(tokens_in=1_000_000), call(more={"llm.cost_usd": 3.0, **BARE}))
    assert sums(processor, "high_cost", 2) == {"gpt-4o": 2}
    assert "model gpt-4o, cost 2.502000 USD, 1000200 tokens" in caplog.text


def test_no_log_line_holds_content(caplog: pytest.LogCaptureFixture) -> None:
    """R-306."""
    processor = made()
    canary = "canary-7391"
    with caplog.at_level(logging.DEBUG):
        through(
            processor, call("nobody-knows", more={"input.value": canary, "gen_ai.prompt.0.content": canary, "user.id": canary})
        )
        processor.tick(NOW)
    assert caplog.records
    assert canary not in caplog.text


def test_a_span_that_breaks_us_leaves_as_it_came_and_the_batch_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = made()
    real = processor._accounting._judge

    def broken(seen: Any, now: float) -> Any:
        if seen.request_model == "bomb":
            raise RuntimeError("defect")
        return real(seen, now)

    monkeypatch.setattr(processor._accounting, "_judge", broken)
    bomb = call("bomb")
    first, second = through(processor, bomb, call())
    assert first == bomb
    assert attribute(second, "llm.cost_usd") is not None
    assert sums(processor, "errors") == {(): 1}


def test_an_undecodable_span_leaves_as_it_came() -> None:
    processor = made()
    before = batch(traces(call(), call()))
    scope = next(before.scopes())
    scope.items[0] = scope.items[0] + b"\x2a\x02\xff\xfe"  # a name that is not UTF-8
    broken = scope.items[0]
    scope.header = b"\xff"
    after = processor.process(before, NOW)
    assert after.items()[0] == broken
    assert len(after.items()[1]) > len(call().SerializeToString())
    assert sums(processor, "errors")[()] >= 1


def test_without_any_pattern_engine_every_span_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "compiled", None)
    processor = made()

    def fail(*_: object) -> None:
        raise EngineFailed("none")

    monkeypatch.setattr(processor._finder._scanner, "scan", fail)
    first, second = through(processor, span("plain"), call())
    assert attribute(first, "llm.cost_usd") is None
    assert attribute(second, "llm.cost_usd") is not None


def test_other_signals_pass_untouched() -> None:
    request = traces(call())
    before = batch(request, Signal.TRACES)
    before.signal = Signal.LOGS
    assert made().process(before, NOW) is before


def test_the_catalogue_is_loaded_in_the_background_and_its_age_shown() -> None:
    """R-404."""
    processor = made(preload=True)
    processor.warm()
    processor.tick(NOW + 120)
    counters = processor._accounting.counters
    assert [labels[1] for labels in counters.info.series()] == ["genai-prices"]
    assert counters.age.value("genai-prices") > 0


def test_spend_sums_up_calls_and_failures() -> None:
    """R-415 (partly), R-416, R-418 (partly)."""
    processor = made()
    empty = processor.spend()
    assert (empty["total_calls"], empty["average_cost_per_call"], empty["models_used"]) == (0, 0, [])
    through(processor, call(), call("gpt-4o-mini"), call(more={**BARE, "error.type": "timeout"}), call(more=BARE, error=True))
    spend = processor.spend()
    assert (spend["total_calls"], spend["successful_calls"], spend["failed_calls"], spend["timeouts"]) == (4, 2, 2, 1)
    assert spend["total_cost"] == pytest.approx(0.00477)
    assert spend["total_tokens"] == 2400
    assert spend["average_tokens_per_call"] == 600
    assert spend["average_duration"] == pytest.approx(0.1)
    assert spend["models_used"] == ["gpt-4o", "gpt-4o-mini"]
    assert [(m["model"], m["calls"]) for m in spend["by_model"]] == [("gpt-4o", 3), ("gpt-4o-mini", 1)]
    (hour,) = processor.usage_by_hour(NOW)
    assert (hour["prompt_tokens"], hour["completion_tokens"], hour["total_tokens"]) == (2000, 400, 2400)
    assert processor.usage_by_hour(NOW + 100 * 3600) == []


def test_history_is_bounded_and_holds_numbers_only() -> None:
    """R-411 (partly), R-417 (partly)."""
    processor = made()
    through(processor, *(call(start=START + n) for n in range(1005)))
    history = processor.history()
    assert len(history) == 1000
    assert set(history[0]) == {
        "timestamp", "model", "provider", "service", "tokens", "duration_seconds", "cost_dollars", "status", "trace_id",
    }  # fmt: skip
    assert history[0]["timestamp"].startswith("2026-11-18T")
    assert history[0]["tokens"] == {"prompt": 1000, "completion": 200, "total": 1200}


def test_spend_by_model_and_hour_is_bounded() -> None:
    from collector.processors.llm_cost.spend import Spend
    from collector.processors.llm_cost.tally import Tally
    from collector.processors.llm_cost.usage import Usage

    spend = Spend()
    for n in range(700):
        tally = Tally(("s", "p", f"m{n}", "chat"), "success")
        tally.calls.append((tally, n * 3600 * 10**9, 0.1, None, Usage(1, output=1), None, b""))
        tally.sum_up()
        spend.book(tally)
    summary = spend.summary()
    assert len(summary["models_used"]) <= 501
    assert summary["unpriced_calls"] == 700
    assert len(spend.hours(700 * 3600.0, 10_000)) == 168


def test_preload_loads_the_catalogue_at_once() -> None:
    processor = made()
    processor.preload()
    processor.tick(NOW)
    assert processor._accounting.counters.age.value("genai-prices") > 0


def test_spans_that_break_us_are_told_once_an_hour_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    processor = made()

    def broken(*_: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(processor._accounting, "look", broken)
    for second in range(5):
        through(processor, call(), call())
        processor.tick(NOW + second)
    processor.tick(NOW + 4000)
    assert [record.getMessage() for record in caplog.records] == [
        "2 spans could not be priced: RuntimeError (2)",
        "8 spans could not be priced: RuntimeError (8)",
    ]
    assert sums(processor, "errors") == {(): 10}


def test_without_preload_warming_up_compiles_the_patterns_only() -> None:
    processor = made()
    processor.warm()
    assert "providers" not in vars(processor._accounting.catalogue)
