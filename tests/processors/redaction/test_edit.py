"""What is edited field by field is what would have been edited as a whole."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.compiled import compiled_module
from collector.model import Batch, Group, Scope, Signal
from collector.otlp import plain
from collector.processors.redaction import Redaction
from collector.processors.redaction.redactor import DropAttribute, DropRecord, Report
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


def redacted(signal, items, warm=False, **config):
    """What is left of the items, and all that was counted; `warm`: by a processor that knows the keys of their attributes."""
    processor = build(Redaction, config)
    batch = Batch(signal, [Group(b"", [Scope(b"", [item.SerializeToString() for item in items])])])
    for pair in [pair for item in items for pair in item.attributes if warm]:
        with suppress(DropAttribute, DropRecord):
            processor.redactor.name(pair.key, Report())
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


_flat = st.dictionaries(_keys, _texts, max_size=5)
_flat_items = st.one_of(
    st.tuples(st.just(Signal.TRACES), st.builds(lambda found: Span(name="x", attributes=attributes(found)), _flat)),
    st.tuples(st.just(Signal.LOGS), st.builds(lambda found: LogRecord(attributes=attributes(found)), _flat)),
)
_written = st.sampled_from(
    [{"default_action": action} for action in ("redact", "drop_attribute", "drop_record", "detect_only")]
    + [{"keys": {"force": ["to"], "exclude": ["k"]}}, {"types": {"secrets": {"action": "drop_attribute"}}}]
)


@pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")
@settings(max_examples=200, deadline=None)
@given(_flat_items, _written)
def test_an_attribute_with_a_known_key_is_edited_without_decoding_as_with(given_, config):
    signal, item = given_
    items = [item, type(item)(attributes=attributes({"k": "fine"}))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "compiled", None)
        expected = redacted(signal, items, warm=True, **config)
    assert redacted(signal, items, warm=True, **config) == expected


@pytest.fixture
def quick(monkeypatch):
    """Attributes that were written without decoding; the walker has to be compiled."""
    if not plain.COMPILED:
        pytest.skip("the walker is not compiled here")
    written, put = [], plain.compiled.put_pair

    def put_pair(field, key, text):
        written.append((key, text))
        return put(field, key, text)

    monkeypatch.setattr(plain.compiled, "put_pair", put_pair)
    return written


@pytest.mark.parametrize(
    ("key", "text", "left"),
    [
        ("to", "é ab@cd.example", "é [EMAIL]"),
        ("password", "hunter", "[REDACTED]"),
        ("client.address", "93.184.216.34", "[IP]"),
        ("k", "ab@cd.example " * 40, "[EMAIL] " * 40),
    ],
)
def test_a_plain_attribute_is_written_in_place_once_its_key_is_known(quick, key, text, left):
    item = Span(trace_id=b"T" * 16, name="op", attributes=attributes({"before": 1, key: text, "after": "x"}))
    for known in (False, True):
        (out,), _ = redacted(Signal.TRACES, [item], warm=known)
        assert [pair.key for pair in out.attributes] == ["before", key, "after"]
        assert out.attributes[1].value.string_value == left
        assert quick == ([(key, left)] if known else [])


def test_a_failure_in_a_plain_attribute_never_lets_the_original_through(quick, monkeypatch):
    """R-310."""

    def fail(*_):
        raise RuntimeError("ab@cd.example")

    processor = build(Redaction)
    raw = Span(name="op", attributes=attributes({"to": "ab@cd.example"})).SerializeToString()
    batch = Batch(Signal.TRACES, [Group(b"", [Scope(b"", [raw, b"\x2a\x02ok"])])])
    processor.process(batch, 0)
    monkeypatch.setattr("collector.processors.redaction.edit.attribute", fail)
    out = processor.process(batch, 0)
    assert out.items() == [b"\x2a\x02ok"]
    assert processor.settings.drop == {(Signal.TRACES, "redaction_failed"): 1}


def test_a_number_of_tokens_and_an_empty_secret_stay(quick):
    item = Span(name="op", attributes=attributes({"usage.tokens": "4111111111111111", "password": "", "to": "ab@cd.example"}))
    (out,), _ = redacted(Signal.TRACES, [item], warm=True)
    assert [pair.value.string_value for pair in out.attributes] == ["4111111111111111", "", "[EMAIL]"]
    assert quick == [("to", "[EMAIL]")]


@pytest.mark.usefixtures("walker")
@pytest.mark.parametrize(
    "config", [{"default_action": "drop_attribute"}, {"default_action": "drop_attribute", "scan_numbers": "all"}]
)
def test_a_log_record_of_which_nothing_is_left_goes_on_all_the_same(config):
    """Who sent it was told that it was accepted, and nobody books it as dropped."""
    processor = build(Redaction, config)
    items = [LogRecord(attributes=attributes({"to": "ab@cd.example"})).SerializeToString(), b""]
    for _ in range(2):  # with the key unknown and known
        out = processor.process(Batch(Signal.LOGS, [Group(b"", [Scope(b"", list(items))])]), 0)
        assert out.items() == [b"", b""]
    assert not processor.settings.drop
