"""Random bytes of ids and times wake nothing; text and unknown fields always do."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.load import CANARY, requests
from collector.compiled import compiled_module
from collector.model import Signal
from collector.otlp import plain
from collector.otlp.scan import ENGINES, Hits, Scanner
from collector.otlp.walk import fields
from collector.processors.redaction import Redaction
from collector.processors.redaction.second_look import cut, narrowed, textual
from tests.otlp.test_request import number
from tests.support import REQUEST, any_value, attributes, batch, build, span

pytestmark = pytest.mark.usefixtures("walker")
MAIL = b"ab@cd.example"
SPAN = span("op", {"k": "v", "n": 2**40}, trace=b"T" * 16, span_id=b"S" * 8, start=7, duration=9)
SPAN.parent_span_id, SPAN.flags, SPAN.trace_state = b"P" * 8, 257, "a=b"
RECORD = LogRecord(
    time_unix_nano=5, observed_time_unix_nano=6, flags=1, trace_id=b"T" * 16, span_id=b"S" * 8, severity_text="INFO"
)
RECORD.body.CopyFrom(any_value("hello"))
RECORD.attributes.extend(attributes({"k": "v"}))


@pytest.mark.parametrize(("item", "signal"), [(SPAN, Signal.TRACES), (RECORD, Signal.LOGS)])
def test_all_but_ids_times_and_flags_stays(item, signal):
    rest = type(item)()
    rest.CopyFrom(item)
    gone = "trace_id span_id parent_span_id start_time_unix_nano end_time_unix_nano time_unix_nano observed_time_unix_nano flags"
    for name in gone.split():
        if name in item.DESCRIPTOR.fields_by_name:
            rest.ClearField(name)
    assert textual(item.SerializeToString(), signal).replace(b"\n", b"") == rest.SerializeToString().replace(b"\n", b"")


@pytest.mark.parametrize("data", [b"\x0a", b"\xff" * 20, b"\x0a\x10short", SPAN.SerializeToString()[:-3], b"\x0b" + MAIL])
def test_a_malformed_item_is_searched_as_a_whole(data):
    assert textual(data, Signal.TRACES) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x0d" + MAIL,  # an id of another size
        b"\x9a\x06\x10" + MAIL + b"abc",  # an unknown field of the size of an id
        b"\x0b\x12\x0d" + MAIL + b"\x0c",  # in a group
        b"\x2a\x10" + MAIL + b"abc",  # a name of the size of an id
        b"\x0a\x10" + b"T" * 16 + b"\x0a\x0d" + MAIL,  # a second trace_id
        b"\xa1\x06" + b"a@bc.exa",  # an unknown number of fixed size
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_text_in_any_other_place_keeps_its_mark(data, engine):
    """R-303."""
    scanner = Scanner([rb"@\w\w"], engine=engine)
    hits = scanner.scan([b"clean", data])
    narrowed(hits, [b"clean", data], Signal.TRACES, scanner, 2000)
    assert set(hits.marks) == {1}


def test_marks_of_ids_go_and_those_of_headers_and_metrics_stay():
    scanner = Scanner([b"@ab", b"zz"])
    noisy = Span(trace_id=b"@ab" * 5 + b"x", name="zz").SerializeToString()
    pure = Span(trace_id=b"@ab" * 5 + b"x", start_time_unix_nano=int.from_bytes(b"00@ab000", "little")).SerializeToString()
    parts = [pure, noisy, b"header @ab"]
    hits = scanner.scan(parts)
    assert set(hits.marks) == {0, 1, 2}
    narrowed(hits, parts[:2], Signal.TRACES, scanner, 2000)
    assert hits.marks == {1: 2, 2: 1}
    hits = scanner.scan(parts)
    narrowed(hits, parts[:2], Signal.METRICS, scanner, 2000)
    assert set(hits.marks) == {0, 1, 2}


def test_large_items_are_not_searched_twice():
    scanner = Scanner([b"@ab"])
    large = Span(trace_id=b"@ab" * 5 + b"x", name="n" * 20_000).SerializeToString()
    hits = scanner.scan([large])
    narrowed(hits, [large], Signal.TRACES, scanner, 2000)
    assert set(hits.marks) == {0}


def test_an_item_that_floods_only_now_is_searched_as_a_flood():
    scanner = Scanner([b"a"])
    hits = Hits(marks={0: 1})
    narrowed(hits, [Span(name="a" * 50).SerializeToString()], Signal.TRACES, scanner, 10)
    assert hits.floods == {0}
    assert hits.marks == {0: 1}
    narrowed(hits, [b""], Signal.TRACES, scanner, 10)
    assert hits.marks == {0: 1}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1))
def test_no_id_or_time_hides_what_the_name_holds(trace, own, time):
    """R-303."""
    request = REQUEST[Signal.TRACES]()
    request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=trace, span_id=own, parent_span_id=own, name="ab@cd.example", start_time_unix_nano=time, end_time_unix_nano=time
    )
    out = build(Redaction).process(batch(request), 0)
    assert b"cd.example" not in out.encode()


def test_hardly_anything_but_planted_text_is_decoded():
    processor = build(Redaction)
    planted = marked = 0
    stream = requests(3)
    for _ in range(6):
        given_ = batch(type(REQUEST[Signal.TRACES]()).FromString(next(stream).data))
        items = given_.items()
        planted += sum(CANARY.encode() in item for item in items)
        marked += len(processor._scan(items, len(items), Signal.TRACES)[0].marks)
    assert planted <= marked <= planted + 15


_contents = st.lists(
    st.tuples(st.integers(1, 20), st.sampled_from([0, 1, 2, 5]), st.sampled_from([0, 3, 8, 16, 200]), st.integers(0, 2**64 - 1)),
    max_size=8,
)


@pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_contents, st.sampled_from([Signal.TRACES, Signal.LOGS]), st.integers(0, 3))
def test_the_parts_of_an_item_are_all_of_it_and_every_second_one_a_field_with_text(contents, signal, cut):
    item = b""
    for field, wire, size, value in contents:
        item += number(field << 3 | wire)
        item += {0: number(value), 1: bytes(8), 2: number(size) + b"t" * size, 5: bytes(4)}[wire]
    item = item[: len(item) - cut]
    parts = compiled_module("otlp._plain").parts(1 if signal is Signal.TRACES else 2, item)
    if parts is not None:
        assert b"".join(parts) == item
        ids = {1: 16, 2: 8, 4: 8} if signal is Signal.TRACES else {9: 16, 10: 8}
        found = fields(item, 0, len(item))
        texts = [item[begin:end] for number, begin, at, end in found if item[begin] & 7 == 2 and ids.get(number) != end - at]
        assert parts[1::2] == texts


@pytest.mark.parametrize("name", ["ab@cd.example", "\x05ab@cd.example\x05"])
def test_only_the_fields_that_are_marked_are_named(name):
    item = Span(trace_id=b"@cd" * 5 + b"x", name=name)
    item.attributes.extend(attributes({"a": 1, "b": MAIL.decode(), "c": "d"}))
    scanner = Scanner([b"@cd", b"\x01d"])
    items = [b"", item.SerializeToString(), Span(name="clean").SerializeToString()]
    hits = scanner.scan(items)
    found = narrowed(hits, items, Signal.TRACES, scanner, 2000)
    assert hits.marks == {1: 3}
    assert set(found) == ({1} if plain.compiled is not None else set())
    for parts, marks in found.values():
        assert [parts[place] for place in marks] == [
            Span(name=name).SerializeToString(),
            Span(attributes=attributes({"b": MAIL.decode()})).SerializeToString(),
            Span(attributes=attributes({"c": "d"})).SerializeToString(),
        ]
        assert list(marks.values()) == [1, 1, 2]


@pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")
@settings(max_examples=200, deadline=None)
@given(
    _contents,
    st.sampled_from([Signal.TRACES, Signal.LOGS]),
    st.lists(st.tuples(st.integers(0, 62), st.integers(1, 900)), max_size=8),
)
def test_the_marked_parts_of_an_item_are_the_fields_of_text_in_which_a_match_ends(contents, signal, ends):
    item = b"".join(
        number(field << 3 | wire) + {0: number(value), 1: bytes(8), 2: number(size) + b"t" * size, 5: bytes(4)}[wire]
        for field, wire, size, value in contents
    )
    walker, kind = compiled_module("otlp._plain"), 1 if signal is Signal.TRACES else 2
    known, parts = cut(item, signal, ends) if plain.compiled is not None else None, walker.parts(kind, item)
    if plain.compiled is None or parts is None:
        assert known is None
        return
    assert b"".join(known.parts) == item
    expected, at = [], 0
    for place, part in enumerate(parts):
        mask = sum({1 << pattern for pattern, end in ends if at < end <= at + len(part)})
        if place % 2 and mask:
            expected.append((part, mask))
        at += len(part)
    assert [(known.parts[place], mask) for place, mask in known.marks.items()] == expected


@pytest.mark.parametrize(
    "ends", [[(63, 4)], [(-1, 4)], [(0, 4)] * 65, [(0, 2**70)], [(0, 4, 4)], ["no"], [("a", 4)], [(0, 4.0)]], ids=str
)
def test_matches_that_the_walker_cannot_tell_apart_are_searched_for_again(ends):
    item = Span(name="ab@cd.example").SerializeToString()
    scanner, hits = Scanner([b"@cd"]), Hits(marks={0: 1}, ends={0: ends})
    assert cut(item, Signal.TRACES, ends) is None
    narrowed(hits, [item], Signal.TRACES, scanner, 2000)
    assert hits.marks == {0: 1}


def test_attributes_are_read_and_written_only_where_they_are_a_key_and_a_text():
    walker = compiled_module("otlp._plain")
    if walker is None:
        pytest.skip("the walker is not compiled here")

    def field(value, kind=Span):
        return kind(attributes=attributes({"kéy": value})).SerializeToString()

    for kind in (Span, LogRecord):
        assert walker.pair(field("téxt", kind)) == ("kéy", "téxt")
        assert walker.pair(field("", kind)) == ("kéy", "")
        assert walker.put_pair(field("", kind), "kéy", "n" * 20_000) == field("n" * 20_000, kind)
    others = [
        b"",
        field(1),
        field(["a"]),
        field(b"a"),
        field("n" * 20_000),
        field("a") + field("b"),
        field("a")[:-1],
    ]
    others += [Span(name="kéy").SerializeToString(), Span(attributes=attributes({"": "a"})).SerializeToString()]
    others += [b"\x4a\x08\x12\x03\x0a\x01a\x0a\x01k", b"\x4a\x08\x0a\x01k\x12\x03\x0a\x01\xff"]
    assert [walker.pair(other) for other in others] == [None] * len(others)
