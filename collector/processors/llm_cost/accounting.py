"""From a call that was read to counters and attributes: is it new, what did it cost, where did the amount come from."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from collector.component import Settings
from collector.errors import ConfigError
from collector.processors.llm_cost.attributes import stamp
from collector.processors.llm_cost.call import Origin, Seen, look
from collector.processors.llm_cost.catalogue import RELEASED, Catalogue
from collector.processors.llm_cost.counters import Aliases, Counters
from collector.processors.llm_cost.dedup import Dedup
from collector.processors.llm_cost.dialects import Dialects, text
from collector.processors.llm_cost.options import LABELS, Options, PriceFile, label_name
from collector.processors.llm_cost.prices import PriceBook
from collector.processors.llm_cost.rates import date_ns
from collector.processors.llm_cost.spend import Record, Spend
from collector.processors.llm_cost.stamp import WRITTEN, constant
from collector.processors.llm_cost.unpriced import Complaints
from collector.processors.llm_cost.usage import Usage, time_to_first_token, truth
from collector.processors.llm_cost.verdict import Verdict, judge, moment

_FIELDS_AS_LABELS = ("user", "team", "agent")


class Accounting:
    """Prices, memory of counted calls, counters and spend of one `llm_cost`."""

    def __init__(self, options: Options, settings: Settings) -> None:
        """Raises ConfigError when prices_file or dialects cannot be used."""
        self._options = options
        self._log = settings.log
        self.catalogue = Catalogue()
        self._extra_labels = tuple(options.labels[len(LABELS) :])
        try:
            self.dialects = Dialects(options.dialects, WRITTEN)
            self._book = PriceBook(options, self.catalogue, self._file())
        except (ValueError, OSError) as error:
            raise ConfigError(f"{settings.id}: {_brief(error)}") from error
        for label in self._extra_labels:
            if label not in _FIELDS_AS_LABELS:
                self.dialects.add(f"label:{label}", [label])
        names = [label_name(label) for label in options.labels]
        self.counters = Counters(settings.meters, names, options.limits.label_values)
        self._aliases = [Aliases(name, settings.meters, options.limits.label_values) for name in options.compat]
        self.spend = Spend()
        self._dedup = Dedup(options.dedup.ttl, options.dedup.max_entries)
        self._complaints = Complaints(settings.log)
        self._rules = [rule.model_dump() for rule in options.usage_rules]
        self._evicted = 0
        self._aged = 0.0

    def look(self, item: bytes, origin: Origin) -> Seen | None:
        """The call in an encoded span."""
        return look(item, origin, self.dialects, self._rules)

    def settle(self, seen: Seen, now: float) -> bytes | None:
        """Count the call if it is new; the span's new bytes, None when it stays as it is."""
        self._dedup.age(now)
        if seen.found.pick("rolled_up", truth):
            self._dedup.climb(seen.own, seen.parent, now)
            return None
        if seen.usage is None and seen.reported is None:
            if not seen.calls:
                self._dedup.climb(seen.own, seen.parent, now)
            elif self._dedup.call(seen.own, seen.parent, now):
                self._count(seen, self._judge(seen, now), now)
            return None
        identity = seen.found.pick("response_id", text)
        verdict = self._judge(seen, now)
        known = (verdict.resolved.provider, identity[:256]) if identity else None
        kind = self._dedup.usage(seen.own, seen.parent, known, seen.rollup, now)
        if kind:
            self.counters.duplicates.add(1, seen.origin.service, kind)
        if kind and kind != "resent":
            return seen.item + constant((("llm.cost.rollup", True),))
        if not kind:
            self._count(seen, verdict, now)
        return stamp(seen, verdict, self._options.attributes)

    def _judge(self, seen: Seen, now: float) -> Verdict:
        return judge(seen, self._book, self._options.prefer_reported, now)

    def _count(self, seen: Seen, verdict: Verdict, now: float) -> None:
        counters, resolved, usage = self.counters, verdict.resolved, seen.usage
        provider = resolved.provider[:64]
        tail = (seen.operation, *self._more_labels(seen))
        labels = (seen.origin.service, provider, resolved.model, *tail)
        status = seen.status
        counters.requests.add(1, *labels, status)
        counters.latency.observe(seen.duration, *labels, status)
        first = time_to_first_token(seen.found, seen.origin.scope)
        if first is not None:
            counters.ttft.observe(first, *labels)
        if status != "success" and seen.rate_limited:
            counters.rate_limited.add(1, provider, resolved.model)
        if usage is not None:
            self._count_tokens(usage, labels)
        if verdict.mismatch:
            counters.mismatch.add(1, provider, resolved.model)
        if verdict.amount is not None:
            counters.cost.add(verdict.amount, *labels, verdict.source)
            counters.per_request.observe(verdict.amount, *labels)
            if verdict.amount > self._options.high_cost_usd:
                self._expensive(verdict, usage, labels)
        unpriced_unit = verdict.partial and "no_unit_price"
        if reason := verdict.reason or unpriced_unit:
            name = seen.response_model or seen.request_model or "unknown"
            counters.unpriced.add(1, seen.origin.service, provider, name[:128], *tail, reason)
            if reason in ("unknown_model", "no_unit_price"):
                self._complaints.note(provider, name, seen.origin.service, reason, now)
        record = _record(seen, verdict, status, provider, now)
        self.spend.add(record)
        for alias in self._aliases:
            alias.count(record)
        if self._dedup.evicted > self._evicted:
            counters.evicted.add(self._dedup.evicted - self._evicted)
            self._evicted = self._dedup.evicted

    def _count_tokens(self, usage: Usage, labels: tuple[str, ...]) -> None:
        tokens, billed = self.counters.tokens, self.counters.billed
        if usage.total is not None:
            tokens.add(usage.total, *labels, "unknown")
            return
        tokens.add(usage.prompt, *labels, "prompt")
        tokens.add(usage.output, *labels, "completion")
        billed.add(usage.uncached, *labels, "input_uncached")
        if usage.cache_read:
            billed.add(usage.cache_read, *labels, "cache_read")
        if written := usage.write_5m + usage.write_1h:
            billed.add(written, *labels, "cache_write")
        billed.add(usage.output, *labels, "output")

    def _expensive(self, verdict: Verdict, usage: Usage | None, labels: tuple[str, ...]) -> None:
        self.counters.high_cost.add(1, *labels)
        self._log.warning(
            "LLM call cost more than %g USD: model %s, cost %.6f USD, %d tokens, service %s",
            self._options.high_cost_usd, verdict.resolved.model, verdict.amount, _total(usage), labels[0],
        )  # fmt: skip

    def _more_labels(self, seen: Seen) -> list[str]:
        values = []
        for label in self._extra_labels:
            field = label if label in _FIELDS_AS_LABELS else f"label:{label}"
            value = seen.found.pick(field, _as_label)
            values.append(value or dict(seen.origin.resource).get(label, "")[:128])
        return values

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
        self.counters.reloads.add(1, "success")
        return True

    def tick(self, now: float) -> None:
        """Background work that is due: one complaint, gauges every minute."""
        self._complaints.say_one(self._book.nearest, now)
        if now - self._aged >= 60 and "version" in vars(self.catalogue):
            self._aged = now
            self.counters.info.set(1, self.catalogue.version, "genai-prices")
            self.counters.age.set(max(0.0, now - date_ns(RELEASED) / 1e9), "genai-prices")


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)


def _as_label(value: object) -> str | None:
    return str(value)[:128] if isinstance(value, str | int | float) and value != "" else None


def _total(usage: Usage | None) -> int:
    if usage is None:
        return 0
    return usage.total if usage.total is not None else usage.prompt + usage.output


def _record(seen: Seen, verdict: Verdict, status: str, provider: str, now: float) -> Record:
    usage = seen.usage or Usage()
    start = moment(seen.start, now) / 1e9
    return Record(
        start, verdict.resolved.model, provider, seen.origin.service,
        usage.prompt, usage.output, seen.duration, verdict.amount, status, seen.span.trace_id.hex(), _total(seen.usage),
    )  # fmt: skip
