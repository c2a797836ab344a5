"""From a call that was read to counters and attributes: is it new, what did it cost, where did the amount come from.

A little longer than most files: the thorough and the quick way stand side by side, so that a change of one meets the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from collector.component import Settings
from collector.errors import ConfigError
from collector.processors.llm_cost.attributes import computed, encoded, stamp
from collector.processors.llm_cost.books import Books
from collector.processors.llm_cost.call import Origin, Seen, look
from collector.processors.llm_cost.catalogue import RELEASED, Catalogue
from collector.processors.llm_cost.dedup import Dedup
from collector.processors.llm_cost.dialects import Dialects, text
from collector.processors.llm_cost.layouts import Layouts
from collector.processors.llm_cost.normalized import NOTHING, Missing, missing
from collector.processors.llm_cost.options import Options, PriceFile
from collector.processors.llm_cost.plans import Plan, Plans, Quick, composer, divisor
from collector.processors.llm_cost.prices import PriceBook, Resolved
from collector.processors.llm_cost.rates import date_ns
from collector.processors.llm_cost.shapes import Reading, Row, decode, kinds
from collector.processors.llm_cost.stamp import ROLLUP, WRITTEN, double, without
from collector.processors.llm_cost.tally import Tally
from collector.processors.llm_cost.together import Found, settle_each, settle_together
from collector.processors.llm_cost.usage import time_to_first_token, truth
from collector.processors.llm_cost.verdict import Verdict, judge, moment, name_of, resolve, why


class Accounting:
    """Prices, memory of counted calls, counters and spend of one `llm_cost`."""

    def __init__(self, options: Options, settings: Settings) -> None:
        """Raises ConfigError when prices_file or dialects cannot be used."""
        self._options = options
        self._log = settings.log
        self.catalogue = Catalogue()
        try:
            self.dialects = Dialects(options.dialects, WRITTEN)
            self._book = PriceBook(options, self.catalogue, self._file())
        except (ValueError, OSError) as error:
            raise ConfigError(f"{settings.id}: {_brief(error)}") from error
        self._books = Books(options, settings)
        self.counters, self.spend, self.complaints = self._books.counters, self._books.spend, self._books.complaints
        for label, field in self._books.label_fields.items():
            if field != label:
                self.dialects.add(field, [label])
        self._kinds = kinds(self.dialects.names, self._books.label_fields.values())
        self._layouts = Layouts(self._kinds)
        self._plans = Plans()
        self._normalized = "normalized" in options.attributes
        self.thorough = False
        """Read every span without plans: slower, same result."""
        self._dedup = Dedup(options.dedup.ttl, options.dedup.max_entries)
        self._rules = [rule.model_dump() for rule in options.usage_rules]
        self._evicted = 0
        self._aged = 0.0
        self._arrival = 0

    def rows(self, items: list[bytes], positions: list[int], origin: Origin) -> Sequence[Row | None]:
        """What the walker knows of the spans at these positions, for `look`."""
        return [None] * len(positions) if self.thorough else self._layouts.rows(items, positions, origin)

    def look(self, item: bytes, origin: Origin, row: Row | None = None) -> Seen | Quick | None:
        """The call in an encoded span. Raises protobuf's DecodeError."""
        if row is None:
            return self._look(item, origin) if self.thorough else self._read(item, origin)
        end, start, own, parent, trace_id, words, counts, identity, first = row
        plan = self._plans.get((origin, words))
        if plan is None:
            return self._learn(item, origin, ((origin, words), counts, identity, first))
        return end, start, plan, item, own, parent, plan.usage(counts), identity, first and first / plan.divisor, trace_id

    def _read(self, item: bytes, origin: Origin) -> Seen | Quick | None:
        span = decode(item)
        start, end = span.start, span.end
        if end <= start:  # an attribute may know better
            return self._look(item, origin)
        attributes = span.attributes[:]
        reading = self._layouts.guess(attributes, span, origin)
        plan = self._plans.get(reading[0]) if reading is not None else None
        if plan is None or reading is None:
            reading = self._layouts.read(attributes, span, origin)
            plan = self._plans.get(reading[0]) if reading is not None else None
            if plan is None or reading is None:
                return self._learn(item, origin, reading)
        _, counts, identity, first = reading
        trace_id = span.trace_id
        own, parent = trace_id + span.span_id, trace_id + span.parent_span_id
        return (
            end, start, plan, item, own, parent, plan.usage(counts), identity, first and first / plan.divisor, trace_id,
        )  # fmt: skip

    def _learn(self, item: bytes, origin: Origin, reading: Reading | None) -> Seen | None:
        seen = self._look(item, origin)
        if seen is not None and reading is not None and self._plans.repeated(reading[0]):
            self._plans.keep(reading[0], self._plan(seen, reading[3]))
        return seen

    def _look(self, item: bytes, origin: Origin) -> Seen | None:
        return look(item, origin, self.dialects, self._rules)

    def _plan(self, seen: Seen, first: float | None) -> Plan:
        usage, resolved = seen.usage, resolve(seen, self._book)
        return Plan(
            seen.origin, self._books.labels(seen, resolved), seen.status, why(seen, resolved), name_of(seen),
            seen.status != "success" and seen.rate_limited, seen.rollup, seen.calls, usage is not None and usage.split,
            resolved.provider, composer(seen, self._kinds, self._rules), divisor(seen, first), resolved,
            tuple(self._options.attributes), self._missing(seen, resolved),
        )  # fmt: skip

    def begin(self, now: float) -> None:
        """A batch begins."""
        self._books.begin(now)
        self._dedup.age(now)
        self._arrival = int(now * 1e9)

    def end(self) -> None:
        """The batch was settled."""
        self._books.end()
        if self._dedup.evicted > self._evicted:
            self.counters.evicted.add(self._dedup.evicted - self._evicted)
            self._evicted = self._dedup.evicted

    def settle_each(self, found: list[Found], slow: Callable[[Found], bool], now: float) -> bool | None:
        """Settle all calls of a batch, what is not plain by `slow`; whether any span was changed. None when it cannot be done."""
        return settle_each(found, self._arrival, self._dedup, self._books, slow, now)

    def settle_all(self, calls: Sequence[Quick], now: float) -> list[bytes] | None:
        """As `settle_quick` for all calls of a batch; None when they must be settled one by one."""
        arrival = self._arrival
        moments = [start if 0 < start <= arrival else moment(start, now) for _, start, *_ in calls]
        return settle_together(calls, moments, self._book, self._dedup, self._books, now)

    def settle_quick(self, quick: Quick, now: float) -> bytes | None:
        """As `settle`, for a span that has a plan."""
        _, start, plan, item, own, parent, usage, identity, _, _ = quick
        at = start if 0 < start <= self._arrival else moment(start, now)
        if usage is None:
            if not plan.calls:
                self._dedup.climb(own, parent, now)
            elif self._dedup.call(own, parent, now):
                self._count_quick(quick, None, at)
            return _longer(item, plan.missing.words)
        entry, amount = plan.entry, None
        if entry is None or not entry.from_ns <= at < entry.until_ns:
            entry = plan.price(at, self._book)
        if entry is not None:
            if not plan.complete and (entry.partial or entry.lacks(usage)):
                return self._settle_thoroughly(item, plan.origin, now)
            amount = entry.price(usage)
        kind = self._dedup.usage(own, parent, known_as(plan.provider, identity), plan.rollup, now)
        if not kind:
            self._count_quick(quick, amount, at)
        elif self._again(kind, plan.labels[0]):
            return item + ROLLUP + plan.missing.words
        if amount is None or entry is None:
            return _longer(item, plan.missing.encoded(usage))
        if plan.stamp is None:
            return item + encoded(usage, computed(plan.resolved, entry, amount), amount, plan.sets) + plan.missing.encoded(usage)
        stamped, counts = item + double(amount).join(plan.stamp), plan.missing.counts
        return stamped if counts is None else stamped + counts(usage)

    def _settle_thoroughly(self, item: bytes, origin: Origin, now: float) -> bytes | None:
        seen = self._look(item, origin)
        return self.settle(seen, now) if seen is not None else None

    def _count_quick(self, quick: Quick, amount: float | None, at: int) -> None:
        end, start, plan, _, _, _, usage, _, first, trace_id = quick
        tally = self._books.tally_of(plan, amount is not None)
        self._books.add((tally, at, (end - start) / 1e9 if end > start else 0.0, first, usage, amount, trace_id))

    def settle(self, seen: Seen, now: float) -> bytes | None:
        """Count the call if it is new; the span's new bytes, None when it stays as it is."""
        if seen.found.pick("rolled_up", truth):
            self._dedup.climb(seen.own, seen.parent, now)
            return None
        if seen.usage is None and seen.reported is None:
            if not seen.calls:
                self._dedup.climb(seen.own, seen.parent, now)
            elif self._dedup.call(seen.own, seen.parent, now):
                self._count(seen, self._judge(seen, now), now)
            return _longer(seen.item, self._missing(seen, resolve(seen, self._book)).words)
        verdict = self._judge(seen, now)
        known = known_as(verdict.resolved.provider, seen.found.pick("response_id", text))
        kind = self._dedup.usage(seen.own, seen.parent, known, seen.rollup, now)
        if not kind:
            self._count(seen, verdict, now)
        elif self._again(kind, seen.origin.service):
            item = without(seen.span, ("llm.cost.rollup",)) if seen.found.has("rolled_up") else seen.item
            return item + ROLLUP + self._missing(seen, verdict.resolved).words
        more = self._missing(seen, verdict.resolved).encoded(seen.usage)
        stamped = stamp(seen, verdict, self._options.attributes) + more
        return stamped if stamped != seen.item else None

    def _missing(self, seen: Seen, resolved: Resolved) -> Missing:
        return missing(seen, resolved) if self._normalized else NOTHING

    def _again(self, kind: str, service: str) -> bool:
        self.counters.duplicates.add(1, service, kind)
        return kind != "resent"

    def _judge(self, seen: Seen, now: float) -> Verdict:
        return judge(seen, self._book, self._options.prefer_reported, now)

    def _count(self, seen: Seen, verdict: Verdict, now: float) -> None:
        labels, status = self._books.labels(seen, verdict.resolved), seen.status
        reason = verdict.reason or ("no_unit_price" if verdict.partial else "")
        limited = status != "success" and seen.rate_limited
        if verdict.mismatch:
            self.counters.mismatch.add(1, *labels[1:3])
        first = time_to_first_token(seen.found, seen.origin.scope)
        at, name, trace_id = moment(seen.start, now), name_of(seen), seen.span.trace_id
        key = labels, status, verdict.source, reason, name, limited
        tally = self._books.tally(key) or self._books.open(key, Tally(*key))
        self._books.add((tally, at, seen.duration, first, seen.usage, verdict.amount, trace_id))

    def _file(self) -> PriceFile:
        if not self._options.prices_file:
            return PriceFile()
        loaded = yaml.safe_load(Path(self._options.prices_file).read_bytes())
        return PriceFile.model_validate(loaded or {})

    def reload_prices(self) -> bool:
        """Read prices_file again; a bad one changes nothing."""
        try:
            self._book = PriceBook(self._options, self.catalogue, self._file())
        except (ValueError, OSError, yaml.YAMLError) as error:
            self._log.error("prices_file not loaded, the old prices stay: %s", _brief(error))
            self.counters.reloads.add(1, "error")
            return False
        self._plans.clear()
        self.counters.reloads.add(1, "success")
        return True

    def tick(self, now: float) -> None:
        """Background work that is due: booking, one complaint, gauges every minute."""
        self._books.tick(now)
        self.complaints.say_one(self._book.nearest, now)
        if now - self._aged >= 60 and "version" in vars(self.catalogue):
            self._aged = now
            self.counters.info.set(1, self.catalogue.version, "genai-prices")
            self.counters.age.set(max(0.0, now - date_ns(RELEASED) / 1e9), "genai-prices")


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)


def _longer(item: bytes, more: bytes) -> bytes | None:
    return item + more if more else None


def known_as(provider: str, identity: str | None) -> tuple[str, str] | None:
    """What names a call for `Dedup`: provider and response id."""
    return (provider, identity[:256]) if identity else None
