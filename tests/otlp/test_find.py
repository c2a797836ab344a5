"""otlp.find: no item that fulfils a condition is missed, however it is encoded, with the compiled walker and without it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.otlp import plain
from collector.otlp.find import ATTRIBUTE, ERROR, SPAN_ATTRIBUTES, Condition, Finder
from collector.otlp.scan import EngineFailed
from tests.otlp.test_request import frame, number
from tests.support import any_value, span

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
CONDITIONS = [
    Condition(b"any.key"),
    Condition(b"begins.", prefix=True),
    Condition(b"code", low=500, high=599),
    Condition(b"word", values=(any_value("error").SerializeToString(), any_value(7).SerializeToString())),
    Condition(b"flag", values=(any_value(True).SerializeToString(),)),
    Condition(b"fl", low=-5, high=-1),
]
PATTERNS = [re.escape(condition.key) for condition in CONDITIONS]
STATUS = rb"\x18[\x02\x82]"
compiled_only = pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")


@pytest.fixture
def finder(walker: str) -> Finder:
    return Finder(CONDITIONS, PATTERNS, STATUS)


def holds(condition: Condition, key: str, value: Any) -> bool:
    """Whether a decoded attribute fulfils a condition that says what it asks for."""
    name = key.encode()
    if not (name.startswith(condition.key) if condition.prefix else name == condition.key):
        return False
    if condition.low is not None and condition.high is not None:
        return value.WhichOneof("value") == "int_value" and condition.low <= value.int_value <= condition.high
    return condition.values is None or value.SerializeToString() in condition.values


def truth(item: bytes) -> int:
    decoded = Span.FromString(item)
    bits = ERROR if decoded.status.code == Status.STATUS_CODE_ERROR else 0
    if any(holds(c, entry.key, entry.value) for c in CONDITIONS for entry in decoded.attributes):
        bits |= ATTRIBUTE
    return bits


KEYS = st.sampled_from(
    ["any.key", "any.ke", "any.keys", "begins.", "begins.here", "begins", "code", "word", "flag", "fl", "", "x"]
)
VALUES = st.sampled_from(
    ["error", "err", 7, 500, 599, 600, 499, True, False, -1, -5, 0, 1.5, ["error"], {"a": "error"}, b"error"]
)


@MANY
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4), st.sampled_from([0, 1, 2]), st.data())
def test_what_is_there_is_found(finder: Finder, pairs: list[tuple[str, object]], code: Any, data: st.DataObject) -> None:
    item = Span(trace_id=b"\1" * 16, span_id=b"\2" * 8, name="code")
    for key, value in pairs:
        item.attributes.add(key=key).value.CopyFrom(any_value(value))
    item.status.code = code
    encoded = item.SerializeToString()
    found = finder.find([b"", encoded, b""])
    assert set(found) <= {1}
    assert truth(encoded) & ~found.get(1, 0) == 0


@compiled_only
@MANY
@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3), st.data())
def test_what_is_there_is_found_in_unusual_encodings_too(pairs: list[tuple[str, object]], data: st.DataObject) -> None:
    """Padded lengths and numbers, value before key, keys and values twice, fields of others in between."""
    finder = Finder(CONDITIONS, PATTERNS, STATUS)

    def framed(field: int, content: bytes) -> bytes:
        size = number(len(content))
        if data.draw(st.booleans()):
            size = bytes([*size[:-1], size[-1] | 128, 0])
        return number(field << 3 | 2) + size + content

    item = b""
    for key, value in pairs:
        inside = [framed(1, key.encode()), framed(2, any_value(value).SerializeToString())]
        inside += data.draw(st.lists(st.sampled_from([framed(1, b"code"), framed(2, any_value(503).SerializeToString()), b"\x18\x02"]),
            max_size=2))  # fmt: skip
        item += framed(9, b"".join(data.draw(st.permutations(inside))))
    status = [b"\x18\x02", b"\x18\x82\x00", b"\x18\x01", b"\x12\x00", b"\x18\x82\x80\x80\x80\x10"]
    item += framed(15, b"".join(data.draw(st.lists(st.sampled_from(status), max_size=2))))
    assert truth(item) & ~finder.find([item]).get(0, 0) == 0


@compiled_only
def test_what_is_not_there_is_not_found() -> None:
    finder = Finder(CONDITIONS, PATTERNS, STATUS)
    clean = span(
        "any.key", {"code": 404, "word": "errors", "flag": False, "fl": -6, "any.keyed": 1, "begin": 2, "text": "any.key"}
    )
    wanted = span("x", {"code": 503}, error=True)
    assert dict(finder.find([clean.SerializeToString(), wanted.SerializeToString()])) == {1: ATTRIBUTE | ERROR}


def test_what_cannot_be_read_is_looked_at(finder: Finder) -> None:
    if finder._keys is not None:
        for odd in (b"\xff", frame(9, b"\xff"), b"\x48\x01", b"\x78\x01", frame(15, b"\xff"), frame(15, b"\x1a\x00")):
            assert finder.find([odd]) == {0: ATTRIBUTE | ERROR}, odd


def test_a_range_lets_through_what_is_no_integer(finder: Finder) -> None:
    for value, expected in (("503", {0: ATTRIBUTE}), (5.5, {0: ATTRIBUTE}), (404, {})):
        found = finder.find([span("x", {"code": value}).SerializeToString()])
        assert found == expected or (finder._keys is None and found == {0: ATTRIBUTE})


def test_without_a_status_to_look_for_none_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    item = span("x", error=True).SerializeToString()
    for compiled in (plain.compiled, None):
        monkeypatch.setattr(plain, "compiled", compiled)
        finder = Finder(CONDITIONS, PATTERNS)
        finder.warm()
        assert finder.find([item]) == {}


def test_when_every_engine_fails_every_item_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "compiled", None)
    finder = Finder(CONDITIONS, PATTERNS, STATUS)

    def fail(*_: object) -> None:
        raise EngineFailed("none")

    monkeypatch.setattr(finder._scanner, "scan", fail)
    assert finder.find([b"a", b"b"]) == {0: ATTRIBUTE | ERROR, 1: ATTRIBUTE | ERROR}


@compiled_only
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((9, 1, []), TypeError),
        ((9, 1, ("x",)), TypeError),
        ((9, 1, ((b"", False, 0, None, None, None),)), ValueError),
        ((9, 1, ((b"a", False, 62, None, None, None),)), ValueError),
        ((9, 1, ((b"b", False, 0, None, None, None), (b"a", False, 0, None, None, None))), ValueError),
        ((9, 1, ((b"a", False, 0, 1, None, None),)), TypeError),
        ((9, 1, ((b"a", False, 0, 1, 2**70, None),)), OverflowError),
        ((9, 1, ((b"a", False, 0, None, None, [b"x"]),)), TypeError),
        ((9, 1, ((b"a", False, 0, None, None, ("x",)),)), TypeError),
    ],
)
def test_conditions_that_make_no_sense_are_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        plain.compiled.Keys(*arguments)


@compiled_only
def test_only_a_list_of_bytes_is_searched() -> None:
    keys = plain.compiled.Keys(SPAN_ATTRIBUTES, -1, ())
    for wrong in ((b"x",), ["x"]):
        with pytest.raises(TypeError):
            keys.find(wrong)
    assert keys.find([b"\x4a\x00", b""]) == {}
