"""otlp.heads: what sampling reads of a span."""

from collector.model import Group, Scope, Signal
from collector.otlp.heads import read_heads
from tests.support import batch, span, traces


def test_heads_hold_ids_times_and_status_in_item_order() -> None:
    spans = [span("a"), span("b", error=True, parent=b"12345678")]
    opened = batch(traces(*spans))
    read_heads(opened)
    heads = opened.groups[0].scopes[0].heads
    assert heads is not None
    assert [
        (h.trace_id, h.span_id, h.parent_span_id, h.start_time_unix_nano, h.end_time_unix_nano, h.status.code) for h in heads
    ] == [(s.trace_id, s.span_id, s.parent_span_id, s.start_time_unix_nano, s.end_time_unix_nano, s.status.code) for s in spans]


def test_a_changed_batch_gets_its_heads_item_by_item() -> None:
    opened = batch(traces(span("a"), span("b")))
    changed = opened.replace(opened.groups)
    read_heads(changed)
    assert [len(s.heads or []) for s in changed.scopes()] == [2]


def test_only_scopes_without_heads_get_them() -> None:
    opened = batch(traces(span("a")))
    read_heads(opened)
    (scope,) = opened.scopes()
    bare = Scope(scope.header, scope.items)
    changed = opened.replace([Group(opened.groups[0].header, [scope, bare])])
    before = scope.heads
    read_heads(changed)
    assert scope.heads is before
    assert [head.span_id for head in bare.heads or []] == [head.span_id for head in scope.heads or []]


def test_heads_that_are_there_are_left_alone() -> None:
    opened = batch(traces(span()))
    read_heads(opened)
    before = opened.groups[0].scopes[0].heads
    read_heads(opened)
    assert opened.groups[0].scopes[0].heads is before


def test_logs_have_no_heads() -> None:
    opened = batch(traces(span()), Signal.LOGS)
    read_heads(opened)
    assert opened.groups[0].scopes[0].heads is None
