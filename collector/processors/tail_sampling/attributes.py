"""Conditions on attributes: a search that finds the spans worth decoding, and the exact test on what was decoded.

A pattern is the key, or key and value as encoders write them (key first, shortest lengths); with the value first or with padded
lengths the span is found too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from collector.model import slim_schema
from collector.otlp.find import Condition
from collector.processors.tail_sampling import policies as settings

_BYTES, _INT64, _DOUBLE, _BOOL = 12, 3, 1, 8
_schema = slim_schema(
    "collector.tail_sampling",
    {
        "Span": [("attributes", 9, "KeyValue", True)],
        "Group": [("resource", 1, "Resource", False)],
        "Resource": [("attributes", 1, "KeyValue", True)],
        "KeyValue": [("key", 1, _BYTES, False), ("value", 2, "AnyValue", False)],
        # repeated = present or not, which a plain field of a slim schema cannot tell for 0 and false
        "AnyValue": [("text", 1, _BYTES, True), ("flag", 2, _BOOL, True), ("int", 3, _INT64, True), ("float", 4, _DOUBLE, True)],
    },
)
Value = bytes | bool | int | float
Attributes = list[tuple[bytes, Value]]
_ANY = rb"[\x00-\xff]"
_INT64_MAX = 2**63 - 1
_5XX = rb"\x12\x03\x18(?:[\xf4-\xff]\x03|[\x80-\xd7]\x04)"
"""Pattern of an encoded AnyValue with an integer from 500 to 599."""
ERROR_STATUS = rb"\x18[\x02\x82]"
"""Pattern of Status.code = 2 (field 3, one byte or padded); integer attributes can look the same."""


def span_attributes(item: bytes) -> Attributes:
    """Scalar attributes of one encoded span."""
    return list(_scalars(_schema["Span"].FromString(item).attributes))


def resource_attributes(header: bytes) -> Attributes:
    """Scalar attributes of the resource in one encoded group header."""
    return list(_scalars(_schema["Group"].FromString(header).resource.attributes))


def _scalars(entries: Iterable[Any]) -> Iterator[tuple[bytes, Value]]:
    for entry in entries:
        for _, values in entry.value.ListFields():
            yield entry.key, values[-1]


def _hex(data: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in data)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _pair(key: bytes, any_value: bytes) -> bytes:
    """Pattern for a KeyValue with exactly this encoded AnyValue, in either order or with padded lengths."""
    value = _hex(b"\x12" + _varint(len(any_value)) + any_value)
    tail = _hex(b"\x0a" + _varint(len(key)) + key)
    padded = rb"\x12(?:[\x80-\xff]|" + _ANY + rb"\x0a[\x80-\xff])"
    return _hex(key) + b"(?:" + value + b"|" + padded + b")|" + value + tail


def _text_value(text: str) -> bytes:
    data = text.encode()
    return b"\x0a" + _varint(len(data)) + data


Test = tuple[bytes, Callable[[Value], bool], int]
"""Attribute key, whether a value makes the condition true, the bit it sets."""


class Search(NamedTuple):
    """What finds the spans worth decoding: conditions for the compiled walker, byte patterns where there is none."""

    conditions: list[Condition]
    patterns: list[bytes]


def attribute_test(
    policy: settings.StringAttribute | settings.NumericAttribute | settings.BooleanAttribute, bit: int
) -> tuple[Search, Test]:
    """The search and the exact test of one attribute policy."""
    key = policy.key.encode()
    if isinstance(policy, settings.BooleanAttribute):
        wanted = policy.value
        return _equal(key, [b"\x10" + bytes([wanted])]), (key, lambda v: v is wanted, bit)
    if isinstance(policy, settings.NumericAttribute):
        low = -math.inf if policy.min_value is None else policy.min_value
        high = math.inf if policy.max_value is None else policy.max_value
        return Search([Condition(key, low=_int64(low), high=_int64(high))], [_hex(key)]), (
            key,
            lambda v: type(v) in (int, float) and low <= v <= high,
            bit,
        )
    if policy.enabled_regex_matching:
        regexes = policy.regexes()
        return Search([Condition(key)], [_hex(key)]), (key, lambda v: isinstance(v, bytes) and _found(regexes, v), bit)
    values = frozenset(value.encode() for value in policy.values)
    return _equal(key, map(_text_value, policy.values)), (key, lambda v: v in values, bit)


def _int64(bound: float) -> int:
    """The nearest integer that an attribute can be."""
    return round(min(max(bound, -_INT64_MAX - 1), _INT64_MAX))


def _equal(key: bytes, values: Iterable[bytes]) -> Search:
    """The search for a key with one of some encoded values."""
    wanted = tuple(values)
    return Search([Condition(key, values=wanted)], [_pair(key, value) for value in wanted])


def _found(regexes: Sequence[Any], value: bytes) -> bool:
    text = value.decode("utf-8", "replace")
    return any(regex.search(text) for regex in regexes)


def error_tests(bit: int, error_type: bool, http_5xx: bool, status_values: Sequence[str]) -> list[tuple[Search, list[Test]]]:
    """Searches and exact tests for errors that are not in a span's status."""
    out: list[tuple[Search, list[Test]]] = []
    if error_type:
        key = b"error.type"
        out.append((Search([Condition(key)], [_hex(key)]), [(key, lambda v: v not in (b"", False), bit)]))
    if http_5xx:
        # literals, not a class: hyperscan would look closer at every span that has the key, at twice the cost of the whole search
        codes = [_hex(b"status_code\x12\x03\x18" + _varint(code)) for code in range(500, 600)]
        pattern = b"|".join([*codes, rb"status_code\x12[^\x02\x03]", _5XX + rb"\x0a[\x10\x19]http"])
        keys = (b"http.response.status_code", b"http.status_code")
        search = Search([Condition(key, low=500, high=599) for key in keys], [pattern])
        out.append((search, [(key, _is_5xx, bit) for key in keys]))
    if status_values:
        wanted = frozenset(value.encode() for value in status_values)
        out.append((_equal(b"status", map(_text_value, status_values)), [(b"status", lambda v: v in wanted, bit)]))
    return out


def _is_5xx(value: Value) -> bool:
    if isinstance(value, bytes):
        return len(value) == 3 and value.isdigit() and value[:1] == b"5"
    return 500 <= value < 600
