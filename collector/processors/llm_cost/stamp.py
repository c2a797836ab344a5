"""Writing to a span: encoded attributes are appended to its bytes; it is encoded anew only to replace a placeholder."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

_pack = struct.Struct("<d").pack
WRITTEN = (
    "gen_ai.usage.cost", "llm.cost_usd", "llm.cost.source", "llm.cost.currency", "llm.cost.model", "llm.cost.price_version",
    "gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency", "gen_ai.usage.cost.source", "llm.cost.total", "llm.cost.prompt",
    "llm.cost.completion", "llm.cost.input", "llm.cost.output", "llm.cost.cache_read", "llm.cost.cache_write",
    "llm.cost.partial", "llm.cost.partial_units", "llm.cost.rollup",
)  # fmt: skip
"""Every attribute this processor may write."""


@lru_cache(256)
def double_prefix(name: str) -> bytes:
    """The encoded attribute up to its double: 8 bytes of little-endian IEEE 754 follow."""
    span = Span()
    entry = span.attributes.add(key=name)
    entry.value.double_value = 1.0
    return span.SerializeToString()[:-8]


@lru_cache(4096)
def constant(pairs: tuple[tuple[str, str | bool], ...]) -> bytes:
    """Encoded attributes of texts and flags."""
    span = Span()
    for name, value in pairs:
        entry = span.attributes.add(key=name)
        if isinstance(value, bool):
            entry.value.bool_value = value
        else:
            entry.value.string_value = value
    return span.SerializeToString()


@lru_cache(64)
def _count_prefix(name: str, size: int) -> bytes:
    span = Span()
    entry = span.attributes.add(key=name)
    entry.value.int_value = 1 << 7 * (size - 1)
    return span.SerializeToString()[:-size]


def count(name: str, value: int) -> bytes:
    """An encoded attribute of a token count."""
    digits = bytearray()
    rest = value
    while rest > 127:
        digits.append(rest & 127 | 128)
        rest >>= 7
    digits.append(rest)
    return _count_prefix(name, len(digits)) + digits


ROLLUP = constant((("llm.cost.rollup", True),))
"""What marks a span whose usage was counted elsewhere."""


def double(value: float) -> bytes:
    """An amount as it is written: 12 significant digits."""
    return _pack(float("%.12g" % value))  # noqa: UP031 - faster than an f-string


def amounts(values: Mapping[str, float]) -> bytes:
    """Encoded attributes of amounts."""
    return b"".join([double_prefix(name) + double(value) for name, value in values.items()])


def without(span: Any, names: Collection[str]) -> bytes:
    """The span's bytes without these attributes; unknown fields stay."""
    kept = [entry for entry in span.attributes if entry.key not in names]
    copy = Span()
    copy.CopyFrom(span)
    del copy.attributes[:]
    copy.attributes.extend(kept)
    return copy.SerializeToString()
