"""Context words: types whose form alone proves nothing count only near a word such as `phone` or `passport`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

CONTEXT_REACH = 30
WINDOW = 60
"""Longer than anything that is found by context, so that the cut of a neighbourhood never looks like a boundary."""
MANY_WORDS = 200
"""With more context words the text is searched once instead of around each of them."""

_QUICK = {
    "us_ssn": ("ssn", "social"),
    "phone": ("phone", "mobile", "fax", "tel"),
    "uk_nhs": ("nhs",),
    "passport": ("passport",),
    "dob": ("dob", "of birth", "born", "birth"),
    "uk_nino": ("nino", "national"),
    "iban": ("iban",),
}
CONTEXT = {
    "us_ssn": r"ssn|social.?security",
    "phone": r"phone|mobile|fax|tel(?=[^A-Za-z])",
    "uk_nhs": r"nhs",
    "passport": r"passport",
    "dob": r"dob|of birth|born|birth.?da(?:te|y)",
    "uk_nino": r"nino|national.insurance",
    "iban": r"iban",
}
_WORDS = {name: re.compile(rf"(?<![A-Za-z])(?:{words})", re.I | re.A) for name, words in CONTEXT.items()}


@lru_cache(2048)
def _in_key(name: str, key: str) -> bool:
    return bool(_WORDS[name].search(key + "."))


@lru_cache(2048)
def names_person(key: str) -> bool:
    """Whether the last part of a key is a context word of some type: `customer.phone`, `nhs_number`."""
    return any(_in_key(name, key.rpartition(".")[2]) for name in CONTEXT)


def _words(name: str, text: str) -> Iterator[re.Match[str]]:
    return matches(_WORDS[name], _QUICK[name], text)


def matches(pattern: re.Pattern[str], words: Iterable[str], text: str) -> Iterator[re.Match[str]]:
    """What `pattern.finditer` gives for a pattern whose every match starts with one of `words` (lower case), found by words."""
    lower = text.replace("\u0130", "?").lower()  # the only letter whose lower case is longer
    reach = 0
    for start in sorted({start for word in words for start in _places(word, lower)}):
        if start >= reach and (match := pattern.match(text, start)):
            reach = match.end()
            yield match


def _places(word: str, text: str) -> Iterator[int]:
    position = text.find(word)
    while position >= 0:
        yield position
        position = text.find(word, position + 1)


def is_near(name: str, text: str, key: str, start: int, end: int) -> bool:
    """Whether a context word stands in the key or within 30 characters of the span."""
    if _in_key(name, key):
        return True
    low, high = max(0, start - CONTEXT_REACH), end + CONTEXT_REACH
    return any(low <= match.start() and match.end() <= high for match in _WORDS[name].finditer(text, low, high))


def with_context(name: str, pattern: re.Pattern[str], text: str, key: str) -> Iterator[tuple[int, int]]:
    """Matches near a context word; only the neighbourhood of the words is searched unless the key holds one."""
    if _in_key(name, key):
        yield from (match.span() for match in pattern.finditer(text))
        return
    words = list(_words(name, text))
    if len(words) > MANY_WORDS:
        yield from (match.span() for match in pattern.finditer(text) if is_near(name, text, key, *match.span()))
        return
    done = 0
    for word in words:
        low, high = max(done, word.start() - CONTEXT_REACH - WINDOW), word.end() + CONTEXT_REACH + WINDOW
        for match in pattern.finditer(text, low, high):
            if is_near(name, text, key, *match.span()):
                done = match.end()
                yield match.span()
