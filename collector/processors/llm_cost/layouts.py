"""Which attribute stands where in a span: learned once per sequence of names, so that no loop in Python runs over attributes.

Spans of one emitter have the same names in the same order. A layout says which attributes belong to the shape as they stand and
where the counts, the id and the time to the first token are; all are taken from their encoded form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from collector.otlp import plain
from collector.processors.llm_cost.call import Origin
from collector.processors.llm_cost.shapes import COUNT, IDENTITY, INTRICATE, SAME, SECONDS, THERE, Reading, Row
from collector.processors.llm_cost.usage import LIMIT

_KEY, _VALUE, _TEXT, _INTEGER, _DOUBLE = b"\n\x12\n\x18!"  # protobuf tags of KeyValue and AnyValue
_TWO_BYTES = bytes((_VALUE, 3, _INTEGER))
_SECONDS = bytes((_VALUE, 9, _DOUBLE))
_TEXTS = [bytes((_VALUE, size + 2, _TEXT, size)) for size in range(126)]
"""What stands before a text, by its length."""
_LAYOUTS, _WIDEST, _LONGEST = 128, 256, 16 << 10
"""Layouts remembered; how many names and bytes of names one of them has at most."""
_double = struct.Struct("<d").unpack_from
_starts = bytes.startswith
_Attributes = Sequence[bytes]
_Pick = Callable[[_Attributes], tuple[bytes, ...]]
_Place = tuple[int, bytes]
"""Position of an attribute and its encoded name."""


@dataclass(slots=True, eq=False)
class Layout:
    """What stands where in spans whose attributes have the same names in the same order."""

    same: _Pick
    """The attributes that are part of the shape as they stand."""
    unread: _Pick
    unread_names: tuple[bytes, ...]
    written: tuple[bytes, ...]
    """The names of counts and seconds, and of what is only there."""
    counts: list[_Place]
    """With each name, how a value of two bytes begins."""
    identity: _Place | None
    first: _Place | None

    def read(self, attributes: _Attributes, span: Any, origin: Origin) -> Reading | None:
        """What the span says; None when something that differs has another name or is not plainly written."""
        counts = []
        for place, head in self.counts:
            raw = attributes[place]
            if raw[:-2] == head and raw[-2] > 127 > raw[-1]:  # 128 to 16383, as most counts are
                counts.append(raw[-2] & 127 | raw[-1] << 7)
                continue
            number = _count(raw, head[: -len(_TWO_BYTES)])
            if number < 0:
                return None
            counts.append(number)
        identity = first = None
        if self.identity is not None:
            identity = _text(attributes[self.identity[0]], self.identity[1])
            if not identity:
                return None
        if self.first is not None:
            first = _seconds(attributes[self.first[0]], self.first[1])
            if not 0 < first < 1e9:
                return None
        name = span.name if origin.named else ""
        return (origin, span.status.code, name, self.written, self.same(attributes)), counts, identity, first


class Layouts:
    """Layouts by the names they hold for, and the last one of each origin and number of attributes."""

    def __init__(self, kinds: Mapping[str, int]) -> None:
        """`kinds`: what to do with each name. One of 128 bytes or more is never plain."""
        names = {name.encode(): kind for name, kind in kinds.items()}
        self._kinds = {bytes((_KEY, len(name))) + name: kind for name, kind in names.items() if len(name) < 128}
        self._rows: Any = None
        if plain.compiled is not None:
            self._rows = plain.compiled.Shapes(tuple([(name, kind) for name, kind in names.items() if name]))
        self._known: dict[tuple[bytes, ...], Layout | None] = {}
        self._last: dict[tuple[Origin, int], Layout] = {}

    def rows(self, items: list[bytes], positions: list[int], origin: Origin) -> Sequence[Row | None]:
        """What the walker reads from the items at these positions; None where `guess` and `read` must."""
        if self._rows is None:
            return [None] * len(positions)
        rows: list[Row | None] = self._rows.read(items, positions, origin.named)
        return rows

    def guess(self, attributes: _Attributes, span: Any, origin: Origin) -> Reading | None:
        """As `read`, by the layout of the span before it. True only if the shape is known: the names in it were not checked."""
        layout = self._last.get((origin, len(attributes)))
        if layout is None or not all(map(_starts, layout.unread(attributes), layout.unread_names)):
            return None
        return layout.read(attributes, span, origin)

    def read(self, attributes: _Attributes, span: Any, origin: Origin) -> Reading | None:
        """What the span says; None when it must be read the thorough way."""
        names = tuple([raw[: raw[1] + 2] if len(raw) > 1 else b"" for raw in attributes])
        if names in self._known:
            layout = self._known[names]
        else:
            layout = self._layout(names)
            if len(names) <= _WIDEST and sum(map(len, names)) <= _LONGEST:
                if len(self._known) >= _LAYOUTS:
                    self._known.clear()
                self._known[names] = layout
        if layout is None:
            return None
        if len(self._last) >= _LAYOUTS:
            self._last.clear()
        self._last[origin, len(names)] = layout
        return layout.read(attributes, span, origin)

    def _layout(self, names: tuple[bytes, ...]) -> Layout | None:
        """None when something in it is never plain, or stands twice."""
        if any(len(name) < 2 or name[0] != _KEY or len(name) != name[1] + 2 or name[1] > 127 for name in names):
            return None
        kinds = [self._kinds.get(name) for name in names]
        identities, firsts = _places(names, kinds, IDENTITY), _places(names, kinds, SECONDS)
        if INTRICATE in kinds or len(identities) > 1 or len(firsts) > 1:
            return None
        same = [place for place, kind in enumerate(kinds) if kind == SAME]
        unread = [place for place, kind in enumerate(kinds) if kind in (None, THERE)]
        return Layout(
            _picker(same), _picker(unread), tuple([names[place] for place in unread]),
            tuple([name for name, kind in zip(names, kinds, strict=True) if kind in (COUNT, SECONDS, THERE)]),
            [(place, name + _TWO_BYTES) for place, name in _places(names, kinds, COUNT)],
            identities[0] if identities else None, firsts[0] if firsts else None,
        )  # fmt: skip


def _places(names: tuple[bytes, ...], kinds: list[int | None], wanted: int) -> list[_Place]:
    return [(place, name) for place, (name, kind) in enumerate(zip(names, kinds, strict=True)) if kind == wanted]


def _picker(places: list[int]) -> _Pick:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda attributes: tuple([attributes[place] for place in places])


def _count(raw: bytes, name: bytes) -> int:
    """The integer in an attribute of that name, -1 when it is none or no token count."""
    at = len(name)
    size = len(raw) - at
    if not raw.startswith(name) or raw[at : at + 3] != bytes((_VALUE, size - 2 & 255, _INTEGER)):
        return -1
    number, shift, byte = 0, 0, 128
    for byte in raw[at + 3 :]:
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return number if byte < 128 and 4 + shift // 7 == size and number <= LIMIT else -1


def _text(raw: bytes, name: bytes) -> str:
    """The text in an attribute of that name, empty when it is none or longer than 125 bytes."""
    at = len(name) + 4
    size = len(raw) - at
    if not 0 <= size < len(_TEXTS) or not raw.startswith(name + _TEXTS[size]):
        return ""
    try:
        return raw[at:].decode().strip()
    except UnicodeDecodeError:
        return ""


def _seconds(raw: bytes, name: bytes) -> float:
    """The double in an attribute of that name, 0 when it is none."""
    at = len(name) + 3
    return float(_double(raw, at)[0]) if len(raw) == at + 8 and raw.startswith(name + _SECONDS) else 0.0
