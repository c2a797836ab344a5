"""Families as the three formats show them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from google.protobuf.proto import parse_length_prefixed
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, HistogramDataPoint, SummaryDataPoint

from collector.exporters.prometheus.exposition import OPENMETRICS, PROTOBUF, TEXT, Format, _schema
from tests.exporters.prometheus.build import (
    Under,
    bucket_point,
    exponential,
    exponential_point,
    gauge,
    histogram,
    point,
    summary,
    total,
)


def protobuf(under: Under, **options: Any) -> dict[str, Any]:
    """The page in the protobuf format: family name -> message."""
    stream = BytesIO(under.exporter.exposition(Format(PROTOBUF, **options)))
    out = {}
    while (family := parse_length_prefixed(_schema["MetricFamily"], stream)) is not None:
        assert family.name not in out
        out[family.name] = family
    return out


def buckets_of(native: Any, side: str) -> dict[int, int]:
    """Prometheus bucket index -> count, decoded from spans and deltas as Prometheus does."""
    index, count, out = 0, 0, {}
    deltas = iter(getattr(native, f"{side}_delta"))
    for span in getattr(native, f"{side}_span"):
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            out[index] = count
            index += 1
    assert next(deltas, None) is None
    return out


SIDES = st.dictionaries(st.integers(-300, 300), st.integers(1, 1 << 40), max_size=20)


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(0, 1 << 40), st.integers(-4, 8))
async def test_an_exponential_histogram_becomes_the_same_native_histogram(
    positive: dict[int, int], negative: dict[int, int], zero: int, scale: int
) -> None:
    """R-509."""
    under = Under()
    await under.send(exponential("took", exponential_point(scale, positive, negative, zero=zero, sum=1.25)))
    native = protobuf(under)["took"].metric[0].histogram
    assert (native.schema, native.sum, native.zero_count) == (scale, 1.25, zero)
    assert native.count == zero + sum(positive.values()) + sum(negative.values())
    assert buckets_of(native, "positive") == {index + 1: count for index, count in positive.items()}
    assert buckets_of(native, "negative") == {index + 1: count for index, count in negative.items()}
    assert not native.bucket


async def test_a_scale_too_fine_for_native_histograms_is_joined_and_one_too_coarse_becomes_buckets() -> None:
    under = Under()
    await under.send(
        exponential("fine", exponential_point(10, {0: 1, 3: 2, 4: 4})),
        exponential("coarse", exponential_point(-5, {0: 3}, sum=2.0)),
    )
    found = protobuf(under)
    assert found["fine"].metric[0].histogram.schema == 8
    assert buckets_of(found["fine"].metric[0].histogram, "positive") == {1: 3, 2: 4}
    classic = found["coarse"].metric[0].histogram
    assert [(bucket.upper_bound, bucket.count) for bucket in classic.bucket] == [(2.0**32, 3), (float("inf"), 3)]


async def test_an_empty_exponential_histogram_is_still_native() -> None:
    under = Under()
    await under.send(exponential("took", exponential_point(3, {})))
    assert protobuf(under)["took"].metric[0].histogram.zero_threshold > 0


async def test_every_type_says_the_same_in_protobuf_as_in_text() -> None:
    """R-501."""
    under = Under()
    quantile = SummaryDataPoint(count=3, sum=4.5)
    quantile.quantile_values.add(quantile=0.5, value=1.5)
    under.meters.counter("llm_cost_usd", "Cost.", ("model",), derived=True).add(0.1, "m")
    await under.send(
        total("calls", point(7, {"a": "x"})),
        gauge("load", point(0.25)),
        histogram("took", bucket_point([0.5, 10], [1, 2, 3], total=9.5)),
        summary("size", quantile),
        resource={"service.name": "api", "service.instance.id": "i", "host.name": "h"},
    )
    found = protobuf(under)
    kinds = {name: family.type for name, family in found.items()}
    assert kinds == {"calls_total": 0, "load": 1, "took": 4, "size": 2, "target_info": 1, "llm_cost_usd_total": 0}
    assert found["calls_total"].help == "About calls."
    labels = {label.name: label.value for label in found["calls_total"].metric[0].label}
    assert labels == {"job": "api", "instance": "i", "a": "x"}
    assert found["calls_total"].metric[0].counter.value == 7
    assert found["load"].metric[0].gauge.value == 0.25
    took = found["took"].metric[0].histogram
    assert (took.count, took.sum) == (6, 9.5)
    assert [(bucket.upper_bound, bucket.count) for bucket in took.bucket] == [(0.5, 1), (10, 3), (float("inf"), 6)]
    size = found["size"].metric[0].summary
    assert (size.count, size.sum, size.quantile[0].quantile, size.quantile[0].value) == (3, 4.5, 0.5, 1.5)
    assert found["target_info"].metric[0].gauge.value == 1
    assert found["llm_cost_usd_total"].metric[0].counter.value == 0.1
    samples = under.samples()
    assert samples["took_bucket"] == [
        ({"job": "api", "instance": "i", "le": bound}, value) for bound, value in (("0.5", 1.0), ("10.0", 3.0), ("+Inf", 6.0))
    ]
    assert samples["size"] == [({"job": "api", "instance": "i", "quantile": "0.5"}, 1.5)]


async def test_an_unknown_sum_is_shown_as_zero() -> None:
    under = Under()
    entry = HistogramDataPoint(count=1, explicit_bounds=[1], bucket_counts=[1, 0])
    await under.send(histogram("took", entry), exponential("size", exponential_point(0, {0: 1})))
    assert (under.values("took_sum"), under.values("size_sum")) == ([0.0], [0.0])
    assert under.values("took_count") == [1.0]
    assert protobuf(under)["size"].metric[0].histogram.sum == 0


async def test_exemplars_are_shown_in_openmetrics_and_protobuf_only() -> None:
    """R-501."""
    under = Under()
    mark = Exemplar(as_double=1.5, time_unix_nano=1_700_000_000_250_000_000, trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    calls = point(3)
    calls.exemplars.append(mark)
    native = exponential_point(0, {0: 1}, exemplars=[mark, Exemplar(as_double=1.0)])
    await under.send(
        total("calls", calls), histogram("took", bucket_point([1, 2], [0, 1, 0], exemplars=[mark])), exponential("size", native)
    )
    shown = '# {span_id="0202020202020202",trace_id="01010101010101010101010101010101"} 1.5 1700000000.250000000'
    lines = [line for line in under.openmetrics().splitlines() if line.endswith(shown)]
    assert [line.split("{")[0] for line in lines] == ["calls_total", "took_bucket"] + ["size_bucket"] * (len(lines) - 2)
    assert "0202020202020202" not in under.text()
    found = protobuf(under)
    for exemplar in (
        found["calls_total"].metric[0].counter.exemplar,
        found["took"].metric[0].histogram.bucket[1].exemplar,
        found["size"].metric[0].histogram.exemplars[0],
    ):
        assert {label.name: label.value for label in exemplar.label}["trace_id"] == "01" * 16
        assert (exemplar.value, exemplar.timestamp.seconds, exemplar.timestamp.nanos) == (1.5, 1_700_000_000, 250_000_000)
    assert len(found["size"].metric[0].histogram.exemplars) == 1


async def test_timestamps_of_the_sender_are_shown_on_request() -> None:
    under = Under(send_timestamps=True)
    for millisecond in (1_700_000_000_123, 1_700_000_000_249, 1_700_000_000_999):
        await under.send(gauge("load", point(1, time=millisecond * 1_000_000)))
        assert f" 1.0 {millisecond}\n" in under.text()
        assert protobuf(under)["load"].metric[0].timestamp_ms == millisecond
        assert f"1.0 {str(millisecond)[:10]}.{str(millisecond)[10:]}" in under.openmetrics()
    await under.send(gauge("other", point(1)))
    assert protobuf(under)["other"].metric[0].timestamp_ms == 0


@pytest.mark.parametrize("strategy", ["UnderscoreEscapingWithoutSuffixes", "NoTranslation"])
async def test_a_counter_without_suffix_is_untyped_in_text_and_a_counter_in_protobuf(strategy: str) -> None:
    under = Under(translation_strategy=strategy)
    calls = point(3)
    calls.exemplars.add(as_double=1.0, trace_id=b"\x01" * 16)
    await under.send(total("calls", calls, unit="s"))
    assert under.values("calls") == [3.0]
    assert "# TYPE calls untyped" in under.text()
    assert protobuf(under)["calls"].type == 0
    older = Under(add_metric_suffixes=False)
    await older.send(total("calls", point(3), unit="s"))
    assert older.values("calls") == [3.0]


async def test_a_counter_beside_a_gauge_of_its_base_name_is_untyped_so_that_no_family_comes_twice() -> None:
    under = Under()
    await under.send(gauge("calls", point(1)), total("calls", point(3)))
    assert (under.values("calls"), under.values("calls_total")) == ([1.0], [3.0])
    under.meters.gauge("jobs", "Derived.", derived=True).set(5)
    await under.send(total("jobs", point(3)))
    assert (under.values("jobs"), under.values("jobs_total")) == ([5.0], [3.0])


async def test_utf8_names_are_kept_for_scrapers_that_take_them_and_escaped_for_others() -> None:
    under = Under(translation_strategy="NoTranslation")
    resource = {"service.name": "api", "service.instance.id": "i", "host.name": "h"}
    await under.send(gauge("cpu.load", point(1, {"a.b": "1", "a_b": "2"})), gauge("cpu_load", point(9)), resource=resource)
    for kind in (TEXT, OPENMETRICS):
        page = under.exporter.exposition(Format(kind, utf8=True)).decode()
        assert '{"cpu.load","a.b"="1",a_b="2",instance="i",job="api"} 1.0' in page
        assert 'target_info{"host.name"="h",instance="i",job="api"} 1.0' in page
    assert under.samples()["cpu_load"] == [({"a_b": "1;2", "instance": "i", "job": "api"}, 1.0)]
    assert under.samples()["target_info"][0][0]["host_name"] == "h"
    assert set(protobuf(under, utf8=True)) == {"cpu.load", "cpu_load", "target_info"}
    assert set(protobuf(under)) == {"cpu_load", "target_info"}


async def test_large_bounds_are_spelled_as_go_does() -> None:
    under = Under()
    await under.send(histogram("took", bucket_point([0.000001, 1e6, 1e21], [1, 1, 1, 1])))
    assert [labels["le"] for labels, _ in under.samples()["took_bucket"]] == ["1e-06", "1e+06", "1e+21", "+Inf"]
