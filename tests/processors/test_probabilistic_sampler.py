"""probabilistic_sampler: otelcol's decisions, bit for bit."""

from __future__ import annotations

import re
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from pydantic import ValidationError

from collector.model import Signal
from collector.otlp.scan import EngineFailed, Hits
from collector.processors import probabilistic_sampler as module
from collector.processors.probabilistic_sampler import (
    NEVER,
    ProbabilisticSampler,
    fnv1a_32,
    hash_buckets,
    hashed_randomness,
    threshold_of,
    threshold_text,
)
from tests.support import REQUEST, attribute, attributes, batch, build, span, spans_of, traces

TRACE = bytes.fromhex("00112233445566778899aabbccddeeff")
W3C_KEPT = bytes(9) + bytes.fromhex("ffffffffffffff")
W3C_LOST = bytes(9) + bytes.fromhex("00000000000001")


def sampler(percentage=10.0, **options):
    return build(ProbabilisticSampler, {"sampling_percentage": percentage, **options})


def one(component, item):
    """The span that comes out, or None."""
    out = component.process(batch(traces(item)), 0.0)
    return spans_of(out)[0] if out else None


def log(component, values=None, trace=b""):
    """The log record that comes out, or None."""
    request = REQUEST[Signal.LOGS]()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.CopyFrom(LogRecord(trace_id=trace, attributes=attributes(values or {}), severity_text="INFO"))
    out = component.process(batch(request, Signal.LOGS), 0.0)
    if out is None:
        return None
    got = REQUEST[Signal.LOGS].FromString(out.encode()).resource_logs[0].scope_logs[0].log_records[0]
    assert got.severity_text == "INFO"
    return got


def policies(component, signal="traces"):
    counter = component._counter if signal == "traces" else component._log_counter
    return {key: int(value) for key, value in counter.series().items()}


def test_the_hash_gives_the_values_of_the_published_example():
    hashed = fnv1a_32(struct.pack("<I", 0) + TRACE)
    assert hashed == 0x484A1D65
    assert hashed & 0x3FFF == 7525
    assert hashed_randomness(hashed) == 0x8A681216849D65
    assert hash_buckets(50) == 8192
    assert hash_buckets(25) == 4096
    assert hash_buckets(100) == 16384
    assert hash_buckets(1e300) == 16384
    assert hash_buckets(0.001) == 0


def test_a_span_kept_by_hash_says_so_in_tracestate():
    kept = one(sampler(50), span(trace=TRACE))
    assert kept.trace_state == "ot=rv:8a681216849d65;th:8"
    assert one(sampler(25), span(trace=TRACE)) is None


@pytest.mark.parametrize(
    ("percentage", "precision", "text"),
    [
        (10, 4, "e666"),
        (1, 4, "fd70a"),
        (25, 4, "c"),
        (50, 4, "8"),
        (100, 4, "0"),
        (10, 14, "e6666666666666"),
        (99.9, 3, "004189"),
    ],
)
def test_thresholds_of_the_consistent_modes_are_rounded_as_published(percentage, precision, text):
    got = threshold_text(threshold_of(percentage / 100, precision))
    assert got == text if text != "004189" else got.startswith("0041")


def test_ten_percent_by_hash_is_written_as_e668():
    assert threshold_text((0x4000 - hash_buckets(10)) << 42) == "e668"


@given(st.floats(2.0**-56, 1.0, exclude_max=True), st.integers(1, 14))
@settings(max_examples=100, deadline=None)
def test_a_threshold_is_near_the_probability_it_stands_for(probability, precision):
    threshold = threshold_of(probability, precision)
    assert 0 <= threshold <= NEVER
    exact = (1 - Fraction(probability)) * NEVER
    assert abs(threshold - exact) <= Fraction(NEVER, 16**precision) + 1


@given(st.binary(min_size=16, max_size=16), st.floats(0, 100, width=32), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_threshold_and_bucket_test_are_the_same_decision(trace, percentage, seed):
    hashed = fnv1a_32(struct.pack("<I", seed) + trace)
    kept = (hashed & 0x3FFF) < hash_buckets(percentage)
    assert ((0x4000 - hash_buckets(percentage)) << 42 <= hashed_randomness(hashed)) == kept
    if trace.strip(b"\0"):
        assert (one(sampler(percentage, hash_seed=seed), span(trace=trace)) is not None) == kept


def test_about_the_configured_share_of_traces_is_kept():
    """R-202."""
    component = sampler(10)
    out = component.process(batch(traces(*(span() for _ in range(5000)))), 0.0)
    assert 400 <= out.count() <= 600
    assert component.settings.drop[Signal.TRACES, "sampled"] == 5000 - out.count()
    assert policies(component) == {("trace_id_hash", "true"): out.count(), ("trace_id_hash", "false"): 5000 - out.count()}


def test_nothing_but_tracestate_changes_on_a_kept_span():
    original = span("a", {"k": "v"}, trace=W3C_KEPT, error=True)
    original.trace_state = "vendor=1,ot=x:y,other=2"
    kept = one(sampler(10, mode="proportional"), original)
    assert kept.trace_state == "ot=th:e666;x:y,vendor=1,other=2"
    kept.trace_state = original.trace_state
    assert kept == original


def test_tracestate_of_other_vendors_stays_behind_ours():
    item = span(trace=TRACE)
    item.trace_state = "vendor=1"
    assert one(sampler(50), item).trace_state == "ot=rv:8a681216849d65;th:8,vendor=1"


def test_hash_mode_drops_what_another_sampler_has_marked_unless_told_to_fail_open():
    for state in ("ot=th:8", "ot=rv:8a681216849d65"):
        item = span(trace=TRACE)
        item.trace_state = state
        assert one(sampler(100), item) is None
        assert one(sampler(100, fail_closed=False), item).trace_state == state


@pytest.mark.parametrize(
    "state", ["ot=th:xyz", "ot=rv:12", "ot=", "no-equals", "ot=a:b,ot=c:d", "k=" + "v" * 2000, "ot=th:" + "1" * 15]
)
def test_an_unreadable_tracestate_is_dropped_or_passed_unchanged(state):
    item = span(trace=W3C_KEPT)
    item.trace_state = state
    for mode in ("hash_seed", "proportional", "equalizing"):
        assert one(sampler(100, mode=mode), item) is None
        assert one(sampler(100, mode=mode, fail_closed=False), item) == item


def test_explicit_randomness_decides_in_the_consistent_modes():
    item = span(trace=W3C_KEPT)
    item.trace_state = "ot=rv:00000000000001"
    component = sampler(10, mode="equalizing")
    assert one(component, item) is None
    item.trace_state = "ot=rv:fffffffffffffe"
    assert one(component, item).trace_state == "ot=rv:fffffffffffffe;th:e666"
    assert policies(component) == {("sampling_randomness", "false"): 1, ("sampling_randomness", "true"): 1}


def test_proportional_multiplies_and_equalizing_takes_the_stricter_share():
    item = span(trace=W3C_KEPT)
    item.trace_state = "ot=th:8"
    assert one(sampler(50, mode="proportional"), item).trace_state == "ot=th:c"
    assert one(sampler(50, mode="equalizing"), item).trace_state == "ot=th:8"
    item.trace_state = "ot=th:f"
    assert one(sampler(50, mode="equalizing"), item).trace_state == "ot=th:f"


def test_a_product_below_the_smallest_probability_is_never_kept():
    item = span(trace=bytes(9) + b"\xff" * 7)
    item.trace_state = "ot=th:ffffffffffffff"
    assert one(sampler(1, mode="proportional"), item) is None


def test_a_threshold_that_contradicts_the_randomness_is_an_error():
    item = span(trace=W3C_LOST)
    item.trace_state = "ot=th:8"
    assert one(sampler(100, mode="proportional"), item) is None
    assert one(sampler(100, mode="proportional", fail_closed=False), item).trace_state == "ot=th:0"


def test_a_span_without_trace_id_has_no_randomness():
    item = span(trace=bytes(16))
    for mode in ("hash_seed", "proportional"):
        component = sampler(100, mode=mode)
        assert one(component, item) is None
        assert policies(component) == {("missing_randomness", "false"): 1}
        assert one(sampler(100, mode=mode, fail_closed=False), item).trace_state == "ot=th:0"


@pytest.mark.parametrize("mode", ["hash_seed", "proportional", "equalizing"])
def test_zero_percent_keeps_nothing_and_a_hundred_everything(mode):
    spans = [span() for _ in range(50)]
    assert sampler(0, mode=mode, fail_closed=False).process(batch(traces(*spans)), 0.0) is None
    out = sampler(100, mode=mode).process(batch(traces(*spans)), 0.0)
    assert [s.span_id for s in spans_of(out)] == [s.span_id for s in spans]
    assert all(re.search(r"th:0(,|$)", s.trace_state) for s in spans_of(out))


def test_a_share_too_small_for_the_hash_keeps_nothing():
    assert sampler(0.001).process(batch(traces(span())), 0.0) is None


@pytest.mark.parametrize(("value", "kept"), [(1, True), (0, False), (0.5, True), (0.0, False), ("2", True), ("0", False)])
def test_sampling_priority_overrules_the_share(value, kept):
    component = sampler(0 if kept else 100)
    out = one(component, span(values={"sampling.priority": value}))
    assert (out is not None) == kept
    assert policies(component) == {("sampling_priority", "true" if kept else "false"): 1}


@pytest.mark.parametrize("value", [-1, "high", True, "nan"])
def test_an_unusable_sampling_priority_is_no_priority(value):
    component = sampler(100)
    assert one(component, span(values={"sampling.priority": value})) is not None
    assert policies(component) == {("trace_id_hash", "true"): 1}


def test_a_key_that_only_mentions_sampling_priority_is_ignored():
    component = sampler(100)
    assert one(component, span(values={"note": "sampling.priority"})) is not None
    assert policies(component) == {("trace_id_hash", "true"): 1}


def test_a_log_record_follows_its_trace():
    component = sampler(50)
    kept = log(component, {"k": "v"}, trace=TRACE)
    assert attribute(kept, "sampling.randomness") == "8a681216849d65"
    assert attribute(kept, "sampling.threshold") == "8"
    assert attribute(kept, "k") == "v"
    assert log(sampler(25), trace=TRACE) is None
    assert policies(component, "logs") == {("trace_id_hash", "true"): 1}


def test_a_log_record_without_trace_id_is_chosen_by_attribute():
    for mode in ("hash_seed", "proportional"):
        component = sampler(50, mode=mode, from_attribute="user")
        results = {name: log(component, {"user": name}) is not None for name in map(str, range(40))}
        assert 8 < sum(results.values()) < 32
        for name, kept in results.items():
            expected = hashed_randomness(fnv1a_32(struct.pack("<I", 0) + name.encode())) >= NEVER // 2
            assert kept == expected
        assert set(policies(component, "logs")) == {("user", "true"), ("user", "false")}


def test_attribute_source_record_ignores_the_trace_id():
    assert log(sampler(100, attribute_source="record", from_attribute="user"), trace=TRACE) is None
    assert log(sampler(100, attribute_source="record", from_attribute="user"), {"user": "a"}, trace=TRACE) is not None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(string_value="ab"), b"ab"),
        (AnyValue(int_value=7), b"7"),
        (AnyValue(bytes_value=b"\xff"), b"\xff"),
        (AnyValue(bool_value=True), b"true"),
        (AnyValue(bool_value=False), b"false"),
        (AnyValue(), b""),
        (None, b""),
    ],
)
def test_attribute_values_are_hashed_as_text(value, text):
    assert module._value_bytes(value) == text


def test_log_thresholds_are_read_and_replaced():
    kept = log(sampler(50, mode="proportional"), {"sampling.threshold": "8", "k": "v"}, trace=W3C_KEPT)
    assert [entry.value.string_value for entry in kept.attributes if entry.key == "sampling.threshold"] == ["c"]
    assert attribute(kept, "k") == "v"
    assert log(sampler(100), {"sampling.threshold": "8"}, trace=TRACE) is None
    assert log(sampler(100, mode="proportional"), {"sampling.randomness": "x"}, trace=TRACE) is None
    kept = log(sampler(100, mode="proportional"), {"sampling.randomness": "ffffffffffffff"})
    assert attribute(kept, "sampling.randomness") == "ffffffffffffff"
    passed = log(sampler(100, fail_closed=False), {"sampling.randomness": "x"}, trace=TRACE)
    assert attribute(passed, "sampling.randomness") == "x"
    assert attribute(passed, "sampling.threshold") is None


def test_log_priority_raises_the_share_or_drops():
    component = sampler(0, sampling_priority="p")
    assert log(component, {"p": 100}, trace=TRACE) is not None
    assert log(component, {"p": 250.0}, trace=TRACE) is not None
    assert log(component, {"p": "100"}, trace=TRACE) is None
    assert log(component, trace=TRACE) is None
    assert log(sampler(100, sampling_priority="p"), {"p": 0}, trace=TRACE) is None
    assert log(sampler(100, sampling_priority="p"), {"p": 1}, trace=TRACE) is not None
    assert policies(component, "logs")["sampling_priority", "true"] == 2


def test_a_failed_search_reads_every_item(monkeypatch):
    component = sampler(0)

    def fail(items):
        raise EngineFailed("none")

    monkeypatch.setattr(component._marks[Signal.TRACES], "scan", fail)
    assert one(component, span(values={"sampling.priority": 1})) is not None
    assert one(component, span()) is None


def test_marks_are_only_hints(monkeypatch):
    component = sampler(100)
    monkeypatch.setattr(component._marks[Signal.TRACES], "scan", lambda items: Hits({0: 1}))
    assert one(component, span()) is not None


@pytest.mark.parametrize(
    "options",
    [{"sampling_percentage": -1}, {}, {"sampling_percentage": 1, "hash_seed": 2**32}, {"sampling_percentage": 1, "mode": "x"},
     {"sampling_percentage": 1, "sampling_precision": 15}, {"sampling_percentage": float("inf")}],
)  # fmt: skip
def test_settings_outside_their_limits_are_refused(options):
    with pytest.raises(ValidationError):
        ProbabilisticSampler.Config.model_validate(options)


def test_repeated_attribute_keys_do_not_confuse_the_priority():
    item = span()
    item.attributes.extend([KeyValue(key="sampling.priority", value=AnyValue(int_value=0))] * 2)
    assert one(sampler(100), item) is None
