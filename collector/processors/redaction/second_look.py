"""A second look at marked spans and log records, without their ids, times and flags: random bytes in them look like anything.

Decoding an item and walking its attributes costs fifty times what this look costs, so it also finds the fields to decode. Where
the ends of all matches are known they tell, for what is found in a text ends in its field; else the fields are searched again.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import reduce
from operator import or_
from typing import NamedTuple

from collector.errors import Malformed
from collector.model import Signal
from collector.otlp import plain
from collector.otlp.scan import Hits, Scanner
from collector.otlp.walk import fields

_LARGE = 1 << 14
"""Larger items are hardly ever marked because of their ids alone."""
_NUMBERS = {Signal.TRACES: 1, Signal.LOGS: 2}
_NO_TEXT: dict[Signal, frozenset[tuple[int, int, int]]] = {
    # (field number, wire type, size): ids, times, flags
    Signal.TRACES: frozenset(((1, 2, 16), (2, 2, 8), (4, 2, 8), (7, 1, 0), (8, 1, 0), (16, 5, 0))),
    Signal.LOGS: frozenset(((9, 2, 16), (10, 2, 8), (1, 1, 0), (11, 1, 0), (8, 5, 0))),
}


class Parted(NamedTuple):
    """An item in parts that joined are all of it; `marks`: place of a part -> patterns found in it."""

    parts: list[bytes]
    marks: dict[int, int]


def textual(item: bytes, signal: Signal) -> bytes:
    """The item without what can hold no text: ids of the right size, times and flags; the item itself when malformed."""
    no_text, kept, begun = _NO_TEXT[signal], list[bytes](), 0
    try:
        for number, begin, content, end in fields(item, 0, len(item)):
            if (number, item[begin] & 7, end - content) in no_text:
                kept.append(item[begun:begin])
                begun = end
    except Malformed:
        return item
    return b"\n".join([*kept, item[begun:]])


def parted(item: bytes, signal: Signal) -> list[bytes] | None:
    """The item in parts, every second one a field that holds text; None when it is not plain, or nobody can tell."""
    parts: list[bytes] | None = None if plain.compiled is None else plain.compiled.parts(_NUMBERS[signal], item)
    return parts


def cut(item: bytes, signal: Signal, ends: list[tuple[int, int]]) -> Parted | None:
    """The item in parts around the fields of text in which a match ends; None when it is not plain, or nobody can tell."""
    found = None if plain.compiled is None else plain.compiled.cut(_NUMBERS[signal], item, ends)
    return None if found is None else Parted(*found)


def narrowed(hits: Hits, items: list[bytes], signal: Signal, scanner: Scanner, max_hits: int) -> dict[int, Parted]:
    """Take away the marks of items that only ids, times and flags had caused; marked items in parts. Raises scan.EngineFailed."""
    if signal not in _NO_TEXT or not hits.marks:
        return {}
    found, unknown = dict[int, Parted](), list[int]()
    for position in sorted(hits.marks.keys() - hits.floods):
        if position >= len(items):
            break
        item = items[position]
        if len(item) > _LARGE:
            continue
        known = cut(item, signal, ends) if (ends := hits.ends.get(position)) else None
        if known is None:
            unknown.append(position)
        elif known.marks:
            found[position] = known
            hits.marks[position] = reduce(or_, known.marks.values())
        else:
            del hits.marks[position]
    return found | _searched(hits, items, signal, scanner, max_hits, unknown) if unknown else found


def _searched(
    hits: Hits, items: list[bytes], signal: Signal, scanner: Scanner, max_hits: int, positions: list[int]
) -> dict[int, Parted]:
    """As `narrowed`, for the items at `positions`, by searching the text in them again."""
    texts, ends, in_parts = list[bytes](), list[int](), dict[int, list[bytes]]()
    for position in positions:
        parts = parted(items[position], signal)
        if parts is None:
            texts.append(textual(items[position], signal))
        else:
            texts += parts[1::2]
            in_parts[position] = parts
        ends.append(len(texts))
    again, found = scanner.scan(texts, max_hits), dict[int, Parted]()
    for position in positions:
        del hits.marks[position]
    for index in sorted(again.marks):
        owner = bisect_right(ends, index)
        position, mask = positions[owner], again.marks[index]
        hits.marks[position] = hits.marks.get(position, 0) | mask
        if index in again.floods:
            hits.floods.add(position)
        if position in in_parts:
            place = 2 * (index - (ends[owner - 1] if owner else 0)) + 1
            found.setdefault(position, Parted(in_parts[position], {})).marks[place] = mask
    return found
