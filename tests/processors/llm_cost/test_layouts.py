"""A layout learned from one span never reads more from another span than that span says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.processors.llm_cost import layouts
from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.layouts import Layouts
from collector.processors.llm_cost.shapes import COUNT, IDENTITY, INTRICATE, SAME, SECONDS, THERE, Reading, decode
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
