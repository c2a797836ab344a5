"""What a span says in any dialect also stands under the names of the conventions, beside what was there and never instead of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.processors.llm_cost.call import _operation
from collector.processors.llm_cost.catalogue import Catalogue, canonical
from collector.processors.llm_cost.dialects import data, matches
from collector.processors.llm_cost.normalized import provider_name
from collector.processors.llm_cost.options import Options
from collector.processors.llm_cost.prices import Call, PriceBook
from collector.processors.llm_cost.stamp import WRITTEN, count
from tests.processors.llm_cost.calls import NOW, made, raw, sums, through
from tests.processors.llm_cost.test_dialects import EXCLUSIVE, FAMILIES
from tests.processors.llm_cost.test_plans import _batches, _repeated
from tests.support import batch, spans_of, traces

NAMES = {
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.agent.name",
    "gen_ai.tool.name", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
}  # fmt: skip
PLAIN = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200}
COMPLETE = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06", **PLAIN,
}  # fmt: skip


def values(span: Span) -> dict[str, object]:
    """The attributes of a span; fails where a name stands twice."""
    assert len({entry.key for entry in span.attributes}) == len(span.attributes)
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value") or "") for entry in span.attributes}


def added(before: dict[str, object], after: Span) -> dict[str, object]:
    """What of the conventions' names came on top; fails when anything that was there is not there any more as it was."""
    now = values(after)
    assert {name: now[name] for name in before} == before
    return {name: value for name, value in now.items() if name in NAMES and name not in before}


def by_both_ways(one: dict[str, object], *, config: dict[str, Any] | None = None, **options: Any) -> dict[str, object]:
    """What is added to the first such span, read thoroughly, and equally to a later one, for which there is a plan."""
    spans = [raw(one, trace=bytes([n]) * 16, span_id=b"12345678") for n in range(4)]
    first, *rest = [added(one, span) for span in through(made(**config or {}), *spans, **options)]
    assert rest == [first] * 3
    return first


NORMAL: dict[str, dict[str, object]] = {
    "otel 1.26": {"gen_ai.provider.name": "openai", **PLAIN},
    "otel 1.41": {},
    "openinference": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                      "gen_ai.request.model": "gpt-4o-2024-08-06", **PLAIN},
    "traceloop": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"},
    "openlit": {"gen_ai.provider.name": "openai"},
    "vercel 4": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", **PLAIN},
    "vercel 6": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", **PLAIN},
    "litellm": {"gen_ai.provider.name": "openai", **PLAIN},
    "langfuse": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", **PLAIN},
    "langsmith": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"},
    "weak": {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", **PLAIN},
}  # fmt: skip


@pytest.mark.parametrize("family", NORMAL)
def test_every_family_also_gets_the_names_of_the_conventions(family: str) -> None:
    """R-703."""
    one = {name: value for name, value in FAMILIES[family].items() if name != "gen_ai.usage.cost"}  # a placeholder
    assert by_both_ways(one) == NORMAL[family]


def test_usage_in_a_map_also_gets_the_names_of_the_conventions() -> None:
    """R-703 (partly)."""
    (after,) = through(made(), raw(FAMILIES["mlflow"]))
    assert {name: value for name, value in values(after).items() if name in NAMES} == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", **PLAIN,
    }  # fmt: skip


SEEDS: dict[str, tuple[object, dict[str, object]]] = {
    "llm.model": ("gpt-4o", {"gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai"}),
    "model": ("gpt-4o", {"gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai"}),
    "llm.cost_usd": (0.0045, {"gen_ai.usage.cost": 0.0045}),
    "llm.tokens_used": (1200, {}),  # a total, for which the conventions have no name: counted with type unknown
    "llm.latency_ms": (830.5, {}),  # the conventions have the span's own duration: read where it has none
    "llm.prompt_length": (4000, {}),  # characters: the conventions count tokens
    "agent.name": ("planner", {"gen_ai.agent.name": "planner"}),
    "tool": ("search", {"gen_ai.tool.name": "search"}),
    "agent.type": ("react", {}),  # the kind of an agent, its place in a team, its task: no name in the conventions
    "worker.selected": ("writer", {}),
    "task": ("write a report", {}),
    "result.length": (312, {}),
    "status": ("completed", {}),  # read: error and timeout count as such
    "error.type": ("TimeoutError", {}),  # is the conventions' own name
    "error.message": ("took too long", {}),  # is the conventions' own name
    "user_id": ("u-17", {}),  # read as user
}
"""Every attribute of the older instrumentation, and what it means in the conventions."""


@pytest.mark.parametrize("name", SEEDS)
def test_each_older_attribute_stays_and_is_read_as_what_it_means(name: str) -> None:
    """R-702."""
    value, meaning = SEEDS[name]
    one = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5, name: value}
    (after,) = through(made(), raw(one))
    now = values(after)
    assert {key: now[key] for key in one} == one
    assert {key: now[key] for key in meaning} == meaning
    assert not (now.keys() - one.keys()) & NAMES - meaning.keys()


def test_all_older_attributes_of_a_call_together_are_counted_for_what_they_say() -> None:
    """R-702."""
    one = {name: value for name, (value, _) in SEEDS.items() if name not in ("error.type", "error.message", "model")}
    labels = ["service", "provider", "model", "operation", "user", "agent", "agent.type", "tool", "worker.selected", "task"]
    processor = made(labels=labels)
    (after,) = through(processor, raw(one, "llm.call"))
    assert added(one, after) == {
        "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.agent.name": "planner", "gen_ai.tool.name": "search",
    }  # fmt: skip
    assert sums(processor, "tokens", -1) == {"unknown": 1200}
    assert sums(processor, "cost", 1, 2, -1) == {("openai", "gpt-4o", "reported"): 0.0045}
    further = ("u-17", "planner", "react", "search", "writer", "write a report")
    assert sums(processor, "requests", *range(4, 11)) == {(*further, "success"): 1}


def test_error_type_and_status_decide_how_a_call_ended() -> None:
    """R-702 (partly)."""
    processor = made()
    for more in ({"error.type": "TimeoutError"}, {"status": "error"}, {"status": "completed"}):
        through(processor, raw({"llm.model": "gpt-4o", **more}))
    assert sums(processor, "requests", -1) == {"timeout": 1, "error": 1, "success": 1}


@pytest.mark.parametrize(
    ("duration", "said", "seconds"), [(0.0, 830, 0.83), (0.0, "830.5", 0.8305), (0.5, 830, 0.5), (0.0, 1e9, 0.0), (0.0, -1, 0.0)]
)
def test_the_latency_in_an_attribute_counts_where_the_span_has_no_duration(duration: float, said: object, seconds: float) -> None:
    """R-702 (partly)."""
    processor = made()
    spans = [raw({"llm.model": "gpt-4o", "llm.tokens_used": 5, "llm.latency_ms": said}, duration=duration) for _ in range(3)]
    through(processor, *spans)
    assert [each["duration_seconds"] for each in processor.history()] == [pytest.approx(seconds)] * 3


def test_a_tool_of_older_instrumentation_that_is_no_call_passes_as_it_came() -> None:
    """R-702 (partly)."""
    before = batch(traces(raw({"tool": "search", "agent.name": "planner", "status": "completed"}, "tool.search")))
    assert made().process(before, NOW) is before


@pytest.mark.parametrize(
    "more", [{}, {"gen_ai.usage.cache_read.input_tokens": 600}, {"gen_ai.agent.name": "a", "gen_ai.tool.name": "t"}]
)
def test_a_span_in_the_conventions_names_gets_its_cost_and_nothing_else(more: dict[str, object]) -> None:
    """R-703 (partly)."""
    with_names, without = made(), made(attributes=["default"])
    spans = [raw({**COMPLETE, **more}, trace=bytes([n]) * 16) for n in range(4)]
    assert through(with_names, *spans) == through(without, *spans)
    plan = next(plan for plan in with_names._accounting._plans._known.values() if plan is not None)
    assert plan.missing == (b"", None)


def test_agents_and_tools_in_the_conventions_names_share_a_plan() -> None:
    """However many there are: their names are not read unless they are labels."""
    processor = made()
    through(processor, *(raw({**COMPLETE, "gen_ai.agent.name": f"a{n}", "gen_ai.tool.name": f"t{n}"}) for n in range(5)))
    assert len(processor._accounting._plans._known) == 1
    by_agent = made(labels=["service", "provider", "model", "operation", "agent"])
    through(by_agent, *(raw({**COMPLETE, "gen_ai.agent.name": f"a{n}"}) for n in range(5)))
    assert len(sums(by_agent, "requests", 4)) == 5


def test_a_name_of_the_conventions_may_also_be_read_as_something_else() -> None:
    config = {"dialects": {"response_id": ["gen_ai.agent.name"], "input_tokens": ["gen_ai.tool.name"]}}
    for more in ({"gen_ai.agent.name": "planner-1"}, {"gen_ai.tool.name": 5}):
        assert by_both_ways({**COMPLETE, **more}, config=config) == {}


def test_cached_tokens_are_part_of_the_input_that_is_written() -> None:
    """R-703 (partly)."""
    cached = {"llm.token_count.prompt_details.cache_read": 50, "llm.token_count.prompt_details.cache_write": 30}
    one = {"openinference.span.kind": "LLM", "llm.model_name": "claude-sonnet-4-5", "llm.token_count.prompt": 100,
           "llm.token_count.completion": 7, **cached}  # fmt: skip
    names = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
    inclusive = by_both_ways(one)
    exclusive = by_both_ways(one, config={"usage_rules": [{"scope": "mine", "input": "exclusive"}]}, scope="mine")
    assert [inclusive[name] for name in names] == [100, 7]
    assert [exclusive[name] for name in names] == [180, 7]


@pytest.mark.parametrize(
    ("one", "counts"),
    [
        ({"ai.usage.promptTokens": 8}, {"gen_ai.usage.input_tokens": 8}),
        ({"ai.usage.completionTokens": 8}, {"gen_ai.usage.output_tokens": 8}),
        ({"ai.usage.completionTokens": 8, "ai.usage.reasoningTokens": 64}, {"gen_ai.usage.output_tokens": 72}),
        ({"ai.usage.totalTokens": 8}, {}),
        ({"ai.usage.promptTokens": "NaN", "ai.usage.completionTokens": 8}, {"gen_ai.usage.output_tokens": 8}),
        ({"ai.usage.promptTokens": 8, "ai.usage.cachedInputTokens": "NaN"}, {}),
        ({"ai.usage.completionTokens": 8, "ai.usage.reasoningTokens": "NaN"}, {}),
        ({"ai.usage.promptTokens": 0, "ai.usage.completionTokens": 10**12},
         {"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 10**12}),
        ({"ai.usage.promptTokens": 8, "gen_ai.usage.input_tokens": "eight"}, {}),
        ({"ai.usage.inputTokenDetails.noCacheTokens": 8, "ai.usage.cachedInputTokens": 4}, {"gen_ai.usage.input_tokens": 12}),
    ],
)  # fmt: skip
def test_only_token_counts_that_are_known_are_written(one: dict[str, object], counts: dict[str, object]) -> None:
    """R-703 (partly)."""
    shown = by_both_ways({"gen_ai.operation.name": "chat", "ai.model.id": "gpt-4o", **one})
    assert {name: value for name, value in shown.items() if "tokens" in name} == counts


@pytest.mark.parametrize("number", [0, 127, 128, 16_383, 16_384, 10**12, 3 * 10**12])
def test_a_count_of_any_size_is_written_as_it_is(number: int) -> None:
    (entry,) = Span.FromString(count("gen_ai.usage.input_tokens", number)).attributes
    assert (entry.key, entry.value.int_value) == ("gen_ai.usage.input_tokens", number)


def test_calls_without_a_price_and_failed_calls_get_the_names_too() -> None:
    """R-703 (partly)."""
    told: dict[str, object] = {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.model_name": "gpt-99",
        "error.type": "RateLimitError",
    }
    names = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-99"}
    assert by_both_ways(told) == names
    tokens: dict[str, object] = {"llm.token_count.prompt": 5, "llm.token_count.completion": 6}
    assert by_both_ways({**told, **tokens}) == {**names, "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6}


@pytest.mark.parametrize(
    ("one", "names"),
    [
        ({"openinference.span.kind": "AGENT", "agent.name": "planner"}, ("invoke_agent", "planner", None)),
        ({"openinference.span.kind": "TOOL", "tool.name": "search"}, ("execute_tool", None, "search")),
        ({"traceloop.span.kind": "agent", "traceloop.entity.name": "planner"}, ("invoke_agent", "planner", None)),
        ({"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}, ("execute_tool", None, "search")),
        ({"traceloop.span.kind": "task", "traceloop.entity.name": "step"}, (None, None, None)),
        ({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "search"}, ("execute_tool", None, "search")),
        ({"ai.operationId": "ai.generateText"}, ("invoke_agent", None, None)),
        ({"ai.operationId": "ai.embed"}, (None, None, None)),
        ({"openinference.span.kind": "CHAIN", "agent.name": "planner", "agent.id": "7"}, (None, "planner", None)),
    ],
)
def test_agents_and_tools_are_named(one: dict[str, object], names: tuple[str | None, ...]) -> None:
    """R-703 (partly)."""
    shown = by_both_ways(one)
    assert tuple(shown.pop(name, None) for name in ("gen_ai.operation.name", "gen_ai.agent.name", "gen_ai.tool.name")) == names
    assert not shown


def test_a_span_whose_call_is_counted_elsewhere_gets_names_but_neither_cost_nor_tokens() -> None:
    """R-703 (partly): whoever sums a trace up must not find the tokens twice."""
    usage = {
        "ai.usage.promptTokens": 10,
        "ai.usage.completionTokens": 5,
        "ai.model.id": "gpt-4o",
        "ai.model.provider": "openai.chat",
    }
    child = {"ai.operationId": "ai.generateText.doGenerate", **usage}
    root = {"ai.operationId": "ai.generateText", **usage}
    processor = made()
    for n in range(4):
        trace = bytes([n]) * 16
        inner = raw(child, trace=trace, span_id=b"child---", duration=0.1)
        inner.parent_span_id = b"root----"
        after, outer = through(processor, inner, raw(root, trace=trace, span_id=b"root----", duration=0.5))
        names = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
        assert added(root, outer) == {"gen_ai.operation.name": "invoke_agent", **names}
        assert values(outer)["llm.cost.rollup"] is True
        assert added(child, after).keys() == names.keys() | PLAIN.keys() | {"gen_ai.operation.name"}


def test_a_flag_that_said_no_is_not_there_twice() -> None:
    processor = made()
    one = {**COMPLETE, "gen_ai.response.id": "chatcmpl-0001", "llm.cost.rollup": False}
    first, second = through(processor, raw(one), raw(one))
    assert [values(span)["llm.cost.rollup"] for span in (first, second)].count(True) == 1


@pytest.mark.parametrize("attributes", [["default"], ["default", "otel"], ["details"], []])
def test_a_list_of_sets_without_the_name_adds_no_names(attributes: list[str]) -> None:
    """R-703 (partly): a configuration that names its sets keeps its meaning."""
    assert by_both_ways(FAMILIES["openinference"], config={"attributes": attributes}) == {}


def test_a_text_that_is_too_long_is_not_written_again() -> None:
    one: dict[str, object] = {"llm.model_name": "m" * 257, "llm.provider": "p" * 257, "openinference.span.kind": "LLM"}
    assert by_both_ways(one) == {"gen_ai.operation.name": "chat"}


@pytest.mark.parametrize(
    ("said", "resolved", "name"),
    [("OpenAI", "openai", "openai"), ("az.ai.openai", "azure", "azure.ai.openai"), ("openai.responses", "x", "openai"),
     ("gemini", "google", "gcp.gemini"), ("my-gateway", "unknown", "my-gateway"), ("", "google", "gcp.gen_ai"),
     ("litellm", "aws", "aws.bedrock"), ("langchain", "langchain", ""), ("", "unknown", ""), ("xai.chat", "x-ai", "x_ai"),
     ("google.vertex.anthropic.messages", "google", "google.vertex.anthropic.messages")],
)  # fmt: skip
def test_providers_have_the_conventions_names(said: str, resolved: str, name: str) -> None:
    """R-703 (partly)."""
    assert provider_name(said, resolved) == name


_SAID = sorted({*data()["provider_alias"], *data()["provider_name"], "groq", "OpenAI", "ollama", "someone"})


@pytest.mark.parametrize("said", [name.replace("*", "chat") for name in _SAID])
def test_a_providers_name_means_the_same_to_the_next_collector(said: str) -> None:
    """R-703 (partly)."""
    name = provider_name(said, "unknown")
    assert canonical(name) == canonical(said)
    assert provider_name(name, "unknown") == name
    patterns = {rule["provider"] for rule in data()["exclusive_input"] if "provider" in rule}
    if said != "aws":  # nobody whose counts are exclusive says that
        assert {pattern for pattern in patterns if matches(pattern, said) != matches(pattern, name)} == set()


def test_a_provider_found_by_the_models_name_leads_to_the_same_model_again() -> None:
    """R-703 (partly)."""
    catalogue = Catalogue()
    book, compared = PriceBook(Options(), catalogue), 0
    for model in {model.id for provider in catalogue.providers for model in provider.models[::3]}:
        for said, server in (("", ""), ("litellm", "api.openai.com")):
            first = book.resolve(Call(said, "", model, server, ""))
            if name := provider_name(said, first.provider):
                again = book.resolve(Call(name, "", model, server, ""))
                assert (again.provider, again.model) == (first.provider, first.model), model
                compared += 1
    assert compared > 300


_OPERATIONS = [
    *data()["inference_operations"], *data()["rollup_operations"], "TOOL", "tool", "RETRIEVER", "ai.toolCall", "task", "span", "execute_tool",
]  # fmt: skip


@pytest.mark.parametrize("word", [word.replace("*", "x") for word in _OPERATIONS])
def test_an_operations_name_means_the_same_to_the_next_collector(word: str) -> None:
    """R-703 (partly)."""
    said = _operation(word)
    assert said[0] not in data()["operation_names"] or _operation(said[0]) == said


EMITTERS = [("test", "", one) for one in FAMILIES.values()]
EMITTERS += [
    (scope, version, {**who, "llm.token_count.prompt": 100, "llm.token_count.completion": 7, "llm.model_name": "claude-sonnet-4-5",
                      "llm.token_count.prompt_details.cache_read": 50})
    for scope, version, name, who in EXCLUSIVE if name != "bedrock.converse"
]  # fmt: skip
EMITTERS += [("test", "", {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": text})
             for text in ('{"output": 5, "output_reasoning_tokens": 3}', '{"input": 5, "output_reasoning_tokens": 3}')]  # fmt: skip


@pytest.mark.parametrize("unpriced", [False, True])
@pytest.mark.parametrize(("scope", "version", "one"), EMITTERS)
def test_a_second_collector_counts_the_same_and_adds_nothing(
    scope: str, version: str, one: dict[str, object], unpriced: bool
) -> None:
    """R-703 (partly)."""
    if unpriced:
        one = {**one, "gen_ai.response.model": "nobody-knows", "gen_ai.provider.name": one.get("gen_ai.system", "vllm")}
    spans = [raw(one, trace=bytes([n]) * 16) for n in range(4)]
    first, second = made(), made()
    once = through(first, *spans, scope=scope, version=version)
    assert through(second, *once, scope=scope, version=version) == once
    assert sums(first, "tokens", -1)
    for family in ("tokens", "billed"):
        assert sums(second, family, *range(5)) == sums(first, family, *range(5))
    assert sums(second, "requests", 1, 2, 3, 4) == sums(first, "requests", 1, 2, 3, 4)


@given(_batches)
@settings(max_examples=60, deadline=None)
def test_nothing_is_overwritten_or_doubled_and_a_second_pass_adds_nothing(batches: list[Any]) -> None:
    """R-702 (partly), R-703."""
    first, second = made(), made()
    for spans, (scope, version) in batches:
        request = traces(*_repeated(spans), scope=scope)
        request.resource_spans[0].scope_spans[0].scope.version = version
        before = spans_of(batch(request))
        once = first.process(batch(request), NOW)
        for old, new in zip(before, spans_of(once), strict=True):
            _same_and_more(old, new)
        items = list(once.items())
        assert list(second.process(once, NOW).items()) == items


def _same_and_more(old: Span, new: Span) -> None:
    ours = {
        entry.key for entry in old.attributes if entry.key in WRITTEN
    }  # their placeholders are replaced, by rules of their own
    kept = [entry.SerializeToString() for entry in old.attributes if entry.key not in ours]
    assert [entry.SerializeToString() for entry in new.attributes if entry.key not in ours][: len(kept)] == kept
    fresh = [entry.key for entry in new.attributes][len(old.attributes) :]
    assert len(set(fresh)) == len(fresh)
    assert not {*fresh} & {entry.key for entry in old.attributes} - ours


PAGE = (Path(__file__).parents[3] / "docs/llm-cost.md").read_text()


def test_the_example_of_the_page_is_what_happens() -> None:
    """R-703."""
    before, after = [yaml.safe_load(block) for block in re.findall(r"^```yaml \S+\n(.*?)^```", PAGE, re.M | re.S)]
    assert added(before, through(made(), raw(before))[0]) == after
    assert [name for name in NAMES if name not in PAGE] == []


def test_a_placeholder_beside_missing_names_is_replaced_and_the_names_are_added() -> None:
    one = {**FAMILIES["openinference"], "gen_ai.usage.cost": 0.0}
    (after,) = through(made(), raw(one))
    assert values(after)["gen_ai.usage.cost"] == pytest.approx(0.00375)
    assert {name: value for name, value in values(after).items() if name in NAMES} == NORMAL["openinference"]


def test_names_stand_beside_parts_of_the_amount() -> None:
    shown = by_both_ways(FAMILIES["vercel 6"], config={"attributes": ["details", "normalized"]})
    assert shown == NORMAL["vercel 6"]


@given(st.text(max_size=300), st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_as_name_is_written_once_or_not_at_all(model: str, provider: str) -> None:
    one: dict[str, object] = {"llm.model_name": model, "llm.provider": provider, "llm.token_count.prompt": 5}
    assert "gen_ai.usage.input_tokens" in by_both_ways(one)


def test_a_call_that_only_its_weak_names_tell_of_is_not_made_one_by_ours() -> None:
    one: dict[str, object] = {"model": "gpt-4o", "llm.cost_usd": 0.0}
    processor = made()
    (after,) = through(processor, raw(one))
    assert added(one, after) == {}
    assert not sums(processor, "requests", -1)
