"""Takes personal data and secrets out of traces, metrics and logs.

Example:
    {}
"""

from __future__ import annotations

from collector.component import Processor, Settings
from collector.errors import Refused
from collector.model import Batch, Signal
from collector.otlp.scan import EngineFailed, Hits, Scanner
from collector.otlp.sizes import encoded_size
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.edit import Edit
from collector.processors.redaction.redactor import Redactor
from collector.processors.redaction.second_look import Parted, narrowed


class Redaction(Processor):
    """One scan over all encoded items; only items with a hit are decoded, edited and encoded again.

    A request without any hit goes on as the same object, byte-identical. What fails is replaced or dropped, and counted: never
    passed on. Raises errors.Refused when no pattern engine works.
    """

    Config = RedactionConfig

    def __init__(self, config: RedactionConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self.redactor: Redactor = config.build()
        self._scanner = Scanner(self.redactor.masks.patterns)
        self._named = ""
        self._enforcing = config.mode == "enforce"
        counter = settings.meters.counter
        self._detections = counter(
            "pii_detections", "Findings in what is sent on.", ("pii_type", "signal", "action", "detector"), derived=True, cap=0
        )
        self._fail_closed = counter("pii_fail_closed", "Values, items or requests given up.", ("reason",), derived=True, cap=0)
        self._floods = counter("pii_floods", "Items with too many candidates.", ("signal",), derived=True, cap=0)
        self._dropped = counter("pii_dropped_records", "Items dropped by redaction.", ("signal",), derived=True, cap=0)
        self._unknown = counter(
            "pii_unknown_fields_dropped", "Edited items that lost unknown fields.", ("signal",), derived=True, cap=0
        )
        self._bytes = counter("pii_scan_bytes", "Bytes searched.", ("signal",), derived=True, cap=0)
        self._engine = settings.meters.gauge("pii_engine_info", "Pattern engine in use.", ("engine",), derived=True, cap=0)
        settings.meters.gauge("pii_enforcing", "0 while findings are only counted.", derived=True).set(float(self._enforcing))
        for reason in ("error", "budget", "depth", "undecodable", "engine", "json"):
            self._fail_closed.touch(reason)

    def warm(self) -> None:
        """Compile the patterns."""
        _ = self._scanner.engine

    def process(self, batch: Batch, now: float) -> Batch | None:
        """The batch without findings; the same object when there were none, None when nothing is left."""
        parts = batch.items()
        items = len(parts)
        for group in batch.groups:
            parts.append(group.header)
            parts.extend(scope.header for scope in group.scopes)
        hits, parted = self._scan(parts, items, batch.signal)
        if always := self.redactor.masks.always:
            hits.marks = {position: hits.marks.get(position, 0) | always for position in range(len(parts))}
        if not hits.marks:
            return self._searched(batch)
        drop = self.settings.drop if self._enforcing else _count_nothing
        edit = Edit(self.redactor, self.config, hits, drop, parted if self.redactor.local else None)
        result = edit.run(batch)
        self._book(edit, batch.signal)
        if not self._enforcing or result is batch:
            return self._searched(batch)
        return result if result.groups else None

    def _scan(self, parts: list[bytes], items: int, signal: Signal) -> tuple[Hits, dict[int, Parted]]:
        limit = self.config.limits.max_hits
        try:
            hits = self._scanner.scan(parts, limit)
            parted = narrowed(hits, parts[:items], signal, self._scanner, limit)
        except EngineFailed as error:
            self._fail_closed.add(1, "engine")
            raise Refused(f"redaction: {error}", reason="redaction") from None
        if self._named != self._scanner.engine:
            self._named = self._scanner.engine
            self._engine.set(1, self._named)
        self._bytes.add(hits.size, signal.value)
        if hits.floods:
            self._floods.add(len(hits.floods), signal.value)
        return hits, parted

    def _searched(self, batch: Batch) -> Batch:
        """The batch itself, unless its bytes hold more than was searched: unknown fields of the request, a resource twice."""
        if batch.raw is None or not self._enforcing:
            return batch
        if encoded_size(batch) == len(batch.raw):
            return batch
        self._unknown.add(1, batch.signal.value)
        return Batch(batch.signal, batch.groups, None, batch.metadata)

    def _book(self, edit: Edit, signal: Signal) -> None:
        for (kind, action), count in edit.report.detections.items():
            shown = action if self._enforcing else "detect_only"
            self._detections.add(count, kind, signal.value, shown, "sidecar")
        for reason, count in edit.report.failures.items():
            self._fail_closed.add(count, reason)
        if self._enforcing:
            self._unknown.add(edit.unknown, signal.value)
            self._dropped.add(edit.lost, signal.value)


def _count_nothing(signal: Signal, count: int, reason: str) -> None:
    """Dry run: nothing is dropped."""
