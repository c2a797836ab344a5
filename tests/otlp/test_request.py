"""otlp.request and otlp.walk: what full decoding refuses is refused, bombs before they are decoded."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.errors import Malformed, Refused, TooLarge
from collector.model import Signal
from collector.otlp import request as module
from collector.otlp.mapping import FREE, MAX_ITEMS
from collector.otlp.request import MAX_ITEM, Opened, open_request, open_slices
from collector.otlp.walk import Count, count_elements, fields, varint
from tests.otlp.generated import requests
from tests.support import REQUEST, span, traces

pytestmark = pytest.mark.usefixtures("walker")
SIGNALS = list(Signal)


FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture])  # fmt: skip


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def frame(field: int, content: bytes) -> bytes:
    return number(field << 3 | 2) + number(len(content)) + content


def scope(content: bytes) -> bytes:
    return frame(1, frame(2, content))


def large(signal: Signal, body: bytes, reserve: Any = None) -> Opened:
    """Open `body` as if it were over FREE."""
    steps = open_slices(signal, body, reserve)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            opened: Opened = done.value
            return opened


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large: runs of at most 64 bytes."""
    monkeypatch.setattr(module, "FREE", 64)


def accepted(signal: Signal, body: bytes) -> bool:
    try:
        REQUEST[signal].FromString(body)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@FEW
def test_any_request_opens_in_runs_as_it_does_at_once(signal: Signal, data: st.DataObject, tiny: None) -> None:
    body = data.draw(requests(signal)).SerializeToString()
    opened = large(signal, body)
    if opened.rejected == 0:
        assert opened.batch.encode() == body
    assert opened.batch.count() + opened.rejected == module.open_envelope(signal, body).count()


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
@FEW
def test_any_damage_is_seen_in_runs_as_protobuf_sees_it(signal: Signal, data: st.DataObject, tiny: None) -> None:
    body = bytearray(data.draw(requests(signal)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        large(signal, bytes(body))
    except Malformed:
        assert not accepted(signal, bytes(body))
    else:
        assert accepted(signal, bytes(body))


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_the_walker_takes_what_protobuf_takes(body: bytes) -> None:
    try:
        list(fields(body, 0, len(body)))
    except Malformed:
        assert not accepted(Signal.TRACES, body)


@pytest.mark.parametrize(
    "body",
    [number(99 << 3 | 3) + number(1 << 3) + b"\x05" + number(99 << 3 | 4),  # a group
     number(99 << 3 | 3) + frame(1, b"abc") + number(5 << 3 | 3) + number(5 << 3 | 4) + number(99 << 3 | 4),
     b"\x9a\x86\x80\x80\x00" + b"\x82\x80\x00" + b"ab",  # padded varints
     number(99 << 3 | 1) + bytes(8) + number(99 << 3 | 5) + bytes(4), number(536870911 << 3) + b"\x01"],
)  # fmt: skip
def test_unusual_but_valid_fields_are_walked_over(body: bytes, tiny: None) -> None:
    whole = body * 20 + traces(span()).SerializeToString() + body
    assert accepted(Signal.TRACES, whole)
    assert large(Signal.TRACES, whole).batch.encode() == whole


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05a", b"\x0b", b"\x0c", b"\x0f", b"\x80" * 11, b"\x00\x01", b"\x0b\x14",
    b"\x0b" * 200, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x09ab", b"\x0b\x0a\x7f"])  # fmt: skip
def test_broken_fields_are_malformed(body: bytes) -> None:
    assert not accepted(Signal.TRACES, body)
    with pytest.raises(Malformed):
        list(fields(body, 0, len(body)))
    with pytest.raises(Malformed):
        open_request(Signal.TRACES, body)


def test_a_varint_stops_at_its_end() -> None:
    assert varint(b"\x96\x01", 0, 2) == (150, 2)
    with pytest.raises(Malformed):
        varint(b"\x96", 0, 1)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    "body", [b"", frame(1, b""), frame(1, frame(2, b"")), frame(1, frame(1, b"")) * 3], ids=["empty", "group", "scope", "header"]
)
def test_requests_without_items_open_empty(signal: Signal, body: bytes) -> None:
    """Rule 7."""
    opened = open_request(signal, body)
    assert (opened.batch.count(), opened.rejected, opened.message) == (0, 0, "")


def test_ids_are_read_for_traces_and_heads_where_spans_were_decoded(walker: str) -> None:
    first, second = span(), span()
    opened = open_request(Signal.TRACES, traces(first, second).SerializeToString())
    (only,) = opened.batch.scopes()
    assert only.trace_ids == [first.trace_id, second.trace_id]
    assert len(only.heads or []) == (2 if walker == "python" else 0)


def test_depth_is_bounded() -> None:
    value = b""
    for _ in range(3000):
        value = frame(5, frame(1, value))
    body = scope(frame(2, frame(9, frame(2, value))))
    with pytest.raises(Malformed):
        open_request(Signal.TRACES, body)
    with pytest.raises(Malformed):
        list(count_elements(body, 0, len(body), REQUEST[Signal.TRACES].DESCRIPTOR, Count(10**6)))


BOMBS = {
    "empty groups": frame(1, b"") * 700_000,
    "empty scopes": frame(1, frame(2, b"") * 700_000),
    "empty items": scope(frame(2, b"") * 700_000),
    "empty attributes in one item": scope(frame(2, frame(9, b"") * 1_200_000)),
    "empty attributes of a resource": frame(1, frame(1, frame(1, b"") * 1_200_000)),
    "unknown fields": b"\x98\x06\x01" * 1_200_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_object_bombs_are_too_large_before_they_are_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, decoded = module.GetMessageClass, list[int]()

    def watched(descriptor: Any) -> Any:
        return SimpleNamespace(FromString=lambda data: decoded.append(len(data)) or real(descriptor).FromString(data))

    monkeypatch.setattr(module, "GetMessageClass", watched)
    with pytest.raises(TooLarge):
        open_request(Signal.TRACES, BOMBS[name])
    assert max(decoded, default=0) <= FREE


def test_bombs_in_many_small_groups_are_counted_together() -> None:
    group = scope(frame(2, b"\x50\x00\x50\x00") * 200)
    with pytest.raises(TooLarge, match="items"):
        open_request(Signal.TRACES, group * (MAX_ITEMS // 200 + 1))
    with pytest.raises(TooLarge, match="items"):
        open_request(Signal.TRACES, scope(frame(2, b"") * (MAX_ITEMS + 1)))
    for bomb in (frame(1, b"") * 20_001, frame(1, frame(2, b"") * 1000) * 30, frame(1, frame(2, b"") * 1000) * 1200):
        with pytest.raises(TooLarge, match="scopes"):
            open_request(Signal.TRACES, bomb)


def test_no_slice_of_a_bomb_takes_long() -> None:
    """The goal is 100 ms for any input; a loaded test machine gets more."""
    longest = 0.0
    for bomb in BOMBS.values():
        steps = open_slices(Signal.TRACES, bomb)
        while True:
            started = time.process_time()
            try:
                next(steps)
            except TooLarge:
                break
            finally:
                longest = max(longest, time.process_time() - started)
    assert longest < 0.3


@pytest.mark.parametrize(("scopes", "pauses"), [(1000, 0), (10_000, 3)])
def test_a_small_request_of_many_scopes_is_opened_in_slices_too(scopes: int, pauses: int) -> None:
    body = scope(frame(2, frame(1, b"\1" * 16) + frame(2, b"\2" * 8))) * scopes
    assert len(body) < FREE
    assert len(list(open_slices(Signal.TRACES, body))) == pauses
    assert open_request(Signal.TRACES, body).batch.count() == scopes


@pytest.mark.parametrize(("metrics", "pauses"), [(1998, 0), (10_000, 5)])
def test_the_points_of_many_odd_metrics_are_counted_once_and_in_slices(metrics: int, pauses: int) -> None:
    points = frame(5, frame(1, b"") * 2)
    body = scope(frame(2, points) * metrics + frame(2, b"") + frame(2, points)) + frame(99, b"unknown")
    assert len(body) < FREE
    assert len(list(open_slices(Signal.METRICS, body))) == pauses
    batch = open_request(Signal.METRICS, body).batch
    assert batch.groups[0].scopes[0].points == [2] * metrics + [0, 2]
    assert batch.count() == 2 * metrics + 2


def test_room_is_reserved_before_a_large_item_is_decoded() -> None:
    body = scope(frame(2, frame(9, b"") * 300_000))
    asked: list[int] = []
    large(Signal.TRACES, body, asked.append)
    assert asked[0] > 300_000 * 200

    def full(size: int) -> None:
        raise Refused("full")

    with pytest.raises(Refused):
        large(Signal.TRACES, body, full)


def test_an_item_over_the_limit_is_rejected_and_the_others_go_on() -> None:
    """Rule 9."""
    good = span("good")
    opened = open_request(Signal.TRACES, traces(good, span("x" * (MAX_ITEM + 1)), span("y" * FREE)).SerializeToString())
    assert opened.rejected == 1
    assert "16 MiB" in opened.message
    assert opened.batch.count() == 2


def test_a_metric_over_the_limit_counts_its_points() -> None:
    """Rule 9."""
    request = REQUEST[Signal.METRICS]()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="good").sum.data_points.add(as_int=1)
    big = metrics.add(name="x" * (MAX_ITEM + 1))
    for _ in range(5):
        big.gauge.data_points.add(as_int=1)
    opened = open_request(Signal.METRICS, request.SerializeToString())
    assert (opened.rejected, opened.batch.count()) == (5, 1)


def test_a_header_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge, match="header"):
        open_request(Signal.TRACES, frame(1, frame(3, b"x" * (MAX_ITEM + 1))))


def test_a_large_header_of_text_is_fine() -> None:
    body = frame(1, frame(3, b"x" * (FREE + 1)) + frame(2, b"")) + frame(99, b"y" * (FREE + 1))
    assert open_request(Signal.TRACES, body).batch.encode() == body


def test_invalid_utf8_is_malformed_at_any_size() -> None:
    """Rule 16."""
    for filler in (0, 3000):
        data = traces(*(span("f" * 200) for _ in range(filler)), span("NAME")).SerializeToString()
        with pytest.raises(Malformed):
            open_request(Signal.TRACES, data.replace(b"NAME", b"\xff\xfe\xfd\xfc"))


def test_other_scopes_and_groups_stay_when_items_are_rejected() -> None:
    """Rule 9."""
    request = traces(span("a"), span("bad", trace=b"1"))
    request.MergeFrom(traces(span("bad", trace=b"2"), resource={"service.name": "gone"}))
    request.MergeFrom(traces(span("c"), resource={"service.name": "stays"}))
    opened = open_request(Signal.TRACES, request.SerializeToString())
    kept = REQUEST[Signal.TRACES].FromString(opened.batch.encode())
    assert [[s.name for c in g.scope_spans for s in c.spans] for g in kept.resource_spans] == [["a"], ["c"]]
    assert [g.resource.attributes[0].value.string_value for g in kept.resource_spans] == ["api", "stays"]
    assert opened.rejected == 2
    assert [len(s.heads or []) for s in opened.batch.scopes()] == [1, 1]


def test_a_split_resource_is_merged_when_items_are_rejected() -> None:
    """Protobuf: a message field that stands twice is one message."""
    first, second = (traces(resource={key: "v"}).resource_spans[0].SerializeToString() for key in ("a", "b"))
    body = frame(1, first + second + frame(2, frame(2, span().SerializeToString()) + frame(2, b"")))
    opened = open_request(Signal.TRACES, body)
    kept = REQUEST[Signal.TRACES].FromString(opened.batch.encode())
    assert [a.key for a in kept.resource_spans[0].resource.attributes] == ["a", "b"]


def test_a_large_request_is_opened_read_and_looked_through_in_steps_of_their_own(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they would hold the loop for 0.2 s (60 MiB of small spans)."""
    step, seen = 0, {}

    def noting(name: str) -> None:
        work = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: (seen.setdefault(name, step), work(*args))[1])

    for name in ("open_envelope", "read_heads", "_without_bad_items"):
        noting(name)
    odd = frame(99, b"unknown")  # so that the compiled walker leaves it alone
    for _ in open_slices(Signal.TRACES, traces(*(span("n" * 9) for _ in range(9))).SerializeToString() + odd):
        step += 1
    assert step in seen.values()
    assert len(set(seen.values())) == 3
