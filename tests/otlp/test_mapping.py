"""otlp.mapping: OTLP JSON as the specification has it, lenient in, strict out."""

from __future__ import annotations

import contextlib
import gc
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.errors import Malformed, Refused, TooLarge
from collector.model import Signal
from collector.otlp import transcode
from collector.otlp.mapping import MAX_ITEM_NESTED, MAX_ITEMS, Reader, from_json, to_json
from tests.otlp.generated import requests
from tests.support import REQUEST, span, traces

SIGNALS = list(Signal)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def one_span(**fields: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()


def read_span(**fields: Any) -> Any:
    request = REQUEST[Signal.TRACES].FromString(from_json(Signal.TRACES, one_span(**fields)))
    return request.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@FEW
def test_every_message_survives_the_way_to_json_and_back(signal: Signal, data: st.DataObject) -> None:
    request = data.draw(requests(signal))
    encoded = request.SerializeToString(deterministic=True)
    text = to_json(signal, encoded)
    assert from_json(signal, text) == encoded
    assert from_json(signal, text, strict=True) == encoded


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@FEW
def test_snake_case_means_the_same(signal: Signal, data: st.DataObject) -> None:
    encoded = data.draw(requests(signal)).SerializeToString(deterministic=True)
    text = orjson.dumps(_snake(orjson.loads(to_json(signal, encoded)), REQUEST[signal].DESCRIPTOR))
    assert from_json(signal, text) == encoded


def _snake(value: Any, descriptor: Any) -> Any:
    fields = {each.json_name: each for each in descriptor.fields}
    out = {}
    for key, member in value.items():
        inner = fields[key].message_type
        if inner:
            member = [_snake(m, inner) for m in member] if isinstance(member, list) else _snake(member, inner)
        out[fields[key].name] = member
    return out


@pytest.mark.parametrize("signal", SIGNALS)
@given(text=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["resourceSpans", "scopeSpans", "spans", "name", "resource", "attributes", "value", "key",
        "resourceLogs", "scopeLogs", "logRecords", "body", "arrayValue", "values", "traceId", "resourceMetrics", "scopeMetrics",
        "metrics", "sum", "dataPoints", "asInt", "kind"]), inner, max_size=4), max_leaves=20).map(json.dumps))  # fmt: skip
@FEW
def test_any_json_is_read_or_malformed(signal: Signal, text: str) -> None:
    try:
        encoded = from_json(signal, text.encode())
    except Malformed:
        return
    REQUEST[signal].FromString(encoded)


def test_ids_are_hex_in_any_case_links_included() -> None:
    """Rule 22."""
    link = {"traceId": "AB" * 16, "spanId": "cD" * 8}
    read = read_span(traceId="Ab" * 16, spanId="aB" * 8, parentSpanId="CC" * 8, links=[link])
    assert (read.trace_id, read.span_id, read.parent_span_id) == (b"\xab" * 16, b"\xab" * 8, b"\xcc" * 8)
    assert (read.links[0].trace_id, read.links[0].span_id) == (b"\xab" * 16, b"\xcd" * 8)


def test_unknown_keys_are_ignored_whatever_they_hold() -> None:
    """Rule 22."""
    assert read_span(name="a", future={"deep": [1, {"x": None}]}, traceid="no").name == "a"


@pytest.mark.parametrize("value", ["1700000000000000001", 1700000000000000001])
def test_64_bit_integers_are_strings_or_numbers(value: object) -> None:
    """Rule 22."""
    assert read_span(startTimeUnixNano=value).start_time_unix_nano == 1700000000000000001


def test_integral_floats_are_integers() -> None:
    assert read_span(startTimeUnixNano=2e9, droppedEventsCount=3.0).dropped_events_count == 3


@pytest.mark.parametrize(
    ("given_text", "value"), [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf), ("1.5e3", 1500.0), (2, 2.0)]
)
def test_doubles_may_be_strings(given_text: object, value: float) -> None:
    read = read_span(attributes=[{"key": "k", "value": {"doubleValue": given_text}}]).attributes[0].value.double_value
    assert read == value or (math.isnan(read) and math.isnan(value))


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_other_bytes_are_base64_in_both_alphabets(text: str) -> None:
    """Rule 22."""
    assert read_span(attributes=[{"key": "k", "value": {"bytesValue": text}}]).attributes[0].value.bytes_value == b"\xfb\xff"


def test_null_means_absent() -> None:
    assert read_span(name=None, status=None, attributes=None) == read_span()


def test_enum_names_are_read_and_counted() -> None:
    """Rule 22: the letter of the specification knows integers only; otelcol reads names too."""
    reader = Reader(Signal.TRACES, one_span(kind="SPAN_KIND_SERVER", status={"code": 2}, trace_state="x"))
    list(reader.slices())
    read = REQUEST[Signal.TRACES].FromString(reader.encoded).resource_spans[0].scope_spans[0].spans[0]
    assert (read.kind, read.status.code, read.trace_state) == (2, 2, "x")
    assert dict(reader.nonstandard) == {"enum_name": 1, "snake_case": 1}


def test_strict_ignores_snake_case_and_refuses_enum_names() -> None:
    """Rule 22."""
    text = b'{"resource_spans": [{}], "resourceSpans": [{"schema_url": "x"}]}'
    assert REQUEST[Signal.TRACES].FromString(from_json(Signal.TRACES, text, strict=True)).resource_spans[0].schema_url == ""
    with pytest.raises(Malformed, match="kind"):
        from_json(Signal.TRACES, one_span(kind="SPAN_KIND_SERVER"), strict=True)


def test_both_spellings_of_a_list_are_joined() -> None:
    text = b'{"resource_spans": [{"schemaUrl": "a"}], "resourceSpans": [{"schemaUrl": "b"}]}'
    read = REQUEST[Signal.TRACES].FromString(from_json(Signal.TRACES, text))
    assert sorted(group.schema_url for group in read.resource_spans) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"traceId": "zz"}, "traceId"),
        ({"traceId": "abc"}, "traceId"),
        ({"traceId": "00 11"}, "traceId"),
        ({"traceId": 5}, "traceId"),
        ({"name": 5}, "name"),
        ({"name": {}}, "name"),
        ({"kind": "NO_SUCH_KIND"}, "kind"),
        ({"kind": 1.5}, "kind"),
        ({"kind": True}, "kind"),
        ({"kind": 1 << 31}, "kind"),
        ({"startTimeUnixNano": "-1"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": "1_0"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": " 1"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": "٣"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano"),
        ({"startTimeUnixNano": 1 << 63 << 1}, "startTimeUnixNano"),
        ({"startTimeUnixNano": []}, "startTimeUnixNano"),
        ({"droppedAttributesCount": 1 << 32}, "droppedAttributesCount"),
        ({"attributes": {}}, "attributes"),
        ({"attributes": [5]}, r"attributes\[0\]"),
        ({"attributes": [{}, None]}, r"attributes\[1\]"),
        ({"attributes": [{"value": {"boolValue": "true"}}]}, "boolValue"),
        ({"attributes": [{"value": {"doubleValue": "1_0"}}]}, "doubleValue"),
        ({"attributes": [{"value": {"doubleValue": True}}]}, "doubleValue"),
        ({"attributes": [{"value": {"doubleValue": []}}]}, "doubleValue"),
        ({"attributes": [{"value": {"bytesValue": "*"}}]}, "bytesValue"),
        ({"attributes": [{"value": {"bytesValue": "a"}}]}, "bytesValue"),
        ({"status": []}, "status"),
    ],
)
def test_wrong_values_are_malformed_with_their_position_and_without_payload(fields: dict[str, Any], where: str) -> None:
    """Rule 16."""
    with pytest.raises(Malformed, match=rf"^resourceSpans\[0\].scopeSpans\[0\].spans\[0\].*{where}") as caught:
        from_json(Signal.TRACES, one_span(**fields))
    assert "zz" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"5", b"null", b"{", b'{"a":\xff}', b'{"a":"\\ud800"}', b'{"resourceSpans":5}', b'{"resourceSpans":[5]}',
     b'{"resourceSpans":[{"scopeSpans":[[]]}]}', b'{"resourceSpans":[{"scopeSpans":[{"spans":{}}]}]}',
     b'{"resourceSpans":[{"scopeSpans":[{"spans":[[]]}]}]}', b'{"resourceSpans":[{"resource":5}]}'],
)  # fmt: skip
def test_what_is_no_request_is_malformed(text: bytes) -> None:
    """Rule 16."""
    with pytest.raises(Malformed):
        from_json(Signal.TRACES, text)


def test_repeated_scalars_are_checked_too() -> None:
    def metric(counts: object) -> bytes:
        point = {"bucketCounts": counts}
        scope = {"metrics": [{"histogram": {"dataPoints": [point]}}]}
        return orjson.dumps({"resourceMetrics": [{"scopeMetrics": [scope]}]})

    read = REQUEST[Signal.METRICS].FromString(from_json(Signal.METRICS, metric(["1", 2])))
    assert list(read.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[0].bucket_counts) == [1, 2]
    for wrong in (["x"], [-1], 5, [None]):
        with pytest.raises(Malformed, match="bucketCounts"):
            from_json(Signal.METRICS, metric(wrong))


def nested(levels: int) -> bytes:
    inner = b'{"arrayValue":{"values":[' * levels + b'{"stringValue":"x"}' + b"]}}" * levels
    span_text = b'{"attributes":[{"key":"k","value":' + inner + b"}]}"
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + span_text + b"]}]}]}"


def test_depth_is_capped() -> None:
    assert from_json(Signal.TRACES, nested(20))
    for levels in (40, 100, 5000, 100_000):
        with pytest.raises(Malformed):
            from_json(Signal.TRACES, nested(levels))


def test_object_bombs_are_too_large() -> None:
    with pytest.raises(TooLarge, match="items"):
        from_json(Signal.TRACES, one_span().replace(b"[{}]", b"[" + b",".join([b"{}"] * (MAX_ITEMS + 1)) + b"]"))
    with pytest.raises(TooLarge, match="nested"):
        from_json(Signal.TRACES, one_span(attributes=[{}] * (MAX_ITEM_NESTED + 1)))
    with pytest.raises(TooLarge):
        from_json(Signal.TRACES, b'{"x":[' + b",".join([b"{}"] * 4_000_001) + b"]}")


@pytest.mark.parametrize("text", [b'{"x":1}', b"{"])
@pytest.mark.parametrize("collects", [True, False])
def test_parsing_leaves_the_collector_of_cycles_as_it_was(collects: bool, text: bytes) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with contextlib.suppress(Malformed):
            list(Reader(Signal.TRACES, text).slices())
        assert gc.isenabled() is collects
    finally:
        (gc.enable if was else gc.disable)()


def test_memory_for_a_large_text_is_reserved_before_it_is_parsed() -> None:
    def full(size: int) -> None:
        assert size > 600_000
        raise Refused("full")

    with pytest.raises(Refused):
        list(Reader(Signal.TRACES, b"not json " * 70_000, reserve=full).slices())


def test_a_large_request_is_read_in_slices_without_losing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode, "compiled", None)
    spans = [span(f"s{i}", {f"k{j}": j for j in range(12)}) for i in range(2000)]
    request = traces(*spans, resource={"service.name": "big"})
    request.resource_spans.add().schema_url = "other"
    reader = Reader(Signal.TRACES, to_json(Signal.TRACES, request.SerializeToString()))
    assert sum(1 for _ in reader.slices()) > 3
    read = REQUEST[Signal.TRACES].FromString(reader.encoded)
    assert [s for g in read.resource_spans for c in g.scope_spans for s in c.spans] == spans
    assert {g.resource.attributes[0].value.string_value for g in read.resource_spans[:-1]} == {"big"}
    assert read.resource_spans[-1].schema_url == "other"


def test_output_is_strict() -> None:
    """Rule 22."""
    text = orjson.loads(to_json(Signal.TRACES, traces(span("a", {"n": 5, "b": b"\xff"}, trace=b"\xab" * 16)).SerializeToString()))
    out = text["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert out["traceId"] == "ab" * 16
    assert out["kind"] == 2
    assert out["startTimeUnixNano"].isdigit()
    assert [a["value"] for a in out["attributes"]] == [{"intValue": "5"}, {"bytesValue": "/w=="}]


def test_output_of_broken_bytes_is_malformed() -> None:
    with pytest.raises(Malformed):
        to_json(Signal.LOGS, b"\xff\xff")
