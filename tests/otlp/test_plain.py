"""otlp.plain and _plain.c: what the compiled walker takes is what the general way makes of it; all else it leaves alone."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.compiled import WALKER_VARIABLE, compiled_module
from collector.errors import Rejected
from collector.model import Batch, Signal
from collector.otlp import plain
from collector.otlp.request import Opened, open_request
from tests.otlp.generated import requests
from tests.otlp.test_request import frame, number
from tests.support import span, traces

pytestmark = pytest.mark.skipif(not plain.COMPILED, reason="the walker is not compiled here")
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
SIGNALS = [Signal.TRACES, Signal.LOGS, Signal.METRICS]
ID, SPAN = b"\x01" * 16, b"\x02" * 8


def generally(signal: Signal, body: bytes) -> Opened | None:
    """What the general way makes of a body; None when it refuses it."""
    walker, plain.compiled = plain.compiled, None
    try:
        return open_request(signal, body)
    except Rejected:
        return None
    finally:
        plain.compiled = walker


def parts(batch: Batch) -> list[tuple[bytes, list[tuple[object, ...]]]]:
    return [(g.header, [(s.header, s.items, s.trace_ids or None, s.points) for s in g.scopes]) for g in batch.groups]


def agrees(signal: Signal, body: bytes) -> bool:
    """Whether the walker took the body; then it must be right."""
    batch = plain.open_plain(signal, body)
    if batch is None:
        return False
    opened = generally(signal, body)
    assert opened is not None
    assert opened.rejected == 0
    assert parts(batch) == parts(opened.batch)
    assert batch.raw == body
    return True


def with_ids(signal: Signal, message: Any, dice: random.Random) -> Any:
    """The request with proper ids."""
    if signal is Signal.METRICS:  # an exemplar's are nobody's business
        return message
    for group in message.resource_spans if signal is Signal.TRACES else message.resource_logs:
        for scope in group.scope_spans if signal is Signal.TRACES else group.scope_logs:
            for item in scope.spans if signal is Signal.TRACES else scope.log_records:
                item.trace_id, item.span_id = dice.randbytes(16), dice.randbytes(8)
    return message


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(data=st.data())
def test_any_request_with_good_ids_is_read_as_the_general_way_reads_it(signal: Signal, data: st.DataObject) -> None:
    """The general way refuses or takes apart; the walker does the same or leaves it."""
    message = data.draw(requests(signal))
    agrees(signal, message.SerializeToString())
    body = with_ids(signal, message, random.Random(1)).SerializeToString()
    unknown = b"strindex" in str(message).encode()
    assert agrees(signal, body) or unknown


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(data=st.data())
def test_a_request_with_damage_is_never_taken_for_something_else(signal: Signal, data: st.DataObject) -> None:
    body = bytearray(with_ids(signal, data.draw(requests(signal)), random.Random(1)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            body[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif kind == 1:
            del body[at : at + data.draw(st.integers(1, 8))]
        elif kind == 2 and at < len(body):
            body[at] = data.draw(st.sampled_from([0, 1, 10, 18, 127, 128, 194, 237, 255]) | st.integers(0, 255))
        else:
            body[at:at] = body[: data.draw(st.integers(0, 40))]
    agrees(signal, bytes(body))


@given(st.binary(max_size=64) | st.text().map(str.encode))
@MANY
def test_texts_are_checked_as_python_checks_them(text: bytes) -> None:
    item = frame(1, ID) + frame(2, SPAN) + frame(5, text)
    try:
        text.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert agrees(Signal.TRACES, frame(1, frame(2, frame(2, item)))) is valid


@pytest.mark.parametrize("edge", ["7f", "80", "c1bf", "c280", "dfbf", "e09fbf", "e0a080", "ed9fbf", "eda080", "efbfbf", "f08fbfbf",
    "f0908080", "f48fbfbf", "f4908080", "f5808080", "c2", "e0a0", "f09080", "e0a07f", "f0908041", "61f09f9880"])  # fmt: skip
@pytest.mark.parametrize("padding", [0, 1, 7, 8, 9])
def test_every_border_of_utf_8_is_where_it_belongs(edge: str, padding: int) -> None:
    """Unicode 15, table 3-7."""
    text = b"x" * padding + bytes.fromhex(edge)
    value = frame(9, frame(1, b"key") + frame(2, frame(1, text)))
    body = frame(1, frame(2, frame(2, frame(1, ID) + frame(2, SPAN) + value)))
    try:
        text.decode()
    except UnicodeDecodeError:
        assert plain.open_plain(Signal.TRACES, body) is None
        assert generally(Signal.TRACES, body) is None
    else:
        assert agrees(Signal.TRACES, body)


GOOD = frame(1, ID) + frame(2, SPAN)


@pytest.mark.parametrize(
    "item",
    [
        frame(1, ID), frame(2, SPAN), frame(1, ID[:15]) + frame(2, SPAN), frame(1, bytes(16)) + frame(2, SPAN),
        frame(1, ID) + frame(2, bytes(8)), frame(1, ID) + GOOD, GOOD + frame(2, SPAN), GOOD + frame(77, b""), GOOD + b"\x0b\x0c",
        GOOD + frame(6, b""), GOOD + b"\x48\x01", GOOD + b"\xca\x00\x00", GOOD + b"\x2a\x80\x00", GOOD + b"\x2a\x05x",
        GOOD + b"\x30" + b"\xff" * 10, GOOD + b"\x30" + b"\xff" * 9 + b"\x02", GOOD + b"\x39" + bytes(7),
        GOOD + b"\x85\x01" + bytes(3), GOOD + b"\x30", GOOD + b"\x4a",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_general_way(item: bytes) -> None:
    assert plain.open_plain(Signal.TRACES, frame(1, frame(2, frame(2, GOOD) + frame(2, item)))) is None


@pytest.mark.parametrize(
    "body",
    [
        frame(1, frame(2, b"") + frame(1, b"")), frame(1, frame(1, b"") * 2), frame(1, frame(3, b"") * 2), frame(2, b""),
        frame(1, frame(3, b"x") + frame(2, b"")), frame(1, frame(2, frame(3, b"\xff"))), frame(1, frame(1, b"\xff")),
        frame(1, frame(4, b"")), frame(1, b"\x08\x01"), b"\x08\x01", b"\x0a", frame(1, b"") * 1001,
        frame(1, frame(2, b"") * 1001),
    ],
)  # fmt: skip
def test_an_envelope_out_of_order_or_with_more_is_left_to_the_general_way(body: bytes) -> None:
    assert plain.open_plain(Signal.TRACES, body) is None


def test_a_thousand_resources_and_a_hundred_thousand_records_are_the_most() -> None:
    assert agrees(Signal.TRACES, frame(1, b"") * 1000)
    assert agrees(Signal.LOGS, frame(1, frame(2, frame(2, b"") * 100_000)))
    assert plain.open_plain(Signal.LOGS, frame(1, frame(2, frame(2, b"") * 100_001))) is None


def test_spans_of_one_trace_that_stand_together_share_their_id() -> None:
    body = traces(*(span(trace=bytes([number // 3 + 1]) * 16) for number in range(6))).SerializeToString()
    batch = plain.open_plain(Signal.TRACES, body)
    assert batch is not None
    ids = next(batch.scopes()).trace_ids
    assert ids is not None
    assert len(set(map(id, ids))) == 2
    assert agrees(Signal.TRACES, body)


ID = b"0123456789abcdef"
_ids = st.sampled_from([bytes([number]) * 16 for number in range(5)])


@given(st.lists(_ids), st.dictionaries(_ids, st.none()))
@MANY
def test_what_is_wanted_is_selected_as_python_selects_it(ids: list[bytes], wanted: dict[bytes, None]) -> None:
    items = [object() for _ in ids]
    walker = plain.select(ids, items, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "compiled", None)
        assert plain.select(ids, items, wanted) == walker
    assert walker[0] == [each for each in ids if each in wanted]


def test_a_selection_is_asked_for_in_lists_of_one_length() -> None:
    for wrong, error in ((([b""], [], {}), ValueError), (((), [], {}), TypeError), (([[]], [0], {}), TypeError)):
        with pytest.raises(error):
            plain.compiled.select(*wrong)


def test_a_text_is_one_of_a_signal() -> None:
    with pytest.raises(TypeError):
        plain.compiled.parts(1, "text")


_spans = st.lists(st.tuples(_ids, st.binary(max_size=40)), max_size=20)


@given(st.lists(_spans, max_size=4), st.dictionaries(_ids, st.none()))
@MANY
def test_what_is_packed_is_what_is_wanted_one_behind_the_other(sources: list[Any], wanted: dict[bytes, None]) -> None:
    ids = tuple([trace_id for trace_id, _ in source] for source in sources)
    items = tuple([item for _, item in source] for source in sources)
    walker = plain.pack(ids, items, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "compiled", None)
        assert plain.pack(ids, items, wanted) == walker
    chosen = [each for source in sources for each in source if each[0] in wanted]
    names, ends, block, counts = walker
    assert names == b"".join(trace_id for trace_id, _ in chosen)
    ends = [0, *memoryview(ends).cast("I")]
    assert [block[begin:end] for begin, end in pairwise(ends)] == [item for _, item in chosen]
    assert counts == [sum(trace_id in wanted for trace_id in own) for own in ids]


@pytest.mark.parametrize(
    ("ids", "items", "error"),
    [
        ([], (), TypeError),
        (([],), (), ValueError),
        (([ID],), ([],), ValueError),
        (((ID,),), ([b""],), ValueError),
        (([ID],), ([1],), TypeError),
        (([1],), ([b""],), TypeError),
        (([ID, b"short"],), ([b"a", b"b"],), ValueError),
        (([ID], [[]]), ([b"a"], [b"b"]), TypeError),
    ],
)
def test_what_is_packed_are_bytes_with_ids_of_16_in_parallel_lists(ids: Any, items: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        plain.compiled.pack(ids, items, {ID: None, b"short": None})


@pytest.mark.parametrize(
    ("lists", "tables", "always", "shares"),
    [
        ([], (), 0, ()),
        (([1],), (), 0, ()),
        (((ID,),), (), 0, ()),
        (([[]],), (), 0, ()),
        (([ID],), ([],), 0, ()),
        (([ID],), (), None, ()),
        (([ID],), (), 0, ([0, 0, 1],)),
        (([ID],), (), 0, ((0, 0, "1"),)),
        (([ID],), (), 0, ((0, 0),)),
    ],
)
def test_a_look_at_ids_is_asked_for_in_lists_tables_and_shares(lists: Any, tables: Any, always: Any, shares: Any) -> None:
    with pytest.raises(TypeError):
        plain.compiled.fresh(lists, tables, always, shares)


def test_so_many_tables_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="tables"):
        plain.compiled.fresh(([ID],), ({},) * 9, 0, ())


class Liar:
    """A key whose comparison empties the lists that are being read."""

    def __init__(self, *lists: list[Any]) -> None:
        self.lists = lists

    def __hash__(self) -> int:
        return hash(b"x")

    def __eq__(self, other: object) -> bool:
        for each in self.lists:
            each.clear()
        return False


def test_lists_that_change_while_they_are_read_do_no_harm() -> None:
    ids, items = [bytes(bytearray(b"x")) for _ in range(3)], [object() for _ in range(3)]
    assert plain.compiled.select(ids, items, {Liar(ids, items): None}) == ([], [])
    ids, items = [bytes(bytearray(b"x")) for _ in range(3)], [b"item" for _ in range(3)]
    assert plain.compiled.pack((ids,), (items,), {Liar(ids, items): None}) == (b"", b"", b"", [0])
    ids = [bytes(bytearray(b"x")) for _ in range(3)]
    assert plain.compiled.fresh((ids,), ({Liar(ids): None}, {b"x": 1}), 5, ()) == ({}, {b"x": 5})


def test_values_are_nested_to_a_depth_that_the_stack_bears() -> None:
    def nested(depth: int) -> bytes:
        value = frame(1, b"x")
        for _ in range(depth):
            value = frame(5, frame(1, value))
        return frame(1, frame(2, frame(2, GOOD + frame(9, frame(1, b"k") + frame(2, value)))))

    assert agrees(Signal.TRACES, nested(10))
    assert plain.open_plain(Signal.TRACES, nested(40)) is None
    assert plain.open_plain(Signal.TRACES, nested(50_000)) is None


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 255, 256, 16383, 16384, 20000])
def test_lengths_of_one_two_and_three_bytes_are_read(size: int) -> None:
    long = span(values={"k" * max(1, size // 2): "v" * size, "after": 1})
    assert agrees(Signal.TRACES, traces(long, span()).SerializeToString())


def in_slices(signal: Signal, body: bytes, piece: int) -> tuple[Batch | None, int]:
    """What reading in slices gives, and how often it paused."""
    steps, pauses, before = plain.open_plain_slices(signal, body), 0, plain.PIECE
    plain.PIECE = piece
    try:
        while True:
            next(steps)
            pauses += 1
    except StopIteration as done:
        return done.value, pauses
    finally:
        plain.PIECE = before


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(data=st.data(), piece=st.sampled_from([1, 65, 150, 1000, 1 << 30]))
def test_a_body_read_in_slices_is_the_same_as_at_once(signal: Signal, data: st.DataObject, piece: int) -> None:
    message = data.draw(requests(signal))
    for body in (message.SerializeToString(), with_ids(signal, message, random.Random(1)).SerializeToString()):
        for cut in (len(body), data.draw(st.integers(0, len(body)))):
            batch, pauses = in_slices(signal, body[:cut], piece)
            assert batch == plain.open_plain(signal, body[:cut])
            assert pauses == 0 or piece < 1 << 30


def test_a_large_body_is_read_in_slices_of_its_size() -> None:
    item = frame(5, b"x" * 1000)
    records = frame(1, b"") * 10 + frame(1, frame(2, frame(2, frame(3, b"x" * 1000)) * 1000))
    spans = frame(1, frame(2, frame(2, GOOD + item) * 1000))
    metrics = frame(1, frame(2, frame(2, frame(3, b"x" * 990) + frame(5, frame(1, b""))) * 1000))
    for signal, body in ((Signal.TRACES, spans), (Signal.LOGS, records), (Signal.METRICS, metrics)):
        batch, pauses = in_slices(signal, body, 100_000)
        assert batch is not None
        assert batch.count() == 1000
        assert 9 <= pauses <= 12
    tiny, pauses = in_slices(Signal.LOGS, frame(1, frame(2, frame(2, b"") * 50_000)), 100_000)
    assert tiny is not None
    assert 30 <= pauses <= 34  # what is empty takes its time too


def test_an_item_or_header_of_more_than_half_a_mebibyte_is_left_to_the_general_way() -> None:
    """Its nested elements must be counted before anybody decodes it."""
    for room, plainly in ((0, True), (1, False)):
        text = b"x" * ((512 << 10) + room - 4)
        for body in (frame(1, frame(2, frame(2, frame(3, text)))), frame(1, frame(2, frame(1, frame(1, text))))):
            batch, _ = in_slices(Signal.LOGS, body, 1 << 20)
            assert (batch is not None) is plainly
            assert agrees(Signal.LOGS, body) is plainly


def point(data: int, content: bytes) -> bytes:
    """A metric whose data, field `data`, holds one point."""
    return frame(data, frame(1, content))


@pytest.mark.parametrize(
    ("metric", "plainly"),
    [
        (frame(1, b"name") + frame(2, b"text") + frame(3, b"By") + frame(12, frame(1, b"key")), True),
        (frame(1, b"\xff"), False), (b"\x0a\x80\x00", False), (frame(4, b""), False), (b"\x28\x01", False), (b"\x50\x01", False),
        (point(5, b"\x21" + bytes(8)), True), (point(5, b"\x20\x01"), False), (point(5, b"\x31" + bytes(8)), True),
        (point(5, frame(1, b"")), False), (point(5, frame(7, frame(1, b"\xff"))), False), (frame(5, b"\x10\x01"), False),
        (frame(5, b"\x08\x01"), False), (point(7, b"\x40\x01") + frame(7, b"\x10\x02\x18\x01"), True),
        (frame(9, b"\x10\x02\x18\x01"), False), (frame(10, b"\x10\x02"), True), (frame(11, b"\x10\x02"), False),
        (point(9, frame(6, bytes(16)) + frame(7, bytes(8))), True), (point(9, frame(6, b"") + frame(7, b"")), True),
        (point(9, frame(6, bytes(7))), False), (point(9, frame(7, bytes(9))), False),
        (point(9, b"\x31" + bytes(8)), False), (point(9, b"\x39" + bytes(8)), False), (point(9, b"\x31"), False),
        (point(10, b"\x30\x01" + frame(8, b"\x08\x03" + frame(2, b"\x00\xac\x02"))), True),
        (point(10, frame(9, frame(2, b""))), True), (point(10, frame(8, frame(2, b"\xac"))), False),
        (point(10, frame(9, frame(2, b"\xff" * 10))), False), (point(10, frame(8, b"\x10\x01")), False),
        (point(10, frame(8, frame(3, b""))), False), (point(10, b"\x71" + bytes(8)), True), (point(10, b"\x79" + bytes(8)), False),
        (point(11, frame(6, b"\x09" + bytes(8) + b"\x11" + bytes(8))), True), (point(11, frame(6, b"\x09" + bytes(7))), False),
        (point(11, frame(5, b"")), False), (point(5, frame(5, frame(4, b"x") + frame(5, b"y" * 17))), True),
        (point(5, frame(5, frame(7, frame(1, b"\xff")))), False), (point(5, frame(5, frame(1, b""))), False),
    ],
)  # fmt: skip
def test_every_kind_of_data_point_is_checked_to_its_last_number(metric: bytes, plainly: bool) -> None:
    """Numbers that are not packed, as a few encoders write them, are left to the general way."""
    assert agrees(Signal.METRICS, frame(1, frame(2, frame(2, metric)))) is plainly


def test_the_data_points_of_each_metric_come_with_it() -> None:
    points = frame(1, b"")
    metrics = [
        b"",
        frame(5, b""),
        frame(5, points * 300),
        frame(7, points) + frame(7, points * 2),
        frame(5, points) + frame(9, points),
    ]
    body = frame(1, frame(2, b"".join(frame(2, metric) for metric in metrics)) + frame(2, frame(2, frame(11, points))))
    batch = plain.open_plain(Signal.METRICS, body)
    assert batch is not None
    assert [scope.points for scope in batch.scopes()] == [[0, 0, 300, 3, 2], [1]]
    assert batch.count() == 306
    assert agrees(Signal.METRICS, body)


def test_what_is_read_to_its_end_is_not_read_again() -> None:
    for body, result in ((b"", []), (b"\x08\x01", None)):
        begun = plain.compiled.begin(1, body)
        assert plain.compiled.proceed(begun, 1) == result
        with pytest.raises(ValueError, match="read to its end"):
            plain.compiled.proceed(begun, 1)
    with pytest.raises(ValueError, match="PyCapsule"):
        plain.compiled.proceed(object(), 1)


def test_half_a_body_may_be_forgotten() -> None:
    begun = plain.compiled.begin(2, frame(1, frame(2, frame(2, b"") * 100)))
    assert plain.compiled.proceed(begun, 100) is False
    del begun


def test_the_module_says_what_is_wrong_with_its_arguments() -> None:
    with pytest.raises(ValueError, match="signal is 1, 2 or 3"):
        plain.compiled.open(4, b"")
    with pytest.raises(ValueError, match="signal is 1, 2 or 3"):
        plain.compiled.begin(0, b"")
    with pytest.raises(TypeError):
        plain.compiled.open(1, bytearray())
    with pytest.raises(TypeError):
        plain.compiled.begin(1, bytearray())


def test_where_it_is_not_built_or_not_wanted_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WALKER_VARIABLE, "python")
    assert compiled_module("otlp._plain") is None
    monkeypatch.delenv(WALKER_VARIABLE)
    assert compiled_module("otlp._plain") is plain.compiled
    monkeypatch.setitem(sys.modules, "collector.otlp._plain", None)
    monkeypatch.delattr("collector.otlp._plain")
    assert compiled_module("otlp._plain") is None
    monkeypatch.setattr(plain, "compiled", None)
    assert plain.open_plain(Signal.TRACES, b"") is None


def test_the_walker_can_be_turned_off() -> None:
    code = "from collector.otlp.plain import COMPILED; print(COMPILED)"
    for value, said in (("python", "False"), ("", "True")):
        environment = {WALKER_VARIABLE: value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == said
    assert number(300) == b"\xac\x02"
