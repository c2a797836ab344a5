"""model: bytes in, views, bytes out."""

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector.model import Batch, Group, Scope, Signal, data_points, open_envelope
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


def test_data_points_that_were_counted_before_are_not_counted_again() -> None:
    metric = Metric(name="m")
    metric.gauge.data_points.add()
    item = metric.SerializeToString()
    scope = Scope(b"", [item, b"", item])
    assert Batch(Signal.METRICS, [Group(b"", [scope])]).count() == 2
    scope.points = [10, 20, 40]
    assert Batch(Signal.METRICS, [Group(b"", [scope]), Group(b"", [scope.keep([2, 0])])]).count() == 70 + 50


def test_a_resource_that_stands_twice_is_one_resource() -> None:
    """Protobuf encoding: a message field that stands twice is merged."""
    parts = [traces(resource={key: "v"}).resource_spans[0].resource.SerializeToString() for key in ("a", "b")]
    item = span().SerializeToString()
    scope = b"\x12" + bytes([len(item)]) + item
    group = b"".join(b"\x0a" + bytes([len(part)]) + part for part in parts) + b"\x12" + bytes([len(scope)]) + scope
    opened = open_envelope(Signal.TRACES, b"\x0a" + varint(len(group)) + group)
    kept = decode(opened.replace(opened.groups))
    assert [a.key for a in kept.resource_spans[0].resource.attributes] == ["a", "b"]


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)
