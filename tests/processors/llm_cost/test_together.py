"""Calls that are settled together, or in C, come out as they would one by one."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.processors.llm_cost import LlmCost, together
from collector.processors.llm_cost.dedup import COUNTED, NO_ID, USAGE_BELOW, Dedup
from hatch_build import compile_module, lacking
from tests.processors.llm_cost.calls import NOW, START, call, made
from tests.processors.llm_cost.test_plans import _numbers, _shown
from tests.support import batch, traces

CONFIGS: list[dict[str, Any]] = [
    {}, {"attributes": ["default", "normalized"]}, {"attributes": ["details"]}, {"high_cost_usd": 0.004},
    {"dedup": {"max_entries": 100}},
    {"prices": [{"match": {"model": "gpt-4o"}, "input": 1, "output": 2, "from": "2026-11-18"}]},
]  # fmt: skip
WARM = [
    call(model, more={"gen_ai.response.id": f"warm-up-{model}-{n}", "gen_ai.operation.name": operation}, span_id=b"warm%d%s" % (n, tail),
         trace=b"w" * 16)
    for model, operation, tail in (("gpt-4o", "chat", b"aaa"), ("gpt-4o-mini", "chat", b"bbb"), ("nobody", "chat", b"ccc"),
                                   ("gpt-4o", "invoke_agent", b"ddd"))
    for n in range(3)
] + [call(tokens_in=None, tokens_out=None, more={"gen_ai.response.id": f"no-tokens-{n}"}, span_id=b"none%d___" % n) for n in range(3)]  # fmt: skip
_calls = st.lists(
    st.tuples(
        st.sampled_from(["gpt-4o", "gpt-4o", "gpt-4o-mini", "nobody"]), st.sampled_from([0, 7, 5000, 5000, None]), st.integers(0, 2000),
        st.integers(1, 40), st.integers(0, 50), st.integers(0, 60), st.integers(0, 3),
        st.sampled_from(["chat", "chat", "chat", "invoke_agent"]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def _span(
    model: str, given_: int | None, output: int | None, own: int, parent: int, identity: int, age: int, operation: str
) -> Span:
    more = {"gen_ai.operation.name": operation, "gen_ai.response.id": f"chatcmpl-{identity}" if identity else None}
    if given_ is None:
        output = None
    start = START - age * 30 * 86_400 * 10**9
    return call(model, given_, output, more=more, span_id=b"%08d" % own, parent=b"%08d" % parent if parent else b"",
                trace=b"t" * 16, start=start, duration=own / 10)  # fmt: skip


@pytest.fixture(params=["compiled", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One by one in C, or together in Python."""
    if request.param == "compiled" and together.compiled is None:
        pytest.skip("it is not compiled here")
    if request.param == "python":
        monkeypatch.setattr(together, "compiled", None)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("config", CONFIGS)
@given(st.lists(_calls, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_and_one_by_one_are_the_same(config: dict[str, Any], batches: list[Any]) -> None:
    one, many = made(**config), made(**config)
    one._accounting.settle_each = one._accounting.settle_all = lambda *_: None  # type: ignore[assignment, method-assign]
    for spans in [WARM, WARM, *([_span(*each) for each in drawn] for drawn in batches)]:
        request = traces(*spans)
        assert one.process(batch(request), NOW).items() == many.process(batch(request), NOW).items()
    assert [name for name, _ in _shown(one)] == [name for name, _ in _shown(many)]
    assert dict(_shown(one)) == pytest.approx(dict(_shown(many)), rel=1e-12, abs=1e-15)
    assert one.history() == many.history()
    assert _numbers(one.spend()) == pytest.approx(_numbers(many.spend()), rel=1e-12)
    for left, right in ((one._accounting._dedup.marks, many._accounting._dedup.marks),
                        (one._accounting._dedup._ids, many._accounting._dedup._ids)):  # fmt: skip
        assert (left._young, left._old, left.evicted) == (right._young, right._old, right.evicted)  # type: ignore[attr-defined]


def _fresh(count: int, start: int = 100) -> list[Span]:
    return [_span("gpt-4o", 1000, 200, start + n, 500 + start + n, start + n, 0, "chat") for n in range(count)]


def _warm() -> LlmCost:
    processor = made()
    for _ in range(2):
        processor.process(batch(traces(*WARM)), NOW)
    return processor


def test_new_calls_of_a_known_shape_are_settled_in_c_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    if together.compiled is None:
        pytest.skip("it is not compiled here")
    processor, seen = _warm(), list[Any]()
    monkeypatch.setattr(processor, "_one", lambda _, found: seen.append(found[3]))
    processor.process(batch(traces(*_fresh(3))), NOW)
    assert (seen, len(processor.history())) == ([], len(_warm().history()) + 3)
    processor.process(batch(traces(*_fresh(2, 300), *_fresh(2))), NOW)
    assert (len(seen), len(processor.history())) == (2, len(_warm().history()) + 5), "the last two were resent"


def _in_order(processor: LlmCost) -> list[tuple[float, str]]:
    return [(each["duration_seconds"], each["model"]) for each in processor.history()]


@pytest.mark.usefixtures("way")
def _has_fma() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and re.search(r"^flags\s*:.*\bfma\b", flags.read_text(), re.M) is not None


@pytest.mark.skipif(bool(lacking()) or not _has_fma(), reason="no compiler, or no multiply-and-add in one instruction")
def test_a_compiler_that_may_multiply_and_add_at_once_makes_no_other_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "processors/llm_cost/_calls.abi3.so"
    assert compile_module(name, tmp_path, "-std=gnu11", "-mfma") == ""
    found = importlib.util.spec_from_file_location("_calls", tmp_path / name)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    spans = [_span("gpt-4o", 1009 * n, 7 * n, 100 + n, 500 + n, 100 + n, 0, "chat") for n in range(1, 100)]
    amounts = []
    for compiled in (None, module):
        monkeypatch.setattr(together, "compiled", compiled)
        processor = _warm()
        processor.process(batch(traces(*spans)), NOW)
        amounts.append(processor.history())
    assert amounts[0] == amounts[1]


def test_the_history_is_in_the_order_of_ends_also_where_some_calls_are_settled_apart() -> None:
    processor = _warm()
    before = len(processor.history())
    known = [_span("gpt-4o", 1000, 200, own, 0, own, 0, "chat") for own in (9, 3, 6)]
    apart = [
        call("gpt-4o", 10, 5, start=START, duration=seconds, name="x", more={"gen_ai.usage.cost": 0.5}) for seconds in (0.45, 0.7)
    ]
    processor.process(batch(traces(*known, *apart)), NOW)
    assert _in_order(processor)[before:] == [(each, "gpt-4o") for each in (0.3, 0.45, 0.6, 0.7, 0.9)]


@pytest.mark.usefixtures("way")
def test_a_call_from_the_future_counts_at_its_arrival() -> None:
    processor = _warm()
    before = len(processor.history())
    late = _span("gpt-4o", 1000, 200, 7, 0, 7, 0, "chat")
    late.start_time_unix_nano += 10 * 86_400 * 10**9
    late.end_time_unix_nano += 10 * 86_400 * 10**9
    processor.process(batch(traces(late)), NOW)
    assert [each["timestamp"] for each in processor.history()[before:]] == ["2026-11-18T11:06:40+00:00"]


@pytest.mark.usefixtures("way")
def test_a_span_that_names_itself_as_its_parent_is_counted_once() -> None:
    processor = _warm()
    resent = processor._accounting.counters.duplicates.series()["api", "resent"]
    before = len(processor.history())
    for _ in range(2):
        processor.process(batch(traces(_span("gpt-4o", 1000, 200, 7, 7, 7, 0, "chat"))), NOW)
    assert processor._accounting.counters.duplicates.series()["api", "resent"] == resent + 1
    assert len(processor.history()) == before + 1


def test_a_defect_on_the_way_through_c_costs_one_call_its_price_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, before = _warm(), len(_warm().history())
    monkeypatch.setattr(processor._accounting, "settle_quick", lambda *_: 1 / 0)
    spans = [*_fresh(2), _span("gpt-4o", 1000, 200, 100, 0, 100, 0, "chat")]
    if together.compiled is None:
        monkeypatch.setattr(processor._accounting, "settle_all", lambda *_: None)
    processor.process(batch(traces(*spans)), NOW)
    defects = processor._accounting.counters.errors.value()
    assert len(processor.history()) - before == len(spans) - defects
    assert defects == (1 if together.compiled is not None else 3)


def test_new_calls_of_a_known_shape_are_settled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "compiled", None)
    processor, seen = _warm(), list[Any]()
    settle = together.settle_together
    monkeypatch.setattr(
        "collector.processors.llm_cost.accounting.settle_together", lambda *args: seen.append(settle(*args)) or seen[-1]
    )
    processor.process(batch(traces(*_fresh(3))), NOW)
    processor.process(batch(traces(*_fresh(3))), NOW)
    assert len(seen[0]) == 3
    assert seen[1] is None, "resent"


def test_a_defect_leaves_the_calls_to_the_way_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "compiled", None)
    processor, twin = _warm(), _warm()
    monkeypatch.setattr(processor._accounting, "settle_all", lambda *_: 1 / 0)
    request = traces(*_fresh(3))
    assert processor.process(batch(request), NOW).items() == twin.process(batch(request), NOW).items()
    assert processor._accounting.counters.errors.value() == 0


T = b"t" * 16


@pytest.mark.parametrize(
    ("owns", "parents", "known", "marks"),
    [
        ([T + b"a"], [T + b"p"], ["short"], {}),
        ([T], [T + b"p"], ["identity"], {}),
        ([T + b"a"] * 2, [T + b"p"] * 2, ["identity", "identical"], {}),
        ([T + b"a", T + b"b"], [T + b"p"] * 2, ["identity"] * 2, {}),
        ([T + b"a", T + b"b"], [T + b"p", T + b"a"], ["identity", "identical"], {}),
        ([T + b"a"], [T + b"p"], ["identity"], {T + b"a": USAGE_BELOW}),
        ([T + b"a"], [T + b"p"], ["identity"], {T + b"p": COUNTED | NO_ID}),
        ([T + b"a"] , [T + b"p"], ["known-before"], {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_what_may_be_no_new_call_is_not_taken(
    owns: list[bytes], parents: list[bytes], known: list[str], marks: dict[bytes, int], turned: bool
) -> None:
    dedup = Dedup(100, 1000)
    dedup.age(1000)
    dedup.usage(T + b"before", T, ("openai", "known-before"), False, 1000)
    for key, bits in marks.items():
        dedup.marks.mark(key, bits, 1000)
    if turned:
        dedup.age(1101)
    before = dict(dedup.marks._young), dict(dedup._ids._young)
    assert not dedup.take(owns, parents, [("openai", each) for each in known], 1101)
    assert (dedup.marks._young, dedup._ids._young) == before


@pytest.mark.parametrize("turned", [False, True])
def test_calls_below_one_parent_are_taken_again_and_again(turned: bool) -> None:
    dedup = Dedup(100, 1000)
    dedup.age(1000)
    for number in range(3):
        own = [T + b"%d%d" % (number, n) for n in range(2)]
        assert dedup.take(own, [T + b"p", T], [("openai", f"identity-{number}{n}") for n in range(2)], 1000)
        if turned:
            dedup.age(1101 + 100 * number)
    assert dedup.marks.get(T + b"p") == USAGE_BELOW
    assert dedup.marks.get(T) == 0


@pytest.mark.parametrize("most", [3, 7])
def test_where_room_runs_out_calls_are_taken_one_by_one(most: int) -> None:
    dedup = Dedup(100, most)
    owns = [T + bytes([n]) for n in range(2)]
    assert not dedup.take(owns, [T, T], [("openai", "identity"), ("openai", "identical")], 0)
