"""Decodes the marked items and headers of one batch, edits them and puts them back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from collector.model import Batch, Group, Scope, Signal, data_points
from collector.otlp import plain
from collector.otlp.scan import Hits
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.redactor import DropAttribute, DropRecord, Redactor, Report
from collector.processors.redaction.schema import GROUPS, ITEMS, SCOPES, decode
from collector.processors.redaction.second_look import Parted
from collector.processors.redaction.walk import Walk, attribute

FAILED, DROPPED = "redaction_failed", "redacted"
"""Reasons under which items are booked as dropped."""


class Lost(Exception):
    """An item or header cannot go on; the argument is the reason to book."""


class Edit:
    """One request under edit. `report` fills up; `unknown` messages lost unknown fields, `lost` items were dropped."""

    def __init__(
        self,
        redactor: Redactor,
        config: RedactionConfig,
        hits: Hits,
        drop: Callable[[Signal, int, str], None],
        parted: Mapping[int, Parted] | None = None,
    ) -> None:
        """`parted`: marked items in parts, of which only the marked ones can hold a finding."""
        self._redactor, self._config, self._hits, self._drop = redactor, config, hits, drop
        self._parted = parted or {}
        self._order = sorted(hits.marks)
        self._floods = Report(budget=config.limits.verify_budget, flooded=True)
        self.report = Report()
        self.unknown = 0
        self.lost = 0
        self._changed = False

    def run(self, batch: Batch) -> Batch:
        """The same batch object when nothing had to change.

        Positions of hits: all items in order, then the header of each group followed by those of its scopes.
        """
        signal, first = batch.signal, 0
        header = sum(len(scope.items) for scope in batch.scopes())
        groups = []
        for group in batch.groups:
            scopes, lost = [], ""
            group_header = group.header
            try:
                group_header = self._message(GROUPS[signal], signal, group.header, header)
            except Lost as reason:
                lost = str(reason)
            for offset, scope in enumerate(group.scopes, 1):
                try:
                    if lost:
                        raise Lost(lost)
                    scope_header = self._message(SCOPES[signal], signal, scope.header, header + offset)
                    scopes.append(self._scope(signal, scope, scope_header, first))
                except Lost as reason:
                    self._lose(signal, scope.items, str(reason))
                first += len(scope.items)
            header += 1 + len(group.scopes)
            groups.append(Group(group_header, scopes))
        self.report.detections.update(self._floods.detections)
        self.report.failures.update(self._floods.failures)
        return batch.replace(groups) if self._changed else batch

    def _scope(self, signal: Signal, scope: Scope, header: bytes, first: int) -> Scope:
        items, gone = list(scope.items), set()
        points = scope.points and list(scope.points)
        for position in self._marked(first, first + len(items)):
            try:
                items[position] = self._item(signal, items[position], first + position)
            except Lost as reason:
                self._lose(signal, [items[position]], str(reason))
                gone.add(position)
            if not items[position] and signal is Signal.METRICS:
                gone.add(position)  # its last data point was dropped; a log record may well be empty
            elif points and items[position] is not scope.items[position]:
                points[position] = data_points(items[position])
        edited = Scope(header, items, scope.heads, points=points)
        return edited.keep(i for i in range(len(items)) if i not in gone) if gone else edited

    def _marked(self, first: int, end: int) -> list[int]:
        """Positions of the marked items of a scope whose items lie from `first` on."""
        low = bisect_left(self._order, first)
        return [position - first for position in self._order[low : bisect_left(self._order, end, low)]]

    def _item(self, signal: Signal, raw: bytes, position: int) -> bytes:
        """As `_message`; of a span or log record in parts only the marked ones are decoded."""
        found = None if position in self._hits.floods else self._parted.get(position)
        contents = None if found is None else self._contents(signal, found)
        if found is None or contents is None:
            return self._message(ITEMS[signal], signal, raw, position)
        parts, changed = list(found.parts), False
        for content, (place, mask) in zip(contents, found.marks.items(), strict=True):
            edited = self._edited(content, signal, parts[place], mask, self.report)
            changed |= edited is not parts[place]
            parts[place] = edited
        return b"".join(parts) if changed else raw

    def _contents(self, signal: Signal, found: Parted) -> list[Any] | None:
        """Key and text of each marked part, the message where it is more than that.

        None when a key may have to change, for it must differ from its neighbours' then.
        """
        contents: list[Any] = []
        for place in found.marks:
            content = plain.compiled.pair(found.parts[place])
            if content is None:
                content = ITEMS[signal].FromString(found.parts[place])
                if not all(self._redactor.is_clean(each.key) for each in content.attributes):
                    return None
            elif not self._redactor.is_clean(content[0]):
                return None
            contents.append(content)
        return contents

    def _message(self, kind: Any, signal: Signal, raw: bytes, position: int) -> bytes:
        """The edited message, the very same bytes when it is clean. Raises Lost."""
        mask = self._hits.marks.get(position, 0)
        if not mask:
            return raw
        report = self._floods if position in self._hits.floods else self.report
        try:
            message = decode(kind, raw)
        except Exception:
            report.failures["undecodable"] += 1
            raise Lost(FAILED) from None
        return self._edited(message, signal, raw, mask, report)

    def _edited(self, content: Any, signal: Signal, raw: bytes, mask: int, report: Report) -> bytes:
        """The edited message, or attribute of one text, in `raw`; the very same bytes when it is clean. Raises Lost."""
        try:
            if type(content) is tuple:
                key, text = content
                return self._attribute(key, text, raw, mask, report)
            return self._walked(content, signal, raw, mask, report)
        except DropRecord:
            raise Lost(DROPPED) from None
        except Exception:
            report.failures["error"] += 1
            raise Lost(FAILED) from None

    def _attribute(self, key: str, text: str, raw: bytes, mask: int, report: Report) -> bytes:
        try:
            edited = attribute(self._redactor, key, text, mask, report)
        except DropAttribute:
            self._changed = True
            return b""
        if edited == text:
            return raw
        self._changed = True
        field: bytes = plain.compiled.put_pair(raw, key, edited)
        return field

    def _walked(self, message: Message, signal: Signal, raw: bytes, mask: int, report: Report) -> bytes:
        known = message.ByteSize()
        message.DiscardUnknownFields()
        reduced = message.ByteSize() != known
        limits = self._config.limits
        walk = Walk(self._redactor, mask, report, max_depth=limits.max_depth, numbers=self._config.scan_numbers)
        walk.message(message)
        self.unknown += reduced
        if walk.dropped:
            self.lost += walk.dropped
            self._drop(signal, walk.dropped, DROPPED)
        if not walk.changed and not reduced and known == len(raw):
            return raw
        self._changed = True
        edited = message.SerializeToString()
        return b"" if walk.dropped and not data_points(edited) else edited

    def _lose(self, signal: Signal, items: list[bytes], reason: str) -> None:
        self._changed = True
        count = sum(map(data_points, items)) if signal is Signal.METRICS else len(items)
        self.lost += count
        if count:
            self._drop(signal, count, reason)
