"""What is edited field by field is what would have been edited as a whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.compiled import compiled_module
from collector.model import Batch, Group, Scope, Signal
from collector.otlp import plain
from collector.processors.redaction import Redaction
from tests.support import any_value, attributes, build

_texts = st.sampled_from(
    [
        "",
        "fine",
        "ab@cd.example",
        "call +49 151 23456789",
        "4111 1111 1111 1111",
        '{"password": "x1"}',
        "ab%40cd.example",
        "\x85é@",
    ]
)
_keys = st.sampled_from(
    ["k", "to", "password", "ab@cd.example", "ef@cd.example", "[EMAIL]", "phone", "client.address", "usage.tokens"]
)
_plain_values = st.one_of(
    _texts, st.integers(-(2**63), 2**63 - 1), st.just(4111111111111111), st.floats(allow_nan=False), st.booleans()
)
_values = st.recursive(
    _plain_values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=2), max_leaves=4
)
_attributes = st.dictionaries(_keys, _values, max_size=4)
_id = st.sampled_from([b"", b"s" * 8, b"@" + b"a" * 7, b"t" * 16, b"ab@cd.example"])


def _span(name, state, own, described, *found):
    span = Span(trace_id=b"T" * 16, span_id=own, name=name, trace_state=state, start_time_unix_nano=7, flags=3, kind=2)
    span.status.message = described
    span.attributes.extend(attributes(found[0]))
    span.events.add(name=described, time_unix_nano=9).attributes.extend(attributes(found[1]))
    span.links.add(trace_id=own).attributes.extend(attributes(found[2]))
    return span


def _record(name, state, own, body, *found):
    record = LogRecord(
        trace_id=own, severity_text=state, event_name=name, body=any_value(body), time_unix_nano=7, severity_number=9
    )
    record.attributes.extend(attributes(found[0]))
    return record


_spans = st.builds(_span, _texts, _texts, _id, _texts, _attributes, _attributes, _attributes)
_records = st.builds(_record, _texts, _texts, _id, _values, _attributes)


def redacted(signal, items, **config):
    """What is left of the items, and all that was counted."""
    processor = build(Redaction, config)
    batch = Batch(signal, [Group(b"", [Scope(b"", [item.SerializeToString() for item in items])])])
    out = processor.process(batch, 0)
    kind = type(items[0])
    left = [kind.FromString(item) for item in out.items()] if out is not None else []
    return left, {name: made.series() for name, made in processor.settings.meters._made.items()}


@pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")
@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.tuples(st.just(Signal.TRACES), _spans), st.tuples(st.just(Signal.LOGS), _records)),
    st.sampled_from(["redact", "drop_attribute", "drop_record", "detect_only"]),
)
def test_field_by_field_leaves_and_counts_what_item_by_item_does(given_, action):
    signal, item = given_
    items = [item, type(item)(attributes=attributes({"k": "fine"}))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "compiled", None)
        expected = redacted(signal, items, default_action=action)
    patch = pytest.MonkeyPatch()
    patch.setattr(plain, "compiled", compiled_module("otlp._plain"))
    try:
        assert redacted(signal, items, default_action=action) == expected
    finally:
        patch.undo()
