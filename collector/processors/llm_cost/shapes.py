"""The shape of a span: the names it uses and the words under them. Spans of one shape differ in counts, ids and times only.

A shape is read from the encoded attributes in one pass, without asking what they mean; `plans.py` finds that out once per shape.
What is not plainly written (a number as text, an earlier cost, unusual encodings) has no shape and is read the thorough way.
Attributes that nobody asks for are not even checked: broken UTF-8 in a prompt does not keep a repeated call from being counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from collector.model import slim_schema
from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.dialects import Path_
from collector.processors.llm_cost.usage import COUNTS, LIMIT

SAME, COUNT, SECONDS, IDENTITY, INTRICATE = range(5)
"""What to do with an attribute: it is part of the shape as it stands, or one of the things that differ, or rules a shape out."""
_UNREAD = frozenset(("streaming", "conversation", "user", "team", "agent", "tool", "text_cache_read"))
_SAME = frozenset(
    (
        "operation",
        "provider",
        "request_model",
        "response_model",
        "server",
        "service_tier",
        "error_type",
        "status_word",
        "http_status",
    )
)
_DIFFERENT = {
    **dict.fromkeys(COUNTS, COUNT),
    **dict.fromkeys(("ttft_seconds", "ttft_millis"), SECONDS),
    "response_id": IDENTITY,
}
_KEY, _VALUE, _TEXT, _INTEGER, _DOUBLE = b"\n\x12\n\x18!"  # protobuf tags of KeyValue and AnyValue
_double = struct.Struct("<d").unpack_from
_FIXED64, _INT32, _STRING, _BYTES = 6, 5, 9, 12
_slim = slim_schema(
    "collector.llm_call",
    {
        "Span": [
            ("trace_id", 1, _BYTES, False), ("span_id", 2, _BYTES, False), ("parent_span_id", 4, _BYTES, False),
            ("name", 5, _STRING, False), ("start", 7, _FIXED64, False), ("end", 8, _FIXED64, False),
            ("attributes", 9, _BYTES, True), ("status", 15, "Status", False),
        ],
        "Status": [("code", 3, _INT32, False)],
    },
)  # fmt: skip
decode = _slim["Span"].FromString
"""A span whose attributes stay encoded. Raises protobuf's DecodeError."""

Shape = tuple[object, ...]
Reading = tuple[Shape, list[int], str | None, float | None]
"""Shape, token counts in the order they were written, response id, time to the first token as it was written."""


def kinds(names: Mapping[str, Sequence[tuple[str, int, Path_]]], labels: Collection[str]) -> dict[str, int]:
    """What to do with each attribute name; names that nobody asks for are left out. `labels`: the fields used as labels."""
    found = {}
    for name, targets in names.items():
        read = [(field, path) for field, _, path in targets if field in labels or field not in _UNREAD]
        ways = {
            SAME if field in labels or field in _SAME else INTRICATE if path else _DIFFERENT.get(field, INTRICATE)
            for field, path in read
        }
        if ways:
            found[name] = ways.pop() if len(ways) == 1 else INTRICATE
    return found


def encoded_names(found: Mapping[str, int]) -> dict[bytes, int]:
    """The same by encoded name; one of 128 bytes or more is never plain."""
    names = {name.encode(): kind for name, kind in found.items()}
    return {bytes((_KEY, len(name))) + name: kind for name, kind in names.items() if len(name) < 128}


def read(span: Any, origin: Origin, kind_of: Callable[[bytes], int | None]) -> Reading | None:
    """One span from `decode`; None when it must be read the thorough way."""
    parts: list[object] = [origin, span.status.code, span.name if origin.named else ""]
    counts: list[int] = []
    identity: str | None = None
    first: float | None = None
    try:
        for raw in span.attributes:
            size = raw[1] + 2
            name = raw[:size]
            kind = kind_of(name)
            if kind is None:
                if raw[0] != _KEY or size >= 130:
                    return None
            elif kind == SAME:
                parts.append(raw)
            elif kind == COUNT:
                number = _count(raw[size:])
                if number < 0:
                    return None
                counts.append(number)
                parts.append(name)
            elif kind == INTRICATE or raw[size] != _VALUE or raw[size + 1] != len(raw) - size - 2:
                return None
            elif kind == IDENTITY and identity is None:
                identity = _text(raw, size + 2)
            elif kind == SECONDS and first is None and raw[size + 1] == 9 and raw[size + 2] == _DOUBLE:
                first = _double(raw, size + 3)[0]
                parts.append(name)
            else:
                return None
    except (IndexError, UnicodeDecodeError):
        return None
    if identity == "" or (first is not None and not 0 < first < 1e9):
        return None
    return tuple(parts), counts, identity, first


def _count(value: bytes) -> int:
    """The integer in an encoded value field, -1 when it is none or no token count."""
    size = len(value)
    if value[0] != _VALUE or value[1] != size - 2 or value[2] != _INTEGER:
        return -1
    if size == 5 and value[3] > 127 > value[4]:  # 128 to 16383, as most counts are
        return value[3] & 127 | value[4] << 7
    number, shift, byte = 0, 0, 128
    for byte in value[3:]:
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return number if byte < 128 and 4 + shift // 7 == size and number <= LIMIT else -1


def _text(raw: bytes, at: int) -> str:
    """The text of an AnyValue that starts there, empty when it is none."""
    return raw[at + 2 :].decode().strip() if raw[at] == _TEXT and raw[at + 1] == len(raw) - at - 2 else ""
