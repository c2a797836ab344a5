"""otlp.transcode and _json.c: what the compiled path takes means what the Python path makes of it; all else it leaves alone."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.load import requests as load
from collector.compiled import WALKER_VARIABLE, compiled_module
from collector.errors import Refused, Rejected
from collector.model import Signal
from collector.otlp import transcode as module
from collector.otlp.mapping import FREE, MAX_ITEM_NESTED, MAX_ITEMS, MAX_NESTED, REQUEST, Reader, from_json, to_json
from collector.otlp.transcode import STEP, transcode, transcode_small
from tests.otlp.generated import requests
from tests.support import span, traces

pytestmark = pytest.mark.skipif(module.compiled is None, reason="the walker is not compiled here")
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
SIGNALS = [Signal.TRACES, Signal.LOGS]
RARE = re.compile(rb'trindex|bytesValue|entityRefs|"NaN"|Infinity"|[:"]-|"[0-9]{20}"')
"""What a request made at random may hold and only the Python path reads."""
LIMITS = (MAX_ITEMS, MAX_NESTED, MAX_ITEM_NESTED)


def fast(signal: Signal, text: bytes, limits: tuple[int, int, int] = LIMITS) -> bytes | None:
    """What the compiled path makes of a text; None when it leaves it."""
    steps = transcode(signal, text, limits, lambda _: None)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def slowly(signal: Signal, text: bytes, *, strict: bool = False) -> Reader:
    """What the Python path makes of it. Raises what it raises."""
    compiled, module.compiled = module.compiled, None
    try:
        reader = Reader(signal, text, strict=strict)
        list(reader.slices())
        return reader
    finally:
        module.compiled = compiled


def meaning(signal: Signal, encoded: bytes) -> bytes:
    """The same bytes for messages that mean the same."""
    return REQUEST[signal].FromString(encoded).SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def agrees(signal: Signal, text: bytes) -> bool:
    """Whether the compiled path took the text; then it must be right."""
    encoded = fast(signal, text)
    if encoded is None:
        return False
    for strict in (False, True):
        reader = slowly(signal, text, strict=strict)
        assert meaning(signal, encoded) == meaning(signal, reader.encoded)
        assert not reader.nonstandard
    return True


def one_span(fields: str) -> bytes:
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[{%s}]}]}]}' % fields.encode()


def one_value(value: str) -> bytes:
    return one_span(f'"attributes":[{{"key":"k","value":{value}}}]')


def test_ordinary_requests_are_taken_and_come_out_byte_for_byte() -> None:
    for request in itertools.islice(load(spans=64), 5):
        text = to_json(Signal.TRACES, request.data)
        assert fast(Signal.TRACES, text) == request.data
        assert agrees(Signal.TRACES, orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2))
        assert agrees(Signal.TRACES, json.dumps(orjson.loads(text), sort_keys=True).encode())


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(data=st.data())
def test_any_request_is_read_as_the_python_path_reads_it(signal: Signal, data: st.DataObject) -> None:
    text = to_json(signal, data.draw(requests(signal)).SerializeToString())
    assert agrees(signal, text) or RARE.search(text) or odd_ids(signal, text)
    for spelling in ({"ensure_ascii": True}, {"ensure_ascii": False, "indent": "\t"}, {"sort_keys": True}):
        agrees(signal, json.dumps(orjson.loads(text), **spelling).encode())  # type: ignore[arg-type]


def odd_ids(signal: Signal, text: bytes) -> bool:
    """Whether an id has not its length."""

    def ids(value: Any) -> Any:
        for key, member in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            if key in ("traceId", "spanId", "parentSpanId"):
                yield len(member) != (32 if key == "traceId" else 16)
            yield from ids(member)

    return any(ids(orjson.loads(text)))


TOKENS = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-", b"0", b"1.5", b"1e400", b'""', b"{}", b"[]", b" ", b"\n",
    b"\x00", b"\x1f", b"\x7f", b"\xc3\xa9", b"\xff", b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b"\\x", b'"kind":1,', b'"name":"x",',
    b'"schemaUrl":"u",', b'"value":null,', b'"flags":4294967296,', b'"trace_id":"",']  # fmt: skip


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(data=st.data())
def test_a_text_with_damage_is_never_taken_for_something_else(signal: Signal, data: st.DataObject) -> None:
    text = bytearray(to_json(signal, data.draw(requests(signal)).SerializeToString()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            text[at:at] = data.draw(st.sampled_from(TOKENS))
        elif kind == 1:
            del text[at : at + data.draw(st.integers(1, 8))]
        elif kind == 2:
            text[at : at + 1] = data.draw(st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=1))
        else:
            begin = data.draw(st.integers(0, len(text)))
            text[at:at] = text[begin : begin + data.draw(st.integers(0, 60))]
    agrees(signal, bytes(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["12", "-7", "007", "18446744073709551615", "9223372036854775808", "1.5", "NaN", "ab" * 16, "ab" * 8, ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["attributes", "key", "value", "stringValue", "intValue", "boolValue", "doubleValue", "name",
        "arrayValue", "kvlistValue", "values", "traceId", "spanId", "kind", "status", "code", "events", "links", "body", "flags",
        "startTimeUnixNano", "timeUnixNano", "droppedAttributesCount", "severityNumber", "eventName", "other"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("signal", SIGNALS)
@MANY
@given(item=st.dictionaries(st.sampled_from(["attributes", "name", "kind", "status", "body", "flags", "traceId", "timeUnixNano",
    "endTimeUnixNano", "severityNumber", "events", "links", "droppedAttributesCount"]), VALUES, max_size=5))  # fmt: skip
def test_any_value_under_any_key_is_read_as_the_python_path_reads_it(signal: Signal, item: dict[str, Any]) -> None:
    keys = ("resourceSpans", "scopeSpans", "spans") if signal is Signal.TRACES else ("resourceLogs", "scopeLogs", "logRecords")
    agrees(signal, json.dumps({keys[0]: [{keys[1]: [{keys[2]: [item]}]}]}).encode())


@MANY
@given(text=st.text() | st.text(alphabet='"\\/bfnrtu0d8caé\n\x00😀'))
@example('\\"\b\f\n\r\t/\x00\x7f é € 😀')
def test_strings_come_out_as_they_went_in_whatever_their_spelling(text: str) -> None:
    for spelled in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        try:
            body = one_span(f'"name":{spelled}')
        except UnicodeEncodeError:
            continue  # half a pair cannot be written in UTF-8
        encoded = fast(Signal.TRACES, body)
        assert encoded is not None
        read = REQUEST[Signal.TRACES].FromString(encoded).resource_spans[0].scope_spans[0].spans[0]
        assert read.name == text


@MANY
@given(inner=st.text(alphabet='\\/"bnu0123456789abcdefD8x', max_size=14))
def test_escapes_are_read_as_the_python_path_reads_them(inner: str) -> None:
    agrees(Signal.TRACES, one_span(f'"name":"{inner}"'))


@MANY
@given(number=st.text(alphabet="0123456789+-.eE", min_size=1, max_size=24) | st.floats().map(str) | st.integers().map(str))
@example("1" * 300)
@example("0." + "1" * 80)
def test_numbers_are_read_as_the_python_path_reads_them(number: str) -> None:
    for spelled in (number, f'"{number}"'):
        for key in ("startTimeUnixNano", "droppedEventsCount", "kind", "flags"):
            agrees(Signal.TRACES, one_span(f'"{key}":{spelled}'))
        for key in ("intValue", "doubleValue", "boolValue"):
            agrees(Signal.TRACES, one_value(f'{{"{key}":{spelled}}}'))


@MANY
@given(value=st.floats(allow_nan=False, allow_infinity=False), size=st.integers(-(1 << 63) + 1, (1 << 63) - 1))
def test_numbers_keep_every_bit(value: float, size: int) -> None:
    for text in (f'{{"doubleValue":{value!r}}}', f'{{"intValue":{size}}}', f'{{"intValue":"{size}"}}'):
        assert agrees(Signal.TRACES, one_value(text))


TAKEN = [
    "", '"name":"a"', ' "name" : "a" ,\n"kind"\t:\r2 ', '"name":null', '"status":{}', '"status":{"code":null}', '"attributes":[]',
    '"attributes":null', '"attributes":[{}]', '"attributes":[{"key":"k","value":{}}]', '"attributes":[{"key":"","value":null}]',
    '"traceId":""', '"traceId":"%s"' % ("aB" * 16), '"parentSpanId":"%s"' % ("00" * 8), '"startTimeUnixNano":"007"',
    '"startTimeUnixNano":9999999999999999999', '"droppedLinksCount":4294967295',
    '"flags":4294967295', '"kind":2147483647', '"name":"\\ud83d\\ude00\\u00e9\\u20ac\\u0000"', '"name":"%s"' % ("x" * 20000),
    '"name":"%s"' % ("\\n" * 127), '"name":"%s"' % ("é" * 64),
    '"attributes":[{"key":"k","value":{"intValue":"-9223372036854775807"}},{"key":"k","value":{"boolValue":false}}]',
    '"attributes":[{"key":"k","value":{"stringValue":null,"intValue":0}},{"key":"k","value":{"doubleValue":-0.0}}]',
    '"attributes":[{"key":"k","value":{"arrayValue":{"values":[{"stringValue":""},{"kvlistValue":{"values":[{"key":"k"}]}}]}}}]',
    '"events":[{"timeUnixNano":"5","name":"e","attributes":[],"droppedAttributesCount":1}],"links":[{"traceId":"","flags":1}]',
]  # fmt: skip


@pytest.mark.parametrize("fields", TAKEN, ids=range(len(TAKEN)))
def test_what_sdks_write_is_taken(fields: str) -> None:
    assert agrees(Signal.TRACES, one_span(fields))


LEFT = [
    '"startTimeUnixNano":"-0"', '"kind":-0',
    '"name":"a",', ',"name":"a"', '"name" "a"', '"name":"a" "kind":1', '"name":"a"}', '"name":"a","name":"b"', '"name":null,"name":"b"',
    '"other":1', '"Name":"a"', '"nam":"a"', '"names":"a"', '"n\\u0061me":"a"', '"trace_id":""', '"kind":"SPAN_KIND_SERVER"', '"kind":"1"',
    '"kind":2147483648', '"kind":-1', '"kind":1.0', '"kind":01', '"kind":1_0', '"kind":', '"kind":-', '"startTimeUnixNano":-1',
    '"startTimeUnixNano":"18446744073709551615"', '"startTimeUnixNano":"1', '"startTimeUnixNano":"1 "', '"startTimeUnixNano":""',
    '"flags":4294967296', '"traceId":"ab"', '"traceId":"%s"' % ("ag" * 16), '"traceId":"%s"' % ("ga" * 16), '"traceId":"%s' % ("ab" * 16),
    '"traceId":"%s"' % ("ab" * 17), '"traceId":5', '"name":5', '"name":nul', '"name":nullx', '"name":"a\n"', '"name":"a', '"name":"a\\',
    '"name":"a\\"', '"name":"\\x"', '"name":"\\u12"', '"name":"\\u123g"', '"name":"\\ud83d"', '"name":"\\ude00"', '"name":"\\ud83d\\n"',
    '"name":"\\ud83d\\u0041"', '"name":"\\ud83dxx\\ude00"', '"name":"\\ud83d\\ude"', '"status":[]', '"status":{', '"attributes":{}',
    '"attributes":[', '"attributes":[{}', '"attributes":[{},]', '"attributes":[null]', '"attributes":[{"value":{},"key":"k"}]',
    '"attributes":[{"key":"k","value":{"stringValue":"a","intValue":1}}]', '"attributes":[{"key":"k","value":{"bytesValue":"aa=="}}]',
    '"attributes":[{"key":"k","value":{"doubleValue":"1.5"}}]', '"attributes":[{"key":"k","value":{"doubleValue":1e400}}]',
    '"attributes":[{"key":"k","value":{"doubleValue":-0}}]', '"attributes":[{"key":"k","value":{"doubleValue":1.}}]',
    '"attributes":[{"key":"k","value":{"doubleValue":.5}}]', '"attributes":[{"key":"k","value":{"doubleValue":1e}}]',
    '"attributes":[{"key":"k","value":{"doubleValue":01}}]', '"attributes":[{"key":"k","value":{"doubleValue":0x1}}]',
    '"attributes":[{"key":"k","value":{"doubleValue":1e+5x}}]', '"attributes":[{"key":"k","value":{"doubleValue":1%s}}]' % ("0" * 64),
    '"attributes":[{"key":"k","value":{"intValue":9223372036854775808}}]', '"attributes":[{"key":"k","value":{"boolValue":1}}]',
    '"attributes":[{"key":"k","value":{"boolValue":tru}}]',
]  # fmt: skip


@pytest.mark.parametrize("fields", LEFT, ids=range(len(LEFT)))
def test_what_is_not_plain_is_left_to_the_python_path(fields: str) -> None:
    assert fast(Signal.TRACES, one_span(fields)) is None


@pytest.mark.parametrize(
    "name", [b'"name":"\xff"', b'"name":"\xed\xa0\x80"', b'"name":"\\"\xff"', b'"name":"\xc3', b'"name":"\\\xff"']
)
def test_invalid_utf_8_is_left_to_the_python_path(name: bytes) -> None:
    assert fast(Signal.TRACES, one_span("@").replace(b"@", name)) is None


GROUP = b'{"resourceSpans":[%s]}'


@pytest.mark.parametrize(
    "text",
    [b"{}", b" {\n} ", b'{"resourceSpans":[]}', b'{"resourceSpans":null}', GROUP % b"{}", GROUP % b"{},{}", GROUP % b'{"resource":{}}',
     GROUP % b'{"schemaUrl":"u","resource":{"attributes":[{"key":"k"}]},"scopeSpans":[]}',
     GROUP % b'{"schemaUrl":"u","scopeSpans":[{"schemaUrl":"\\n","scope":{"name":"s"},"spans":[{},{}]},{}]}',
     GROUP % b'{"schemaUrl":"","scopeSpans":[{"spans":null}]},{"schemaUrl":null}'],
)  # fmt: skip
def test_envelopes_are_read_whatever_is_left_out(text: bytes) -> None:
    assert agrees(Signal.TRACES, text)


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"[]", b"{", b"{}x", b"{}\x00", b"{},", b'{"resourceSpans":{}}', b'{"resourceSpans":[],}', b'{"resourceSpans":[]"x":1}',
     b'{"resourceLogs":[]}', b'{"resourceSpans":[],"resourceSpans":[]}', GROUP % b"null", GROUP % b"5", GROUP % b"{},", GROUP % b"{}{}",
     GROUP % b",{}", GROUP % b"{", GROUP % b'{"scopeSpans":[],"resource":{}}', GROUP % b'{"scopeSpans":null,"resource":{}}',
     GROUP % b'{"scopeSpans":[{"spans":[],"scope":{}}]}',
     GROUP % b'{"schemaUrl":5}', GROUP % b'{"schemaUrl":"\\ud83d"}', GROUP % b'{"resource":5}', GROUP % b'{"scopeSpans":[{"spans":[{}{}]}]}',
     GROUP % b'{"resource":{"entityRefs":[]}}', b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_odd_envelopes_are_left_to_the_python_path(text: bytes) -> None:
    assert fast(Signal.TRACES, text) is None


@pytest.mark.parametrize("cut", range(0, 400, 3))
def test_a_text_that_ends_too_early_is_left_to_the_python_path(cut: int) -> None:
    text = to_json(Signal.TRACES, traces(span("a", {"n": 5, "s": "x" * 50})).SerializeToString())
    assert len(text) > 300
    assert cut >= len(text) or fast(Signal.TRACES, text[:cut]) is None


def test_what_is_too_much_is_left_to_the_python_path() -> None:
    spans = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{},{"attributes":[{},{}]}]}]}]}'
    assert fast(Signal.TRACES, spans, (2, 4, 2)) is not None
    for limits in ((1, 4, 2), (2, 3, 2), (2, 4, 1), (2, 1, 2)):
        assert fast(Signal.TRACES, spans, limits) is None


def test_values_are_nested_to_a_depth_that_the_stack_bears() -> None:
    def nested(levels: int) -> bytes:
        return one_value('{"arrayValue":{"values":[' * levels + '{"stringValue":"x"}' + "]}}" * levels)

    assert agrees(Signal.TRACES, nested(10))
    for levels in (20, 100_000):
        assert fast(Signal.TRACES, nested(levels)) is None


def test_a_large_text_is_read_in_steps_with_its_memory_reserved_once() -> None:
    spans = [span(f"s{i}", {f"k{j}": "v" * 100 for j in range(12)}) for i in range(4000)]
    encoded = traces(*spans, resource={"service.name": "big"}).SerializeToString()
    text, reserved = to_json(Signal.TRACES, encoded), list[int]()
    reader = Reader(Signal.TRACES, text, reserve=reserved.append)
    assert sum(1 for _ in reader.slices()) == len(text) // module.STEP
    assert reader.encoded == encoded
    assert reserved == [2 * len(text)]


def test_what_turns_out_odd_at_its_end_has_the_rest_of_its_memory_reserved() -> None:
    text, reserved = one_span('"name":"%s","trace_state":"x"' % ("x" * FREE)), list[int]()
    reader = Reader(Signal.TRACES, text, reserve=reserved.append)
    assert list(reader.slices())
    assert reader.nonstandard["snake_case"] == 1
    assert reserved == [2 * len(text)], "the parsed text of one long string takes less"
    text = text.replace(b'"trace_state"', b'"events":[%s{}],"trace_state"' % (b"{}," * 50_000))
    reserved.clear()
    list(Reader(Signal.TRACES, text, reserve=reserved.append).slices())
    assert reserved[0] == 2 * len(text)
    assert sum(reserved) == len(text) + 240 * (text.count(b"{") + text.count(b"[")) + 40 * text.count(b",")


def test_without_room_nothing_is_read() -> None:
    def full(size: int) -> None:
        raise Refused("full")

    with pytest.raises(Refused):
        list(Reader(Signal.TRACES, one_span('"name":"%s"' % ("x" * FREE)), reserve=full).slices())


def test_errors_are_the_python_paths_own() -> None:
    texts = (one_span('"kind":"x"'), b"{", b"[]", one_span('"status":5'), one_span('"attributes":[{},5]'))
    for text in texts:
        with pytest.raises(Rejected) as fast_error:
            from_json(Signal.TRACES, text)
        with pytest.raises(Rejected) as slow_error:
            slowly(Signal.TRACES, text)
        assert str(fast_error.value) == str(slow_error.value)


def test_metrics_go_the_python_way() -> None:
    assert fast(Signal.METRICS, b"{}") is None
    assert from_json(Signal.METRICS, b"{}") == b""


def test_the_module_says_what_is_wrong_with_its_arguments() -> None:
    with pytest.raises(ValueError, match="signal is 1 or 2"):
        module.compiled.Transcoder(3, b"", 1, 1, 1)
    with pytest.raises(TypeError):
        module.compiled.Transcoder(1, bytearray(b"{}"), 1, 1, 1)
    work = module.compiled.Transcoder(1, b"{}", 1, 1, 1)
    with pytest.raises(OverflowError):
        work.advance(-1)
    with pytest.raises(TypeError):
        work.advance("1")


def test_what_is_done_or_left_stays_so() -> None:
    done, left = (module.compiled.Transcoder(1, text, 9, 9, 9) for text in (GROUP % b"{}", GROUP % b"{]"))
    assert [done.advance(99), done.advance(99)] == [b"\x0a\x00"] * 2
    assert [left.advance(99), left.advance(99)] == [None, None]
    steps = module.compiled.Transcoder(1, one_span('"name":"a"},{"name":"b"'), 9, 9, 9)
    assert [steps.advance(0) for _ in range(7)] == [False] * 7
    assert REQUEST[Signal.TRACES].FromString(steps.advance(99)).resource_spans[0].scope_spans[0].spans[1].name == "b"


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_module("otlp._json") is module.compiled
    monkeypatch.setenv(WALKER_VARIABLE, "python")
    assert compiled_module("otlp._json") is None


@MANY
@given(st.sampled_from(SIGNALS), st.data())
def test_a_small_text_read_at_once_is_the_same_as_in_steps(signal: Signal, data: st.DataObject) -> None:
    text = to_json(signal, data.draw(requests(signal)).SerializeToString())
    assert len(text) <= FREE
    assert transcode_small(signal, text, LIMITS, lambda _: None) == fast(signal, text)


@pytest.mark.parametrize(("size", "taken"), [(FREE, True), (2 * STEP, False)])
def test_what_a_receiver_takes_at_once_is_read_in_one_step_and_a_large_text_is_not(size: int, taken: bool) -> None:
    one = to_json(Signal.TRACES, traces(span()).SerializeToString())
    begin, end = one.index(b"[{", one.index(b'"spans"')) + 1, one.rindex(b"]}]}]}")
    text = one[:begin] + b",".join([one[begin:end]] * ((size - len(one)) // (end - begin + 1) + 1)) + one[end:]
    assert size - 1000 < len(text) <= size
    asked: list[int] = []
    encoded = transcode_small(Signal.TRACES, text, (10**6, 10**7, 10**6), asked.append)
    assert asked == [2 * len(text)]
    assert (encoded is not None) is taken
    if encoded is not None:
        assert encoded == from_json(Signal.TRACES, text)
