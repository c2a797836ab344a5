"""pipeline.split: the same data in smaller requests."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Payload, Signal, data_points, open_envelope
from collector.otlp.request import open_request
from collector.pipeline.split import cut, halve, slices
from tests.support import REQUEST, batch, span, traces


def _request(sizes: list[list[int]]):
    request = traces()
    del request.resource_spans[:]
    for group in sizes:
        request.MergeFrom(traces(*(span("x" * size) for size in group), resource={"host": len(group)}))
    return request


def _names(parts):
    return [item for part in parts for item in open_envelope(Signal.TRACES, part.data).items()]


@given(st.lists(st.lists(st.integers(0, 60), max_size=5), max_size=4), st.integers(1, 200))
@settings(deadline=None, max_examples=100)
def test_slices_hold_every_item_once_in_order_and_keep_to_the_size(sizes, limit):
    opened = batch(_request(sizes))
    parts = list(slices(opened, limit))
    assert [item for part in parts for item in part.items()] == opened.items()
    assert all(len(part.items()) == 1 or sum(map(len, part.items())) <= limit for part in parts)


def test_slices_repeat_the_headers_of_resource_and_scope():
    opened = batch(_request([[1, 1, 1]]))
    parts = list(slices(opened, 1))
    assert len(parts) == 3
    assert {part.groups[0].header for part in parts} == {opened.groups[0].header}
    assert {part.groups[0].scopes[0].header for part in parts} == {opened.groups[0].scopes[0].header}


def test_slices_keep_heads_and_trace_ids_beside_their_items():
    opened = batch(_request([[1, 1]]))
    opened.groups[0].scopes[0].heads, opened.groups[0].scopes[0].trace_ids = ["first", "second"], [b"a", b"b"]
    assert [part.groups[0].scopes[0].heads for part in slices(opened, 1)] == [["first"], ["second"]]
    assert [part.groups[0].scopes[0].trace_ids for part in slices(opened, 1)] == [[b"a"], [b"b"]]


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=4), st.integers(1, 30))
@settings(deadline=None, max_examples=100)
def test_slices_of_metrics_know_their_data_points(scopes, limit):
    request = REQUEST[Signal.METRICS]()
    for metrics in scopes:
        inner = request.resource_metrics.add().scope_metrics.add()
        for points in metrics:
            added = inner.metrics.add(name="m")
            for _ in range(points):
                added.gauge.data_points.add()
    opened = open_request(Signal.METRICS, request.SerializeToString()).batch
    for part in slices(opened, limit):
        for scope in part.scopes():
            assert scope.points == [data_points(item) for item in scope.items]


@given(st.lists(st.integers(0, 400), min_size=2, max_size=12))
@settings(deadline=None, max_examples=100)
def test_halving_gives_smaller_payloads_with_the_same_items(sizes):
    request = _request([sizes])
    whole = Payload(Signal.TRACES, request.SerializeToString(), len(sizes))
    parts = halve(whole)
    assert len(parts) > 1
    assert Counter(_names(parts)) == Counter(_names([whole]))
    assert sum(part.items for part in parts) == len(sizes)
    assert all(0 < part.items < len(sizes) for part in parts)


def test_a_giant_item_is_parted_from_its_neighbours():
    request = _request([[1, 5000, 1]])
    parts = halve(Payload(Signal.TRACES, request.SerializeToString(), 3))
    assert [part.items for part in parts] == [1, 2]


@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=4), st.integers(100, 4000))
@settings(deadline=None, max_examples=200)
def test_what_is_cut_keeps_to_the_size_with_all_that_is_around_the_items(sizes, limit):
    request = _request(sizes)
    whole = Payload(Signal.TRACES, request.SerializeToString(), sum(map(len, sizes)), 1.0)
    headers = sum(len(g.header) + 5 + sum(len(s.header) + 5 for s in g.scopes) for g in batch(request).groups)
    parts = cut(whole, limit)
    assert _names(parts) == _names([whole])
    assert sum(part.items for part in parts) == whole.items
    assert all(len(part.data) <= max(limit, limit // 2 + headers) or part.items == 1 for part in parts)


def test_4_mib_are_what_a_grpc_server_takes_by_default_and_not_a_frame_more():
    spans = [span("x" * 600) for _ in range(10_000)]
    parts = cut(Payload(Signal.TRACES, traces(*spans).SerializeToString(), len(spans), 1.0), 4 << 20)
    assert (len(parts), sum(part.items for part in parts)) == (2, 10_000)
    assert 0.99 * (4 << 20) < len(parts[0].data) <= 4 << 20


def test_one_item_cannot_be_halved_nor_cut():
    whole = Payload(Signal.TRACES, _request([[100]]).SerializeToString(), 1)
    assert halve(whole) == [whole]
    assert cut(whole, 10) == [whole]


def test_a_small_payload_is_not_cut():
    whole = Payload(Signal.TRACES, _request([[1]]).SerializeToString(), 1)
    assert cut(whole, 1 << 20) == [whole]


def test_an_item_may_count_for_more_than_its_bytes():
    opened = batch(traces(*(span("x") for _ in range(100))))
    size = len(opened.items()[0])
    assert [part.count() for part in slices(opened, 10 * size)] == [10] * 10
    assert [part.count() for part in slices(opened, 10 * size, each=size)] == [5] * 20
