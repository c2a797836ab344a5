"""Encoded images and files inside text: where they are, and the text without their middle.

Numbers and names are not looked for in the middle of an unbroken run of base64 or hexadecimal digits, secrets and patterns of
users are. A run is cut only where nothing in it looks like the start of a card, an account, a phone number or a date that stands
between two separators of its alphabet, so that a list of them is never taken for an image.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ALPHABETS = (_LETTERS + "+/", _LETTERS + "-_")
_RUNS = tuple(re.compile(f"[A-Za-z0-9{rest}]*+") for rest in ("+/", r"\-_"))
_DATA = ";base64,"
_LEAST = 512
"""Shorter bodies behind `;base64,` are not worth a cut."""
_EDGE = 160
"""Longer than every finding of a number and the neighbourhood of its context words together."""
_JOINT = "a"
_SUSPECT = re.compile(
    r"[+/_\-](?:\d(?:\d{7}|\d{1,5}-\d{4}|\d?[/\-]\d{1,4}(?![A-Za-z0-9])|[0-9A-Fa-f]-[0-9A-Fa-f]{2}-)"
    r"|[A-Z](?:[A-Z]?\d{6}|[A-Z]\d\d[A-Z0-9]{11,30}(?![A-Za-z0-9])|[A-Z0-9]{3}-[A-Z0-9]{4}-)"
    r"|[a-fA-F][0-9A-Fa-f]-[0-9A-Fa-f]{2}-)",
    re.A,
)

Span = tuple[int, int]


def runs(text: str, least: int) -> list[Span]:
    """Unbroken runs of at least `least` characters of one base64 alphabet, and long bodies behind `;base64,`."""
    if len(text) < least and _DATA not in text:
        return []
    found = {span for alphabet, run in zip(_ALPHABETS, _RUNS, strict=True) for span in _long(text, least, alphabet, run)}
    position = text.find(_DATA)
    while position >= 0:
        start = position + len(_DATA)
        end = max(_end(run, text, start) for run in _RUNS)
        if end - start >= _LEAST:
            found.add((start, end))
        position = text.find(_DATA, max(end, start))
    return _disjoint(sorted(found))


def _long(text: str, least: int, alphabet: str, run: re.Pattern[str]) -> Iterator[Span]:
    position = 0
    while position + least <= len(text):
        window = text[position : position + least]
        kept = len(window.rstrip(alphabet))
        if kept:
            position += kept
            continue
        end = _end(run, text, position)
        yield position, end
        position = end + 1


def _end(run: re.Pattern[str], text: str, start: int) -> int:
    match = run.match(text, start)
    return match.end() if match else start


def _disjoint(spans: list[Span]) -> list[Span]:
    """Of overlapping runs (one of letters and digits alone belongs to both alphabets) the part beyond the earlier one."""
    result: list[Span] = []
    reach = 0
    for start, end in spans:
        if end > reach:
            result.append((max(start, reach), end))
            reach = end
    return result


class Cut:
    """`text` is the original without the middle of its blobs; `raw(start, end)` leads a span of it back."""

    def __init__(self, original: str, blobs: list[Span]) -> None:
        parts: list[str] = []
        self._at, self._from = [0], [0]
        position = length = 0
        for start, end in (gap for blob in blobs for gap in _gaps(original, *blob)):
            parts += [original[position:start], _JOINT]
            length += start - position + len(_JOINT)
            position = end
            self._at.append(length)
            self._from.append(position)
        self.text = "".join([*parts, original[position:]])

    def raw(self, start: int, end: int) -> Span | None:
        """Offsets in the original; None for a span over a joint, which is none of the original's."""
        if bisect_right(self._at, start) != bisect_right(self._at, end + len(_JOINT) - 1):
            return None
        return self.across(start, end)

    def across(self, start: int, end: int) -> Span:
        """Offsets in the original of a span that may hold whole blobs, neither end within a joint."""
        return self._original(start), self._original(end)

    def _original(self, position: int) -> int:
        piece = bisect_right(self._at, position) - 1
        return position + self._from[piece] - self._at[piece]


def _gaps(text: str, start: int, end: int) -> Iterator[Span]:
    """What may be cut out of one run: neither its edges nor the neighbourhood of anything suspicious."""
    low, match = start + _EDGE, _SUSPECT.search(text, start, end)
    while match:
        if match.start() - _EDGE > low:
            yield low, match.start() - _EDGE
        low = max(low, match.end() + _EDGE)
        match = _SUSPECT.search(text, match.end(), end)
    if end - _EDGE > low:
        yield low, end - _EDGE
