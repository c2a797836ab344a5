"""model: bytes in, views, bytes out."""

import sys

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector import model
from collector.compiled import WALKER_VARIABLE, compiled_module
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


def field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


RESOURCE, URL, UNKNOWN = 0x0A, 0x1A, 0x7A
CONTENT = st.one_of(st.binary(max_size=200), st.integers(120, 20_000).map(bytes))
FIELDS = st.lists(st.tuples(st.sampled_from([RESOURCE, RESOURCE, URL, UNKNOWN]), st.binary(max_size=20)), max_size=3)
USUAL = st.builds(lambda first, url: b"".join(field(RESOURCE, f) for f in first) + (field(URL, url) if url else b""),
                  st.lists(CONTENT, max_size=2), st.binary(max_size=9))  # fmt: skip
HEADERS = st.one_of(USUAL, USUAL, FIELDS.map(lambda found: b"".join(field(*each) for each in found)), st.binary(max_size=9))
SCOPES = st.builds(Scope, HEADERS, st.lists(CONTENT, max_size=5))
GROUPS = st.lists(st.builds(Group, HEADERS, st.lists(SCOPES, max_size=3)), max_size=3)
compiled_only = pytest.mark.skipif(model._compiled is None, reason="not compiled here")


def by_protobuf(batch: Batch) -> bytes | None:
    try:
        return batch._encoded()
    except DecodeError:
        return None


@compiled_only
@given(GROUPS)
def test_joined_in_one_copy_a_batch_has_the_bytes_that_protobuf_makes_of_it(groups: list[Group]) -> None:
    wanted = by_protobuf(Batch(Signal.TRACES, groups))
    joined = model._compiled.encode(groups)
    if wanted is None:
        assert joined is None
    else:
        assert joined in (None, wanted)
        assert Batch(Signal.TRACES, groups).encode() == wanted


@compiled_only
@given(
    st.lists(st.builds(Group, USUAL, st.lists(st.builds(Scope, USUAL, st.lists(CONTENT, max_size=5)), max_size=3)), max_size=3)
)
def test_what_the_walker_opens_is_joined_in_one_copy(groups: list[Group]) -> None:
    assert model._compiled.encode(groups) == Batch(Signal.TRACES, groups)._encoded()


@compiled_only
@pytest.mark.parametrize(
    "groups",
    [
        (),
        [Group(bytearray(), [])],  # type: ignore[arg-type]
        [Group(b"", ())],  # type: ignore[arg-type]
        [Group(b"", [Scope(b"", (b"a",))])],  # type: ignore[arg-type]
        [Group(b"", [Scope(b"", [bytearray(b"a")])])],  # type: ignore[list-item]
        [Group(b"", [Scope(None, [])])],  # type: ignore[arg-type]
        [Group(b"\x0a\x80", [])],
        [Group(b"\x0a\x80\x00", [])],
        [Group(b"\x0a\x80\x80\x80\x80\x80\x00", [])],
        [Group(b"\x0a\x05abc", [])],
        [Group(b"\x1a\x00", [])],
        [Group(b"\x1a\x01a\x0a\x01a", [])],
    ],
)
def test_what_is_not_made_as_usual_is_left_to_protobuf(groups: object) -> None:
    assert model._compiled.encode(groups) is None


@compiled_only
def test_what_is_no_group_or_scope_is_an_error() -> None:
    for groups in ([object()], [Group(b"", [object()])]):  # type: ignore[list-item]
        with pytest.raises(AttributeError):
            model._compiled.encode(groups)


def test_without_the_compiled_twin_protobuf_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = batch(traces(span(), span()))
    with_it = opened.replace(opened.groups).encode()
    monkeypatch.setattr(model, "_compiled", None)
    assert opened.replace(opened.groups).encode() == with_it


@compiled_only
def test_a_compiled_module_is_there_unless_it_is_not_built_or_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_module("_model") is model._compiled
    monkeypatch.setenv(WALKER_VARIABLE, "python")
    assert compiled_module("_model") is None
    monkeypatch.delenv(WALKER_VARIABLE)
    monkeypatch.setitem(sys.modules, "collector._model", None)
    assert compiled_module("_model") is None
