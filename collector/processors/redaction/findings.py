"""Findings of one text: which of them count, which one speaks for several that overlap, and how they are replaced."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from collector.processors.redaction.actions import CHECKSUM, DETECT_ONLY, Rule
from collector.processors.redaction.finders import Span
from collector.processors.redaction.json_text import number_around

_IDS = re.compile(r"(?<![A-Za-z0-9])(?:call|toolu|chatcmpl|msg|resp|run|fc)[_\-][A-Za-z0-9]+(?![_\-])", re.A)


class Finding(NamedTuple):
    """One span of a text; `quote`: its replacement must become a quoted JSON string; `value`: its decoded form if escaped."""

    start: int
    end: int
    rule: Rule
    quote: str | None = None
    value: str | None = None


def counted(found: list[Finding], text: str, markers: list[Span]) -> list[Finding]:
    """Without those that are markers of our own, parts of a call's or message's id, or the host behind a password."""
    passwords, exempt = set[int](), False
    for finding in found:
        if finding.rule.rank >= CHECKSUM:
            exempt = True
        elif finding.rule.name == "url_credentials":
            passwords.add(finding.end)
    ids = [m.span() for m in _IDS.finditer(text)] if exempt and ("_" in text or "-" in text) else []
    return [f for f in found if not _exempt(f, text, markers, ids, passwords)]


def clusters(found: list[Finding], text: str) -> list[Finding]:
    """What to replace, in order: overlapping findings go as a whole under the lowest rank, the longest, the leftmost."""
    found = [f for f in found if f.rule.action != DETECT_ONLY]
    if len(found) < 2:
        return found
    groups: list[list[Finding]] = []
    reach = 0
    for finding in sorted(found, key=lambda f: (f.start, -f.end)):
        if groups and finding.start < reach:
            groups[-1].append(finding)
        else:
            groups.append([finding])
        reach = max(reach, finding.end)
    return [_winner(cluster, text) for cluster in groups]


def _winner(cluster: list[Finding], text: str) -> Finding:
    best = min(cluster, key=lambda f: (f.rule.rank, f.start - f.end, f.start))
    if len(cluster) == 1:
        return best
    value = text[best.start : best.end] if best.value is None else best.value
    return Finding(min(f.start for f in cluster), max(f.end for f in cluster), best.rule, best.quote, value)


def _exempt(finding: Finding, text: str, markers: list[Span], ids: list[Span], passwords: set[int]) -> bool:
    if markers and _inside(markers, finding.start, finding.end):
        return True
    if ids and finding.rule.rank >= CHECKSUM and _inside(ids, finding.start, finding.end):
        return True
    # what follows a password is the host, not the domain of an e-mail address
    return bool(passwords) and finding.rule.name == "email" and text.find("@", finding.start, finding.end) in passwords


def _inside(spans: list[Span], start: int, end: int) -> bool:
    position = bisect_right(spans, (start, len(spans) + end)) - 1
    return position >= 0 and end <= spans[position][1]


def with_numbers(text: str, findings: list[Finding]) -> list[Finding]:
    """The same for a JSON text: half of a number cannot be replaced, so a finding takes the rest of its number along."""
    out: list[Finding] = []
    for finding in findings:
        start, end = number_around(text, finding.start, finding.end)
        if not out or start >= out[-1].end:
            out.append(finding._replace(start=start, end=end))
    return out


def spliced(text: str, findings: list[Finding], texts: list[str], quotes: Sequence[str]) -> str:
    """The text with each finding replaced by its quoted text; findings in order, none overlapping."""
    if len(findings) == 1:
        (finding,), (token,), (quote,) = findings, texts, quotes
        return f"{text[: finding.start]}{quote}{token}{quote}{text[finding.end :]}"
    parts, position = [], 0
    for finding, token, quote in zip(findings, texts, quotes, strict=True):
        parts += [text[position : finding.start], quote, token, quote]
        position = finding.end
    return "".join([*parts, text[position:]])
