"""The shape of a span: the names it uses and the words under them. Spans of one shape differ in counts, ids and times only.

A shape is read from the encoded attributes without asking what they mean; `plans.py` finds that out once per shape.
What is not plainly written (a number as text, an earlier cost, unusual encodings) has no shape and is read the thorough way.
Attributes that nobody asks for are not even checked: broken UTF-8 in a prompt does not keep a repeated call from being counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from collector.model import slim_schema
from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.dialects import Path_
from collector.processors.llm_cost.usage import COUNTS

SAME, COUNT, SECONDS, IDENTITY, THERE, INTRICATE = range(6)
"""What to do with an attribute: it is part of the shape as it stands, or one of the things that differ, or its name alone is part
of the shape, or it rules a shape out."""
_UNREAD = frozenset(("streaming", "conversation", "user", "team", "agent", "text_cache_read", "latency_millis"))
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
        "agent_name",
        "tool",
        "entity",
    )
)
_DIFFERENT = {
    **dict.fromkeys(COUNTS, COUNT),
    **dict.fromkeys(("ttft_seconds", "ttft_millis"), SECONDS),
    "response_id": IDENTITY,
}
_THERE = frozenset((("agent_name", "gen_ai.agent.name"), ("tool", "gen_ai.tool.name")))
"""Fields and names that nobody reads; but where they are they are not added."""
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

Shape = tuple[Origin, int, str, tuple[bytes, ...], tuple[bytes, ...]] | tuple[Origin, bytes]
"""Origin, status, name of the span where it matters, names of what differs or is only there, attributes that are the same. The
walker puts all but the origin into one bytes object."""
Reading = tuple[Shape, Sequence[int], str | None, float | None]
"""Shape, token counts in the order they were written, response id, time to the first token as it was written."""
Row = tuple[int, int, bytes, bytes, bytes, bytes, tuple[int, ...], str | None, float | None]
"""A span as the walker reads it: end, start, own, parent (as in Seen), trace id, shape without origin, rest of the Reading."""


def kinds(names: Mapping[str, Sequence[tuple[str, int, Path_]]], labels: Collection[str]) -> dict[str, int]:
    """What to do with each attribute name; names that nobody asks for are left out. `labels`: the fields used as labels."""
    found = {}
    for name, targets in names.items():
        read = [(field, path) for field, _, path in targets if field in labels or field not in _UNREAD]
        ways = {_way(name, field, bool(path), labels) for field, path in read}
        if ways:
            found[name] = SAME if ways == {SAME, THERE} else ways.pop() if len(ways) == 1 else INTRICATE
    return found


def _way(name: str, field: str, inside: bool, labels: Collection[str]) -> int:
    if field in labels:
        return SAME
    if (field, name) in _THERE:
        return THERE
    if field in _SAME:
        return SAME
    return INTRICATE if inside else _DIFFERENT.get(field, INTRICATE)
