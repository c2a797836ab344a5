"""Names and labels as Prometheus wants them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.exporters.prometheus.names import Namer, join, label_name, text, unit_words
from tests.support import any_value

PLAIN = Namer()


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "histogram", "http_server_request_duration_seconds"),
        ("requests", "1", "counter", "requests_total"),
        ("requests_total", "", "counter", "requests_total"),
        ("total.requests", "", "counter", "requests_total"),
        ("cpu.utilization", "1", "gauge", "cpu_utilization_ratio"),
        ("cpu.ratio", "1", "gauge", "cpu_ratio"),
        ("cpu.utilization", "1", "sum", "cpu_utilization"),
        ("memory.usage", "By", "gauge", "memory_usage_bytes"),
        ("memory.bytes.free", "By", "gauge", "memory_bytes_free"),
        ("net.io", "By/s", "gauge", "net_io_bytes_per_second"),
        ("speed", "m/min", "gauge", "speed_meters_per_minute"),
        ("queue", "{items}", "gauge", "queue"),
        ("queue", "{items}/s", "gauge", "queue_per_second"),
        ("price", "$", "counter", "price_dollars_total"),
        ("a..b--c__d", "", "gauge", "a_b_c_d"),
        ("1st", "", "gauge", "_1st"),
        ("job:rate", "", "gauge", "job:rate"),
        ("été", "", "gauge", "t"),
        ("日本", "", "gauge", ""),
        ("", "s", "gauge", ""),
        ("x", "foo bar", "gauge", "x_foo_bar"),
    ],
)
def test_a_metric_name_follows_the_compatibility_rules(name: str, unit: str, kind: str, expected: str) -> None:
    """R-509."""
    assert PLAIN.metric(name, unit, kind) == expected


@pytest.mark.parametrize(
    ("namer", "expected"),
    [
        (Namer("my app"), "my_app_http_requests_seconds_total"),
        (Namer(suffixes=False), "http_requests"),
        (Namer("ns", suffixes=False), "ns_http_requests"),
        (Namer(escape=False), "http.requests_seconds_total"),
        (Namer(suffixes=False, escape=False), "http.requests"),
        (Namer("n.s", suffixes=False, escape=False), "n.s_http.requests"),
    ],
)
def test_the_translation_strategy_decides_on_suffixes_and_escaping(namer: Namer, expected: str) -> None:
    assert namer.metric("http.requests", "s", "counter") == expected


def test_a_utf8_name_does_not_get_a_suffix_twice() -> None:
    assert Namer(escape=False).metric("http.seconds.total", "s", "counter") == "http.seconds_total"


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("ms", ("milliseconds", "")),
        ("1/s", ("", "per_second")),
        ("%", ("percent", "")),
        ("", ("", "")),
        ("/s", ("", "per_second")),
    ],
)
def test_a_unit_becomes_words(unit: str, words: tuple[str, str]) -> None:
    assert unit_words(unit) == words


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("http.method", "http_method"),
        ("a__b..c", "a_b_c"),
        ("1a", "key_1a"),
        ("_a", "key_a"),
        ("__name__", "key_name_"),
        ("___", ""),
        ("日", ""),
        ("", ""),
    ],
)
def test_a_label_name_starts_with_a_letter_and_is_never_reserved(key: str, label: str) -> None:
    assert label_name(key) == label


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=5), max_size=8))
def test_labels_are_valid_and_no_value_is_lost(pairs: dict[str, str]) -> None:
    labels = PLAIN.labels(pairs.items())
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in labels)
    kept = [value for key, value in sorted(pairs.items()) if value and label_name(key)]
    assert sorted(";".join(labels.values())) == sorted(";".join(kept))


def test_colliding_keys_join_their_values_in_order_of_the_keys() -> None:
    """R-509."""
    assert PLAIN.labels([("a_b", "2"), ("a.b", "1")]) == {"a_b": "1;2"}
    assert Namer(escape=False).labels([("a_b", "2"), ("a.b", "1"), ("__name__", "x")]) == {
        "a.b": "1",
        "a_b": "2",
        "key__name__": "x",
    }


def test_a_label_of_both_sides_keeps_both_values() -> None:
    assert join({"job": "api", "x": "1"}, {"job": "mine"}) == {"job": "api;mine", "x": "1"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (2.0, "2"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
        (b"\x00\xff", "AP8="),
        (["a", 1, [True]], '["a",1,[true]]'),
        ({"k": {"l": 1.5}}, '{"k":{"l":1.5}}'),
    ],
)
def test_an_attribute_value_is_spelled_as_otelcol_does(value: object, expected: str) -> None:
    assert text(any_value(value)) == expected


def test_an_empty_attribute_value_is_an_empty_label() -> None:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    assert text(AnyValue()) == ""
