"""Decodes the marked items and headers of one batch, edits them and puts them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from collector.model import Batch, Group, Scope, Signal, data_points
from collector.otlp.scan import Hits
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.redactor import DropRecord, Redactor, Report
from collector.processors.redaction.schema import GROUPS, ITEMS, SCOPES, decode
from collector.processors.redaction.second_look import Parted
from collector.processors.redaction.walk import Walk

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
        items, gone, marks = list(scope.items), set(), self._hits.marks
        points = scope.points and list(scope.points)
        for position in range(len(items)):
            if first + position in marks:
                try:
                    items[position] = self._item(signal, items[position], first + position)
                except Lost as reason:
                    self._lose(signal, [items[position]], str(reason))
                    gone.add(position)
                if not items[position]:
                    gone.add(position)  # a metric whose last data point was dropped
                elif points and items[position] is not scope.items[position]:
                    points[position] = data_points(items[position])
        edited = Scope(header, items, scope.heads, points=points)
        return edited.keep(i for i in range(len(items)) if i not in gone) if gone else edited

    def _item(self, signal: Signal, raw: bytes, position: int) -> bytes:
        """As `_message`; of a span or log record in parts only the marked ones are decoded."""
        found = None if position in self._hits.floods else self._parted.get(position)
        if found is None:
            return self._message(ITEMS[signal], signal, raw, position)
        parts, marks = list(found.parts), found.marks
        messages = {place: ITEMS[signal].FromString(parts[place]) for place in marks}
        if not all(self._redactor.is_clean(each.key) for message in messages.values() for each in message.attributes):
            return self._message(ITEMS[signal], signal, raw, position)  # a key may need another name than its neighbours'
        for place, message in messages.items():
            parts[place] = self._edited(message, signal, parts[place], marks[place], self.report)
        return b"".join(parts) if any(parts[place] is not found.parts[place] for place in marks) else raw

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

    def _edited(self, message: Message, signal: Signal, raw: bytes, mask: int, report: Report) -> bytes:
        """What `_walked` gives. Raises Lost."""
        try:
            return self._walked(message, signal, raw, mask, report)
        except DropRecord:
            raise Lost(DROPPED) from None
        except Exception:
            report.failures["error"] += 1
            raise Lost(FAILED) from None

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
