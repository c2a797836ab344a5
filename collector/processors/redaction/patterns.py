"""Patterns that users write: RE2 syntax, verified by RE2, so that no pattern can backtrack.

Each gets a byte form for the prefilter that matches at least wherever the pattern does; where the text of the pattern does not
tell that, every item is looked into instead (dearer, never wrong).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from collector.processors.redaction.context import CONTEXT_REACH
from collector.processors.redaction.finders import Finder, Span

_TOKEN = re.compile(
    r"(?P<assertion>\\[bBA]|\^|\$)"
    r"|(?P<group>\(\?:|\(\?P<\w+>|\((?!\?)|\)|\|)"
    r"|(?P<wide>\.|\[\^(?:\\.|[^\]\\])+\]|\\[DSW])(?P<open>[*+])?\??"
    r"|(?P<plain>\[(?:\\[dsw.\-\]\[\\^/]|[^\]\\\[])+\]|\\[dsw]|\\[^A-Za-z0-9]|[^\\\[\](){}|.^$*+?])"
    r"|(?P<repeat>[*+?]|\{\d+(?:,\d*)?\})\??"
)


def compiled(pattern: str) -> Any:
    """The RE2 pattern. Raises ValueError for what a linear engine does not support and for what matches the empty string."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options)  # type: ignore[no-untyped-call]
    except re2.error as error:
        detail = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"pattern {pattern!r}: {detail} (RE2 syntax: no look-around, no back-references)") from None
    if found.search("") is not None:
        raise ValueError(f"pattern {pattern!r} matches the empty string")
    return found


def byte_form(pattern: str) -> bytes | None:
    """A wider pattern over UTF-8 bytes without assertions; None when every item has to be looked into."""
    folded = pattern.startswith("(?i)")
    body = pattern[4:] if folded else pattern
    if not body.isascii() or (folded and re.search("[ks]", body, re.I)):  # U+212A and U+017F fold to k and s
        return None
    body = re.sub(r"^\^?\.[*+]|(?<!\\)\.[*+]\$?$", "", body)
    parts, position = [], 0
    while position < len(body):
        token = _TOKEN.match(body, position)
        if token is None or (token["wide"] and not token["open"]):
            return None  # one character may be four bytes
        if token["group"]:
            parts.append("(?:" if token["group"].startswith("(") else token["group"])
        elif not token["assertion"]:
            parts.append(
                "[\\x00-\\xff]" + token["open"] if token["wide"] == "." else token[0].rstrip("?") if token["wide"] else token[0]
            )
        position = token.end()
    if parts and parts[-1].endswith("+") and parts[-1] != "\\+":
        parts[-1] = parts[-1][:-1]  # one is enough to mark the item, and each further one would be a hit of its own
    form = f"(?i:{''.join(parts)})" if folded else "".join(parts)
    try:
        usable = re.compile(form.encode()).match(b"") is None
    except re.error:
        return None
    return form.encode() if usable else None


def pattern_finder(patterns: Sequence[Any], context: Sequence[str] = (), allowed: Sequence[Any] = ()) -> Finder:
    """Matches of RE2 patterns, near one of the `context` words if there are any, but those that an `allowed` match covers."""
    words = re.compile("|".join(map(re.escape, context)), re.I) if context else None

    def find(text: str, key: str) -> Iterator[Span]:
        safe = text if text.isascii() else text.encode("utf-8", "replace").decode()
        keep = [match.span() for pattern in allowed for match in pattern.finditer(safe)]
        for pattern in patterns:
            for match in pattern.finditer(safe):
                start, end = match.span()
                near = (
                    words is None or words.search(key) or words.search(safe, max(0, start - CONTEXT_REACH), end + CONTEXT_REACH)
                )
                if start < end and near and not any(low <= start and end <= high for low, high in keep):
                    yield start, end

    return find


def key_matcher(patterns: Sequence[Any]) -> Callable[[str], bool]:
    """Whether a key matches one of the RE2 patterns."""
    return lambda key: any(pattern.search(key) is not None for pattern in patterns)
