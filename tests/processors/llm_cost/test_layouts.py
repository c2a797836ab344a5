"""A layout learned from one span never reads more from another span than that span says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.otlp import plain
from collector.processors.llm_cost import layouts
from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.layouts import Layouts
from collector.processors.llm_cost.shapes import COUNT, IDENTITY, INTRICATE, SAME, SECONDS, THERE, Reading, Row, decode
from tests.support import attributes

KINDS = {
    "model": SAME, "operation": SAME, "in": COUNT, "out": COUNT, "id": IDENTITY, "first": SECONDS, "there": THERE, "json": INTRICATE,
}  # fmt: skip
ORIGIN, NAMED = Origin(), Origin(named=True)
FULL: dict[str, object] = {"model": "m1", "in": 1000, "note": "x", "out": 200, "id": "c-1", "first": 0.5, "operation": "chat"}


def encoded(values: dict[str, object]) -> list[bytes]:
    return [entry.SerializeToString() for entry in attributes(values)]


def read(memory: Layouts, raws: Sequence[bytes], origin: Origin = ORIGIN, *, certain: bool = True) -> Reading | None:
    """Through a whole span, as it comes in."""
    span = decode(b"\x2a\x02op" + b"".join(b"\x4a" + bytes((len(raw) & 127 | 128, len(raw) >> 7)) + raw for raw in raws))
    return (memory.read if certain else memory.guess)(span.attributes[:], span, origin)


def test_a_span_is_read_into_what_is_the_same_and_what_differs() -> None:
    same = tuple(encoded({"model": "m1", "operation": "chat"}))
    written = b"\n\x02in", b"\n\x03out", b"\n\x05first"
    assert read(Layouts(KINDS), encoded(FULL)) == ((ORIGIN, 0, "", written, same), [1000, 200], "c-1", 0.5)
    assert read(Layouts(KINDS), encoded({"note": "x"}), NAMED) == ((NAMED, 0, "op", (), ()), [], None, None)


def test_of_what_is_only_there_the_name_belongs_to_the_shape_and_not_the_value() -> None:
    memory = Layouts(KINDS)
    first, second = [read(memory, encoded({"model": "m1", "there": text})) for text in ("a", "b")]
    assert first == second == ((ORIGIN, 0, "", (b"\n\x05there",), tuple(encoded({"model": "m1"}))), [], None, None)
    assert read(memory, encoded({"model": "m1", "other": "a"}), certain=False) is None


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2**21, 10**12])
def test_counts_of_every_size_are_read(number: int) -> None:
    reading = read(Layouts(KINDS), encoded({**FULL, "in": number}))
    assert reading is not None
    assert reading[1] == [number, 200]


@pytest.mark.parametrize(
    "change",
    [{"in": -1}, {"in": 10**12 + 1}, {"in": "7"}, {"in": 7.0}, {"in": True}, {"id": ""}, {"id": " "}, {"id": 7}, {"id": "x" * 126},
     {"first": 0.0}, {"first": float("nan")}, {"first": 1e9}, {"first": 7}, {"first": "0.5"}, {"json": "{}"}],
)  # fmt: skip
def test_what_is_not_plainly_written_is_left_to_the_thorough_way(change: dict[str, object]) -> None:
    assert read(Layouts(KINDS), encoded({**FULL, **change})) is None


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"\n\x09short", b"\x12\x02\x18\x05\n\x02in", b"\n\x81\x00x", b"\n\x02id\x12\x04\n\x02\xff\xfe"]
)
def test_broken_attributes_are_left_to_the_thorough_way(raw: bytes) -> None:
    assert read(Layouts(KINDS), [*encoded({"model": "m1", "in": 1000}), raw]) is None


def test_a_name_that_stands_twice_is_left_to_the_thorough_way_if_only_one_can_be_meant() -> None:
    for name in ("id", "first"):
        assert read(Layouts(KINDS), encoded(FULL) + encoded({name: FULL[name]})) is None


def test_layouts_are_bounded() -> None:
    memory = Layouts(KINDS)
    for number in range(300):
        assert read(memory, encoded({"model": "m1", f"x{number}": 1, "in": 5}), Origin()) is not None
    assert len(memory._known) <= layouts._LAYOUTS
    assert len(memory._last) <= layouts._LAYOUTS
    before = len(memory._known)
    assert read(memory, encoded({f"x{number}": 1 for number in range(layouts._WIDEST + 1)})) is not None
    assert read(memory, encoded({f"{'x' * 120}{number}": 1 for number in range(200)})) is not None
    assert len(memory._known) == before


_values = st.one_of(
    st.sampled_from(["m1", "m2", "", "chat", True, -1, 0.5, float("nan"), 10**13]), st.integers(0, 40_000), st.text(max_size=140)
)
_raws = st.one_of(
    st.tuples(st.sampled_from([*KINDS, "note", "i", "inn", "x" * 130]), _values).map(lambda pair: encoded(dict([pair]))[0]),
    st.tuples(st.sampled_from(["in", "out"]), st.integers(0, 40_000)).map(lambda pair: encoded(dict([pair]))[0]),
    st.binary(max_size=12),
)


def _mutated(raws: list[bytes], place: int, how: str, byte: int) -> list[bytes]:
    place %= len(raws)
    raw = raws[place]
    at = byte % (len(raw) + 1)
    changed = {
        "flip": raw[:at] + bytes((byte,)) + raw[at + 1 :],
        "cut": raw[:at],
        "grow": raw[:at] + bytes((byte,)) + raw[at:],
        "value": raw[:-1] + bytes((byte,)),
    }.get(how, raw)
    rest = raws[:place] + raws[place + 1 :]
    return [*rest[:byte], changed, *rest[byte:]] if how == "move" else [*raws[:place], changed, *raws[place + 1 :]]


@given(
    st.lists(_raws, min_size=1, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["flip", "cut", "grow", "value", "move"]), st.integers(0, 255)), max_size=12
    ),
)
@settings(max_examples=100, deadline=None)
def test_remembered_layouts_read_what_a_fresh_one_reads(raws: list[bytes], changes: list[Any]) -> None:
    """A guess may differ only in a shape that is not known: no span had it."""
    memory, known = Layouts(KINDS), set()
    for change in [(0, "", 0), *changes]:
        raws = _mutated(raws, *change)
        fresh, guessed, remembered = read(Layouts(KINDS), raws), read(memory, raws, certain=False), read(memory, raws)
        assert remembered == fresh
        if guessed is not None and guessed[0] in known:
            assert guessed == fresh
        if fresh is not None:
            known.add(fresh[0])


def test_the_slim_view_reads_attributes_as_they_are() -> None:
    span = Span(attributes=attributes(FULL), start_time_unix_nano=5)
    slim = decode(span.SerializeToString())
    assert slim.start == 5
    assert list(slim.attributes) == encoded(FULL)


compiled_only = pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")


def whole(raws: Sequence[bytes], **more: Any) -> bytes:
    """A span with these encoded attributes."""
    span = Span(name="op", trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=5, end_time_unix_nano=7)
    for name, value in more.items():
        setattr(span, name, value)
    parts = [b"\x4a" + (bytes((len(r),)) if len(r) < 128 else bytes((len(r) & 127 | 128, len(r) >> 7))) + r for r in raws]
    return span.SerializeToString() + b"".join(parts)


def row(item: bytes, origin: Origin = ORIGIN) -> Row | None:
    return Layouts(KINDS).rows([item], [0], origin)[0]


@compiled_only
def test_the_walker_reads_times_ids_and_what_differs() -> None:
    found = row(whole(encoded(FULL), parent_span_id=b"p" * 8))
    assert found is not None
    assert (*found[:5], *found[6:]) == (7, 5, b"t" * 16 + b"s" * 8, b"t" * 16 + b"p" * 8, b"t" * 16, (1000, 200), "c-1", 0.5)
    root = row(whole(encoded({"in": 5})))
    assert root is not None
    assert root[3] == b"t" * 16
    assert root[6:] == ((5,), None, None)


@compiled_only
@given(st.lists(_raws, max_size=8), st.sampled_from([ORIGIN, NAMED]), st.integers(0, 2), st.sampled_from(["op", "other"]))
@settings(max_examples=300, deadline=None)
def test_the_walker_reads_what_python_reads_or_nothing(raws: list[bytes], origin: Origin, code: Any, name: str) -> None:
    item = whole(raws, name=name)
    item += Span(status=Status(code=code)).SerializeToString()
    found = row(item, origin)
    span = decode(item)
    expected = Layouts(KINDS).read(span.attributes[:], span, origin)
    if found is not None:
        assert expected is not None
        assert (list(found[6]), *found[7:]) == expected[1:]
        assert found[:5] == (
            span.end,
            span.start,
            span.trace_id + span.span_id,
            span.trace_id + span.parent_span_id,
            span.trace_id,
        )
    elif expected is not None:  # only a text that Python would have to strip or to decode is left to it
        assert (
            expected[2] is None or not expected[2].isascii() or not item.count(expected[2].encode() + b"\n") or " " in str(raws)
        )


@compiled_only
@given(st.lists(_raws, max_size=5), st.lists(_raws, max_size=5), st.sampled_from([ORIGIN, NAMED]), st.integers(0, 1))
@settings(max_examples=300, deadline=None)
def test_what_has_one_shape_for_the_walker_has_one_for_python(
    one: list[bytes], two: list[bytes], origin: Origin, other: int
) -> None:
    items = [whole(one), whole(two if other else [*one, *two])]
    rows, spans = Layouts(KINDS).rows(items, [0, 1], origin), list(map(decode, items))
    readings = [Layouts(KINDS).read(span.attributes[:], span, origin) for span in spans]
    if None not in rows and rows[0][5] == rows[1][5]:  # type: ignore[index]
        assert readings[0] is not None
        assert readings[1] is not None
        assert readings[0][0] == readings[1][0]


@compiled_only
def test_name_and_status_belong_to_the_shape_as_they_do_in_python() -> None:
    raws = encoded({"model": "m1", "in": 1000})
    items = [whole(raws), whole(raws, name="b"), whole(raws) + b"\x7a\x02\x18\x02", whole(raws) + b"\x7a\x03\x12\x01x"]
    for origin, different in ((ORIGIN, 2), (NAMED, 3)):
        rows = Layouts(KINDS).rows(items, [0, 1, 2, 3], origin)
        assert len({found and found[5] for found in rows}) == different


@compiled_only
@pytest.mark.parametrize(
    "odd",
    [
        b"", whole([], trace_id=b"t"), whole([], span_id=b"s"), whole([], parent_span_id=b"p"), whole([], end_time_unix_nano=5),
        whole([], end_time_unix_nano=2**63), whole([]) + b"\x2a\x01\xff", whole([]) + b"\x28\x01", whole([]) + b"\x38\x01",
        whole([]) + b"\x40\x01", whole([]) + b"\x48\x01", whole([]) + b"\x78\x01", whole([]) + b"\x7a\x02\x18\x03",
        whole([]) + b"\x7a\x02\x1a\x00", whole([]) + b"\xca\x06\x00", whole([b"\n\x05model" + b"x" * 5000]),
        whole([b"\n\x05model" + b"x" * 2100, b"\n\x05model" + b"y" * 2100]),
        whole([b"\n\x02in\x12\x02\x18\x05"] * 33), whole([b"\n\x80\x01" + b"k" * 128]), whole([b"\n\x02in\x12\x03\x18\x85\x00"]),
        whole([b"\n\x05there"] * 800),
    ],
)  # fmt: skip
def test_what_the_walker_does_not_take_for_plain_is_left_to_python(odd: bytes) -> None:
    assert row(odd) is None


@compiled_only
def test_attributes_of_any_length_are_read() -> None:
    for size in (1, 200, 20_000):
        found = row(whole([b"\n\x04note\x12" + b"x" * size, *encoded({"in": 7})]))
        assert found is None if size == 20_000 else found is not None
    item = whole([]) + Span(attributes=attributes({"note": "x" * 20_000, "in": 7})).SerializeToString()
    assert row(item) is not None


@compiled_only
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([],), TypeError),
        ((("x",),), TypeError),
        ((((b"", 1),),), ValueError),
        ((((b"a", 6),),), ValueError),
        ((((b"a",),),), TypeError),
    ],
)
def test_names_that_make_no_sense_are_refused(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        plain.compiled.Shapes(*arguments)


@compiled_only
def test_only_positions_of_bytes_in_a_list_are_read() -> None:
    read_rows = plain.compiled.Shapes(((b"a", SAME),)).read
    for wrong, error in ((([b""], [1], False), IndexError), (([b""], [-2], False), IndexError), ((["x"], [0], False), TypeError),
                         (([b""], ["x"], False), TypeError), (((), [], False), TypeError)):  # fmt: skip
        with pytest.raises(error):
            read_rows(*wrong)
    assert read_rows([], [], True) == []


def test_without_the_walker_there_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "compiled", None)
    assert Layouts(KINDS).rows([b"", b""], [0, 1], ORIGIN) == [None, None]
