"""A second look at marked spans and log records, without their ids, times and flags: random bytes in them look like anything.

Decoding an item and walking its attributes costs fifty times what this search costs.
"""

from __future__ import annotations

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


def textual(item: bytes, signal: Signal) -> bytes:
    """The item without what can hold no text: ids of the right size, times and flags; the item itself when malformed."""
    if plain.compiled is not None and (found := plain.compiled.textual(_NUMBERS[signal], item)) is not None:
        return bytes(found)
    no_text, kept, begun = _NO_TEXT[signal], list[bytes](), 0
    try:
        for number, begin, content, end in fields(item, 0, len(item)):
            if (number, item[begin] & 7, end - content) in no_text:
                kept.append(item[begun:begin])
                begun = end
    except Malformed:
        return item
    return b"\n".join([*kept, item[begun:]])


def narrowed(hits: Hits, items: list[bytes], signal: Signal, scanner: Scanner, max_hits: int) -> None:
    """Take away the marks of items that only ids, times and flags had caused. Raises scan.EngineFailed."""
    if signal not in _NO_TEXT or not hits.marks:
        return
    small = {position for position in hits.marks if position < len(items) and len(items[position]) <= _LARGE}
    positions = sorted(small - hits.floods)
    again = scanner.scan([textual(items[position], signal) for position in positions], max_hits)
    for index, position in enumerate(positions):
        if mask := again.marks.get(index, 0):
            hits.marks[position] = mask
        else:
            del hits.marks[position]
    hits.floods.update(positions[index] for index in again.floods)
