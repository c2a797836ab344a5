"""The same call, told by different instrumentations, has the same usage and the same cost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp.find import Finder
from collector.processors.llm_cost.dialects import Dialects, data
from collector.processors.llm_cost.usage import LIMIT, money, tokens
from tests.processors.llm_cost.calls import call, cost, made, raw, sums, through
from tests.support import attribute

GPT = {"in": 1000, "out": 200, "cached": 600}
FAMILIES: dict[str, dict[str, object]] = {
    "otel 1.26": {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.prompt_tokens": 1000,
                  "gen_ai.usage.completion_tokens": 200, "gen_ai.usage.cache_read_input_tokens": 600},
    "otel 1.41": {"gen_ai.provider.name": "openai", "gen_ai.operation.name": "chat", "gen_ai.response.model": "gpt-4o-2024-08-06",
                  "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200, "gen_ai.usage.cache_read.input_tokens": 600,
                  "gen_ai.usage.reasoning.output_tokens": 64},
    "openinference": {"openinference.span.kind": "LLM", "llm.system": "openai", "llm.model_name": "gpt-4o-2024-08-06",
                      "llm.token_count.prompt": 1000, "llm.token_count.completion": 200, "llm.token_count.total": 1200,
                      "llm.token_count.prompt_details.cache_read": 600, "llm.token_count.prompt_details.audio": 0},
    "traceloop": {"llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o",
                  "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200, "llm.usage.total_tokens": 1200,
                  "gen_ai.usage.cache_read_input_tokens": 600, "gen_ai.usage.reasoning_tokens": 64},
    "openlit": {"gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.input_tokens": "1000", "gen_ai.usage.output_tokens": "200", "gen_ai.client.token.usage": 1200,
                "gen_ai.usage.prompt_tokens_details.cached_tokens": 600, "gen_ai.usage.cost": 0.0},
    "vercel 4": {"operation.name": "ai.generateText.doGenerate", "ai.operationId": "ai.generateText.doGenerate",
                 "ai.model.provider": "openai.chat", "ai.model.id": "gpt-4o", "ai.usage.promptTokens": 1000,
                 "ai.usage.completionTokens": 200, "ai.usage.cachedInputTokens": 600},
    "vercel 6": {"ai.operationId": "ai.streamText.doStream", "ai.model.provider": "openai.responses", "ai.model.id": "gpt-4o",
                 "ai.usage.inputTokens": 1000, "ai.usage.outputTokens": 200, "ai.usage.inputTokenDetails.noCacheTokens": 400,
                 "ai.usage.inputTokenDetails.cacheReadTokens": 600},
    "litellm": {"gen_ai.operation.name": "chat", "gen_ai.system": "litellm", "gen_ai.request.model": "openai/gpt-4o",
                "llm.token_count.prompt": 1000.0, "llm.token_count.completion": 200.0,
                "gen_ai.usage.cache_read.input_tokens": 600},
    "langfuse": {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "gpt-4o",
                 "langfuse.observation.usage_details":
                 json.dumps({"input": 400, "input_cached_tokens": 600, "output": 136, "output_reasoning_tokens": 64})},
    "langsmith": {"langsmith.span.kind": "LLM", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o",
                  "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200, "gen_ai.usage.total_tokens": 1200,
                  "gen_ai.usage.input_token_details": "{'cache_read': 600, 'audio': 0}"},
    "mlflow": {"mlflow.spanType": "CHAT_MODEL", "mlflow.llm.model": "gpt-4o", "mlflow.llm.provider": "openai",
               "mlflow.chat.tokenUsage": {"input_tokens": 1000, "output_tokens": 200, "cache_read_input_tokens": 600}},
    "weak": {"model": "gpt-4o", "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
             "gen_ai.usage.cache_read_tokens": 600},
}  # fmt: skip
EXCLUSIVE: list[tuple[str, str, str, dict[str, object]]] = [
    ("openlit.otel.tracing", "", "chat", {"gen_ai.system": "anthropic"}),
    ("openlit.otel.tracing", "", "chat", {"gen_ai.system": "aws.bedrock"}),
    ("opentelemetry.instrumentation.bedrock", "0.62.4", "bedrock.converse", {"gen_ai.system": "aws.bedrock"}),
    ("opentelemetry.instrumentation.anthropic", "0.30.0", "anthropic.chat", {"gen_ai.system": "anthropic"}),
    ("opentelemetry.instrumentation.botocore.bedrock-runtime", "0.5", "chat", {"gen_ai.system": "aws.bedrock"}),
    ("ai", "", "ai.generateText.doGenerate", {"gen_ai.system": "anthropic.messages"}),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_tells_the_same_cost(family: str) -> None:
    """R-405, R-407, R-424."""
    processor = made()
    assert cost(processor, raw(FAMILIES[family])) == pytest.approx(0.00375, abs=1e-9)
    assert sums(processor, "tokens", -1) == {"prompt": 1000, "completion": 200}
    assert sums(processor, "billed", -1) == {"input_uncached": 400, "cache_read": 600, "output": 200}


@pytest.mark.parametrize(("scope", "version", "name", "more"), EXCLUSIVE)
def test_exclusive_emitters_are_known_by_scope(scope: str, version: str, name: str, more: dict[str, object]) -> None:
    """The cache fits into the input here, so only the rule can know."""
    processor = made()
    cached = {"gen_ai.usage.cache_read.input_tokens": 50}
    through(processor, call("claude-sonnet-4-5", 100, name=name, more={**more, **cached}), scope=scope, version=version)
    assert sums(processor, "tokens", -1)["prompt"] == 150


@pytest.mark.parametrize("version", ["0.62.4", "", "next"])
def test_a_newer_or_unknown_version_of_an_exclusive_emitter_is_inclusive(version: str) -> None:
    processor = made()
    one = call("claude-sonnet-4-5", 100, more={"gen_ai.system": "anthropic", "gen_ai.usage.cache_read.input_tokens": 50})
    through(processor, one, scope="opentelemetry.instrumentation.anthropic", version=version)
    assert sums(processor, "tokens", -1)["prompt"] == 100


def test_a_rule_may_depend_on_what_the_span_lacks() -> None:
    """Vercel AI 4 and 5 write exclusive counts, version 6 says how many were not cached."""
    shared = {"gen_ai.system": "anthropic.messages", "gen_ai.usage.cache_read.input_tokens": 50}
    processor = made()
    more = {**shared, "ai.usage.inputTokenDetails.noCacheTokens": 70}
    through(processor, call("claude-sonnet-4-5", 120, more=more), scope="ai")
    assert sums(processor, "tokens", -1)["prompt"] == 120


def test_a_users_rule_decides_before_the_built_in_ones() -> None:
    one = {"gen_ai.usage.cache_read.input_tokens": 50}
    mine = made(usage_rules=[{"scope": "your.lib", "input": "inclusive"}, {"scope": "my.lib*", "input": "exclusive"}])
    through(mine, call("gpt-4o", 100, more=one), scope="my.lib.chat")
    assert sums(mine, "tokens", -1)["prompt"] == 150
    theirs = made(usage_rules=[{"scope": "ai", "input": "inclusive"}])
    through(theirs, call("claude-sonnet-4-5", 100, more={**one, "gen_ai.system": "anthropic.messages"}), scope="ai")
    assert sums(theirs, "tokens", -1)["prompt"] == 100


def test_the_total_tells_whether_cached_tokens_come_on_top() -> None:
    processor = made()
    through(processor, call(tokens_in=100, more={"gen_ai.usage.cache_read.input_tokens": 50, "gen_ai.usage.total_tokens": 350}))
    assert sums(processor, "tokens", -1)["prompt"] == 150
    processor = made()
    through(processor, call(tokens_in=100, more={"gen_ai.usage.cache_read.input_tokens": 50, "gen_ai.usage.total_tokens": 300}))
    assert sums(processor, "tokens", -1)["prompt"] == 100


def test_reasoning_beyond_the_output_is_added_to_it() -> None:
    processor = made()
    through(processor, call(tokens_out=10, more={"gen_ai.usage.reasoning.output_tokens": 64}))
    assert sums(processor, "tokens", -1)["completion"] == 74


def test_embeddings_have_no_output() -> None:
    one = call("text-embedding-3-small", 8, None, more={"gen_ai.operation.name": "embeddings", "gen_ai.system": "openai"})
    assert cost(made(), one) == pytest.approx(0.00000016, abs=1e-12)


def test_audio_tokens_are_repriced_not_added() -> None:
    spoken = call("gpt-audio", more={"gen_ai.usage.audio.input_tokens": 400})
    assert cost(made(), spoken) == pytest.approx(0.0163, abs=1e-9)


def test_cached_audio_is_priced_as_cached_audio() -> None:
    more = {
        "cache_read.input_tokens": 600,
        "audio.input_tokens": 500,
        "audio.cache_read.input_tokens": 200,
        "audio.output_tokens": 100,
    }
    one = call("gpt-realtime", more={f"gen_ai.usage.{name}": value for name, value in more.items()})
    assert cost(made(), one) == pytest.approx(0.01824, abs=1e-9)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "request_model", "cost_reported"])
def test_own_attribute_names_are_read_first(field: str) -> None:
    values: dict[str, object] = {"input_tokens": 2000, "output_tokens": 0, "request_model": "gpt-4-turbo", "cost_reported": 0.5}
    processor = made(dialects={field: ["my.name"]})
    through(processor, call(more={"my.name": values[field], "llm.cost_usd": 0.1}))
    through(made(dialects={"input_tokens": ["my.tokens"]}), raw({"my.tokens": 5, "model": "gpt-4o"}))
    truth = {"input_tokens": 2000, "output_tokens": 0}
    assert sums(processor, "tokens", -1).get("prompt") == truth.get(field, 1000) or field == "output_tokens"
    assert sum(sums(processor, "cost", -1).values()) == pytest.approx(0.5 if field == "cost_reported" else 0.1)


def test_own_names_alone_make_a_span_an_llm_span() -> None:
    processor = made(dialects={"input_tokens": ["my.tokens.in"], "output_tokens": ["my." + "x" * 140]})
    through(processor, raw({"my.tokens.in": 5, "llm.model": "gpt-4o"}), raw({"my." + "x" * 140: 7, "model": "gpt-4o"}))
    assert sums(processor, "tokens", -1) == {"prompt": 5, "completion": 7}


@pytest.mark.usefixtures("walker")
def test_every_strong_name_of_a_call_is_found() -> None:
    finder = Finder(Dialects().conditions(), Dialects().patterns())
    weak = set(data()["weak_names"])
    fields = ["input_tokens", "output_tokens", "total_tokens", "uncached_input", "cost_reported", "operation", "request_model"]
    for field in fields:
        for alias in data()["fields"][field]:
            name = alias.partition("#")[0]
            if name in weak and field in ("request_model", "operation"):
                continue  # alone they mean nothing
            assert finder.find([raw({name: 1}).SerializeToString()]), name
    assert not finder.find([raw({"http.method": "GET", "gen_ai.tool.name": "x", "total": 5}).SerializeToString()])


@pytest.mark.parametrize(
    "values",
    [
        {"http.method": "GET"},
        {"model": "T-1000", "price": 5},
        {"prompt_tokens": 5},
        {"total_tokens": 5, "user.id": "x"},
        {"gen_ai.tool.name": "search"},
    ],
)
def test_common_words_alone_are_no_llm_call(values: dict[str, object]) -> None:
    processor = made()
    (span,) = through(processor, raw(values))
    assert not sums(processor, "requests", -1)
    assert len(span.attributes) == len(values)


@given(st.one_of(st.booleans(), st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.lists(st.integers())))
@settings(max_examples=100, deadline=None)
def test_a_token_count_is_a_sane_whole_number_or_none(value: object) -> None:
    """R-405."""
    count = tokens(value)
    assert count is None or (type(count) is int and 0 <= count <= LIMIT)
    amount = money(value)
    assert amount is None or 0 < amount <= LIMIT


@pytest.mark.parametrize(
    "value", [True, False, "NaN", "inf", -1, "-1", "", "  ", "many", 10**13, float("nan"), float("inf"), "9" * 400]
)
def test_what_is_no_count_is_refused(value: object) -> None:
    """R-405."""
    assert tokens(value) is None


@pytest.mark.parametrize(("value", "count"), [(0, 0), (7, 7), ("7", 7), (" 7.0 ", 7), (6.6, 7), (10**12, 10**12)])
def test_numbers_in_any_spelling_are_counts(value: object, count: int) -> None:
    """R-405."""
    assert tokens(value) == count


def test_an_unusable_value_falls_through_to_the_next_name() -> None:
    """R-405."""
    one = call(more={"gen_ai.usage.input_tokens": float("nan"), "gen_ai.usage.prompt_tokens": "1000"})
    assert cost(made(), one) == pytest.approx(0.0045, abs=1e-9)


_values = st.recursive(
    st.one_of(st.booleans(), st.text(max_size=8), st.floats(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)
_names = sorted({alias.partition("#")[0] for aliases in data()["fields"].values() for alias in aliases})


@given(st.lists(st.dictionaries(st.sampled_from(_names), _values, min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_type_in_any_field_raises_or_hides_a_span(attributes: list[dict[str, object]]) -> None:
    """R-403."""
    processor = shared
    spans = [raw({"gen_ai.operation.name": "chat", **values}) for values in attributes]
    after = through(processor, *spans)
    assert sums(processor, "errors") in ({}, {(): 0.0})
    assert [span.span_id for span in after] == [span.span_id for span in spans]
    for span in after:
        amount = attribute(span, "llm.cost_usd") if attribute(span, "llm.cost.source") == "computed" else None
        assert amount is None or (isinstance(amount, float) and amount >= 0)


shared = made(attributes=["default", "otel", "openinference", "details"])


@pytest.mark.parametrize(
    "text", ["{broken", "[1, 2]", "{'a': " + "[" * 300, '"text"', "x" * 70_000, "{'cache_read': '\\d'}", "{'a': 1" * 2000]
)
def test_broken_json_in_a_usage_attribute_is_no_usage(text: str) -> None:
    processor = made()
    assert cost(processor, call(more={"gen_ai.usage.input_token_details": text})) == pytest.approx(0.0045, abs=1e-9)
    assert cost(processor, raw({"langfuse.observation.type": "generation", "langfuse.observation.usage_details": text})) is None
    assert sums(processor, "unpriced", -1) == {"no_usage": 1}


def test_milliseconds_to_the_first_token_become_seconds() -> None:
    def first(scope: str, **more: object) -> float:
        processor = made()
        through(processor, call(more={k.replace("__", "."): v for k, v in more.items()}), scope=scope)
        families = processor.settings.meters.derived.collect()
        return next(s.value for m in families for s in m.samples if s.name == "llm_time_to_first_token_seconds_sum")

    assert first("x", gen_ai__response__time_to_first_chunk=0.3) == pytest.approx(0.3)
    assert first("x", ai__response__msToFirstChunk=300) == pytest.approx(0.3)
    assert first("strands.telemetry", gen_ai__server__time_to_first_token=300) == pytest.approx(0.3)
    assert first("other", gen_ai__server__time_to_first_token=0.3) == pytest.approx(0.3)


def test_an_unknown_field_of_dialects_is_refused() -> None:
    from collector.errors import ConfigError

    with pytest.raises(ConfigError, match='unknown field "tokens_in"'):
        made(dialects={"tokens_in": ["x"]})


def test_any_number_of_key_sequences_is_read_alike() -> None:
    processor = made()
    for n in range(150):
        assert cost(processor, call(more={f"key.{n}": "x", "gen_ai.usage.total_tokens": "1200"})) == pytest.approx(0.0045)
    assert cost(
        processor, call(more={**{f"key.{n}": "x" for n in range(80)}, "gen_ai.usage.total_tokens": "1"})
    ) == pytest.approx(0.0045)
