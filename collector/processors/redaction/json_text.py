"""JSON inside strings, edited in place: members by key, bare numbers, and the check that what parsed still parses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

_MEMBER = re.compile(r'(\\*")([^"\\\x00-\x1f]{1,128})\1[ \t\r\n]{0,8}:[ \t\r\n]{0,8}')
_SCALAR = re.compile(r"[^\s,\]}\"\\]+")
_EMPTY = frozenset(("null", "true", "false"))


def members(text: str, wanted: Callable[[str], bool]) -> Iterator[tuple[int, int, str | None]]:
    """(start, end, quote) of the value of every member whose key is wanted, at any depth of JSON in JSON, truncated or not.

    A string's span is its content (quote None); for another value the quote that must surround its replacement.
    """
    for match in _MEMBER.finditer(text):
        if wanted(match[2]):
            start, quote = match.end(), match[1]
            if text.startswith(quote, start):
                start += len(quote)
                end = string_end(text, start, len(quote) - 1)
                if end > start:
                    yield start, end, None
            elif text[start : start + 1] in ("{", "["):
                yield start, _container_end(text, start, len(quote) - 1), quote
            elif (scalar := _SCALAR.match(text, start)) and scalar[0] not in _EMPTY:
                yield start, scalar.end(), quote


def string_end(text: str, start: int, depth: int) -> int:
    """Where the content of a string ends whose quotes carry `depth` backslashes; the end of the text when it was cut."""
    position = text.find('"', start)
    while position >= 0:
        run = position
        while run > start and text[run - 1] == "\\":
            run -= 1
        slashes = position - run
        if slashes < depth:
            return run  # the string around this one ends: this one was cut
        if (slashes - depth) % (2 * (depth + 1)) == 0:
            return position - depth
        position = text.find('"', position + 1)
    return len(text)


def _container_end(text: str, start: int, depth: int) -> int:
    level, position = 0, start
    while position < len(text):
        letter = text[position]
        if letter == '"':
            if _slashes(text, position) < depth:
                return position
            position = string_end(text, position + 1, depth) + depth
        elif letter in "{[":
            level += 1
        elif letter in "}]":
            level -= 1
            if not level:
                return position + 1
        position += 1
    return len(text)


def _slashes(text: str, position: int) -> int:
    run = position
    while run and text[run - 1] == "\\":
        run -= 1
    return position - run


def shape(text: str) -> int:
    """How many documents parse: the text itself and every string in it that starts like JSON; 0 when it does not parse."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    return 1 + _inner(value)


def _inner(value: object) -> int:
    if isinstance(value, str):
        return shape(value) if value.lstrip()[:1] in ("{", "[") else 0
    if isinstance(value, list):
        return sum(map(_inner, value))
    if isinstance(value, dict):
        return sum(map(_inner, value.values()))
    return 0


def bare_quote(text: str, start: int, end: int) -> str:
    """The quote that a replacement of `text[start:end]` needs: that of its neighbours where it is a bare number, else none."""
    before, after = text[max(0, start - 99) : start].rstrip()[-1:], text[end : end + 99].lstrip()[:1]
    if not text[start:end].isdigit() or before not in (":", "[", ",") or after not in (",", "]", "}"):
        return ""
    position = text.rfind('"', 0, start)
    return '"' if position < 0 else "\\" * _slashes(text, position) + '"'
