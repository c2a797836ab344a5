"""Byte patterns of numbers that may be personal, and the compiled search for them: a tenth of what a regex engine needs.

Their first byte may be any digit or capital, so an engine for many patterns goes through all bytes for each of them. Where the
search in `_numbers.c` is built it takes exactly these patterns over; each has a table there that says the same. Elsewhere they
are patterns like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from collector.compiled import compiled_module

CARD = rb"[2-6]\d{3}[ \-]?\d{4}[ \-]?\d{3}[ \-]?\d|3\d{3}[ \-]\d{6}[ \-]\d{4}"
PHONE = rb"\+[1-9][ .\-()]{0,2}\d[ .\-()]{0,2}\d[ .\-()]{0,2}\d[ .\-()]{0,2}\d|[2-9]\d\d(?:\) ?|[ .\-])[2-9]\d\d[ .\-]\d{4}"
SSN = rb"\d{3}[ \-]\d\d[ \-]\d{4}"
IBAN = rb"[A-Z]{2}\d\d[ \-]?[A-Z0-9]{4}[ \-]?[A-Z0-9]{4}[ \-]?[A-Z0-9]{3}"
INT64 = rb"\x18[\x80-\xff]{5,9}[\x00-\x7f]"
"""The value of an AnyValue that is an integer of at least 2^35, also where it is written longer than it need be."""
DOUBLE = rb"\x21[\x00-\xff]{6}[\x00-\xff][\x42\x43\xc2\xc3]"
"""The value of an AnyValue that is a double as large as a card's number, of either sign."""
KINDS = (CARD, PHONE, SSN, IBAN, INT64, DOUBLE)
"""In the order of the C module."""

compiled = compiled_module("otlp._numbers")
"""The C module; None where it is not in use."""


def searcher(patterns: Sequence[bytes]) -> Callable[[bytes, int], list[tuple[int, int, int]]] | None:
    """(position in `patterns`, start, end) of every match of those that are numbers; None where no such search is in use.

    The second argument of the search is a limit: one match more than that is the most it gives. None, too, when all patterns are
    numbers: the engine beside it needs some.
    """
    if compiled is None or not set(KINDS) & set(patterns) or set(patterns) <= set(KINDS):
        return None
    search = compiled.search
    names = tuple(patterns.index(kind) if kind in patterns else None for kind in KINDS)

    def find(data: bytes, limit: int) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = search(data, names, limit)
        return found

    return find
