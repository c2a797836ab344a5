"""JSON inside strings, edited in place: members by key, bare numbers, and the check that what parsed still parses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

_MEMBER = re.compile(r'(\\*")([^"\\\x00-\x1f]{1,128})\1[ \t\r\n]{0,8}:[ \t\r\n]{0,8}')
_QUOTES = re.compile(r'\\*"')
_SCALAR = re.compile(r"[^\s,\]}\"\\]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PARTS = frozenset("0123456789.eE+-")
_LONGEST = 32  # characters of a number beside a finding
_EMPTY = frozenset(("null", "true", "false"))


def members(text: str, wanted: Callable[[str], bool]) -> Iterator[tuple[int, int, str | None]]:
    """(start, end, quote) of the value of every member whose key is wanted, at any depth of JSON in JSON, truncated or not.

    A string's span is its content (quote None); for another value the quote that must surround its replacement.
    """
    reach = 0
    for match in _MEMBER.finditer(text):
        if match.start() < reach or not wanted(match[2]):
            continue
        start, quote = match.end(), match[1]
        if text.startswith(quote, start):
            start += len(quote)
            reach = string_end(text, start, len(quote) - 1)
            if reach > start:
                yield start, reach, None
        elif text[start : start + 1] in ("{", "["):
            reach = _container_end(text, start, len(quote) - 1)
            yield start, reach, quote
        elif (scalar := _SCALAR.match(text, start)) and scalar[0] not in _EMPTY:
            reach = scalar.end()
            yield start, reach, quote


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


def bare_quotes(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The quote that the replacement of each span needs: where it is a bare number of a document, at any depth of JSON in JSON,
    the quote of that depth, elsewhere none. Spans in order.
    """
    found, open_strings, quotes = [], list[tuple[int, int]](), _QUOTES.finditer(text)
    quote = next(quotes, None)
    for start, end in spans:
        while quote is not None and quote.start() < start:
            _follow(open_strings, len(quote[0]) - 1, quote.end())
            quote = next(quotes, None)
        found.append(_quote_at(text, open_strings) if _is_bare(text, start, end) else "")
    return found


def _follow(open_strings: list[tuple[int, int]], slashes: int, content: int) -> None:
    for level in range(len(open_strings) - 1, -1, -1):
        depth = open_strings[level][0]
        if slashes >= depth and (slashes - depth) % (2 * (depth + 1)) == 0:
            del open_strings[level:]
            return
    open_strings.append((slashes, content))


def _quote_at(text: str, open_strings: list[tuple[int, int]]) -> str:
    if not open_strings:
        return '"'
    depth, content = open_strings[-1]
    embedded = text[content : content + 99].lstrip()[:1] in ("{", "[")
    return "\\" * (2 * depth + 1) + '"' if embedded else ""


def _is_bare(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 99) : start].rstrip()[-1:], text[end : end + 99].lstrip()[:1]
    return _NUMBER.fullmatch(text, start, end) is not None and before in (":", "[", ",") and after in (",", "]", "}")


def number_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole bare number that a span is a part of, such as one with a minus sign, else the span itself."""
    low, high = start, end
    while start - low < _LONGEST and text[low - 1 : low] in _PARTS:
        low -= 1
    while high - end < _LONGEST and text[high : high + 1] in _PARTS:
        high += 1
    return (low, high) if _is_bare(text, low, high) else (start, end)
