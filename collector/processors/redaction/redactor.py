"""Edits one text: all finders that are awake, overlaps resolved, one replacement from the end, JSON kept JSON.

A little longer than most files: what may skip a text or a key is read beside what it skips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from collector.otlp.scan import Scanner
from collector.processors.redaction import json_text
from collector.processors.redaction.actions import (
    DETECT_ONLY,
    DROP_ATTRIBUTE,
    DROP_RECORD,
    KEY_NAME,
    MASK,
    PSEUDONYM,
    Pseudonyms,
    Rule,
    marker,
    masked,
)
from collector.processors.redaction.blobs import Cut, runs
from collector.processors.redaction.finders import Span
from collector.processors.redaction.findings import Finding, clusters, counted, spliced, with_numbers
from collector.processors.redaction.keys import is_count, is_secret_key
from collector.processors.redaction.prefilter import Masks
from collector.processors.redaction.views import TooDeep, back, views

PASSES = 4
ESCAPES = ("%", "\\")
"""A text without any of these says what it says: there is no other view of it."""
_MASKS, _KEYS, _KEY = 256, 4096, 100
"""Masks and keys remembered, and the longest key."""
NARROW_HITS = 20_000


class DropAttribute(Exception):
    """A finding whose type says: remove the attribute."""


class DropRecord(Exception):
    """A finding whose type says: remove the span, log record or data point."""


@dataclass
class Report:
    """What happened: detections by (type, action), failures by reason; `budget` = bytes x types left, None without limit."""

    detections: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    budget: int | None = None
    flooded: bool = False


class Redactor:
    """The compiled meaning of a configuration; `text` and `label` are pure and safe in any thread."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        pseudonyms: Pseudonyms | None = None,
        exclude: Iterable[str] = (),
        force: Iterable[str] = (),
        blocked: Callable[[str], bool] | None = None,
        extra_patterns: dict[str, bytes] | None = None,
        blob_min: int = 4096,
    ) -> None:
        self.rules = tuple(rules)
        self.masks = Masks({rule.name: rule.groups for rule in rules}, extra_patterns)
        self._wakes = [(self.masks.wakes[rule.name], rule) for rule in self.rules]
        self._by_name = {rule.name: rule for rule in self.rules}
        self._marker = marker({rule.token for rule in self.rules}, self._by_name)
        self._marker_starts = {"[", "<"} | {rule.token[:1] for rule in self.rules if rule.token}
        self._key_rule = self._by_name.get("key_name")
        self._pseudonyms = pseudonyms
        self._exclude, self._force, self._blocked = tuple(exclude), tuple(force), blocked
        self._blob_min = blob_min
        self._selected: dict[int, Sequence[Rule]] = {}
        self._needs: dict[int, tuple[str, ...]] = {}
        self._forced: dict[str, Rule | None] = {}
        self._clean_names: set[str] = set()
        self._narrow: Scanner | None = None
        self.local = not self.masks.always and blocked is None
        """All that can be found leaves a mark in the attribute or field that holds it: paths of nested keys do not."""

    def text(self, text: str, key: str = "") -> str:
        """The text without findings, for log lines, error texts and labels. Never raises: what fails is replaced as a whole."""
        try:
            return self.edit(text, key, self.masks.all, Report())
        except (DropAttribute, DropRecord):
            return "[REDACTED]"

    label = text

    def edit(self, text: str, key: str, mask: int, report: Report) -> str:
        """The text as it may go on; counts into `report`. Raises DropAttribute or DropRecord; what fails becomes a marker."""
        try:
            if not report.flooded and self._rules_out(text, mask):
                return text
            rules = self._awake(text, key, mask, report)
            findings = self._find(text, key, rules)
            return self._edit(text, key, mask, rules, findings, report) if findings else text
        except (DropAttribute, DropRecord):
            raise
        except Exception as error:
            reason = "depth" if isinstance(error, TooDeep) else "budget" if isinstance(error, OverBudget) else "error"
            report.failures[reason] += 1
            return f"[REDACTED:{reason}]"

    def name(self, key: str, report: Report) -> str:
        """An attribute key as it may go on. Clean ones are remembered, others never."""
        if key in self._clean_names:
            return key
        edited = self.edit(key, "", self.masks.all, report)
        if edited == key and len(key) <= _KEY:
            if len(self._clean_names) >= _KEYS:
                self._clean_names.clear()
            self._clean_names.add(key)
        return edited

    def is_clean(self, key: str) -> bool:
        """Whether the key is known to go on as it is."""
        return key in self._clean_names

    def number(self, value: int, key: str, mask: int, report: Report) -> str | None:
        """The token that takes the place of a number, None to keep it."""
        if is_count(key):
            return None
        text = str(value)
        edited = self.edit(text, key, mask, report)
        return None if edited == text else edited

    def forced(self, key: str) -> Rule | None:
        """The rule by which the whole value under `key` goes, whatever it holds."""
        if key in self._forced:
            return self._forced[key]
        rule = self._forcing(key)
        if len(key) <= _KEY:
            if len(self._forced) >= _KEYS:
                self._forced.clear()
            self._forced[key] = rule
        return rule

    def _forcing(self, key: str) -> Rule | None:
        if self._key_rule is not None and not is_count(key) and is_secret_key(key):
            return self._key_rule
        if any(fnmatchcase(key, glob) for glob in self._force):
            return self._by_name["key_forced"]
        if self._blocked is not None and self._blocked(key) and not self._excluded(key):
            return self._by_name["blocked_key"]
        return None

    def _excluded(self, key: str) -> bool:
        return any(fnmatchcase(key, glob) for glob in self._exclude)

    def client_address(self, text: str, report: Report) -> str:
        """The replacement of a public address under a key that names the client."""
        rule = self._by_name.get("client_ip")
        return text if rule is None else self.whole(rule, text, report)

    def whole(self, rule: Rule, text: str, report: Report) -> str:
        """The replacement of a whole value. Raises DropAttribute or DropRecord."""
        if text == rule.token or self._marker.fullmatch(text):
            return text
        report.detections[rule.name, rule.action] += 1
        return text if rule.action == DETECT_ONLY else self._replacement(rule, text)

    def _rules_out(self, text: str, mask: int) -> bool:
        """Whether no rule that is awake can find anything, because the text holds none of what they need."""
        needs = self._needs.get(mask)
        if needs is None:
            if len(self._needs) >= _MASKS:
                self._needs.clear()
            awake = [rule for wakes, rule in self._wakes if wakes & mask]
            words = [*(word for rule in awake for word in rule.needs), *ESCAPES]
            needs = self._needs[mask] = tuple(words) if all(rule.needs for rule in awake) else ("",)
        for word in needs:  # noqa: SIM110 - a generator costs more than the search
            if word in text:
                return False
        return True

    def _awake(self, text: str, key: str, mask: int, report: Report) -> Sequence[Rule]:
        if report.flooded and len(text) > 512:
            mask = self._narrowed(f"\n{key}\n{text}", mask)
        rules = self._selected.get(mask)
        if rules is None:
            if len(self._selected) >= _MASKS:
                self._selected.clear()
            rules = self._selected[mask] = [rule for wakes, rule in self._wakes if wakes & mask]
        if self._exclude and self._excluded(key):
            rules = [rule for rule in rules if rule.secret]
        if report.budget is not None and len(text) > 512:
            report.budget -= len(text) * len(rules)
            if report.budget < 0:
                raise OverBudget
        return rules

    def _narrowed(self, text: str, mask: int) -> int:
        if self._narrow is None:
            self._narrow = Scanner(self.masks.narrow)
        hits = self._narrow.scan([text.encode("utf-8", "surrogateescape")], NARROW_HITS)
        return (hits.marks.get(0, 0) | self.masks.always) & mask

    def _edit(self, text: str, key: str, mask: int, rules: Sequence[Rule], findings: list[Finding], report: Report) -> str:
        shape = json_text.shape(text) if text.lstrip()[:1] in ("{", "[") else 0
        for finding in findings if len(findings) == 1 else {(f.start, f.end, f.rule.name): f for f in findings}.values():
            kind = finding.rule.name, finding.rule.action
            report.detections[kind] = report.detections.get(kind, 0) + 1
        for _ in range(PASSES):
            chosen = clusters(findings, text)
            if not chosen:
                return text
            text = self._replace(text, chosen, shape, report)
            if self._rules_out(text, mask):
                return text
            findings = self._find(text, key, rules)
        if not clusters(findings, text):
            return text
        report.failures["error"] += 1  # each replacement brought forth another finding
        return "[REDACTED:error]"

    def _find(self, text: str, key: str, rules: Sequence[Rule]) -> list[Finding]:
        found = self._look(text, key, rules)
        for escape in ESCAPES:
            if escape in text:
                found += self._escaped(text, key)
                break
        return found and counted(found, text, self._markers(text))

    def _escaped(self, text: str, key: str) -> Iterator[Finding]:
        for decoded, chain in views(text):
            for finding in self._look(decoded, key, self.rules):
                start, end = back(chain, finding.start, finding.end)
                yield finding._replace(start=start, end=end, value=decoded[finding.start : finding.end])

    def _markers(self, text: str) -> list[Span]:
        for start in self._marker_starts:
            if start in text:
                return [m.span() for m in self._marker.finditer(text)]
        return []

    def _look(self, text: str, key: str, rules: Sequence[Rule]) -> list[Finding]:
        found = list[Finding]()
        blobs = runs(text, self._blob_min) if len(text) >= 1024 else []
        cut = Cut(text, blobs) if blobs else None
        for rule in rules:
            if rule.rank == KEY_NAME:
                found += _members(text if cut is None else cut.text, cut, rule)
                continue
            for start, end in rule.find(text, key) if cut is None or rule.everywhere else _outside(cut, rule, key):
                if not rule.allow or not any(glob.fullmatch(text[start:end]) for glob in rule.allow):
                    found.append(Finding(start, end, rule))
        return found

    def _replace(self, text: str, findings: list[Finding], shape: int, report: Report) -> str:
        document = text.lstrip()[:1] in ("{", "[")
        if document:
            findings = with_numbers(text, findings)
        texts = [self._replacement(f.rule, text[f.start : f.end] if f.value is None else f.value) for f in findings]
        plain = [f.quote or "" for f in findings]
        if not document:
            return spliced(text, findings, texts, plain)
        bare = json_text.bare_quotes(text, [(f.start, f.end) for f in findings])
        guess = [quote if f.quote is None else f.quote for f, quote in zip(findings, bare, strict=True)]
        if not shape:  # JSON that was cut
            return spliced(text, findings, texts, guess)
        results = [spliced(text, findings, texts, quotes) for quotes in (guess, plain)]
        documents, result = max(((json_text.shape(each), each) for each in results), key=lambda pair: pair[0])
        if documents:
            return result
        report.failures["json"] += 1
        return '"[REDACTED:json]"'

    def _replacement(self, rule: Rule, value: str) -> str:
        if rule.action == DROP_ATTRIBUTE:
            raise DropAttribute
        if rule.action == DROP_RECORD:
            raise DropRecord
        if rule.action == PSEUDONYM and self._pseudonyms is not None:
            return self._pseudonyms.token(rule.name, value)
        if rule.action == MASK:
            return masked(value, rule.keep_first, rule.keep_last, rule.tail)
        return rule.token


def _members(text: str, cut: Cut | None, rule: Rule) -> Iterable[Finding]:
    """The values of JSON members whose key names a secret; a value may hold a whole blob."""
    for start, end, quote in json_text.members(text, is_secret_key) if '"' in text and ":" in text else ():
        yield Finding(*(cut.across(start, end) if cut else (start, end)), rule, quote)


def _outside(cut: Cut, rule: Rule, key: str) -> Iterable[Span]:
    """What a rule finds where no image or file is encoded."""
    return (span for found in rule.find(cut.text, key) if (span := cut.raw(*found)) is not None)


class OverBudget(Exception):
    """A flooded request has used up its bytes x types."""
