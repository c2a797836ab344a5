"""Which format a scraper gets."""

from __future__ import annotations

from io import BytesIO

import pytest
from google.protobuf.proto import parse_length_prefixed
from prometheus_client import CollectorRegistry, Histogram, Metric

from collector.exporters.prometheus.exposition import OPENMETRICS, PROTOBUF, TEXT, Format, _schema, negotiate, write

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
UTF8 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format(TEXT)),
        ("*/*", Format(TEXT)),
        ("text/html,application/json", Format(TEXT)),
        (PROMETHEUS, Format(OPENMETRICS)),
        (NATIVE, Format(PROTOBUF)),
        (UTF8, Format(OPENMETRICS, True)),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Format(TEXT, True)),
        ("text/plain;version=0.0.4;escaping=allow-utf-8", Format(TEXT)),
        ("text/plain;q=0.1, application/openmetrics-text;q=0.9", Format(OPENMETRICS)),
        ("application/openmetrics-text;q=0, text/plain;q=0.1", Format(TEXT)),
        ("application/openmetrics-text;q=broken", Format(TEXT)),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited", Format(TEXT)),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format(TEXT)),
        (";;,,=", Format(TEXT)),
    ],
)
def test_the_best_format_that_the_scraper_takes_is_chosen(accept: str, expected: Format) -> None:
    """R-501."""
    assert negotiate(accept) == expected


def test_openmetrics_can_be_switched_off() -> None:
    assert negotiate(PROMETHEUS, openmetrics=False) == Format(TEXT)
    assert negotiate(NATIVE, openmetrics=False) == Format(PROTOBUF)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Format(TEXT), "text/plain; version=0.0.4; charset=utf-8"),
        (Format(TEXT, True), "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        (Format(OPENMETRICS), "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            Format(PROTOBUF, True),
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=allow-utf-8",
        ),
    ],
)
def test_the_content_type_names_the_format(chosen: Format, expected: str) -> None:
    assert chosen.content_type == expected


def test_what_prometheus_client_counts_keeps_its_exemplars_in_protobuf() -> None:
    registry = CollectorRegistry()
    Histogram("took", "About took.", registry=registry, buckets=(1, 2)).observe(1.5, {"trace_id": "01"})
    family = parse_length_prefixed(_schema["MetricFamily"], BytesIO(write(registry.collect(), Format(PROTOBUF))))
    assert family is not None
    exemplar = family.metric[0].histogram.bucket[1].exemplar
    assert (exemplar.label[0].value, exemplar.value) == ("01", 1.5)
    assert exemplar.timestamp.seconds > 1_700_000_000


def test_times_of_creation_and_families_without_series_are_left_out_of_protobuf() -> None:
    calls = Metric("calls", "About calls.", "counter")
    assert write([calls], Format(PROTOBUF)) == b""
    took = Metric("took", "About took.", "histogram")
    for metric, name in ((calls, "calls_total"), (calls, "calls_created"), (took, "took_count"), (took, "took_created")):
        metric.add_sample(name, {}, 1.0)
    stream = BytesIO(write([calls, took], Format(PROTOBUF)))
    families = [parse_length_prefixed(_schema["MetricFamily"], stream) for _ in range(2)]
    assert [len(family.metric) for family in families if family is not None] == [1, 1]
