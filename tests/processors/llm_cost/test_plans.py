"""The short way by plans computes exactly what the thorough way computes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client import generate_latest

from collector.processors.llm_cost import shapes
from collector.processors.llm_cost.dialects import data
from tests.processors.llm_cost.calls import NOW, START, call, cost, made, raw, through
from tests.processors.llm_cost.test_dialects import EXCLUSIVE, FAMILIES
from tests.support import batch, traces

CONFIGS: list[dict[str, Any]] = [
    {},
    {"attributes": ["default", "otel", "openinference", "details"], "compat": ["arc", "octollm"]},
    {"attributes": ["details", "normalized"], "labels": ["service", "provider", "model", "operation", "agent"]},
    {"attributes": ["otel"], "labels": ["service", "provider", "model", "operation", "team", "user.id", "zone"]},
    {"prices": [{"match": {"model": "gpt-4o"}, "input": 1, "output": 2, "from": "2026-11-18"},
                {"match": {"model": "gpt*"}, "discount_percent": 10},
                {"match": {"model": "local"}, "output": 3}], "high_cost_usd": 0.01},
    {"dialects": {"input_tokens": ["my.in"], "output_tokens": ["my.in"]}, "dedup": {"max_entries": 100},
     "usage_rules": [{"scope": "mine", "input": "exclusive"}], "limits": {"label_values": 8}},
]  # fmt: skip
SCOPES = [("test", ""), ("mine", ""), *sorted({(scope, version) for scope, version, _, _ in EXCLUSIVE}), ("strands.x", "")]
_counts = st.one_of(st.integers(0, 2000), st.sampled_from([-1, 10**12, 10**13, 1.5, "12", "NaN", True, 300_000]))
_words = st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "o3", "local", "chat", "openai",
                          "anthropic", "aws.bedrock", "vllm", "batch", "priority", "timeout", "invoke_agent", "ai.generateText",
                          " padded ", "", "true", "AGENT", "error", "openrouter/free:free", "chatcmpl-0001", "chatcmpl-0002"])  # fmt: skip
_fields = data()["fields"]
_names = sorted(
    {alias.partition("#")[0] for aliases in _fields.values() for alias in aliases} | {"my.in", "zone", "llm.cost.source"}
)
_by_field = {field: [alias for alias in aliases if "#" not in alias] for field, aliases in _fields.items()}
_word_names = [name for field in sorted(shapes._SAME) for name in _by_field[field]]
_count_names = [name for field in shapes.COUNTS for name in _by_field[field]]
_odd = st.dictionaries(st.sampled_from(_names), st.one_of(_words, _counts, st.floats(0, 2)), max_size=3)
_plain = st.builds(
    lambda words, counts, rest: {**words, **counts, **rest},
    st.dictionaries(st.sampled_from(_word_names), st.one_of(_words, _words, _counts), max_size=3),
    st.dictionaries(st.sampled_from(_count_names), st.integers(0, 300_000), max_size=3),
    st.fixed_dictionaries({}, optional={
        "gen_ai.response.time_to_first_chunk": st.floats(0.001, 3), "ai.response.msToFirstChunk": st.floats(1, 900),
        "http.status_code": st.sampled_from([200, 429]), "user.id": _words, "zone": _words, "litellm.team.alias": _words,
        "gen_ai.server.time_to_first_token": st.floats(1, 900), "gen_ai.response.id": _words,
    }),
)  # fmt: skip
_more = st.one_of(st.just({}), _plain, _plain, _plain, _odd)
_bases = st.one_of(
    st.sampled_from([*FAMILIES.values(), {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}]),
    st.builds(lambda model, provider: {"gen_ai.operation.name": "chat", "gen_ai.request.model": model, "gen_ai.system": provider,
                                       "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}, _words, _words),
)  # fmt: skip


def _span(values: dict[str, object], own: int, parent: int, error: bool, start: int, name: str) -> Span:
    one = raw(values, name, start=start, duration=own // 3 / 10, error=error)
    one.trace_id, one.span_id = b"t" * 16, b"%08d" % own
    one.parent_span_id = b"%08d" % parent if parent else b""
    return one


_spans = st.builds(
    lambda base, more, *rest: _span({**base, **more}, *rest),
    _bases, _more, st.integers(1, 30), st.integers(0, 30), st.booleans(),
    st.sampled_from([START, START - 10**9, START - 10 * 86_400 * 10**9, 0]), st.sampled_from(["op", "bedrock.converse"]),
)  # fmt: skip
_batches = st.lists(st.tuples(st.lists(_spans, min_size=1, max_size=4), st.sampled_from(SCOPES)), min_size=1, max_size=3)


def _repeated(spans: list[Span]) -> list[Span]:
    """A shape gets its plan when it comes again: the same spans with other ids, times and counts."""
    copies = []
    for number in range(6):
        for span in spans:
            copy = Span()
            copy.CopyFrom(span)
            copy.trace_id = bytes([number // 2]) * 16
            copy.start_time_unix_nano += number * 10**8 if copy.start_time_unix_nano else 0
            for place, entry in enumerate(copy.attributes):
                if entry.value.int_value > 0 and entry.key in _count_names:
                    entry.value.int_value = entry.value.int_value * (place + 1) * number % 5000
                elif entry.key == "gen_ai.response.id" and number % 3:
                    entry.value.string_value += str(number)
            copies.append(copy)
    return copies


def _shown(processor: Any) -> list[tuple[str, float]]:
    lines = generate_latest(processor.settings.meters.derived).decode().splitlines()
    pairs = sorted(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return [(name, float(value)) for name, value in pairs]


@pytest.mark.usefixtures("walker")
@pytest.mark.parametrize("config", CONFIGS)
@given(_batches)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_bytes_counters_and_spend(config: dict[str, Any], batches: list[Any]) -> None:
    quick, thorough = made(**config), made(**config)
    thorough._accounting.thorough = True
    for spans, (scope, version) in batches:
        request = traces(*_repeated(spans), scope=scope)
        request.resource_spans[0].scope_spans[0].scope.version = version
        left, right = quick.process(batch(request), NOW), thorough.process(batch(request), NOW)
        assert list(left.items()) == list(right.items())
    assert [name for name, _ in _shown(quick)] == [name for name, _ in _shown(thorough)]
    assert dict(_shown(quick)) == pytest.approx(dict(_shown(thorough)), rel=1e-12, abs=1e-15)
    assert quick.history() == thorough.history()
    assert _numbers(quick.spend()) == pytest.approx(_numbers(thorough.spend()), rel=1e-12)
    assert quick.usage_by_hour(NOW, 500) == thorough.usage_by_hour(NOW, 500)
    assert quick._accounting._dedup.marks._young == thorough._accounting._dedup.marks._young
    assert quick._accounting._dedup._ids._young == thorough._accounting._dedup._ids._young


def _numbers(spend: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in spend.items() if key not in ("by_model", "models_used")}
    for entry in spend["by_model"]:
        flat |= {f"{entry['model']}.{key}": value for key, value in entry.items() if key != "model"}
    return flat


@pytest.mark.usefixtures("walker")
@pytest.mark.parametrize(
    "attribute",
    [
        b"",
        b"\n\x0cserver.other",
        b"\x12\x02\x18\x05\n\x1agen_ai.usage.output_tokens",
        b"\n\x1agen_ai.usage.output_tokens",
        b"\n\x1agen_ai.usage.output_tokens\x12\x00",
        b"\n\x1agen_ai.usage.output_tokens\x12\x02\x18\x05",
        b"\n\x1agen_ai.usage.output_tokens\x12\x03\x18\x85\x00",
        b"\n\x1agen_ai.usage.output_tokens\x12\x01\x18",
        b"\n\x12gen_ai.response.id\x12\x04\n\x02\xff\xfe",
        b"\n\x12gen_ai.response.id\x12\x04\n\x02ab",
    ],
)
def test_unusual_encodings_are_read_like_all_others(attribute: bytes) -> None:
    quick, thorough = made(), made()
    thorough._accounting.thorough = True
    results = []
    for processor in (quick, thorough):
        before = batch(traces(*(call(tokens_out=None, trace=bytes([n]) * 16, span_id=b"12345678") for n in range(4))))
        scope = next(before.scopes())
        for place, item in enumerate(scope.items):
            scope.items[place] = item + b"\x4a" + bytes([len(attribute)]) + attribute
        results.append((processor.process(before, NOW).items(), _shown(processor)))
    assert results[0] == results[1]


def test_a_repeated_span_in_between_still_carries_marks_up() -> None:
    quick, thorough = made(), made()
    thorough._accounting.thorough = True
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    for processor in (quick, thorough):
        through(processor, *(raw(tool, trace=bytes([n]) * 16) for n in range(5)))
    assert _shown(quick) == _shown(thorough)


def test_changed_prices_hold_for_repeated_shapes_too(tmp_path: Any) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("prices: [{match: {model: local}, input: 1, output: 1}]")
    processor = made(prices_file=str(file))
    before = [cost(processor, call("local")) for _ in range(4)]
    file.write_text("prices: [{match: {model: local}, input: 2, output: 2}]")
    assert processor.reload_prices()
    assert before == [0.0012] * 4
    assert [cost(processor, call("local")) for _ in range(4)] == [0.0024] * 4


def test_plans_are_bounded() -> None:
    processor = made()
    for start in range(0, 9000, 1000):
        spans = [call(f"m{n // 2}", more={"gen_ai.provider.name": "vllm"}) for n in range(start, start + 1000)]
        through(processor, *spans)
    assert len(processor._accounting._plans._known) == 4096


@pytest.mark.parametrize(
    ("more", "hours"),
    [({"gen_ai.response.service_tier": "priority"}, 0), ({"gen_ai.request.model": "text-embedding-3-small"}, 0), ({}, 1)],
)
def test_incomplete_prices_and_calls_of_several_hours_come_out_the_same(more: dict[str, object], hours: int) -> None:
    shown = []
    for thorough in (False, True):
        processor = made()
        processor._accounting.thorough = thorough
        spans = [
            call("claude-3-haiku", more=more, start=START - n * hours * 3600 * 10**9, trace=bytes([n]) * 16, span_id=b"12345678")
            for n in range(5)
        ]
        after = through(processor, *spans)
        shown.append(([span.SerializeToString() for span in after], processor.usage_by_hour(NOW), dict(_shown(processor))))
    assert shown[0][:2] == shown[1][:2]
    assert shown[0][2] == pytest.approx(shown[1][2], rel=1e-12)
