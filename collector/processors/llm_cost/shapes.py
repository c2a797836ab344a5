"""The shape of a span: the names it uses and the words under them. Spans of one shape differ in counts, ids and times only.

A shape is read in one pass without asking what it means; `plans.py` finds that out once per shape. Whatever is not plainly
written (a number as text, JSON, an earlier cost) has no shape and is read the thorough way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.dialects import Path_
from collector.processors.llm_cost.usage import COUNTS, LIMIT

WORD, CODE, COUNT, SECONDS, IDENTITY, INTRICATE = range(6)
_LONGEST = 256
_UNREAD = frozenset(("streaming", "conversation", "user", "team", "agent", "tool", "text_cache_read"))
_KINDS = {
    **dict.fromkeys(("operation", "provider", "request_model", "response_model", "server", "service_tier"), WORD),
    **dict.fromkeys(("error_type", "status_word"), WORD),
    **dict.fromkeys(COUNTS, COUNT),
    **dict.fromkeys(("ttft_seconds", "ttft_millis"), SECONDS),
    "http_status": CODE,
    "response_id": IDENTITY,
}

Shape = tuple[object, ...]
Reading = tuple[Shape, list[int], str | None, float | None]
"""Shape, token counts in the order they were written, response id, time to the first token as it was written."""


def kinds(names: Mapping[str, Sequence[tuple[str, int, Path_]]], labels: Collection[str]) -> dict[str, int]:
    """What to do with each attribute name; names that nobody asks for are left out. `labels`: the fields used as labels."""
    found = {}
    for name, targets in names.items():
        read = [(field, path) for field, _, path in targets if field in labels or field not in _UNREAD]
        ways = {INTRICATE if path else WORD if field in labels else _KINDS.get(field, INTRICATE) for field, path in read}
        if ways:
            found[name] = ways.pop() if len(ways) == 1 else INTRICATE
    return found


def read(span: Any, origin: Origin, kind_of: Callable[[str], int | None]) -> Reading | None:
    """One decoded span; None when it must be read the thorough way."""
    parts: list[object] = [origin, span.status.code, span.name if origin.named else ""]
    counts: list[int] = []
    identity: str | None = None
    first: float | None = None
    for entry in span.attributes:
        key = entry.key
        kind = kind_of(key)
        if kind is None:
            continue
        value = entry.value
        if kind == COUNT:
            number = value.int_value
            if number > LIMIT or number < 0 or (number == 0 and not value.HasField("int_value")):
                return None
            counts.append(number)
            parts.append(key)
        elif kind == WORD:
            word = value.string_value
            if not word or len(word) > _LONGEST:
                return None
            parts += (key, word)
        elif kind == IDENTITY and identity is None:
            identity = value.string_value.strip()
            if not identity:
                return None
        elif kind == SECONDS and first is None:
            first = value.double_value
            if not 0 < first < 1e9:
                return None
            parts.append(key)
        elif kind == CODE and value.int_value > 0:
            parts += (key, value.int_value)
        else:
            return None
    return tuple(parts), counts, identity, first
