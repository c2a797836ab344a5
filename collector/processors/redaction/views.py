"""Decoded views of escaped text: percent-encoding and JSON escapes, with a way back to the raw offsets."""

from __future__ import annotations

import re
from bisect import bisect_right

GATE = re.compile(r"%(?:40|2[5BbDd]|3[ADad])|\d%20\d|\\u00[2-7][0-9A-Fa-f]|\\/", re.A)
"""A text without any of these has no view; the same bytes are in the prefilter."""
_ESCAPE = re.compile(r"%([2-7][0-9A-Fa-f])|\\+u00([2-7][0-9A-Fa-f])|\\+(/)")


class TooDeep(Exception):
    """Still escaped after two decodings."""


class View:
    """`text` is the decoded form; `raw(start, end)` gives the span of the original that a span of it stands for."""

    def __init__(self, raw: str) -> None:
        parts, position, length = [], 0, 0
        self._at: list[int] = []
        self._from: list[tuple[int, int]] = []
        for match in _ESCAPE.finditer(raw):
            parts += [raw[position : match.start()], chr(int(match[1] or match[2], 16)) if not match[3] else "/"]
            length += match.start() - position
            self._at.append(length)
            self._from.append(match.span())
            length, position = length + 1, match.end()
        parts.append(raw[position:])
        self.text = "".join(parts)

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in the original; an escape is inside as a whole or not at all."""
        return self._character(start)[0], self._character(end - 1)[1]

    def _character(self, position: int) -> tuple[int, int]:
        index = bisect_right(self._at, position) - 1
        if index < 0:
            return position, position + 1
        low, high = self._from[index]
        beyond = position - self._at[index]
        return (low, high) if beyond == 0 else (high + beyond - 1, high + beyond)


def views(text: str) -> list[tuple[str, list[View]]]:
    """The decoded forms of `text` (none, one or two) with the views that lead back. Raises TooDeep."""
    found: list[tuple[str, list[View]]] = []
    chain: list[View] = []
    while GATE.search(text):
        if len(chain) == 2:
            raise TooDeep
        chain = [*chain, View(text)]
        text = chain[-1].text
        found.append((text, chain))
    return found


def back(chain: list[View], start: int, end: int) -> tuple[int, int]:
    """Raw offsets of a span of the last view of the chain."""
    for view in reversed(chain):
        start, end = view.raw(start, end)
    return start, end
