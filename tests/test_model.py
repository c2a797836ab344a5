"""model: bytes in, views, bytes out."""

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector.model import Signal, data_points, open_envelope
from tests.support import batch, decode, span, traces


def test_an_untouched_request_leaves_byte_identical_even_with_unknown_fields() -> None:
    body = traces(span(), span()).SerializeToString() + b"\xfa\x3f\x03abc"  # field 1023, from a newer sender
    assert open_envelope(Signal.TRACES, body).encode() == body


def test_a_rebuilt_batch_holds_the_same_data() -> None:
    request = traces(span(), span(error=True))
    opened = batch(request)
    assert decode(opened.replace(opened.groups)) == request


def test_unknown_fields_of_resource_scope_and_item_survive_a_rebuild() -> None:
    request = traces(span())
    group = request.resource_spans[0]
    unknown = b"\xfa\x3f\x03abc"
    for part in (group, group.resource, group.scope_spans[0], group.scope_spans[0].scope, group.scope_spans[0].spans[0]):
        part.MergeFromString(unknown)
    opened = batch(request)
    assert opened.replace(opened.groups).encode().count(unknown) == 5


def test_groups_and_scopes_left_empty_are_not_sent() -> None:
    opened = batch(traces(span()))
    opened.groups[0].scopes[0].items.clear()
    assert opened.replace(opened.groups).encode() == b""


def test_metrics_are_counted_in_data_points() -> None:
    metric = Metric(name="m")
    metric.sum.data_points.add()
    metric.sum.data_points.add()
    assert data_points(metric.SerializeToString()) == 2
