"""Requests made from one template are different requests of the same content."""

from __future__ import annotations

import json

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.load import Shape, Template, logs, metrics, requests
from bench.workloads import WORKLOADS
from collector.otlp.mapping import from_json, to_json
from tests.support import Signal


def spans_of(data):
    return ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0].spans


def test_a_fresh_request_differs_in_ids_only_and_says_which():
    request = next(requests(1, 64))
    template = Template.of(request)
    data = template.fresh(7)
    assert data == template.fresh(7) != template.fresh(8)
    before, after = spans_of(request.data), spans_of(data)
    assert {span.trace_id for span in after} == set(template.ids(7))
    assert [span.attributes[0] for span in after if not span.name.startswith("chat")] == [
        span.attributes[0] for span in before if not span.name.startswith("chat")
    ]
    failed = {span.trace_id for span in after if span.status.code == 2}
    assert failed == {template.ids(7)[number] for number in template.failed}
    answers = [entry.value.string_value for span in after for entry in span.attributes if entry.key == "gen_ai.response.id"]
    assert len(answers) == len(set(answers)) == sum(map(len, template.calls.values())) > 0
    assert not set(answers) & {e.value.string_value for span in before for e in span.attributes if e.key == "gen_ai.response.id"}


def test_a_fresh_request_in_json_is_the_same_request():
    request = next(requests(1, 16))
    text = Template.of(request, to_json(Signal.TRACES, request.data)).fresh(3)
    assert json.loads(text)
    assert spans_of(from_json(Signal.TRACES, text)) == spans_of(Template.of(request).fresh(3))


def test_shapes_have_the_described_sizes():
    sizes = {w.name: len(w.templates()[0].data) / w.items for w in WORKLOADS if w.signal == "traces" and w.work == "default"}
    assert 50 < sizes["default-no attributes"] < 150
    assert 5_000 < sizes["default-100 x 50 B"] < 9_000
    assert 10_000 < sizes["default-10 x 1 KB"] < 12_000
    assert 100_000 < sizes["default-20 x 5 KB"] < 105_000
    some = spans_of(next(requests(1, 512, Shape(personal=0.1))).data)
    assert 0.05 < sum(b"canary" in span.SerializeToString() for span in some) / 512 < 0.15


def test_logs_and_metrics_have_the_described_number_of_items():
    made = logs(1, 512)
    assert len(ExportLogsServiceRequest.FromString(made.data).resource_logs[0].scope_logs[0].log_records) == made.items == 512
    assert made.fresh(1) == made.data
    assert metrics(1, 400).data.count(b"/api/v1/orders/") == 400
