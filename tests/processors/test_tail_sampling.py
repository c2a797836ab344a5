"""tail_sampling: which traces are kept, when, and that nothing is lost or altered on the way."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collector.model import Batch, Signal, open_envelope
from collector.otlp import plain
from collector.otlp.heads import read_heads
from collector.otlp.request import open_request
from collector.otlp.scan import EngineFailed
from collector.processors.tail_sampling import TailSampling, rules
from collector.processors.tail_sampling.decisions import Decisions
from collector.processors.tail_sampling.hashing import fnv1a, threshold
from tests.support import attribute, batch, build, decode, span, spans_of, traces

ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
TENTH = {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}}
LIMIT = threshold(10)
_random = random.Random(7)


def in_share(trace: bytes) -> bool:
    return fnv1a(b"default-hash-seed" + trace) <= LIMIT


def trace_id(share: bool = False) -> bytes:
    """A trace id inside or outside of the ten percent."""
    while True:
        found = _random.randbytes(16)
        if in_share(found) == share:
            return found


def sampler(*policies, **options):
    return build(TailSampling, {"policies": list(policies) or [ERRORS, TENTH], **options})


def string(key, *values, **more):
    return {"name": f"s-{key}", "type": "string_attribute", "string_attribute": {"key": key, "values": list(values), **more}}


def drop(*parts):
    return {"name": "veto", "type": "drop", "drop": {"drop_sub_policy": list(parts)}}


def both(*parts):
    return {"name": "both", "type": "and", "and": {"and_sub_policy": list(parts)}}


def latency(ms, upper=0):
    return {"name": "slow", "type": "latency", "latency": {"threshold_ms": ms, "upper_threshold_ms": upper}}


ALL = {"name": "all", "type": "always_sample"}


def send(component, *spans, now=0.0, **options):
    """Ids of the spans that come out."""
    return [s.span_id for s in spans_of(component.process(batch(traces(*spans, **options)), now))]


def finish(component, now=None):
    """Ids of the spans that come out at the end, or when `now` has come."""
    return [s.span_id for s in spans_of(component.drain() if now is None else component.tick(now))]


def dropped(component):
    return sum(component.settings.drop.values())


def counted(component, name):
    return {key: int(value) for key, value in component.settings.meters._made[name].series().items()}


def test_ten_percent_of_clean_traces_and_all_with_errors_are_kept():
    """R-201."""
    component = sampler()
    clean = [[span(trace=_random.randbytes(16))] * _random.randint(1, 3) for _ in range(10_000)]
    failed = [[span(trace=t), span(trace=t, error=True)] for t in (_random.randbytes(16) for _ in range(1_000))]
    kept: Counter[bytes] = Counter()
    every = clean + failed
    _random.shuffle(every)
    for start in range(0, len(every), 500):
        spans = [s for trace in every[start : start + 500] for s in trace]
        kept.update(s.trace_id for s in spans_of(component.process(batch(traces(*spans)), start / 100)))
    kept.update(s.trace_id for s in spans_of(component.drain()))
    assert all(kept[trace[0].trace_id] == len(trace) for trace in failed)
    whole = sum(kept[trace[0].trace_id] == len(trace) for trace in clean)
    assert whole == sum(trace[0].trace_id in kept for trace in clean)
    assert 900 <= whole <= 1100
    ratio = component.settings.meters._made["collector_sampling_kept_ratio"].series()
    assert ratio["error",] == 1.0
    assert 0.09 <= ratio["clean",] <= 0.11


def test_the_share_follows_from_the_trace_id_alone():
    """R-202."""
    one, other = sampler(), sampler()
    ids = [_random.randbytes(16) for _ in range(300)]
    kept = {i for i in ids if send(one, span(trace=i))}
    assert kept == {i for i in reversed(ids) if send(other, span("x", {"a": 1}, trace=i), now=9e9)}
    assert kept == {i for i in ids if in_share(i)}


@pytest.mark.parametrize(
    ("values", "is_error"),
    [
        ({"error.type": "timeout"}, True),
        ({"error.type": ""}, False),
        ({"status": "error"}, True),
        ({"status": "timeout"}, True),
        ({"status": "ok"}, False),
        ({"status": "errors"}, False),
        ({"upstream.status": "error"}, False),
        ({"http.response.status_code": 500}, True),
        ({"http.response.status_code": 599}, True),
        ({"http.status_code": 503}, True),
        ({"http.status_code": "503"}, True),
        ({"http.status_code": 503.0}, True),
        ({"http.response.status_code": 499}, False),
        ({"http.response.status_code": 600}, False),
        ({"http.response.status_code": 200}, False),
        ({"http.status_code": "5xx"}, False),
        ({"db.status_code": 500}, False),
        ({"note": "error.type"}, False),
        ({"retries": 2}, False),
        ({"retries": 130}, False),
    ],
)
def test_what_counts_as_an_error(values, is_error):
    """R-203."""
    item = span(values=values, trace=trace_id())
    assert bool(send(sampler(), item)) == is_error
    assert not send(sampler(errors={"status_only": True}), item)


def test_the_list_of_errors_is_configurable():
    """R-203."""
    item = span(values={"error.type": "x", "status": "error", "http.status_code": 500}, trace=trace_id())
    assert not send(sampler(errors={"error_type": False, "http_5xx": False, "status_values": []}), item)
    assert send(sampler(errors={"status_values": ["broken"]}), span(values={"status": "broken"}, trace=trace_id()))


@pytest.mark.parametrize(("swap", "padding"), [(False, 0), (True, 0), (False, 1), (False, 2)])
def test_errors_are_found_however_the_attribute_is_encoded(swap, padding):
    """R-203."""

    def field(tag, data):
        size = bytes([len(data) | 0x80, *[0x80] * (padding - 1), 0]) if padding else bytes([len(data)])
        return bytes([tag]) + size + data

    for key, value in (
        (b"status", field(0x0A, b"timeout")),
        (b"http.status_code", b"\x18\xf7\x03"),
        (b"error.type", field(0x0A, b"x")),
    ):
        parts = [field(0x0A, key), field(0x12, value)]
        item = span(trace=trace_id()).SerializeToString() + field(0x4A, b"".join(reversed(parts) if swap else parts))
        request = batch(traces(span()))
        request.groups[0].scopes[0].items[0] = item
        request.raw = None
        assert sampler().process(request, 0.0) is not None, key


def test_an_error_within_the_window_keeps_what_was_held_and_all_that_follows():
    """R-204."""
    component, t = sampler(), trace_id()
    first, second, failed, after = span(trace=t), span(trace=t), span(trace=t, error=True), span(trace=t)
    assert send(component, first, now=0) == send(component, second, now=1) == []
    assert component.held() == 2
    assert sorted(send(component, failed, now=4.9)) == sorted([first.span_id, second.span_id, failed.span_id])
    assert send(component, after, now=100) == [after.span_id]
    assert component.held() == dropped(component) == 0


def test_an_error_after_the_window_keeps_that_span_and_all_later_ones():
    """R-204."""
    component, t = sampler(), trace_id()
    send(component, span(trace=t), now=0)
    assert finish(component, now=5.0) == []
    assert send(component, span(trace=t), now=6) == []
    failed, after = span(trace=t, error=True), span(trace=t)
    assert send(component, failed, now=7) == [failed.span_id]
    assert send(component, after, now=8) == [after.span_id]
    assert component.settings.drop == {(Signal.TRACES, "sampled"): 2}


def test_the_window_is_decision_wait_from_the_first_span_on():
    component, t = sampler(decision_wait="2s"), trace_id()
    send(component, span(trace=t), now=10.0)
    send(component, span(trace=t), now=11.5)
    finish(component, now=11.9)
    assert component.held() == 2
    finish(component, now=12.0)
    assert component.held() == 0
    assert sampler().config.decision_wait == 5.0


def test_a_clock_set_back_does_not_hold_spans_for_ever():
    component = sampler()
    send(component, span(trace=trace_id()), now=1000.0)
    finish(component, now=999.0)
    assert component.held() == 1
    finish(component, now=10.0)
    assert component.held() == 0


def test_rates_differ_by_service():
    """R-205 (partly)."""
    share = {"name": "none", "type": "probabilistic", "probabilistic": {"sampling_percentage": 0}}
    every = {"name": "every", "type": "probabilistic", "probabilistic": {"sampling_percentage": 100}}
    checkout = both(string("service.name", "checkout"), every)
    component = sampler(checkout, share)
    assert send(component, span(), resource={"service.name": "checkout"})
    assert not send(component, span(), resource={"service.name": "search"})


def test_decisions_are_counted_by_policy_and_kept_spans_may_say_who_decided():
    """R-207."""
    component = sampler(record_policy=True, decision_wait="1s")
    lucky, failed, plain = trace_id(True), trace_id(), trace_id()
    held = span(trace=failed)
    send(component, held, span(trace=plain))
    out = spans_of(component.process(batch(traces(span(trace=lucky), span(trace=failed, error=True))), 0.5))
    by_trace = {s.trace_id: s for s in out}
    assert attribute(by_trace[lucky], "tailsampling.policy") == "rest"
    assert attribute(by_trace[lucky], "sampling.probability") == 0.1
    assert [attribute(s, "tailsampling.policy") for s in out if s.trace_id == failed] == ["errors", "errors"]
    assert attribute(by_trace[failed], "sampling.probability") == 1.0
    finish(component, now=2)
    prefix = "otelcol_processor_tail_sampling_"
    assert counted(component, f"{prefix}global_count_traces_sampled") == {("true",): 2, ("false",): 1}
    by_policy = counted(component, f"{prefix}count_traces_sampled")
    assert by_policy["errors", "sampled"] == by_policy["rest", "sampled"] == 1
    assert by_policy["errors", "not_sampled"] == by_policy["rest", "not_sampled"] == 2
    assert counted(component, "collector_sampling_spans") == {("rest", "kept"): 1, ("errors", "kept"): 2, ("none", "dropped"): 1}
    assert counted(component, f"{prefix}new_trace_id_received") == {(): 3}


def test_a_policy_recorded_by_an_earlier_sampler_stays():
    item = span(values={"tailsampling.policy": "edge"}, trace=trace_id(True))
    out = spans_of(sampler(record_policy=True).process(batch(traces(item)), 0.0))
    assert out == [item]


def test_slow_dear_and_rate_limited_calls_can_be_kept():
    """R-208."""
    dear = {"name": "dear", "type": "numeric_attribute", "numeric_attribute": {"key": "llm.cost.usd", "min_value": 1}}
    limited = {
        "name": "limited",
        "type": "numeric_attribute",
        "numeric_attribute": {"key": "http.status_code", "min_value": 429, "max_value": 429},
    }
    component = sampler(latency(1000), dear, limited)
    assert send(component, span(duration=1.0))
    assert not send(component, span(duration=0.999))
    assert send(component, span(values={"llm.cost.usd": 1.01}))
    assert not send(component, span(values={"llm.cost.usd": 0.99}))
    assert not send(component, span(values={"llm.cost.usd": "2"}))
    assert not send(component, span(values={"llm.cost.usd": True}))
    assert send(component, span(values={"http.status_code": 429}))
    assert not send(component, span(values={"http.status_code": 428}))


def test_bytes_held_are_bounded_and_the_oldest_trace_goes_first():
    """R-209."""
    component = sampler(max_bytes=50_000)
    old, young = trace_id(), trace_id()
    send(component, span(values={"k": "v" * 20_000}, trace=old), now=0)
    send(component, span(values={"k": "v" * 20_000}, trace=young), now=1)
    assert component.held() == 2
    send(component, span(values={"k": "v" * 20_000}, trace=trace_id()), now=2)
    assert component.held() == 2
    assert component.settings.drop == {(Signal.TRACES, "buffer_full"): 1}
    assert send(component, span(trace=young, error=True), now=3)
    assert counted(component, "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early") == {(): 1}
    assert counted(component, "collector_sampling_held_bytes") == {(): component._held.size}
    assert component._held.size < 50_000


def test_a_trace_larger_than_the_bound_is_not_held():
    """R-209."""
    component = sampler(max_bytes=10_000)
    send(component, span(values={"k": "v" * 20_000}, trace=trace_id()))
    assert component.held() == component._held.size == 0
    assert component.settings.drop == {(Signal.TRACES, "buffer_full"): 1}


def test_traces_held_are_bounded_by_num_traces():
    """R-209."""
    component = sampler(num_traces=3)
    send(component, *(span(trace=trace_id()) for _ in range(5)))
    assert component.held() == 3
    assert component.settings.drop == {(Signal.TRACES, "buffer_full"): 2}


def test_early_judgement_asks_the_policies():
    component = sampler(ALL, drop(string("path", "/health")), num_traces=1)
    first, second = span(), span()
    assert send(component, first, second) == [first.span_id]


@pytest.mark.parametrize(
    ("policies", "values", "kept"),
    [
        ([ALL], {}, True),
        ([ALL, drop(string("path", "/health"))], {"path": "/health"}, False),
        ([ALL, drop(string("path", "/health"))], {"path": "/pay"}, True),
        ([ALL, string("path", "/health", invert_match=True)], {"path": "/health"}, False),
        ([string("path", "/health", invert_match=True)], {"path": "/pay"}, True),
        ([string("path", "/health", invert_match=True)], {}, True),
        ([string("tier", "gold"), string("path", "/health", invert_match=True)], {"tier": "gold", "path": "/health"}, False),
        ([drop(string("a", "1")), string("b", "1", invert_match=True)], {"a": "1"}, False),
        ([both(string("a", "1"), string("b", "1", invert_match=True))], {"a": "1"}, True),
        ([both(string("a", "1"), string("b", "1", invert_match=True))], {"a": "1", "b": "1"}, False),
        ([both(string("a", "1"), string("b", "1"))], {"a": "1"}, False),
        ([drop(string("a", "1"), string("b", "1", invert_match=True)), ALL], {"a": "1"}, False),
        ([drop(string("a", "1"), string("b", "1", invert_match=True)), ALL], {"a": "1", "b": "1"}, True),
        ([string("a", "1")], {"a": 1}, False),
        ([string("a", "v" * 300)], {"a": "v" * 300}, True),
        ([string("a", "v" * 300)], {"a": "v" * 299}, False),
        ([string("a", "^x.*z$", enabled_regex_matching=True)], {"a": "xyz"}, True),
        ([string("a", "y", enabled_regex_matching=True)], {"a": "xyz"}, True),
        ([string("a", "^y", enabled_regex_matching=True)], {"a": "xyz"}, False),
        ([string("a", "1", enabled_regex_matching=True)], {"a": 1}, False),
        ([{"name": "b", "type": "boolean_attribute", "boolean_attribute": {"key": "b", "value": True}}], {"b": True}, True),
        ([{"name": "b", "type": "boolean_attribute", "boolean_attribute": {"key": "b", "value": False}}], {"b": False}, True),
        ([{"name": "b", "type": "boolean_attribute", "boolean_attribute": {"key": "b", "value": False}}], {"b": True}, False),
        ([{"name": "b", "type": "boolean_attribute", "boolean_attribute": {"key": "b", "value": False}}], {}, False),
        ([{"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "n", "max_value": 5}}], {"n": 5}, True),
        ([{"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "n", "max_value": 5}}], {"n": 6}, False),
        ([{"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "n", "max_value": 5, "invert_match": True}}], {"n": 5}, False),
    ],
)  # fmt: skip
def test_policies_and_their_precedence(policies, values, kept):
    component = sampler(*policies)
    item = span(values=values)
    out = send(component, item) + finish(component)
    assert out == ([item.span_id] if kept else [])
    assert dropped(component) == (0 if kept else 1)


def test_a_veto_in_a_later_span_wins_over_a_match_in_an_earlier_one():
    component, t = sampler(ERRORS, ALL, drop(string("path", "/health"))), trace_id()
    assert send(component, span(trace=t, error=True)) == []
    assert component.held() == 1
    assert send(component, span(trace=t, values={"path": "/health"}), now=1) == []
    assert component.held() == 0
    assert send(component, span(trace=t, error=True), now=2) == []
    assert component.settings.drop == {(Signal.TRACES, "sampled"): 3}
    assert counted(component, "collector_sampling_spans") == {("veto", "dropped"): 3}


def test_a_veto_that_is_ruled_out_holds_nothing():
    impossible = {"name": "never", "type": "probabilistic", "probabilistic": {"sampling_percentage": 0}}
    item = span(error=True)
    assert send(sampler(ERRORS, drop(string("path", "/health"), impossible)), item) == [item.span_id]


def test_a_share_alone_holds_nothing():
    component = sampler(TENTH)
    send(component, *(span() for _ in range(100)))
    assert component.held() == 0
    assert dropped(component) > 50


def test_without_an_error_policy_kept_shares_are_not_split():
    component = sampler(TENTH)
    send(component, span(trace=trace_id(True)))
    finish(component, now=0.0)
    assert component.settings.meters._made["collector_sampling_kept_ratio"].series() == {("all",): 1.0}


def test_old_decisions_lose_weight_in_the_kept_share():
    component = sampler(TENTH)
    for now in (0.0, 10.0, 61.0):
        send(component, span(trace=trace_id(True)), now=now)
        finish(component, now=now)
    send(component, span(trace=trace_id()), now=62.0)
    finish(component, now=62.0)
    assert component.settings.meters._made["collector_sampling_kept_ratio"].value("all") == 1.5 / 2.5


def test_of_more_decisions_than_have_room_the_last_are_remembered():
    decisions: Decisions[int] = Decisions(4)
    decisions.put({bytes([number]): number for number in range(5)})
    assert decisions.known([bytes([number]) for number in range(5)]) == {b"\x03": 3, b"\x04": 4}
    assert len(decisions) == 2


def test_days_without_an_error_leave_the_kept_share_of_errors_as_it_was():
    component = sampler()
    send(component, span(trace=trace_id(), error=True))
    for minute in range(2 * 24 * 60):
        send(component, span(trace=trace_id(True)), now=60.0 * minute)
        finish(component, now=60.0 * minute)
    ratio = component.settings.meters._made["collector_sampling_kept_ratio"].series()
    assert ratio == {("error",): 1.0, ("clean",): 1.0}
    send(component, span(trace=trace_id(), error=True))
    assert counted(component, "otelcol_processor_tail_sampling_global_count_traces_sampled") == {("true",): 2 * 24 * 60 + 2}


def test_sample_on_first_match_does_not_ask_later_vetoes():
    health = span(values={"path": "/health"}, error=True)
    for first_match, policies, kept in (
        (True, [ERRORS, drop(string("path", "/health"))], True),
        (True, [drop(string("path", "/health")), ERRORS], False),
        (False, [ERRORS, drop(string("path", "/health"))], False),
    ):
        component = sampler(*policies, sample_on_first_match=first_match)
        assert bool(send(component, health) + finish(component)) == kept


def test_latency_is_that_of_the_whole_trace():
    component, t = sampler(latency(500)), trace_id()
    first = span(trace=t, start=10**18, duration=0.1)
    assert send(component, first) == []
    last = span(trace=t, start=10**18 + 450_000_000, duration=0.1)
    assert sorted(send(component, last, now=1)) == sorted([first.span_id, last.span_id])


@pytest.mark.parametrize(("duration", "kept"), [(0.5, False), (0.501, True), (1.0, True), (1.0011, False)])
def test_latency_with_an_upper_threshold_is_judged_at_the_end(duration, kept):
    component = sampler(latency(500, 1000))
    item = span(duration=duration)
    assert send(component, item) == []
    assert finish(component, now=5) == ([item.span_id] if kept else [])


def test_spans_without_times_have_no_duration():
    item = span(start=0, duration=0)
    assert send(sampler(latency(1)), item, item) == []
    component, t = sampler(latency(1)), trace_id()
    send(component, span(trace=t, start=0, duration=0))
    assert send(component, span(trace=t, start=10**18, duration=0)) == []
    assert component.held() == 2


def test_times_of_traces_that_flow_anyway_are_not_needed():
    component = sampler(latency(1000), TENTH)
    lucky, slow = span(trace=trace_id(True)), span(trace=trace_id(), duration=2)
    assert send(component, lucky, slow, span(trace=trace_id())) == [lucky.span_id, slow.span_id]


def test_status_codes_other_than_error():
    unset, ok = span(), span()
    ok.status.code = 1
    policy = {"name": "s", "type": "status_code", "status_code": {"status_codes": ["UNSET"]}}
    assert send(sampler(policy), unset, ok) == [unset.span_id]
    policy = {"name": "s", "type": "status_code", "status_code": {"status_codes": ["OK", "ERROR"]}}
    request = batch(traces(unset, ok))
    read_heads(request)
    assert [s.span_id for s in spans_of(sampler(policy).process(request, 0.0))] == [ok.span_id]


def test_spans_without_a_valid_trace_id_are_judged_at_once():
    component = sampler()
    for bad in (b"", bytes(16), b"short"):
        plain, failed = span(), span(error=True)
        plain.trace_id = failed.trace_id = bad
        assert send(component, plain) == []
        assert send(component, failed) == [failed.span_id]
        assert send(component, plain) == []
    assert component.held() == 0
    assert dropped(component) == 6


def test_an_untouched_request_leaves_as_it_came():
    component = sampler()
    t = trace_id(True)
    request = batch(traces(span(trace=t), span(trace=t)))
    raw = request.raw
    out = component.process(request, 0.0)
    assert out is request
    assert out.encode() == raw


def test_an_empty_request_passes():
    assert sampler().process(Batch(Signal.TRACES, []), 0.0).count() == 0
    assert sampler().tick(0.0) is None
    assert sampler().drain() is None


def test_released_spans_come_back_under_their_own_resource_and_scope():
    component, t = sampler(), trace_id()
    held, other = span("held", trace=t), span("other", trace=t)
    send(component, held, resource={"service.name": "a"}, scope="x")
    send(component, other, resource={"service.name": "b"}, scope="y")
    failed, beside = span("failed", trace=t, error=True), span("beside", trace=trace_id(True))
    out = decode(component.process(batch(traces(beside, failed, resource={"service.name": "a"}, scope="x")), 1.0))
    found = [
        (attribute(group.resource, "service.name"), scope.scope.name, [s.name for s in scope.spans])
        for group in out.resource_spans
        for scope in group.scope_spans
    ]
    assert found == [("a", "x", ["beside", "failed", "held"]), ("b", "y", ["other"])]
    assert len(out.resource_spans) == 2


def test_released_spans_do_not_mix_with_those_whose_heads_are_read():
    component, t = sampler(), trace_id()
    send(component, span("held", trace=t))
    request = batch(traces(span("failed", trace=t, error=True)))
    read_heads(request)
    out = component.process(request, 1.0)
    assert [s.name for s in spans_of(out)] == ["failed", "held"]
    assert all(scope.heads is None or len(scope.heads) == len(scope.items) for scope in out.scopes())


def test_spans_of_several_scopes_are_told_apart():
    request = traces(span(trace=trace_id()), span(error=True, trace=trace_id()))
    second = request.resource_spans[0].scope_spans.add()
    second.spans.extend([span(trace=trace_id(True)), span(trace=trace_id(), values={"status": "error"})])
    component = sampler()
    out = component.process(batch(request), 0.0)
    assert [len(scope.items) for scope in out.scopes()] == [1, 2]
    assert component.held() == 1


def test_late_spans_follow_a_decision_only_as_long_as_it_is_remembered():
    component = sampler(decision_cache={"sampled_cache_size": 2, "non_sampled_cache_size": 0})
    ids = [trace_id() for _ in range(4)]
    for t in ids:
        assert send(component, span(trace=t, error=True))
    assert send(component, span(trace=ids[0])) == []
    assert component.held() == 1
    assert send(component, span(trace=ids[-1]))
    assert len(component._sampled) <= 2


def test_decisions_asked_for_again_stay_remembered():
    component, t = sampler(decision_cache={"sampled_cache_size": 10}), trace_id()
    send(component, span(trace=t, error=True))
    for _ in range(30):
        send(component, span(trace=trace_id(), error=True))
        assert send(component, span(trace=t))
    assert len(component._sampled) <= 10


def test_what_is_undecided_at_shutdown_is_judged_or_dropped():
    plain = span(trace=trace_id())
    component = sampler()
    send(component, plain)
    assert finish(component) == []
    assert component.settings.drop == {(Signal.TRACES, "sampled"): 1}
    component = sampler(ALL, drop(string("a", "b")), drop_pending_traces_on_shutdown=True)
    send(component, plain)
    assert finish(component) == []
    assert component.settings.drop == {(Signal.TRACES, "shutdown"): 1}
    component = sampler(ALL, drop(string("a", "b")))
    send(component, plain)
    assert finish(component) == [plain.span_id]


def test_a_failed_search_reads_every_span(monkeypatch):
    monkeypatch.setattr(plain, "compiled", None)
    component = sampler()

    def fail(*_):
        raise EngineFailed("none")

    monkeypatch.setattr(component._evidence._finder._scanner, "scan", fail)
    failed, timeout = span(trace=trace_id(), error=True), span(trace=trace_id(), values={"status": "timeout"})
    assert send(component, span(trace=trace_id()), failed, timeout) == [failed.span_id, timeout.span_id]


def test_resource_attributes_are_remembered_within_bounds():
    component = sampler(string("service.name", "a"))
    for number in range(1100):
        assert not send(component, span(), resource={"service.name": f"s{number}"})
    assert len(component._evidence._resource_bits) <= 1000
    assert send(component, span(), resource={"service.name": "a"})


@pytest.mark.parametrize("engine", ["re2", "re"])
def test_engines_that_mark_spans_without_naming_the_pattern_decide_the_same(engine, monkeypatch):
    monkeypatch.setenv("OTEL_SIDECAR_SCAN_ENGINE", engine)
    component = sampler(ERRORS, TENTH, string("tier", "gold"))
    failed, gold = span(trace=trace_id(), error=True), span(trace=trace_id(), values={"tier": "gold"})
    plain = [span(trace=trace_id(), values={"tier": "silver", "retries": 2}) for _ in range(3)]
    assert send(component, plain[0], failed, plain[1], gold, plain[2]) == [failed.span_id, gold.span_id]


SPANS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from([None, "error", "health", "gold", "timeout"]),
        st.integers(0, 1500),
    ),
    max_size=25,
)
POLICIES = st.sampled_from(
    [
        [ERRORS, TENTH],
        [ERRORS, TENTH, drop(string("kind", "health"))],
        [string("kind", "health", invert_match=True), ERRORS],
        [both(string("kind", "gold"), ERRORS), latency(1000)],
        [latency(300, 1200), TENTH],
        [drop(string("kind", "gold"), ERRORS), ALL],
        [string("kind", "go.d", enabled_regex_matching=True), TENTH],
    ]
)
IDS = [trace_id(True), *(trace_id() for _ in range(5))]


def _spans(plan):
    out = []
    for number, (trace, kind, duration) in enumerate(plan):
        values = {"kind": kind} if kind in ("health", "gold") else {"status": "timeout"} if kind == "timeout" else {}
        out.append(
            span(
                values=values,
                trace=IDS[trace],
                error=kind == "error",
                start=10**18,
                duration=duration / 1000,
                span_id=number.to_bytes(8, "big"),
            )
        )
    return out


def _run(policies, spans, cuts, **options):
    component = sampler(*policies, **options)
    kept, sent = [], 0
    edges = [0, *sorted(min(cut, len(spans)) for cut in cuts), len(spans)]
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        part = spans[start:end]
        sent += len(part)
        kept += spans_of(component.process(batch(traces(*part)), index * 0.01))
        assert sent == len(kept) + dropped(component) + component.held()
    kept += spans_of(component.drain())
    assert sent == len(kept) + dropped(component)
    assert component.held() == component._held.size == 0
    return kept


@given(POLICIES, SPANS, st.lists(st.integers(0, 25), max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_decisions_do_not_depend_on_order_or_on_requests(policies, plan, cuts, shuffler):
    """R-202."""
    spans = _spans(plan)
    together = {s.span_id: s for s in _run(policies, spans, [])}
    mixed = list(spans)
    shuffler.shuffle(mixed)
    apart = {s.span_id: s for s in _run(policies, mixed, cuts)}
    assert together == apart
    originals = {s.span_id: s for s in spans}
    assert all(s == originals[key] for key, s in apart.items())
    by_trace = {s.trace_id for s in apart.values()}
    assert {s.span_id for s in spans if s.trace_id in by_trace} == set(apart)


@given(POLICIES, SPANS, st.lists(st.integers(0, 25), max_size=6), st.integers(1, 3), st.integers(800, 5000), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_span_is_lost_uncounted_when_room_is_short(policies, plan, cuts, traces_held, size, remembered):
    """R-209."""
    cache = {"sampled_cache_size": remembered, "non_sampled_cache_size": remembered}
    _run(policies, _spans(plan), cuts, num_traces=traces_held, max_bytes=size, decision_cache=cache, record_policy=True)


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        ({"policies": []}, "at least 1"),
        ({"policies": [ERRORS, ERRORS]}, "duplicate policy name"),
        ({"policies": [{"name": "x", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 1}}]}, "rate_limiting is not supported"),
        ({"policies": [{"name": "x", "type": "always_sample", "composite": {}}]}, "composite is not supported"),
        ({"policies": [{"name": "x", "type": "latency"}]}, "needs a block latency"),
        ({"policies": [{**ERRORS, "latency": {"threshold_ms": 1}}]}, "has no use for block latency"),
        ({"policies": [drop({"name": "y", "type": "and"})]}, "type"),
        ({"policies": [string("k", "(", enabled_regex_matching=True)]}, "not a regular expression of RE2"),
        ({"policies": [{"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "k"}}]}, "needs min_value or max_value"),
        ({"policies": [ERRORS], "decision_wait_after_root_received": "1s"}, "decision_wait_after_root_received is not supported"),
        ({"policies": [ERRORS], "sampling_strategy": "span-ingest"}, "sampling_strategy is not supported"),
        ({"policies": ["x"]}, "policies"),
        ({"policies": [ERRORS], "num_trace": 1}, "num_trace"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(config, phrase):
    with pytest.raises(ValidationError, match=phrase):
        TailSampling.Config.model_validate(config)


@pytest.mark.parametrize("size", [0, 1000])
def test_held_bytes_are_what_the_spans_take_in_memory(size):
    """R-209."""
    component = sampler()
    requests = [
        traces(*(span(values={"k": "v" * size}, trace=trace_id()) for _ in range(50))).SerializeToString() for _ in range(20)
    ]
    send(component, span(trace=trace_id()))
    tracemalloc.start()
    for request in requests:
        component.process(open_envelope(Signal.TRACES, request), 0.0)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used <= component._held.size <= 2 * used


def test_headers_of_held_spans_count_as_held():
    """R-209."""
    component = sampler(max_bytes=100_000)
    for number in range(5):
        send(component, span(trace=trace_id()), resource={"service.name": "s" * 40_000 + str(number)})
    assert component.held() == 2
    assert component.settings.drop == {(Signal.TRACES, "buffer_full"): 3}


def test_large_resources_are_read_each_time():
    component = sampler(string("service.name", "a" * 9000))
    assert send(component, span(), resource={"service.name": "a" * 9000})
    assert not component._evidence._resource_bits


def test_verdicts_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(rules, "_REMEMBERED", 1)
    component = sampler(ERRORS, TENTH)
    assert send(component, span(trace=trace_id(True)), span(trace=trace_id(), error=True), span(trace=trace_id(True), error=True))
    assert len(component._so_far) == 1


@pytest.mark.parametrize("bounds", [{"min_value": 2.5}, {"max_value": 3.5}, {"min_value": 2.5, "max_value": 3.4}, {"min_value": -1e300},
    {"max_value": float("inf"), "min_value": 3}])  # fmt: skip
def test_numbers_are_compared_with_fractions_and_with_bounds_beyond_integers(bounds):
    component = sampler({"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "n", **bounds}})
    low, high = bounds.get("min_value", -1e308), bounds.get("max_value", 1e308)
    for value in (-(2**63), 2, 3, 4, 2**63 - 1, 2.5, 2.6, 3.5, "3"):
        kept = send(component, span(values={"n": value}))
        assert bool(kept) == (not isinstance(value, str) and low <= value <= high), value
    with pytest.raises(ValidationError, match="nan is none"):
        sampler({"name": "n", "type": "numeric_attribute", "numeric_attribute": {"key": "n", "min_value": float("nan")}})


def test_what_was_held_and_what_came_later_can_be_sampled_again():
    """Ids and heads run parallel to the items, also where held spans join a request."""
    first, second = sampler(ERRORS), sampler(string("wanted", "yes"))
    trace, other = trace_id(), trace_id()
    early, late = span(trace=trace), span(trace=trace, error=True, values={"wanted": "yes"})
    more = span(trace=other, error=True)
    assert first.process(open_request(Signal.TRACES, traces(early).SerializeToString()).batch, 0.0) is None
    out = first.process(open_request(Signal.TRACES, traces(late, more).SerializeToString()).batch, 0.0)
    assert {s.span_id for s in spans_of(out)} == {early.span_id, late.span_id, more.span_id}
    assert {s.span_id for s in spans_of(second.process(out, 0.0))} == {early.span_id, late.span_id}


def test_warming_compiles_the_patterns_if_there_are_any(monkeypatch):
    monkeypatch.setattr(plain, "compiled", None)
    component = sampler(ERRORS)
    component.warm()
    assert component._evidence._finder._scanner._search is not None
    sampler(TENTH).warm()


def test_requests_close_together_let_go_of_what_is_due_in_one_go_and_a_tick_at_once():
    component = sampler(ERRORS)
    send(component, span(trace=b"a" * 16), now=0.0)
    send(component, span(trace=b"b" * 16), now=4.95)
    send(component, span(trace=b"c" * 16), now=5.0)
    assert component.held() == 3
    send(component, span(trace=b"d" * 16), now=5.06)
    assert component.held() == 3, "the first one is gone"
    send(component, span(trace=b"e" * 16), now=9.96)
    assert component.held() == 3
    finish(component, now=10.0)
    assert component.held() == 2
